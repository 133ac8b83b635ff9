"""The tools of one endpoint, before it is asked who may see them: names, routes, definitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fastgw.catalog.naming import Naming, ServerNames, assign
from fastgw.catalog.notice import Notice
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.tools import ToolDefinition, placeholder
from fastgw.catalog.validation import UnusableSchema
from fastgw.config.conditions import match_of
from fastgw.config.schema.tools import ArmSettings, TargetSettings, ToolSettings
from fastgw.ports import Deadlines
from fastgw.protocol.envelope import quote
from fastgw.snapshot.curation import curated
from fastgw.snapshot.endpoint_builder import EndpointBuilder
from fastgw.snapshot.sections import Offer, Section, SectionRow, row_of
from fastgw.snapshot.server_catalogues import Own, times
from fastgw.snapshot.shown_tools import ShownTool, shown_tool_of

CONNECT = 5.0
"""Seconds to connect to a server, at most."""
COMFORTABLE = 48
"""Characters of a name up to which clients that put a prefix of their own before it stay within 64."""

Arms = dict[str, list[ArmSettings]]
"""Entries of `tools:` that lead somewhere: name to arms with the targets of this endpoint."""


def tool_sections(builder: EndpointBuilder) -> list[Section]:
    """Every tool of an endpoint that is not hidden: entries of `tools:` first, then server by server."""
    kept, path = builder.cache.kept, builder.path
    here: Arms = kept(("arms", path), (), lambda: _entries(builder))
    pointed_at: set[Own] = {(to.server, to.tool) for arms in here.values() for arm in arms for to in arm.to}
    led_to = dict.fromkeys(server for server, _ in sorted(pointed_at))
    definitions = tuple(builder.tools[server] for server in led_to)
    blocks = [kept(("entries", path), definitions, lambda: _entry_block(builder, here))]
    return [*blocks, *_own_blocks(builder, pointed_at, here)]


# -- entries of `tools:` ------------------------------------------------------------------------------------------


def _entries(builder: EndpointBuilder) -> Arms:
    arms = {key: _arms(builder, tool) for key, tool in builder.catalogues.entries.items()}
    for key in [key for key, found in arms.items() if not found]:
        builder.missing(key, "its entry in `tools` leads to no server of this endpoint")
        del arms[key]
    return arms


def _arms(builder: EndpointBuilder, tool: ToolSettings) -> list[ArmSettings]:
    """The entry's arms with the targets of this endpoint; none where no arm has any."""
    arms = tool.route or (ArmSettings.model_construct(match=None, except_=None, to=tool.to),)
    here = [[to for to in arm.to if to.server in builder.servers] for arm in arms]
    if not any(here):
        return []
    return [
        ArmSettings.model_construct(match=arm.match, except_=arm.except_, to=tuple(targets))
        for arm, targets in zip(arms, here, strict=True)
    ]


def _entry_block(builder: EndpointBuilder, here: Arms) -> Section:
    notices: list[Notice] = []
    rows = [row for key, arms in here.items() if (row := _entry_row(builder, key, arms, notices))]
    return Section(builder.cache.rules, rows, notices)


def _entry_row(
    builder: EndpointBuilder, name: str, arms: Sequence[ArmSettings], notices: list[Notice]
) -> SectionRow | None:
    for arm in arms:
        for to in arm.to:
            if not _exists(builder, to):
                text = f"{to.server}/{to.tool} is passed over: the server does not bring it"
                notices.append(builder.note(name, text))
    built = tuple(
        Arm(match_of(arm.match, arm.except_), tuple(_target(builder, to) for to in arm.to if _exists(builder, to)))
        for arm in arms
    )
    if any(arm.targets for arm in built):
        return _row(builder, name, built, notices)
    notices.append(builder.note(name, "left out: no server brings a tool it points at"))
    return None


def _exists(builder: EndpointBuilder, to: TargetSettings) -> bool:
    return not builder.answered(to.server) or to.tool in builder.tools[to.server]


