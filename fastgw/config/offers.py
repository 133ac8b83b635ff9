"""The tools of one endpoint, before it is asked who may see them: names, routes, definitions.

Knows: entries of `tools:`, kept catalogues, and the order of both. Refuses to know: agents and policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fastgw.catalog.naming import Shelf, assign, prefixed
from fastgw.catalog.notice import Notice
from fastgw.catalog.precedence import Given, Places, first
from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.tools import Catalogue, ToolDefinition, placeholder
from fastgw.config.conditions import match_of
from fastgw.config.faces import Face, face_of
from fastgw.config.settings import Endpoint, Settings
from fastgw.config.toolsettings import RouteArm, TargetSettings, Tool
from fastgw.mcp.envelope import quote
from fastgw.policy.patterns import Patterns, is_wild
from fastgw.ports import Deadlines

CONNECT = 5.0
"""Seconds to connect to a server, at most."""
COMFORTABLE = 48
"""Characters of a name up to which clients that put a prefix of their own before it stay within 64."""

Own = tuple[str, str]
"""A server's name and its own name for a tool."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool of an endpoint.

    Args:
        sources: for each arm of the route, `server/tool` of every target.
        faces: for each arm, how the tool looks to those whose first arm it is; None for an arm without a target here.
    """

    route: Route
    sources: tuple[tuple[str, ...], ...]
    faces: tuple[Face | None, ...]


class Stock:
    """What holds on every endpoint: definitions by server, and where settings are written.

    Args:
        catalogues: by server; None or missing where the server has never answered.
    """

    def __init__(self, settings: Settings, catalogues: Mapping[str, Catalogue | None]) -> None:
        self.settings = settings
        self.notices: list[Notice] = []
        self.tools = {server: self._taken(server, catalogues.get(server)) for server in settings.servers}
        self.places = Places({key: _given(tool) for key, tool in settings.tools.items()})
        self.can_hide = self.places.can_hide
        self.by_server = {name: _timeout(server.timeout) for name, server in settings.servers.items()}
        self.top = _timeout(settings.timeout)
        self.deadlines: dict[Deadlines, Deadlines] = {}
        """Equal ones are one object: a snapshot of 10,000 tools travels with a handful."""
        self.entries = {key: tool for key, tool in settings.tools.items() if tool.to or tool.route}
        for key in [key for key in self.entries if is_wild(key) or "/" in key]:
            self.notices.append(Notice(key, "left out: `to` and `route` need a plain name"))
            del self.entries[key]

    def alias(self, server: str) -> str:
        """What stands before `__` in names."""
        return self.settings.servers[server].alias or server

    def known_as(self, name: str, targets: Iterable[Own]) -> tuple[str, ...]:
        """Every name a deny is tried on: as agents see it (empty: none yet), and all it has or could have had."""
        known = dict.fromkeys((name,) if name else ())
        for server, tool in targets:
            known.update(dict.fromkeys((f"{server}/{tool}", tool, f"{self.alias(server)}__{tool}")))
            known[prefixed(self.alias(server), tool)] = None
        return tuple(known)

    def _taken(self, server: str, catalogue: Catalogue | None) -> dict[str, ToolDefinition] | None:
        if catalogue is None:
            return None
        self.notices.extend(catalogue.notices)
        found: dict[str, ToolDefinition] = {}
        for tool in catalogue.tools:
            if found.setdefault(tool.name, tool) is not tool:
                self.notices.append(Notice(f"{server}/{tool.name}", "listed twice: the first is used"))
        return found


@dataclass(slots=True)
class Shelves:
    """One endpoint in the making.

    Args:
        servers: its servers in the order of the configuration.
        offers: what is found, in the order of lists.
    """

    stock: Stock
    path: str
    endpoint: Endpoint
    servers: tuple[str, ...]
    offers: list[Offer] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def note(self, subject: str, text: str) -> None:
        """Leave a remark for the operator."""
        self.notices.append(Notice(subject, text, self.path))


def offers_of(stock: Stock, path: str, endpoint: Endpoint) -> Shelves:
    """Every tool of an endpoint that is not hidden: entries of `tools:` first, then server by server."""
    names = stock.settings.servers if endpoint.servers is None else endpoint.servers
    making = Shelves(stock, path, endpoint, tuple(server for server in stock.settings.servers if server in names))
    here = {key: arms for key, tool in stock.entries.items() if (arms := _arms(making, tool))}
    pointed_at: set[Own] = {(to.server, to.tool) for arms in here.values() for arm in arms for to in arm.to}
    for key, arms in here.items():
        _offer_entry(making, key, arms)
    _offer_own(making, pointed_at, here)
    return making


def _arms(making: Shelves, tool: Tool) -> list[RouteArm]:
    """The entry's arms with the targets of this endpoint; none where no arm has any."""
    arms = tool.route or (RouteArm.model_construct(match=None, except_=None, to=tool.to),)
    here = [[to for to in arm.to if to.server in making.servers] for arm in arms]
    if not any(here):
        return []
    return [
        RouteArm.model_construct(match=arm.match, except_=arm.except_, to=tuple(targets))
        for arm, targets in zip(arms, here, strict=True)
    ]


def _offer_entry(making: Shelves, name: str, arms: Sequence[RouteArm]) -> None:
    rows = [(arm, [to for to in arm.to if _exists(making, name, to)]) for arm in arms]
    built = tuple(
        Arm(match_of(arm.match, arm.except_), tuple(_target(making.stock, to) for to in targets))
        for arm, targets in rows
    )
    if any(arm.targets for arm in built):
        _offer(making, name, built)
    else:
        making.note(name, "left out: no server brings a tool it points at")


