"""What holds on every endpoint: what each server brings, and what the settings say of it wherever it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fastgw.catalog.definitions import Definition
from fastgw.catalog.naming import SEPARATOR, shortened
from fastgw.catalog.notice import Notice
from fastgw.catalog.precedence import Given, Precedence
from fastgw.catalog.tools import Catalogue, ToolDefinition
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.config.schema.tools import ToolSettings
from fastgw.policy.patterns import is_wild
from fastgw.ports import Deadlines
from fastgw.snapshot.filters import Filter

D = TypeVar("D")
Own = tuple[str, str]
"""A server's name and its own name for a tool."""


@dataclass(frozen=True, slots=True, eq=False)
class ServerOffer:
    """All that one server brings, by its own names. A part that is equal to that of the last time is the same object.

    Args:
        catalogue: what it was read from; None where the server has never answered.
        tools, prompts, resources, templates: in the server's order.
        declares: names of its capabilities as far as they matter here.
        notices: what was left out.
    """

    catalogue: Catalogue | None = None
    tools: dict[str, ToolDefinition] = field(default_factory=dict)
    prompts: dict[str, Definition] = field(default_factory=dict)
    resources: dict[str, Definition] = field(default_factory=dict)
    templates: dict[str, Definition] = field(default_factory=dict)
    declares: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()


TIMES = ("timeout", "max_timeout", "idle_timeout")
"""Settings of calls that have a place at every level: tool, server, endpoint, top."""

NOTHING = ServerOffer()
"""Of a server that has never answered."""


class ServerCatalogues:
    """The settings about tools, made ready, and the goods of every server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.notices: list[Notice] = []
        self.offer: dict[str, ServerOffer] = {}
        self.places = Precedence({key: _given(tool) for key, tool in settings.tools.items()})
        self.can_hide = self.places.can_hide
        self.by_server = {name: times(server) for name, server in settings.servers.items()}
        self._aliases = {name: server.alias or name for name, server in settings.servers.items()}
        self.filters = {name: Filter(server.tools) for name, server in settings.servers.items()}
        self.top = times(settings)
        self.deadlines: dict[object, Deadlines] = {}
        """By what they follow from, and by themselves: a snapshot of 10,000 tools travels with a handful of objects."""
        self.entries = {key: tool for key, tool in settings.tools.items() if tool.to or tool.route}
        for key in [key for key in self.entries if is_wild(key) or "/" in key]:
            self.notices.append(Notice(key, "left out: `to` and `route` need a plain name"))
            del self.entries[key]

    def take(self, catalogues: Mapping[str, Catalogue | None]) -> None:
        """Go by these catalogues from now on.

        Args:
            catalogues: by server; None or missing where the server has never answered.
        """
        self.offer = {
            server: _goods(server, catalogues.get(server), self.offer.get(server, NOTHING))
            for server in self.settings.servers
        }

    def alias(self, server: str) -> str:
        """What stands before `__` in names."""
        return self._aliases[server]

    def known_as(self, name: str, targets: Iterable[Own]) -> tuple[str, ...]:
        """Every name a deny is tried on: as agents see it (empty: none yet), and all it has or could have had."""
        known = [name] if name else []
        for server, tool in targets:
            whole = f"{self.alias(server)}{SEPARATOR}{tool}"
            known += (f"{server}/{tool}", tool, whole, shortened(whole))
        return tuple(dict.fromkeys(known))


def _goods(server: str, catalogue: Catalogue | None, before: ServerOffer) -> ServerOffer:
    if catalogue is None:
        return NOTHING
    if catalogue is before.catalogue:
        return before
    if before is NOTHING:
        # Its parts are empty, and must not be taken for those of a server that has said so.
        before = ServerOffer()
    twice: list[str] = []
    tools = _shelved(((tool.name, tool) for tool in catalogue.tools), before.tools, twice)
    prompts = _shelved(((one.key, one) for one in catalogue.prompts), before.prompts, twice)
    resources = _shelved(((one.key, one) for one in catalogue.resources), before.resources, twice)
    templates = _shelved(((one.key, one) for one in catalogue.templates), before.templates, twice)
    notices = (*catalogue.notices, *(Notice(f"{server}/{key}", "listed twice: the first is used") for key in twice))
    return ServerOffer(catalogue, tools, prompts, resources, templates, _declared(catalogue), notices)


def _shelved(listed: Iterable[tuple[str, D]], before: dict[str, D], twice: list[str]) -> dict[str, D]:
    """Definitions by key, the first of each; those that equal the earlier ones are these."""
    found: dict[str, D] = {}
    for key, one in listed:
        if key in found:
            twice.append(key)
            continue
        earlier = before.get(key)
        found[key] = earlier if earlier is not None and earlier == one else one
    same = len(found) == len(before) and all(a is b for a, b in zip(found.values(), before.values(), strict=True))
    return before if same else found


def _declared(catalogue: Catalogue) -> frozenset[str]:
    """The capabilities; of a catalogue that knows none (an older release kept it) what its lists hold."""
    if catalogue.capabilities:
        return catalogue.capabilities
    held = {"resources": catalogue.resources or catalogue.templates, "prompts": catalogue.prompts}
    return frozenset(name for name, listed in held.items() if listed)


def _given(tool: ToolSettings) -> Given:
    """What is written in an entry of `tools:`, less where it leads."""
    return {key: getattr(tool, key) for key in tool.model_fields_set - {"to", "route"}}


def times(place: ServerSettings | EndpointSettings | Settings) -> Given:
    """What a place beside `tools:` says about the time of calls."""
    return {key: seconds for key in TIMES if (seconds := getattr(place, key)) is not None}
