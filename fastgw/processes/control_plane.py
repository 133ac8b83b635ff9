"""What the controller decides by: the settings, the servers' catalogues and eras, and whose session is whose."""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import orjson

from fastgw import __version__
from fastgw.catalog.definitions import DefinitionKind
from fastgw.catalog.elements import Notice
from fastgw.catalog.naming import LONGEST_OWN
from fastgw.catalog.pins import CHANGE_KINDS, ToolChange
from fastgw.catalog.tools import listed
from fastgw.config.schema.settings import Settings, is_loopback
from fastgw.credentials import choices_of, grant_of, header_lines, own_credential
from fastgw.credentials.expiry import agent_keys, certificates
from fastgw.credentials.server_tokens import ServerTokens
from fastgw.policy.match import Principal
from fastgw.processes.plan import Plan, plan_of
from fastgw.processes.token_issuers import TokenIssuers
from fastgw.snapshot.access import who_sees
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.changes import changes, offered
from fastgw.snapshot.compiler import Learned, compile_snapshot, effective_era
from fastgw.snapshot.model import Backend, ServerCredential, Snapshot
from fastgw.snapshot.trace import TracedCall, trace
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.discovery.poll import CatalogueFetcher
from fastgw.upstream.discovery.status import WatchedServer
from fastgw.upstream.health import HealthChecks, HealthPolicy
from fastgw.upstream.instances import Instances
from fastgw.upstream.rpc import RpcClient, RpcClients, question
from fastgw.upstream.sessions import UpstreamSessions

log = logging.getLogger("fastgw")

MOST_LOGGED = 50
"""Notices of one compile that are logged."""
MOST_SHOWN = 100
"""Tools of one server that are not as they are pinned, on `/backends`; notices name all."""