def _exists(making: Shelves, name: str, to: TargetSettings) -> bool:
    tools = making.stock.tools[to.server]
    if tools is None or to.tool in tools:
        return True
    making.note(name, f"{to.server}/{to.tool} is passed over: the server does not bring it")
    return False


def _offer_own(making: Shelves, pointed_at: set[Own], entries: Iterable[str]) -> None:
    shelves = [
        Shelf(server, making.stock.alias(server), tuple(_asking(making, server, pointed_at)))
        for server in making.servers
    ]
    naming = assign(making.endpoint.naming, shelves, entries)
    making.notices.extend(Notice(one.subject, one.text, making.path) for one in naming.notices)
    for shelf in shelves:
        for tool in shelf.tools:
            name = naming.names.get((shelf.server, tool))
            if name is not None:
                definition = _definition(making.stock, shelf.server, tool)
                target = Target(shelf.server, tool, quote(tool), definition.param_headers)
                _offer(making, name, (Arm(None, (target,)),))


def _asking(making: Shelves, server: str, pointed_at: set[Own]) -> Iterable[str]:
    """The server's tools that want a name of their own. What is hidden by a name it has anyway moves no other."""
    stock = making.stock
    wanted = stock.settings.servers[server].tools
    only = Patterns(wanted) if wanted is not None else None
    for tool in stock.tools[server] or ():
        if (server, tool) in pointed_at or (only is not None and not only.fits(tool)):
            continue
        sources = (f"{server}/{tool}",)
        if not stock.can_hide or not stock.places.hidden("", sources, (*sources, tool)):
            yield tool


def _offer(making: Shelves, name: str, arms: tuple[Arm, ...]) -> None:
    """Add the tool unless it is hidden, or not among the tools of this endpoint."""
    stock = making.stock
    targets = [(target.server, target.tool) for arm in arms for target in arm.targets]
    sources = tuple(tuple(f"{target.server}/{target.tool}" for target in arm.targets) for arm in arms)
    flat = [source for row in sources for source in row]
    known_as = stock.known_as(name, targets)
    if stock.can_hide and stock.places.hidden(name, flat, known_as):
        return
    if making.endpoint.tools is not None and not _is_wanted(making.endpoint.tools, name, flat):
        return
    if len(name) > COMFORTABLE:
        making.note(name, f"is longer than {COMFORTABLE} characters: clients that add a prefix may refuse it")
    settled = [_settled(making, name, arm) for arm in arms]
    faces = tuple(face for _, face in settled)
    times = [arm.deadlines for arm, _ in settled if arm.targets]
    route = Route(
        name=name,
        arms=tuple(arm for arm, _ in settled),
        known_as=known_as,
        param_headers=next(face.param_headers for face in faces if face is not None),
        hidden=False,
        total=max(one.total for one in times),
        attempt=max(one.first_byte for one in times),
        idle=max(one.idle for one in times),
    )
    making.offers.append(Offer(route, sources, faces))


def _settled(making: Shelves, name: str, arm: Arm) -> tuple[Arm, Face | None]:
    """The arm with its deadlines, and the tool as it looks to those who take it: each by what is said of its target."""
    if not arm.targets:
        return arm, None
    target = arm.targets[0]
    chain = making.stock.places.chain(name, f"{target.server}/{target.tool}")
    deadlines = _deadlines(making, target.server, chain)
    return replace(arm, deadlines=deadlines), _face(making.stock, name, arm, chain)


def _deadlines(making: Shelves, server: str, chain: Sequence[Given]) -> Deadlines:
    """How long calls of an arm may take: what is said of its first target, nearest place first.

    Args:
        server: of that target.
        chain: the entries of `tools:` that speak of it.
    """
    stock = making.stock
    given = (*chain, stock.by_server[server], _timeout(making.endpoint.timeout), stock.top)
    total = first(given, "timeout", 0.0)
    found = Deadlines(
        connect=min(CONNECT, stock.settings.servers[server].timeout or CONNECT),
        first_byte=min(total, first(given, "attempt_timeout", total)),
        idle=min(total, first(given, "idle_timeout", total)),
        total=total,
    )
    return stock.deadlines.setdefault(found, found)


def _is_wanted(texts: Sequence[str], name: str, sources: Sequence[str]) -> bool:
    """Whether the endpoint's `tools` take it: a pattern with `/` must fit every target."""
    if Patterns(text for text in texts if "/" not in text).fits(name):
        return True
    return all(map(Patterns(text for text in texts if "/" in text).fits, sources))


def _face(stock: Stock, name: str, arm: Arm, chain: Sequence[Given]) -> Face:
    """The first target's definition; while its server has never answered, the next one's that is known."""
    known = [target for target in arm.targets if stock.tools[target.server] is not None]
    shown = known[0] if known else arm.targets[0]
    return face_of(name, _definition(stock, shown.server, shown.tool), chain, shown)


def _definition(stock: Stock, server: str, tool: str) -> ToolDefinition:
    tools = stock.tools[server]
    return placeholder(server, tool) if tools is None else tools[tool]


def _target(stock: Stock, to: TargetSettings) -> Target:
    headers = _definition(stock, to.server, to.tool).param_headers
    return Target(to.server, to.tool, quote(to.tool), headers, tuple(to.arguments.items()))


def _given(tool: Tool) -> Given:
    """What is written in an entry of `tools:`, less where it leads."""
    return {key: getattr(tool, key) for key in tool.model_fields_set - {"to", "route"}}


def _timeout(seconds: float | None) -> Given:
    return {} if seconds is None else {"timeout": seconds}
