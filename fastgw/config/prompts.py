"""The prompts of one endpoint, before it is asked who may see them: named as tools are, but for entries of `tools:`.

Knows: kept catalogues and what `tools:` of servers and endpoints take. Refuses to know: agents and policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastgw.catalog.definitions import Definition, Sort
from fastgw.catalog.listing import entry
from fastgw.catalog.naming import Naming, Shelf, assign
from fastgw.catalog.route import Arm, Target
from fastgw.config.blocks import Block, Offer, Row, row_of
from fastgw.config.faces import Face
from fastgw.config.making import Making
from fastgw.config.offers import deadlines_of, route_of
from fastgw.mcp.envelope import quote
from fastgw.policy.patterns import PROMPT


def prompt_blocks(making: Making) -> Iterator[Block]:
    """Every prompt of an endpoint, server by server."""
    workshop, path, mode = making.workshop, making.path, making.endpoint.naming
    shelves = workshop.as_before(("prompt shelves", path), tuple(_shelf(making, server) for server in making.servers))
    naming = workshop.kept(("prompt naming", path), (shelves,), lambda: assign(mode, shelves, ()))
    making.notices.extend(making.note(f"{PROMPT}{one.subject}", one.text) for one in naming.notices)
    for shelf in shelves:
        yield _block(making, shelf, naming)


def _shelf(making: Making, server: str) -> Shelf:
    taken = making.stock.filters[server]
    prompts = making.goods(server).prompts
    asking = tuple([own for own in prompts if taken.gives_prompt(server, own)])
    return Shelf(server, making.stock.alias(server), asking)


def _block(making: Making, shelf: Shelf, naming: Naming) -> Block:
    workshop, server = making.workshop, shelf.server
    named = tuple([(own, name) for own in shelf.tools if (name := naming.names.get((server, own))) is not None])
    names = workshop.as_before(("prompt names", making.path, server), named)
    prompts = making.goods(server).prompts
    return workshop.kept(
        ("prompts", making.path, server), (names, prompts), lambda: _made(making, server, names, prompts)
    )


def _made(making: Making, server: str, names: Sequence[tuple[str, str]], prompts: dict[str, Definition]) -> Block:
    deadlines = deadlines_of(making, server)
    arms = (Arm(None, (Target(server, own, quote(own)),), deadlines) for own, _ in names)
    rows = [_row(making, name, arm, prompts[own]) for (own, name), arm in zip(names, arms, strict=True)]
    return Block(making.workshop.prompt_rules, [row for row in rows if row is not None])


def _row(making: Making, name: str, arm: Arm, definition: Definition) -> Row | None:
    """The prompt unless it is not among those of this endpoint."""
    own = definition.server, definition.key
    sources = ("/".join(own),)
    if not making.taken.takes_prompt(name, sources):
        return None
    face = Face(entry(quote(name), definition.tails, Sort.PROMPT.key), (), b"")
    known_as = making.stock.known_as(name, [own])
    route = route_of(name, (arm,), known_as, (face,))
    bits = making.workshop.prompt_rules.bits(name, sources, known_as)
    return row_of(Offer(route, (sources,), (face,)), bits, definition)
