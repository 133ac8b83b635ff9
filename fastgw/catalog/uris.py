"""Whose a URI is on one endpoint, and how agents see it: its server's own, or `alias+uri`.

The law, for one endpoint:
1. `none`: nothing is rewritten; of two servers with one URI the one written first keeps it, the other's is hidden.
`on_collision`: what two servers list becomes `alias+uri` for both. `always`: everything does. `ui://x` becomes
`ui://alias/x` (MCP Apps know their pages by the scheme); web addresses are never rewritten: the first keeps them.
2. Except in `none`, `alias+rest` leads to that server, listed or not. So what a server names that would not lead back
to it is shown with its alias, and every worker shows it alike.
3. A URI leads where it is listed just so; else where its alias says; else to the first server with a template that
agents see as it is and that it fits; else, where one server alone has resources, to that one.
4. A template that may expand into any scheme, or into some server's alias, or into what an earlier server's template
takes first, is shown with its own server's alias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastgw.catalog.elements import Notice
from fastgw.catalog.uri_layout import Layout, Owned, ServerUris
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import UriRules

MOST_EFFORT = 1_000_000
"""Steps of templates that are tried on the URIs of one result: half a second at worst. Real ones take some thousand."""

__all__ = ["Owned", "UriNaming", "ServerUris", "Uris", "assign_uris"]


@dataclass(frozen=True, slots=True)
class Uris:
    """The URIs of one endpoint. Immutable, pickled to the workers; what is derived is derived at its first use.

    Args:
        mode: `none`, `on_collision` or `always`.
        shelves: of the servers that declare resources, in the order of the configuration.
        only: what the endpoint takes: tried on exposed URIs and on `server/own`; None for all.
    """

    mode: str = "on_collision"
    shelves: Sequence[ServerUris] = field(default=())
    only: Patterns | None = None
    _rewritten: frozenset[str] = field(init=False, compare=False, repr=False)
    _laid: list[Layout] = field(init=False, compare=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        moving = () if self.mode == "none" else [shelf.server for shelf in self.shelves]
        object.__setattr__(self, "_rewritten", frozenset(moving))

    def __reduce__(self) -> tuple[type[Uris], tuple[str, Sequence[ServerUris], Patterns | None]]:
        return Uris, (self.mode, self.shelves, self.only)

    def owner(self, uri: str) -> Owned | None:
        """Where the URI that an agent names leads; None where it leads nowhere."""
        return self.layout.owner(uri)

    def exposed(self, server: str, uri: str) -> str:
        """The URI, or the text of a template, by which agents know what is `uri` at that server."""
        return self.exposing(server)(uri)

    def exposing(self, server: str) -> Callable[[str], str]:
        """`exposed` for all URIs of one result of that server.

        Together they cost no more than `MOST_EFFORT`: 10,000 links against a server's worst templates would hold up a
        worker for two minutes. From there on those that no list names are shown with their server's alias.
        """
        if server not in self._rewritten:
            return str
        left = MOST_EFFORT

        def exposed(uri: str) -> str:
            nonlocal left
            shown, left = self.layout.exposed(server, uri, left)
            return shown

        return exposed

    def known_as(self, server: str, uri: str) -> tuple[str, ...]:
        """What a URI of a server of this endpoint is called with its alias, whether it is shown so or not."""
        return self.layout.known_as(server, uri)

    def lists(self, server: str, uri: str) -> bool:
        """Whether that server lists this URI of its own, or a template with this text, and it is taken here."""
        own = server, uri
        return own in self.layout.resources or own in self.layout.templates

    def rewrites(self, server: str) -> bool:
        """Whether any URI of this server may look different to agents."""
        return server in self._rewritten

    @property
    def layout(self) -> Layout:
        """The tables, worked out once."""
        if not self._laid:
            self._laid.append(Layout(self.mode, self.shelves, self.only))
        return self._laid[0]


@dataclass(frozen=True, slots=True)
class UriNaming:
    """What an endpoint lists.

    Args:
        resources, templates: exposed URI or text by (server, its own one); what is missing is hidden or not taken.
        notices: what the operator should hear.
    """

    uris: Uris
    resources: dict[tuple[str, str], str]
    templates: dict[tuple[str, str], str]
    notices: tuple[Notice, ...]


def assign_uris(mode: str, shelves: Sequence[ServerUris], only: Patterns | None = None) -> UriNaming:
    """The URIs of one endpoint, and what of it is listed.

    Args:
        mode, shelves, only: as of `Uris`.
    """
    uris = Uris(mode, tuple(shelves), only)
    laid = uris.layout
    rules = UriRules(only)
    resources = {own: shown for own, shown in laid.resources.items() if rules.permit(shown, *own)}
    taken = {own: shown for own, shown in laid.templates.items() if _is_taken(only, shown, "/".join(own))}
    return UriNaming(uris, resources, taken, tuple(laid.notices))


def _is_taken(only: Patterns | None, *names: str) -> bool:
    return only is None or only.fit_any(names)
