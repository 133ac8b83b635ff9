"""Whose a URI is on one endpoint, and how agents see it: its server's own, or `alias+uri`.

Knows: what servers list, their templates, and the law below. Refuses to know: agents, policies, and who is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastgw.policy.patterns import Patterns


@dataclass(frozen=True, slots=True)
class UriShelf:
    """One server's URIs on an endpoint.

    Args:
        server: its name in the configuration.
        alias: what stands before `+` in a URI that leads to it.
        uris: of the resources it lists, in its order.
        templates: texts of its templates, in its order.
        only: what the configuration takes of it: tried on its own URIs and template texts; None for all.
    """

    server: str
    alias: str
    uris: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    only: Patterns | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """Where a URI leads: a server, and its own spelling of the URI there."""

    server: str
    uri: str


@dataclass(frozen=True, slots=True)
class Uris:
    """The URIs of one endpoint. Immutable, pickled to the workers.

    Args:
        mode: `none`, `on_collision` or `always`.
        shelves: of the servers that declare resources, in the order of the configuration.
    """

    mode: str = "on_collision"
    shelves: Sequence[UriShelf] = field(default=())

    def owner(self, uri: str) -> Owned | None:
        """Where the URI that an agent names leads; None where it leads nowhere."""
        raise NotImplementedError

    def exposed(self, server: str, uri: str) -> str:
        """The URI, or the text of a template, by which agents know what is `uri` at that server."""
        raise NotImplementedError

    def rewrites(self, server: str) -> bool:
        """Whether any URI of this server may look different to agents."""
        raise NotImplementedError