class ControlPlane:
    """Of the real gateway (`plan.ControlPlanePort`); `keys` are the master secrets for sealing."""

    def __init__(self, plan: Plan, keys: tuple[bytes, ...], tasks: BackgroundTasks) -> None:
        self._settings: Settings = plan.settings
        self._cache: CompileCache
        self._keys = keys
        self._tasks = tasks
        self._instances = Instances(tasks.spawn)
        self._snapshot: Snapshot | None = None
        self._notices: tuple[Notice, ...] = ()
        self._changed_since: dict[tuple[str, ToolChange], float] = {}
        """Since when tools are not as they are pinned, in Unix seconds; by server."""
        self._changed: Callable[[], None] = _no_listener
        self._fresh: Callable[[dict[str, float]], None] = _no_listener
        self._learned: Callable[[str, str, str], None] = _no_listener
        self._statuses: dict[str, tuple[str, str]] = {}
        ours = orjson.dumps({"name": "fastgw", "version": __version__})
        self.tokens = ServerTokens(tasks.spawn, lambda *series: self.count(*series))
        self._own_grants: dict[str, str] = {}
        self.count: Callable[..., object] = _no_listener
        """Counts a metric."""
        clients = RpcClients(self._asker, tasks.spawn, ours, shown=self._shown)
        self._sessions = UpstreamSessions(clients, plan.data / "shared-sessions.json")
        changed, fresh = lambda: self._changed(), lambda: self._fresh(self._catalogues.freshness())
        self._catalogues: CatalogueFetcher = CatalogueFetcher(clients, self._sessions, plan.data, changed, fresh)
        self._catalogues.on_era = self._era_found
        self.health = HealthChecks(clients, self._sessions, self._catalogues.status)
        self.token_issuers = TokenIssuers(plan.data, tasks)
        self.questions: dict[str, Callable[..., Any]] = {
            "open_session": self._sessions.open,
            "keep_session": self._sessions.keep,
            "end_session": self._sessions.end,
            "doubt_era": self._catalogues.doubt,
            "refresh": self._catalogues.refresh,
            "server_token": self.tokens.token,
            **self.token_issuers.questions,
        }
        # What is kept of the catalogues is known from here on: names do not depend on who is up.
        self.reload(plan.settings)

    # -- snapshots -----------------------------------------------------------------------------------------------

    def compile(self, generation: int) -> Snapshot:
        learned = Learned(
            catalogues=self._catalogues.catalogues(),
            eras=self._catalogues.eras,
            credentials=_credentials(self._settings),
            choices=_choices(self._settings),
            # Those of the start where the configuration names none now.
            seal_keys=tuple(secret.encode() for secret in plan_of(self._settings).secrets) or self._keys,
            version=__version__,
            gateway=platform.node(),
        )
        self._cache.strangers = self.token_issuers.strangers()
        with no_collections():
            snapshot, notices = compile_snapshot(self._settings, learned, generation, self._cache)
        _log_new(notices, set(self._notices))
        self._snapshot, self._notices = snapshot, notices
        self._changed_since = {
            (server, one): self._changed_since.get((server, one), offer.catalogue.fetched_at)
            for server, offer in self._cache.catalogues.offer.items()
            if offer.catalogue is not None
            for one in offer.changes or ()
        }
        return snapshot

    def meet(self, path: str, principal: Principal) -> bool:
        """Whether a compile is needed for one who is known by claims alone, since its class is new at this endpoint."""
        if self._snapshot is None:
            return True
        endpoint = self._snapshot.endpoints.get(path)
        return endpoint is not None and self.token_issuers.meet(endpoint, principal)

    def reload(self, settings: Settings) -> None:
        """Go by these settings from now on.

        Raises:
            ValueError: the file lets anybody in, which was checked against an address that is not the one in use.
        """
        settings = self._servable(settings)
        # As the configuration alone says: what is learned of eras must not look like a change of the server.
        learned = Learned(credentials=_credentials(settings), choices=_choices(settings))
        snapshot = compile_snapshot(settings, learned, 0)[0]
        self._settings = settings
        grants = [
            (name, one.oauth) for name, server in settings.servers.items() for one in server.credential if one.oauth
        ]
        self.tokens.watch({(name, grant_of(oauth)): oauth for name, oauth in grants})
        own = {name: own_credential(server) for name, server in settings.servers.items()}
        self._own_grants = {name: grant_of(one.oauth) for name, one in own.items() if one is not None and one.oauth}
        self._cache = CompileCache(settings)
        self._instances.load(snapshot)
        self._catalogues.watch(
            WatchedServer(snapshot.backends[name], server.era, server.refresh, server.on_change != "accept")
            for name, server in settings.servers.items()
            if snapshot.backends[name].instances
        )
        self.health.watch(_health_policies(settings, self.servers))
        self.token_issuers.watch(settings)
        self._era_found()

    def _servable(self, settings: Settings) -> Settings:
        # The socket stays where it is: by another address, every `Host` that agents can write would be a strange one.
        settings = settings.model_copy(update={"listen": self._settings.listen})
        open_to_all = [path for path, one in (settings.endpoints or {}).items() if one.auth == ("none",)]
        if open_to_all and not is_loopback(settings.listen):
            raise ValueError(
                f"{open_to_all[0]}: auth: none is for loopback only, and listen is {settings.listen} still"
            )
        return settings

    async def diff(self, settings: Settings) -> dict[str, Any]:
        """What `reload` would change; raises the same. In a thread: of large catalogues it takes a second."""
        catalogues = self._catalogues.catalogues()
        return await asyncio.to_thread(changes, self._settings, self._servable(settings), catalogues)

    def _asker(self, key: str) -> RpcClient:
        instance = self._instances.find(key)
        return RpcClient(instance.http, instance.backend, self._tasks.spawn, question(instance.backend.start_timeout))

    async def _shown(self, backend: Backend, refused: bytes = b"") -> bytes:
        """The header lines of the gateway's own requests to a server; raises as `ServerTokens.token`."""
        grant = self._own_grants.get(backend.name)
        if grant is None:
            return backend.headers
        return backend.headers + (await self.tokens.token(backend.name, grant, None, refused)).line

    # -- what runs beside ------------------------------------------------------------------------------------------

    def begin(
        self,
        changed: Callable[[], None],
        fresh: Callable[[dict[str, float]], None],
        learned: Callable[[str, str, str], None],
    ) -> None:
        self._changed, self._fresh, self._learned = changed, fresh, learned
        self._tasks.spawn(self._sessions.run(), "upstream sessions")
        self.token_issuers.keys.begin()
        changed()

    def instance_statuses(self) -> dict[str, tuple[str, str]]:
        servers, eras = self._settings.servers, self._catalogues.eras
        return {
            (key := instance.address.key): effective_era(servers[instance.backend.name].era, eras[key])
            for instance in self._instances
            if instance.address.key in eras
        }

    def _era_found(self, _: str = "") -> None:
        """Workers go by it at once: a compile would give the same lists."""
        before, self._statuses = self._statuses, self.instance_statuses()
        for key, status in self._statuses.items():
            if before.get(key) != status:
                self._learned(key, *status)

    def touched(self, sessions: list[tuple[str, str]]) -> None:
        for instance, identity in sessions:
            self._sessions.touch(instance, identity)

    def adopted(self, sessions: list[tuple[str, str, UpstreamSession]]) -> None:
        self._sessions.adopt(sessions)

    def initialized(self) -> bool:
        return self._catalogues.settled

    async def close(self) -> None:
        self.health.close()
        self._catalogues.close()
        await self._sessions.close(0.5)

    # -- what operators see ----------------------------------------------------------------------------------------

    def backends(self) -> dict[str, Any]:
        return {
            name: {**known, "sessions": self._sessions.count(name), "pins": self._pins(name)}
            for name, known in self._catalogues.state().items()
        }

    def _pins(self, server: str) -> dict[str, Any] | None:
        """How its tools differ from what is pinned, since when in Unix seconds; None where nothing is."""
        if (changes := self._cache.catalogues.offer[server].changes) is None:
            return None
        kinds = Counter(one.kind for one in changes)
        rows = [
            {**asdict(one), "tool": one.tool[:LONGEST_OWN], "since": self._changed_since.get((server, one), 0.0)}
            for one in changes[:MOST_SHOWN]
        ]
        return {**{kind: kinds[kind] for kind in CHANGE_KINDS}, "tools": rows}

    def definitions(self) -> dict[str, str | None]:
        """By server, the tools that it lists now, as JSON text; None of one that has never answered."""
        found = self._catalogues.catalogues()
        return {
            name: listed(DefinitionKind.TOOL, found[name].tools).decode() if name in found else None
            for name in self._settings.servers
        }

    def expiries(self) -> dict[tuple[str, ...], float]:
        certificate, key = "fastgw_certificate_expiry_timestamp_seconds", "fastgw_agent_key_expiry_timestamp_seconds"
        return {
            **{(certificate, *labels): at for labels, at in certificates(self.servers).items()},
            **{(key, *labels): at for labels, at in agent_keys(self._settings.agents).items()},
        }

    @property
    def servers(self) -> list[Backend]:
        return self._catalogues.backends

    async def who_sees(self, find: str, most: int) -> dict[str, Any]:
        endpoints = self._snapshot.endpoints if self._snapshot is not None else {}
        return await asyncio.to_thread(who_sees, endpoints, find.lower(), most)

    async def explain(self, call: TracedCall) -> dict[str, Any]:
        catalogues = self._catalogues.catalogues()
        return asdict(await asyncio.to_thread(trace, self._settings, catalogues, call, lambda _, arguments: arguments))

    def catalogue(self) -> dict[str, Any]:
        endpoints = self._snapshot.endpoints if self._snapshot is not None else {}
        found = {path: offered(endpoint) for path, endpoint in endpoints.items()}
        uris = ("resources", "templates")
        return {
            "endpoints": {path: {name: {"to": to} for name, to in one["tools"].items()} for path, one in found.items()},
            "prompts": {path: one["prompts"] for path, one in found.items()},
            **{
                kind: {path: {uri: to[0] for uri, to in one[kind].items()} for path, one in found.items()}
                for kind in uris
            },
            "notices": [
                {"subject": notice.subject, "text": notice.text, "endpoint": notice.endpoint or None}
                for notice in self._notices
            ],
        }