def _target(builder: EndpointBuilder, to: TargetSettings) -> Target:
    headers = _definition(builder, to.server, to.tool).param_headers
    return Target(to.server, to.tool, quote(to.tool), headers, tuple(to.arguments.items()))


# -- every server's own -------------------------------------------------------------------------------------------


def _own_blocks(builder: EndpointBuilder, pointed_at: set[Own], entries: Iterable[str]) -> Iterator[Section]:
    cache, path, mode = builder.cache, builder.path, builder.endpoint.naming
    shelves = cache.as_before(
        ("shelves", path), tuple(_shelf(builder, server, pointed_at) for server in builder.servers)
    )
    naming = cache.kept(("naming", path), (shelves,), lambda: assign(mode, shelves, entries))
    builder.notices.extend(builder.note(one.subject, one.text) for one in naming.notices)
    for shelf in shelves:
        yield _own(builder, shelf, naming)


def _own(builder: EndpointBuilder, shelf: ServerNames, naming: Naming) -> Section:
    cache, server, place = builder.cache, shelf.server, ("own", builder.path, shelf.server)
    names = cache.as_before(("names", builder.path, server), _named(naming, shelf))
    before: Section | None = cache.last(place)
    return cache.kept(place, (names, builder.tools[server]), lambda: _own_block(builder, server, names, before))


def _shelf(builder: EndpointBuilder, server: str, pointed_at: set[Own]) -> ServerNames:
    definitions = builder.tools[server]
    asking = builder.cache.kept(
        ("asking", builder.path, server), (definitions,), lambda: tuple(_asking(builder, server, pointed_at))
    )
    return ServerNames(server, builder.catalogues.alias(server), asking)


def _named(naming: Naming, shelf: ServerNames) -> tuple[tuple[str, str], ...]:
    """Of every tool that has a name here its own and that name."""
    names, server = naming.names, shelf.server
    return tuple([(tool, name) for tool in shelf.tools if (name := names.get((server, tool))) is not None])


def _own_block(
    builder: EndpointBuilder, server: str, names: Sequence[tuple[str, str]], before: Section | None
) -> Section:
    """One server's tools; what has neither another name nor another definition than before is taken from there."""
    notices: list[Notice] = []
    rows = []
    earlier = before.rows if before is not None else {}
    definitions = builder.tools[server]
    for tool, name in names:
        definition = definitions[tool]
        row = earlier.get(name)
        if row is None or row.origin is not definition:
            arm = Arm(None, (Target(server, tool, quote(tool), definition.param_headers),))
            row = _row(builder, name, (arm,), notices, definition)
        if row is not None:
            rows.append(row)
    return Section(builder.cache.rules, rows, notices)


def _asking(builder: EndpointBuilder, server: str, pointed_at: set[Own]) -> Iterable[str]:
    """The server's tools that want a name of their own. What is hidden by a name it has anyway moves no other."""
    taken = builder.catalogues.filters[server]
    for tool in builder.tools[server]:
        source = f"{server}/{tool}"
        if (server, tool) in pointed_at:
            builder.missing(source, "has no name of its own: an entry of `tools` leads to it")
        elif not taken.gives_tool(server, tool):
            builder.missing(source, "left out: it is not among `tools` of the server")
        elif not builder.hides("", (source,), (source, tool)):
            yield tool


# -- one tool -----------------------------------------------------------------------------------------------------


