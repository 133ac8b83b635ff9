"""The resources and templates of one endpoint, before it is asked who may see them: whose each URI is, how it is shown.

Knows: kept catalogues and what `tools:` of servers and endpoints take. Refuses to know: agents and policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from fastgw.catalog.definitions import Definition, Sort
from fastgw.catalog.listing import entry
from fastgw.catalog.route import Arm
from fastgw.catalog.tools import ToolDefinition, tails
from fastgw.catalog.uris import UriNaming, Uris, UriShelf, assign_uris
from fastgw.config.blocks import UriBlock, UriRow
from fastgw.config.making import Definitions, Making
from fastgw.config.offers import deadlines_of
from fastgw.mcp import links
from fastgw.mcp.envelope import quote

DECLARED = "resources"
_META = "_meta"

Place = tuple[str, str, tuple[str, ...]]
"""A URI or the text of a template: its server's own, as agents know it, and what else it is called."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What can be read on an endpoint.

    Args:
        uris: whose each URI is.
        readers: by server, see `Endpoint.readers`.
        resources, templates: server by server.
    """

    uris: Uris
    readers: dict[str, Arm]
    resources: list[UriBlock]
    templates: list[UriBlock]


def reading_of(making: Making) -> Reading:
    """The resources of an endpoint; on the way its tools get the definitions that agents are shown."""
    workshop, path, mode, only = making.workshop, making.path, making.endpoint.naming, making.taken.uris
    found = (_uri_shelf(making, server) for server in making.servers)
    shelves = workshop.as_before(("uri shelves", path), tuple(shelf for shelf in found if shelf is not None))
    naming = workshop.kept(("uris", path), (shelves,), lambda: assign_uris(mode, shelves, only))
    making.notices.extend(making.note(one.subject, one.text) for one in naming.notices)
    making.tools = {server: _definitions(making, server, naming.uris) for server in making.servers}
    return Reading(
        naming.uris,
        workshop.kept(("readers", path), (shelves,), lambda: _readers(making, shelves)),
        [_block(making, Sort.RESOURCE, shelf, naming) for shelf in shelves],
        [_block(making, Sort.TEMPLATE, shelf, naming) for shelf in shelves],
    )


def _uri_shelf(making: Making, server: str) -> UriShelf | None:
    """The server's URIs; None where it declares no resources, or none of them are taken."""
    goods, taken = making.goods(server), making.stock.filters[server]
    if DECLARED not in goods.declares or taken.no_uris or making.taken.no_uris:
        return None
    return UriShelf(server, making.stock.alias(server), tuple(goods.resources), tuple(goods.templates), taken.uris)


def _readers(making: Making, shelves: Iterable[UriShelf]) -> dict[str, Arm]:
    return {shelf.server: Arm(None, (), deadlines_of(making, shelf.server)) for shelf in shelves}


def _block(making: Making, sort: Sort, shelf: UriShelf, naming: UriNaming) -> UriBlock:
    """What of it is listed, in the server's order; the rest is hidden or not taken."""
    goods, server = making.goods(shelf.server), shelf.server
    listed, shown = goods.resources, naming.resources
    if sort is Sort.TEMPLATE:
        listed, shown = goods.templates, naming.templates
    known_as = naming.uris.known_as
    named = tuple(
        [(own, uri, known_as(server, own)) for own in listed if (uri := shown.get((server, own))) is not None]
    )
    workshop, path = making.workshop, making.path
    places = workshop.as_before((sort, "uris", path, server), named)
    return workshop.kept((sort, path, server), (places, listed), lambda: _made(server, sort, places, listed))


def _made(server: str, sort: Sort, places: Iterable[Place], listed: Mapping[str, Definition]) -> UriBlock:
    rows = [UriRow(uri, own, also, entry(quote(uri), listed[own].tails, sort.key)) for own, uri, also in places]
    return UriBlock(server, rows)


# -- tools --------------------------------------------------------------------------------------------------------


def _definitions(making: Making, server: str, uris: Uris) -> Definitions:
    """The server's tools; those that point at a resource (`_meta.ui.resourceUri`) name it as agents know it."""
    workshop, path, tools = making.workshop, making.path, making.goods(server).tools
    pointing = workshop.kept(("pointing", path, server), (tools,), lambda: _pointing(tools))
    if not pointing or not uris.rewrites(server):
        return tools
    expose = partial(uris.exposed, server)
    metas = {name: links.definition({_META: meta}, expose)[_META] for name, meta in pointing.items()}
    metas = workshop.as_before(("pointers", path, server), metas)
    return workshop.kept(("pointed", path, server), (tools, metas), lambda: _pointed(tools, metas))


def _pointing(tools: Definitions) -> dict[str, bytes]:
    """`_meta` of the tools that may point at a resource, by own name."""
    return {name: meta for name, tool in tools.items() if b"resourceUri" in (meta := tool.members.get(_META, b""))}


def _pointed(tools: Definitions, metas: Mapping[str, bytes]) -> Definitions:
    return {name: _with_meta(tool, metas[name]) if name in metas else tool for name, tool in tools.items()}


def _with_meta(tool: ToolDefinition, meta: bytes) -> ToolDefinition:
    found = {**tool.members, _META: meta}
    return tool if meta == tool.members[_META] else replace(tool, members=found, tails=tails(found))
