"""The tools of one endpoint, before it is asked who may see them: names, routes, definitions.

Knows: entries of `tools:`, kept catalogues, and the order of both. Refuses to know: agents and policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fastgw.catalog.naming import Naming, Shelf, assign
from fastgw.catalog.notice import Notice
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.tools import ToolDefinition, placeholder
from fastgw.catalog.validation import Unusable
from fastgw.config.blocks import Block, Offer, Row, row_of
from fastgw.config.conditions import match_of
from fastgw.config.curation import curated
from fastgw.config.faces import Face, face_of
from fastgw.config.making import Making
from fastgw.config.stock import Own, times
from fastgw.config.toolsettings import RouteArm, TargetSettings, Tool
from fastgw.mcp.envelope import quote
from fastgw.ports import Deadlines

CONNECT = 5.0
"""Seconds to connect to a server, at most."""
COMFORTABLE = 48
"""Characters of a name up to which clients that put a prefix of their own before it stay within 64."""

Arms = dict[str, list[RouteArm]]
"""Entries of `tools:` that lead somewhere: name to arms with the targets of this endpoint."""


def tool_blocks(making: Making) -> list[Block]:
    """Every tool of an endpoint that is not hidden: entries of `tools:` first, then server by server."""
    kept, path = making.workshop.kept, making.path
    here: Arms = kept(("arms", path), (), lambda: _entries(making))
    pointed_at: set[Own] = {(to.server, to.tool) for arms in here.values() for arm in arms for to in arm.to}
    led_to = dict.fromkeys(server for server, _ in sorted(pointed_at))
    definitions = tuple(making.tools[server] for server in led_to)
    blocks = [kept(("entries", path), definitions, lambda: _entry_block(making, here))]
    return [*blocks, *_own_blocks(making, pointed_at, here)]


# -- entries of `tools:` ------------------------------------------------------------------------------------------


def _entries(making: Making) -> Arms:
    return {key: arms for key, tool in making.stock.entries.items() if (arms := _arms(making, tool))}


def _arms(making: Making, tool: Tool) -> list[RouteArm]:
    """The entry's arms with the targets of this endpoint; none where no arm has any."""
    arms = tool.route or (RouteArm.model_construct(match=None, except_=None, to=tool.to),)
    here = [[to for to in arm.to if to.server in making.servers] for arm in arms]
    if not any(here):
        return []
    return [
        RouteArm.model_construct(match=arm.match, except_=arm.except_, to=tuple(targets))
        for arm, targets in zip(arms, here, strict=True)
    ]


def _entry_block(making: Making, here: Arms) -> Block:
    notices: list[Notice] = []
    rows = [row for key, arms in here.items() if (row := _entry_row(making, key, arms, notices))]
    return Block(making.workshop.rules, rows, notices)


def _entry_row(making: Making, name: str, arms: Sequence[RouteArm], notices: list[Notice]) -> Row | None:
    for arm in arms:
        for to in arm.to:
            if not _exists(making, to):
                text = f"{to.server}/{to.tool} is passed over: the server does not bring it"
                notices.append(making.note(name, text))
    built = tuple(
        Arm(match_of(arm.match, arm.except_), tuple(_target(making, to) for to in arm.to if _exists(making, to)))
        for arm in arms
    )
    if any(arm.targets for arm in built):
        return _row(making, name, built, notices)
    notices.append(making.note(name, "left out: no server brings a tool it points at"))
    return None


def _exists(making: Making, to: TargetSettings) -> bool:
    return not making.answered(to.server) or to.tool in making.tools[to.server]


def _target(making: Making, to: TargetSettings) -> Target:
    headers = _definition(making, to.server, to.tool).param_headers
    return Target(to.server, to.tool, quote(to.tool), headers, tuple(to.arguments.items()))


# -- every server's own -------------------------------------------------------------------------------------------


def _own_blocks(making: Making, pointed_at: set[Own], entries: Iterable[str]) -> Iterator[Block]:
    workshop, path, mode = making.workshop, making.path, making.endpoint.naming
    shelves = workshop.as_before(
        ("shelves", path), tuple(_shelf(making, server, pointed_at) for server in making.servers)
    )
    naming = workshop.kept(("naming", path), (shelves,), lambda: assign(mode, shelves, entries))
    making.notices.extend(making.note(one.subject, one.text) for one in naming.notices)
    for shelf in shelves:
        yield _own(making, shelf, naming)


def _own(making: Making, shelf: Shelf, naming: Naming) -> Block:
    workshop, server, place = making.workshop, shelf.server, ("own", making.path, shelf.server)
    names = workshop.as_before(("names", making.path, server), _named(naming, shelf))
    before: Block | None = workshop.last(place)
    return workshop.kept(place, (names, making.tools[server]), lambda: _own_block(making, server, names, before))


def _shelf(making: Making, server: str, pointed_at: set[Own]) -> Shelf:
    definitions = making.tools[server]
    asking = making.workshop.kept(
        ("asking", making.path, server), (definitions,), lambda: tuple(_asking(making, server, pointed_at))
    )
    return Shelf(server, making.stock.alias(server), asking)


def _named(naming: Naming, shelf: Shelf) -> tuple[tuple[str, str], ...]:
    """Of every tool that has a name here its own and that name."""
    names, server = naming.names, shelf.server
    return tuple([(tool, name) for tool in shelf.tools if (name := names.get((server, tool))) is not None])