def _row(
    builder: EndpointBuilder, name: str, arms: tuple[Arm, ...], notices: list[Notice], origin: object = None
) -> SectionRow | None:
    """The tool unless it is hidden, not among the tools of this endpoint, or cannot be as the operator wants it."""
    targets = [(target.server, target.tool) for arm in arms for target in arm.targets]
    sources = tuple(tuple([f"{target.server}/{target.tool}" for target in arm.targets]) for arm in arms)
    flat = [source for row in sources for source in row]
    known_as = builder.catalogues.known_as(name, targets)
    if builder.hides(name, flat, known_as):
        return None
    if not builder.taken.takes_tool(name, flat):
        builder.missing(name if origin is None else flat[0], "left out: it is not among `tools` of this endpoint")
        return None
    try:
        settled = [_settled(builder, name, arm) for arm in arms]
    except UnusableSchema as wrong:
        notices.append(builder.note(name, f"left out: {wrong}"))
        return None
    faces = tuple([one.face for one in settled])
    route = route_of(name, tuple([one.arm for one in settled]), known_as, faces)
    bits = builder.cache.rules.bits(name, flat, known_as)
    remarks = dict.fromkeys((*_long(name), *(remark for one in settled for remark in one.remarks)))
    return row_of(Offer(route, sources, faces), bits, origin, tuple([builder.note(name, text) for text in remarks]))


def route_of(name: str, arms: tuple[Arm, ...], known_as: tuple[str, ...], faces: Sequence[ShownTool | None]) -> Route:
    """The route over these arms, at least one of which has a target and a face."""
    return Route(
        name=name,
        arms=arms,
        known_as=known_as,
        param_headers=next(face.param_headers for face in faces if face is not None),
    )


def _long(name: str) -> Iterator[str]:
    if len(name) > COMFORTABLE:
        yield f"is longer than {COMFORTABLE} characters: clients that add a prefix may refuse it"


@dataclass(frozen=True, slots=True)
class _SettledArm:
    """An arm as the settings of its first target say, how the tool looks to those who take it, and remarks."""

    arm: Arm
    face: ShownTool | None
    remarks: tuple[str, ...] = ()


def _settled(builder: EndpointBuilder, name: str, arm: Arm) -> _SettledArm:
    """Raises: Unusable: something is asked for that cannot be done for this tool."""
    if not arm.targets:
        return _SettledArm(arm, None)
    target = arm.targets[0]
    chain = builder.catalogues.places.chain(name, f"{target.server}/{target.tool}")
    known = [target for target in arm.targets if builder.answered(target.server)]
    # While the first one's server has never answered, agents see the next one's that is known.
    shown = known[0] if known else target
    definition = _definition(builder, shown.server, shown.tool)
    face = shown_tool_of(name, definition, chain, shown)
    deadlines = deadlines_of(builder, target.server, chain)
    timed = Arm(arm.match, arm.targets, deadlines, weight=first(chain, "weight", 1))
    if not chain:
        return _SettledArm(timed, face)
    settled, remarks = curated(timed, chain, definition, face.schema)
    return _SettledArm(settled, face, remarks)


def deadlines_of(builder: EndpointBuilder, server: str, chain: Sequence[Given] = ()) -> Deadlines:
    """How long calls of an arm may take: what is said of its first target, nearest place first.

    Args:
        server: of that target.
        chain: the entries of `tools:` that speak of it.
    """
    known = builder.catalogues.deadlines
    # The entries live as long as the stock, so that each is known by its place in memory.
    key = builder.path, server, *map(id, chain)
    found = known.get(key)
    if found is None:
        made = _deadlines(builder, server, chain)
        found = known[key] = known.setdefault(made, made)
    return found


def _deadlines(builder: EndpointBuilder, server: str, chain: Sequence[Given]) -> Deadlines:
    catalogues = builder.catalogues
    given = (*chain, catalogues.by_server[server], times(builder.endpoint), catalogues.top)
    total = first(given, "timeout", 0.0)
    return Deadlines(
        connect=min(CONNECT, catalogues.settings.servers[server].timeout or CONNECT),
        first_byte=min(total, first(given, "attempt_timeout", total)),
        idle=min(total, first(given, "idle_timeout", total)),
        total=total,
        longest=max(total, first(given, "max_timeout", 0.0)),
    )


def _definition(builder: EndpointBuilder, server: str, tool: str) -> ToolDefinition:
    return builder.tools[server][tool] if builder.answered(server) else placeholder(server, tool)