@contextmanager
def no_collections() -> Iterator[None]:
    """No collection of cycles while much is built that lives on and has none: 450 ms instead of 650 for 10,000 tools.

    It is not frozen afterwards: that would also keep, for good, whatever cycles happen to be dead at that moment.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _log_new(notices: Sequence[Notice], known: Set[Notice]) -> None:
    """Write down what was not known, as far as a reader could take it in: a server whose list changes every second
    with ten thousand notices must not fill a disk, and collisions of names, which come in dozens, are one line.
    """
    new = [notice for notice in notices if notice not in known]
    moved = [notice for notice in new if notice.moves]
    if len(moved) > 1:
        new = [notice for notice in new if not notice.moves]
        words = "%d names or URIs are taken by another server or too long, and renamed or hidden: all are on /catalogue"
        log.warning(words, len(moved))
    for notice in new[:MOST_LOGGED]:
        log.warning("%s", notice)
    if len(new) > MOST_LOGGED:
        log.warning("%d more notices like these: all are on /catalogue", len(new) - MOST_LOGGED)


def _no_listener(*_: Any) -> None:
    """Takes changes before `begin`."""


def _health_policies(settings: Settings, servers: Iterable[Backend]) -> dict[str, HealthPolicy]:
    """By instance key, of those that are to be checked."""
    found: dict[str, HealthPolicy] = {}
    for backend in servers:
        one = settings.servers[backend.name].health or settings.health
        if one.interval is not None:
            policy = HealthPolicy(one.interval, one.timeout, one.unhealthy_after, one.healthy_after)
            found |= dict.fromkeys((instance.key for instance in backend.instances), policy)
    return found


def _credentials(settings: Settings) -> dict[str, bytes]:
    found = {name: own_credential(server) for name, server in settings.servers.items()}
    return {name: header_lines(one) for name, one in found.items() if one is not None}


def _choices(settings: Settings) -> dict[str, tuple[ServerCredential, ...]]:
    return {name: found for name, server in settings.servers.items() if (found := choices_of(server))}
