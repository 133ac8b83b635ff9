"""Settings and catalogues become one `Snapshot`: all that a request looks up is worked out here, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fastgw.catalog.elements import Notice
from fastgw.catalog.tools import Catalogue
from fastgw.config.addresses import hosts, origins
from fastgw.config.instance_urls import instance_key
from fastgw.config.rules import failed_credentials_of, limits_of, quotas_of, sampling_of
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.policy.match import ANONYMOUS, Principal
from fastgw.policy.networks import Networks
from fastgw.protocol import names
from fastgw.protocol.names import MODERN_VERSION, Era
from fastgw.protocol.trace_context import PARENT, STATE
from fastgw.snapshot.cache import CompileCache, EndpointBuilder, ServerCatalogues
from fastgw.snapshot.exposure import PromptExposure, ToolExposure, reading_of
from fastgw.snapshot.model import Address, Backend, Endpoint, KeyEntry, ServerCredential, Snapshot, fresh_until
from fastgw.snapshot.visibility import EndpointSections, joined, views_of

DEFAULT_ENDPOINT = "/mcp"
BODY = 30.0
"""Seconds an agent has to send its body, at most."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known beside the configuration.

    Args:
        eras: by `Address.key`: `Era.value` (None while unknown) and the revision to speak (empty while unknown).
        credentials: by server: header lines with its credential, each ended by CRLF; of several that of the gateway
            itself. choices: by server, all of several, or those that are not for everyone.
        seal_keys: master secrets, first seals, all open.
        gateway: which fastgw this is, where `usage.gateway` does not say.
    """

    catalogues: Mapping[str, Catalogue | None] = field(default_factory=dict)
    eras: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    choices: Mapping[str, tuple[ServerCredential, ...]] = field(default_factory=dict, repr=False)
    seal_keys: tuple[bytes, ...] = field(default=(), repr=False)
    version: str = "0"
    gateway: str = ""


def compile_snapshot(
    settings: Settings, learned: Learned, generation: int, cache: CompileCache | None = None
) -> tuple[Snapshot, tuple[Notice, ...]]:
    """The snapshot, and what the operator should hear; what has not changed since `cache` is not made again."""
    if cache is None or cache.settings is not settings:
        cache = CompileCache(settings)
    catalogues, agents = cache.catalogues, cache.agents
    catalogues.take(learned.catalogues)
    fresh = {name: one.fresh_until for name, one in learned.catalogues.items() if one is not None}
    endpoints = endpoints_of(settings).items()
    made = [_endpoint(EndpointBuilder(cache, path, endpoint), fresh) for path, endpoint in endpoints]
    notices = [*catalogues.notices, *(notice for offer in catalogues.offer.values() for notice in offer.notices)]
    notices.extend(notice for _, found in made for notice in found)
    snapshot = Snapshot(
        generation=generation,
        endpoints={endpoint.path: endpoint for endpoint, _ in made},
        backends={name: _backend(name, server, learned, catalogues) for name, server in settings.servers.items()},
        keys=_keys(settings, agents),
        hosts=hosts(settings),
        origins=origins(settings),
        max_body=settings.max_body,
        max_reply=settings.max_reply,
        seal_keys=learned.seal_keys,
        server_name="fastgw",
        server_version=learned.version,
        gateway=settings.usage.gateway or learned.gateway,
        currency=settings.usage.currency,
        labels=settings.usage.labels,
        # The oldest secret: a person is the same before and after a new one comes.
        user_key=(learned.seal_keys or (b"",))[-1] if settings.usage.users == "hashed" else None,
        body_deadline=min(BODY, settings.timeout),
        longest=_longest(settings),
        limits=limits_of(settings),
        quotas=quotas_of(settings),
        failed_credentials=failed_credentials_of(settings),
        sample=sampling_of(settings),
        issuers=cache.issuers,
        header_identities=cache.header_identities,
        trusted_proxies=_trusted_proxies(settings),
    )
    return snapshot, tuple(notices)


def endpoints_of(settings: Settings) -> Mapping[str, EndpointSettings]:
    """The endpoints by path: where none are written, the usual one."""
    return {DEFAULT_ENDPOINT: EndpointSettings()} if settings.endpoints is None else settings.endpoints


def _endpoint(builder: EndpointBuilder, fresh: Mapping[str, float]) -> tuple[Endpoint, list[Notice]]:
    uris, readers, resources, templates = reading_of(builder)
    tools = ToolExposure(builder).sections()
    sections: EndpointSections = {
        names.TOOLS_LIST: tools,
        names.PROMPTS_LIST: PromptExposure(builder).sections(),
        names.RESOURCES_LIST: resources,
        names.TEMPLATES_LIST: templates,
    }
    settings, cache, ways = builder.endpoint, builder.cache, builder.endpoint.auth
    # Where API keys are no way in, their agents have no view: they are strangers here.
    known = cache.agents.values() if ways is None or not {"keys", "none"}.isdisjoint(ways) else ()
    issuers = tuple(name for name in cache.issuers if ways is None or name in ways)
    proxies = tuple(name for name in cache.header_identities if ways is None or name in ways)
    by_claims = bool(issuers or proxies)
    strangers = cache.strangers.get(builder.path, ()) if by_claims else ()
    made = views_of(builder, sections, (ANONYMOUS, *known), strangers)
    endpoint = Endpoint(
        path=builder.path,
        routes=joined(section.routes for section in tools),
        view_of=made.view_of,
        views=made.views,
        anonymous=settings.auth == ("none",),
        fresh_until=fresh_until(builder.servers, fresh),
        servers=builder.servers,
        instructions=settings.instructions,
        uris=uris,
        readers=readers,
        completes=frozenset(
            server for server in builder.servers if "completions" in builder.catalogues.offer[server].declares
        ),
        origins=None if settings.origins is None else frozenset(settings.origins),
        server_timing=settings.server_timing,
        guides=made.guides,
        resources=tuple(f"{url}{builder.path}" for url in cache.settings.public_url),
        issuers=issuers,
        proxies=proxies,
        traits=made.traits if by_claims else None,
        view_of_class=made.view_of_class if by_claims else {},
    )
    return endpoint, [*builder.notices, *(notice for section in tools for notice in section.notices)]


def _trusted_proxies(settings: Settings) -> Networks:
    named = [text for one in settings.identity.values() if one.header is not None for text in one.header.from_]
    return Networks.of(tuple(dict.fromkeys((*settings.trusted_proxies, *named))))


def _longest(settings: Settings) -> float:
    """The longest time that anything in the file grants a call, in seconds."""
    places: list[Any] = [settings]
    for group in (settings.servers, settings.endpoints, settings.tools):
        places.extend((group or {}).values())
    return max(max(place.timeout or 0.0, place.max_timeout or 0.0) for place in places)


def _keys(settings: Settings, agents: Mapping[str, Principal]) -> dict[str, KeyEntry]:
    return {
        key.sha256: KeyEntry(Principal(name, principal.claims, f"key:{key.sha256[:8]}"), key.expires)
        for name, principal in agents.items()
        for key in settings.agents[name].key
    }


def _backend(name: str, server: ServerSettings, learned: Learned, catalogues: ServerCatalogues) -> Backend:
    plain = {header: value for header, value in server.headers.items() if header.lower() != "host"}
    lines = "".join(f"{header}: {value}\r\n" for header, value in plain.items()).encode("latin-1")
    tls = server.tls
    addresses = []
    for one in server.url:
        key = instance_key(name, one.url)
        era, version = effective_era(server.era, learned.eras.get(key, (None, "")))
        addresses.append(Address(key, name, one.url, era, version, one.shown, float(one.share or 0)))
    breaker = server.breaker or catalogues.settings.breaker
    return Backend(
        name=name,
        instances=tuple(addresses),
        headers=lines + learned.credentials.get(name, b""),
        tls=(tls.ca, tls.cert, tls.key) if tls else (None, None, None),
        shared_session=server.shared_session,
        session_idle=server.session_idle,
        max_sessions=server.max_sessions,
        maintenance=server.maintenance,
        logs="logging" in catalogues.offer[name].declares,
        start_timeout=server.start_timeout,
        host=next((value for header, value in server.headers.items() if header not in plain), None),
        server_name=tls.server_name if tls else None,
        tls_contents=tls.contents if tls else "",
        backup=server.backup,
        breaker=(breaker.failures, breaker.open_for),
        max_in_flight=server.max_in_flight,
        queue=(server.max_in_flight or 0) if server.queue is None else server.queue,
        credentials=tuple([replace(one, lines=lines + one.lines) for one in learned.choices.get(name, ())]),
        forwards=tuple(
            [
                (header.lower().encode(), f"{header}: ".encode())
                for header in server.forward_headers
                if header.lower() not in (PARENT, STATE)  # every server hears of its trace, in words of ours
            ]
        ),
    )


def effective_era(configured: str, found: tuple[T, str]) -> tuple[T | str, str]:
    """(era, revision) to go by: where the configuration names the era, what was found of the other is not used."""
    if configured in ("auto", found[0]):
        return found
    return configured, MODERN_VERSION if configured == Era.MODERN.value else ""
