"""Settings and catalogues become one `Snapshot`: all that a request looks up is worked out here, once.

Knows: which part of the configuration fills which part of the snapshot. Refuses to know: files, clocks, connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import Catalogue
from fastgw.config.addresses import hosts, origins
from fastgw.config.conditions import policies_of
from fastgw.config.instances import instance_key
from fastgw.config.offers import Shelves, Stock, offers_of
from fastgw.config.servers import Server
from fastgw.config.settings import Endpoint as EndpointSettings
from fastgw.config.settings import Settings
from fastgw.config.snapshot import Backend, Endpoint, Instance, KeyEntry, Snapshot, fresh_until
from fastgw.config.views import Views
from fastgw.mcp.names import MODERN_VERSION, Era
from fastgw.policy.authorise import Rules
from fastgw.policy.principal import ANONYMOUS, Principal

DEFAULT_ENDPOINT = "/mcp"
BODY = 30.0
"""Seconds an agent has to send its body, at most."""

Eras = Mapping[str, tuple[str | None, str]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known beside the configuration.

    Args:
        catalogues: by server; None or missing where it has never answered.
        eras: by `Instance.key`: `Era.value` (None while unknown) and the revision to speak (empty while unknown).
        credentials: by server: header lines with its credential, each ended by CRLF.
        seal_keys: master secrets, first seals, all open.
        version: of the gateway, for its `serverInfo`.
        gateway: which fastgw this is, where `usage.gateway` does not say.
    """

    catalogues: Mapping[str, Catalogue | None] = field(default_factory=dict)
    eras: Eras = field(default_factory=dict)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    seal_keys: tuple[bytes, ...] = field(default=(), repr=False)
    version: str = "0"
    gateway: str = ""


def compile_snapshot(settings: Settings, learned: Learned, generation: int) -> tuple[Snapshot, tuple[Notice, ...]]:
    """The snapshot, and what the operator should hear about it."""
    stock = Stock(settings, learned.catalogues)
    rules = Rules(policies_of(settings.policies))
    agents = _agents(settings)
    making = [offers_of(stock, path, endpoint) for path, endpoint in _endpoints(settings).items()]
    notices = [*stock.notices, *(notice for one in making for notice in one.notices)]
    snapshot = Snapshot(
        generation=generation,
        endpoints={one.path: _endpoint(one, rules, agents, learned) for one in making},
        backends={name: _backend(name, server, learned) for name, server in settings.servers.items()},
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
        body_deadline=min(BODY, settings.timeout),
    )
    return snapshot, tuple(notices)


def _endpoints(settings: Settings) -> Mapping[str, EndpointSettings]:
    return {DEFAULT_ENDPOINT: EndpointSettings()} if settings.endpoints is None else settings.endpoints


def _endpoint(making: Shelves, rules: Rules, agents: Mapping[str, Principal], learned: Learned) -> Endpoint:
    views = Views(making.path, making.offers, rules)
    auth = making.endpoint.auth
    view_of = {ANONYMOUS.agent: views.index(ANONYMOUS)}
    # Where API keys are no way in, their agents have no view: they are strangers here.
    if auth is None or "keys" in auth or "none" in auth:
        view_of.update({name: views.index(principal) for name, principal in agents.items()})
    return Endpoint(
        path=making.path,
        routes={offer.route.name: offer.route for offer in making.offers},
        views=tuple(views.built),
        view_of=view_of,
        anonymous=auth == ("none",),
        fresh_until=fresh_until(making.servers, _freshness(learned)),
        servers=making.servers,
        instructions=making.endpoint.instructions,
    )


def _freshness(learned: Learned) -> dict[str, float]:
    return {name: one.fresh_until for name, one in learned.catalogues.items() if one is not None}


def _agents(settings: Settings) -> dict[str, Principal]:
    """Every agent that may come in, by name; which key it showed is added per key."""
    return {
        name: Principal(
            name, {claim: values[0] if len(values) == 1 else values for claim, values in agent.claims.items()}
        )
        for name, agent in settings.agents.items()
        if not agent.disabled
    }


def _keys(settings: Settings, agents: Mapping[str, Principal]) -> dict[str, KeyEntry]:
    return {
        key.sha256: KeyEntry(Principal(name, principal.claims, f"key:{key.sha256[:8]}"), key.expires)
        for name, principal in agents.items()
        for key in settings.agents[name].key
    }


def _backend(name: str, server: Server, learned: Learned) -> Backend:
    lines = "".join(f"{header}: {value}\r\n" for header, value in server.headers.items()).encode("latin-1")
    tls = server.tls
    return Backend(
        name=name,
        instances=tuple(_instance(name, server, one.url, learned.eras) for one in server.url),
        headers=lines + learned.credentials.get(name, b""),
        tls=(tls.ca, tls.cert, tls.key) if tls else (None, None, None),
        transport=server.transport,
        shared_session=server.shared_session,
        session_idle=server.session_idle,
        max_sessions=server.max_sessions,
        maintenance=server.maintenance,
    )


def _instance(name: str, server: Server, url: str, eras: Eras) -> Instance:
    """One address; where the configuration settles the era, what was learned of the other one is not used."""
    key = instance_key(name, url)
    era, version = eras.get(key, (None, ""))
    if server.era != "auto" and era != server.era:
        era, version = server.era, MODERN_VERSION if server.era == Era.MODERN.value else ""
    return Instance(key, name, url, era, version)
