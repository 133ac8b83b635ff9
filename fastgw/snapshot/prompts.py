"""The prompts of one endpoint, before it is asked who may see them: named as tools are, but for entries of `tools:`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastgw.catalog.definitions import Definition, DefinitionKind
from fastgw.catalog.listing import entry
from fastgw.catalog.naming import Naming, ServerNames, assign
from fastgw.catalog.route import Arm, Target
from fastgw.policy.patterns import PROMPT
from fastgw.protocol.envelope import quote
from fastgw.snapshot.endpoint_builder import EndpointBuilder
from fastgw.snapshot.sections import Offer, Section, SectionRow, row_of
from fastgw.snapshot.shown_tools import ShownTool
from fastgw.snapshot.tools import deadlines_of, route_of


def prompt_sections(builder: EndpointBuilder) -> Iterator[Section]:
    """Every prompt of an endpoint, server by server."""
    cache, path, mode = builder.cache, builder.path, builder.endpoint.naming
    shelves = cache.as_before(("prompt shelves", path), tuple(_shelf(builder, server) for server in builder.servers))
    naming = cache.kept(("prompt naming", path), (shelves,), lambda: assign(mode, shelves, ()))
    builder.notices.extend(builder.note(f"{PROMPT}{one.subject}", one.text) for one in naming.notices)
    for shelf in shelves:
        yield _block(builder, shelf, naming)


def _shelf(builder: EndpointBuilder, server: str) -> ServerNames:
    taken = builder.catalogues.filters[server]
    asking = []
    for own in builder.offer(server).prompts:
        if taken.gives_prompt(server, own):
            asking.append(own)
        else:
            builder.missing(f"{PROMPT}{server}/{own}", "left out: it is not among `tools` of the server")
    return ServerNames(server, builder.catalogues.alias(server), tuple(asking))


def _block(builder: EndpointBuilder, shelf: ServerNames, naming: Naming) -> Section:
    cache, server = builder.cache, shelf.server
    named = tuple([(own, name) for own in shelf.tools if (name := naming.names.get((server, own))) is not None])
    names = cache.as_before(("prompt names", builder.path, server), named)
    prompts = builder.offer(server).prompts
    return cache.kept(
        ("prompts", builder.path, server), (names, prompts), lambda: _made(builder, server, names, prompts)
    )


def _made(
    builder: EndpointBuilder, server: str, names: Sequence[tuple[str, str]], prompts: dict[str, Definition]
) -> Section:
    deadlines = deadlines_of(builder, server)
    arms = (Arm(None, (Target(server, own, quote(own)),), deadlines) for own, _ in names)
    rows = [_row(builder, name, arm, prompts[own]) for (own, name), arm in zip(names, arms, strict=True)]
    return Section(builder.cache.prompt_rules, [row for row in rows if row is not None])


def _row(builder: EndpointBuilder, name: str, arm: Arm, definition: Definition) -> SectionRow | None:
    """The prompt unless it is not among those of this endpoint."""
    own = definition.server, definition.key
    sources = ("/".join(own),)
    if not builder.taken.takes_prompt(name, sources):
        builder.missing(f"{PROMPT}{name}", "left out: it is not among `tools` of this endpoint")
        return None
    face = ShownTool(entry(quote(name), definition.tails, DefinitionKind.PROMPT.key), (), b"")
    known_as = builder.catalogues.known_as(name, [own])
    route = route_of(name, (arm,), known_as, (face,))
    bits = builder.cache.prompt_rules.bits(name, sources, known_as)
    return row_of(Offer(route, (sources,), (face,)), bits, definition)
