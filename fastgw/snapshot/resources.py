"""The resources and templates of one endpoint, before it is asked who may see them: whose each is, and how shown."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fastgw.catalog.definitions import DefinitionKind, tails
from fastgw.catalog.listing import entry
from fastgw.catalog.route import Arm
from fastgw.catalog.uris import ServerUris, Uris
from fastgw.protocol import links
from fastgw.protocol.envelope import quote
from fastgw.snapshot.endpoint_builder import Definitions, EndpointBuilder
from fastgw.snapshot.sections import UriRow, UriSection
from fastgw.snapshot.tools import deadlines_of


def reading_of(builder: EndpointBuilder) -> tuple[Uris, dict[str, Arm], list[UriSection], list[UriSection]]:
    """`Endpoint.uris` and `readers`, resources and templates by server; tools name pages as agents do."""
    cache, path, mode, only = builder.cache, builder.path, builder.endpoint.naming, builder.taken.uris
    found = [one for server in builder.servers if (one := _server_uris(builder, server)) is not None]
    servers = cache.as_before(("server uris", path), tuple(found))
    uris = cache.kept(("uris", path), (servers,), lambda: Uris(mode, servers, only))
    builder.notices.extend(builder.note(one.subject, one.text) for one in uris.tables.notices)
    builder.tools = {server: _definitions(builder, server, uris) for server in builder.servers}
    readers = cache.kept(
        ("readers", path),
        (servers,),
        lambda: {one.server: Arm(None, (), deadlines_of(builder, one.server)) for one in servers},
    )
    resources, templates = (
        [_section(builder, kind, one.server, uris) for one in servers]
        for kind in (DefinitionKind.RESOURCE, DefinitionKind.TEMPLATE)
    )
    return uris, readers, resources, templates


def _server_uris(builder: EndpointBuilder, server: str) -> ServerUris | None:
    """The server's URIs; None where it declares no resources, or none of them are taken."""
    offer, taken = builder.offer(server), builder.catalogues.filters[server]
    if "resources" not in offer.declares or taken.no_uris or builder.taken.no_uris:
        return None
    alias = builder.catalogues.alias(server)
    return ServerUris(server, alias, tuple(offer.resources), tuple(offer.templates), taken.uris)


def _section(builder: EndpointBuilder, kind: DefinitionKind, server: str, uris: Uris) -> UriSection:
    """What of it is listed, in the server's order; the rest is hidden or not taken."""
    cache, path, offer = builder.cache, builder.path, builder.offer(server)
    listed = offer.resources if kind is DefinitionKind.RESOURCE else offer.templates
    named = [(uri, own, uris.known_as(server, own)) for own in listed if (uri := uris.listed(server, own)) is not None]
    places = cache.as_before((kind, "uris", path, server), tuple(named))
    return cache.kept(
        (kind, path, server),
        (places, listed),
        lambda: UriSection(
            server,
            [UriRow(uri, own, also, entry(quote(uri), listed[own].tails, kind.key)) for uri, own, also in places],
        ),
    )


def _definitions(builder: EndpointBuilder, server: str, uris: Uris) -> Definitions:
    """The server's tools; those that point at a resource (`_meta.ui.resourceUri`) name it as agents know it."""
    cache, path, tools = builder.cache, builder.path, builder.offer(server).tools
    pointing = cache.kept(
        ("pointing", path, server),
        (tools,),
        lambda: [name for name, tool in tools.items() if b"resourceUri" in tool.members.get("_meta", b"")],
    )
    if not pointing or not uris.rewrites(server):
        return tools
    expose = partial(uris.exposed, server)
    shown = {name: links.definition(tools[name].members, expose) for name in pointing}
    shown = cache.as_before(("pointers", path, server), shown)
    made = {name: replace(tools[name], members=new, tails=tails(new)) for name, new in shown.items()}
    return cache.kept(("pointed", path, server), (tools, shown), lambda: {**tools, **made})