def _own_block(making: Making, server: str, names: Sequence[tuple[str, str]], before: Block | None) -> Block:
    """One server's tools; what has neither another name nor another definition than before is taken from there."""
    notices: list[Notice] = []
    rows = []
    earlier = before.rows if before is not None else {}
    definitions = making.tools[server]
    for tool, name in names:
        definition = definitions[tool]
        row = earlier.get(name)
        if row is None or row.origin is not definition:
            arm = Arm(None, (Target(server, tool, quote(tool), definition.param_headers),))
            row = _row(making, name, (arm,), notices, definition)
        if row is not None:
            rows.append(row)
    return Block(making.workshop.rules, rows, notices)


def _asking(making: Making, server: str, pointed_at: set[Own]) -> Iterable[str]:
    """The server's tools that want a name of their own. What is hidden by a name it has anyway moves no other."""
    stock = making.stock
    taken = stock.filters[server]
    for tool in making.tools[server]:
        if (server, tool) in pointed_at or not taken.gives_tool(server, tool):
            continue
        sources = (f"{server}/{tool}",)
        if not stock.can_hide or not stock.places.hidden("", sources, (*sources, tool)):
            yield tool


# -- one tool -----------------------------------------------------------------------------------------------------


def _row(making: Making, name: str, arms: tuple[Arm, ...], notices: list[Notice], origin: object = None) -> Row | None:
    """The tool unless it is hidden, not among the tools of this endpoint, or cannot be as the operator wants it."""
    stock = making.stock
    targets = [(target.server, target.tool) for arm in arms for target in arm.targets]
    sources = tuple(tuple([f"{target.server}/{target.tool}" for target in arm.targets]) for arm in arms)
    flat = [source for row in sources for source in row]
    known_as = stock.known_as(name, targets)
    if stock.can_hide and stock.places.hidden(name, flat, known_as):
        return None
    if not making.taken.takes_tool(name, flat):
        return None
    try:
        settled = [_settled(making, name, arm) for arm in arms]
    except Unusable as wrong:
        notices.append(making.note(name, f"left out: {wrong}"))
        return None
    faces = tuple([one.face for one in settled])
    route = route_of(name, tuple([one.arm for one in settled]), known_as, faces)
    bits = making.workshop.rules.bits(name, flat, known_as)
    remarks = dict.fromkeys((*_long(name), *(remark for one in settled for remark in one.remarks)))
    return row_of(Offer(route, sources, faces), bits, origin, tuple([making.note(name, text) for text in remarks]))


def route_of(name: str, arms: tuple[Arm, ...], known_as: tuple[str, ...], faces: Sequence[Face | None]) -> Route:
    """The route over these arms, at least one of which has a target and a face."""
    times = [arm.deadlines for arm in arms if arm.targets]
    return Route(
        name=name,
        arms=arms,
        known_as=known_as,
        param_headers=next(face.param_headers for face in faces if face is not None),
        hidden=False,
        total=max([one.total for one in times]),
        attempt=max([one.first_byte for one in times]),
        idle=max([one.idle for one in times]),
    )


def _long(name: str) -> Iterator[str]:
    if len(name) > COMFORTABLE:
        yield f"is longer than {COMFORTABLE} characters: clients that add a prefix may refuse it"


@dataclass(frozen=True, slots=True)
class _Settled:
    """An arm as the settings of its first target say, how the tool looks to those who take it, and remarks."""

    arm: Arm
    face: Face | None
    remarks: tuple[str, ...] = ()


def _settled(making: Making, name: str, arm: Arm) -> _Settled:
    """Raises: Unusable: something is asked for that cannot be done for this tool."""
    if not arm.targets:
        return _Settled(arm, None)
    target = arm.targets[0]
    chain = making.stock.places.chain(name, f"{target.server}/{target.tool}")
    known = [target for target in arm.targets if making.answered(target.server)]
    # While the first one's server has never answered, agents see the next one's that is known.
    shown = known[0] if known else target
    definition = _definition(making, shown.server, shown.tool)
    face = face_of(name, definition, chain, shown)
    deadlines = deadlines_of(making, target.server, chain)
    timed = Arm(arm.match, arm.targets, deadlines, weight=first(chain, "weight", 1))
    if not chain:
        return _Settled(timed, face)
    settled, remarks = curated(timed, chain, definition, face.schema)
    return _Settled(settled, face, remarks)


def deadlines_of(making: Making, server: str, chain: Sequence[Given] = ()) -> Deadlines:
    """How long calls of an arm may take: what is said of its first target, nearest place first.

    Args:
        server: of that target.
        chain: the entries of `tools:` that speak of it.
    """
    known = making.stock.deadlines
    # The entries live as long as the stock, so that each is known by its place in memory.
    key = making.path, server, *map(id, chain)
    found = known.get(key)
    if found is None:
        made = _deadlines(making, server, chain)
        found = known[key] = known.setdefault(made, made)
    return found


def _deadlines(making: Making, server: str, chain: Sequence[Given]) -> Deadlines:
    stock = making.stock
    given = (*chain, stock.by_server[server], times(making.endpoint), stock.top)
    total = first(given, "timeout", 0.0)
    return Deadlines(
        connect=min(CONNECT, stock.settings.servers[server].timeout or CONNECT),
        first_byte=min(total, first(given, "attempt_timeout", total)),
        idle=min(total, first(given, "idle_timeout", total)),
        total=total,
        longest=max(total, first(given, "max_timeout", 0.0)),
    )


def _definition(making: Making, server: str, tool: str) -> ToolDefinition:
    return making.tools[server][tool] if making.answered(server) else placeholder(server, tool)
