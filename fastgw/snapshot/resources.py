"""The resources and templates of one endpoint, before it is asked who may see them: whose each URI is, how it is
shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from fastgw.catalog.definitions import Definition, DefinitionKind
from fastgw.catalog.listing import entry
from fastgw.catalog.route import Arm
from fastgw.catalog.tools import ToolDefinition, tails
from fastgw.catalog.uris import ServerUris, UriNaming, Uris, assign_uris
from fastgw.protocol import links
from fastgw.protocol.envelope import quote
from fastgw.snapshot.endpoint_builder import Definitions, EndpointBuilder
from fastgw.snapshot.sections import UriRow, UriSection
from fastgw.snapshot.tools import deadlines_of

DECLARED = "resources"
_META = "_meta"

Place = tuple[str, str, tuple[str, ...]]
"""A URI or the text of a template: its server's own, as agents know it, and what else it is called."""


@dataclass(frozen=True, slots=True)
class ReadableResources:
    """What can be read on an endpoint.

    Args:
        uris: whose each URI is.
        readers: by server, see `Endpoint.readers`.
        resources, templates: server by server.
    """

    uris: Uris
    readers: dict[str, Arm]
    resources: list[UriSection]
    templates: list[UriSection]


def reading_of(builder: EndpointBuilder) -> ReadableResources:
    """The resources of an endpoint; on the way its tools get the definitions that agents are shown."""
    cache, path, mode, only = builder.cache, builder.path, builder.endpoint.naming, builder.taken.uris
    found = (_uri_shelf(builder, server) for server in builder.servers)
    shelves = cache.as_before(("uri shelves", path), tuple(shelf for shelf in found if shelf is not None))
    naming = cache.kept(("uris", path), (shelves,), lambda: assign_uris(mode, shelves, only))
    builder.notices.extend(builder.note(one.subject, one.text) for one in naming.notices)
    builder.tools = {server: _definitions(builder, server, naming.uris) for server in builder.servers}
    return ReadableResources(
        naming.uris,
        cache.kept(("readers", path), (shelves,), lambda: _readers(builder, shelves)),
        [_block(builder, DefinitionKind.RESOURCE, shelf, naming) for shelf in shelves],
        [_block(builder, DefinitionKind.TEMPLATE, shelf, naming) for shelf in shelves],
    )


def _uri_shelf(builder: EndpointBuilder, server: str) -> ServerUris | None:
    """The server's URIs; None where it declares no resources, or none of them are taken."""
    offer, taken = builder.offer(server), builder.catalogues.filters[server]
    if DECLARED not in offer.declares or taken.no_uris or builder.taken.no_uris:
        return None
    return ServerUris(
        server, builder.catalogues.alias(server), tuple(offer.resources), tuple(offer.templates), taken.uris
    )


def _readers(builder: EndpointBuilder, shelves: Iterable[ServerUris]) -> dict[str, Arm]:
    return {shelf.server: Arm(None, (), deadlines_of(builder, shelf.server)) for shelf in shelves}


def _block(builder: EndpointBuilder, sort: DefinitionKind, shelf: ServerUris, naming: UriNaming) -> UriSection:
    """What of it is listed, in the server's order; the rest is hidden or not taken."""
    offer, server = builder.offer(shelf.server), shelf.server
    listed, shown = offer.resources, naming.resources
    if sort is DefinitionKind.TEMPLATE:
        listed, shown = offer.templates, naming.templates
    known_as = naming.uris.known_as
    named = tuple(
        [(own, uri, known_as(server, own)) for own in listed if (uri := shown.get((server, own))) is not None]
    )
    cache, path = builder.cache, builder.path
    places = cache.as_before((sort, "uris", path, server), named)
    return cache.kept((sort, path, server), (places, listed), lambda: _made(server, sort, places, listed))


def _made(server: str, sort: DefinitionKind, places: Iterable[Place], listed: Mapping[str, Definition]) -> UriSection:
    rows = [UriRow(uri, own, also, entry(quote(uri), listed[own].tails, sort.key)) for own, uri, also in places]
    return UriSection(server, rows)


# -- tools --------------------------------------------------------------------------------------------------------


def _definitions(builder: EndpointBuilder, server: str, uris: Uris) -> Definitions:
    """The server's tools; those that point at a resource (`_meta.ui.resourceUri`) name it as agents know it."""
    cache, path, tools = builder.cache, builder.path, builder.offer(server).tools
    pointing = cache.kept(("pointing", path, server), (tools,), lambda: _pointing(tools))
    if not pointing or not uris.rewrites(server):
        return tools
    expose = partial(uris.exposed, server)
    metas = {name: links.definition({_META: meta}, expose)[_META] for name, meta in pointing.items()}
    metas = cache.as_before(("pointers", path, server), metas)
    return cache.kept(("pointed", path, server), (tools, metas), lambda: _pointed(tools, metas))


def _pointing(tools: Definitions) -> dict[str, bytes]:
    """`_meta` of the tools that may point at a resource, by own name."""
    return {name: meta for name, tool in tools.items() if b"resourceUri" in (meta := tool.members.get(_META, b""))}


def _pointed(tools: Definitions, metas: Mapping[str, bytes]) -> Definitions:
    return {name: _with_meta(tool, metas[name]) if name in metas else tool for name, tool in tools.items()}


def _with_meta(tool: ToolDefinition, meta: bytes) -> ToolDefinition:
    found = {**tool.members, _META: meta}
    return tool if meta == tool.members[_META] else replace(tool, members=found, tails=tails(found))
