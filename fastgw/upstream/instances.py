"""What this process has learned about the addresses of servers; survives a reload."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fastgw.config.instance_urls import label
from fastgw.errors import Fault
from fastgw.snapshot.model import Address, Backend, Snapshot
from fastgw.upstream.breaker import Breaker, BreakerNews, BreakerPolicy, BreakerState
from fastgw.upstream.call_context import Spawn
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.transports import down
from fastgw.upstream.transports.http import HttpPool, TransportSettings, tls_context
from fastgw.upstream.transports.streamable_http import StreamableHttp

log = logging.getLogger("fastgw")

MOST_SESSIONS = 20_000  # sessions at one instance that a worker remembers; the controller knows those that fall out

_GRACE = 5.0  # seconds beyond a call's own deadline before its connection may go


LEAST_LATENCY = 0.001
"""Seconds that an instance of which nothing is known counts as taking."""
FORGETTING = 10.0
"""Seconds in which an average counts for 1/e of what it was: an instance that was slow is tried again."""


class Instance:
    """Everything this process has learned about one address of a server.

    Attributes:
        usable: whether calls go here without a second thought: healthy, not drained, its breaker closed, not throttled.
        healthy: as the controller's checks found it last; `drained`: an operator wants no calls here.
        rests_until: CLOCK_MONOTONIC seconds until which it wants no more calls (429, 503 with Retry-After).
        in_flight, calls: now, and since the start.
        latency: moving average of its answers in seconds, as of `measured` (CLOCK_MONOTONIC seconds); it rises to a
            slow answer at once, and falls slowly (peak EWMA).
        last_error: what went wrong last, and when (Unix seconds); `taken_over_by`: who answered a call in its place
            last.
        backend, address: as the newest snapshot describes it.
        settings: what the connections `http` were opened with.
        found_era: what the controller has found that it speaks: newer than any snapshot.
        sessions: by identity.
        suspects: by identity (session id, how often in a row): answered as if the server had lost it.
        levels: by identity (session id, level, turn), the log level that was set, and the task that sets it.
        in_use: calls by identity.
    """

    def __init__(self, backend: Backend, address: Address) -> None:
        self.backend = backend
        self.address = address
        self.settings: TransportSettings
        self.http: HttpPool
        self.transport: StreamableHttp
        self.usable = self.healthy = True
        self.drained = False
        self.breaker = Breaker(BreakerPolicy(*backend.breaker))
        self.rests_until = 0.0
        self.in_flight = self.calls = 0
        self.latency, self.measured = LEAST_LATENCY, 0.0
        self.last_error: tuple[str, float] | None = None
        self.taken_over_by: str | None = None
        self.found_era: str | None = None
        self.sessions: dict[str, UpstreamSession] = {}
        self.suspects: dict[str, tuple[str, int]] = {}
        self.levels: dict[str, tuple[tuple[str, str, int], asyncio.Task[None]]] = {}
        self.in_use: Counter[str] = Counter()

    def judge(self) -> None:
        """Work `usable` out, after something that it depends on has changed."""
        is_closed = self.breaker.state is BreakerState.CLOSED
        self.usable = self.healthy and is_closed and not self.drained and not self.rests_until

    def may_take(self, now: float, *, last: bool) -> bool:
        """Whether a call may go here; `last`: nothing better is left, so only what must not be counts."""
        if self.rests_until and now >= self.rests_until:
            self.rests_until = 0.0
            self.judge()
        if self.usable:
            return True
        if self.drained:
            return False
        if self.breaker.state is BreakerState.CLOSED:
            return last
        return (last or self.healthy) and self.breaker.may_try(now, last=last)

    def report(self) -> dict[str, Any]:
        """What operators want to know of it, fit for JSON."""
        return {
            "in_flight": self.in_flight,
            "calls": self.calls,
            "latency_ms": round(self.latency * 1000, 3) if self.measured else None,
            "breaker": {**self.breaker.news()._asdict(), "failures": self.breaker.failures},
            "last_error": self.last_error,
            "taken_over_by": self.taken_over_by,
        }

    def keep(self, identity: str, session: UpstreamSession) -> None:
        while len(self.sessions) >= MOST_SESSIONS:
            self.drop(next(iter(self.sessions)))
        self.sessions[identity] = session

    def drop(self, identity: str) -> None:
        """Forget a session, and which level was set in it."""
        self.sessions.pop(identity, None)
        self.levels.pop(identity, None)

    def suspect(self, identity: str, session: str) -> None:
        """A call in this session, by its id, was answered as if the server had lost it."""
        known, times = self.suspects.get(identity, (session, 0))
        self.suspects[identity] = session, times + 1 if known == session else 1
        if len(self.suspects) > MOST_SESSIONS:
            del self.suspects[next(iter(self.suspects))]

    def release(self, identity: str) -> None:
        self.in_use[identity] -= 1
        if self.in_use[identity] <= 0:
            del self.in_use[identity]


class Instances:
    """The instances of all servers, by `Address.key`."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._snapshot: Snapshot | None = None
        self._wanted: dict[str, tuple[Backend, Address]] = {}
        self._live: dict[str, Instance] = {}
        self._leaving: dict[str, Instance] = {}
        self._early_eras: dict[str, str] = {}
        self._marks: dict[str, tuple[bool, bool]] = {}
        self._news: dict[str, BreakerNews] = {}
        self.usable: dict[str, tuple[Backend, Sequence[Instance]]] = {}
        """What `of` has found, by server; good for that very `Backend` alone."""

    def __iter__(self) -> Iterator[Instance]:
        yield from self._live.values()
        yield from self._leaving.values()

    def load(self, snapshot: Snapshot, longest: float | None = None) -> None:
        """Have every instance of the snapshot; those that stay keep what was learned, the others are closed.

        The calls that took an earlier snapshot are over after `longest` seconds; until then what leaves is found. None:
        nothing is under way.
        """
        before, self._live, self._snapshot = self._live, {}, snapshot
        self.usable.clear()
        tls_context.cache_clear()  # the files may hold others now
        self._wanted = {one.key: (backend, one) for backend in snapshot.backends.values() for one in backend.instances}
        self._marks = {key: mark for key, mark in self._marks.items() if key in self._wanted}
        self._news = {key: news for key, news in self._news.items() if key in self._wanted}
        replaced = {key: instance.transport for key, instance in before.items()}
        for key in self._wanted:
            try:
                self._live[key] = self._opened(key, snapshot, before.get(key))
            except ValueError as wrong:  # one bad server must not keep a snapshot from the others
                log.error("%s: %s", label(key), wrong)
        self._early_eras = {key: era for key, era in self._early_eras.items() if key in self._wanted}
        self._leaving = {key: one for key, one in {**self._leaving, **before}.items() if key not in self._live}
        if longest is None:
            self._leaving.clear()
        for key, transport in replaced.items():
            if key not in self._live or self._live[key].transport is not transport:
                if longest is None:
                    self._spawn(transport.close(), "close connections")
                else:
                    asyncio.get_running_loop().call_later(longest + _GRACE, self._let_go, transport)

    def find(self, key: str) -> Instance:
        """The instance of this key. Raises Fault NO_SERVER for one that a reload took away, or whose TLS files cannot
        be used.
        """
        instance = self._live.get(key) or self._leaving.get(key)
        if instance is None:
            if key not in self._wanted or self._snapshot is None:
                raise down(f"{label(key)} is not configured")
            try:
                instance = self._live[key] = self._opened(key, self._snapshot, None)
            except ValueError as wrong:
                raise down(str(wrong)) from None
        return instance

    def of(self, backend: Backend) -> Sequence[Instance]:
        """The instances of a server that can be used, remembered until the next snapshot. Raises Fault NO_SERVER where
        there is none; see `find`.
        """
        found: list[Instance] = []
        failed = down("it has no instance")
        for address in backend.instances:
            try:
                found.append(self.find(address.key))
            except Fault as fault:
                failed = fault
        if not found:
            raise failed
        if len(found) == len(backend.instances):
            self.usable[backend.name] = backend, found
        return found

    def learn(self, key: str, era: str) -> None:
        """The controller has found out what an instance speaks, perhaps one that only the next snapshot has."""
        if key in self._live:
            self._live[key].found_era = era
        else:
            self._early_eras[key] = era

    def mark(self, key: str, *, healthy: bool, drained: bool) -> None:
        """How the controller has found an instance, and what an operator wants of it; perhaps one that only the next
        snapshot has.
        """
        self._marks[key] = healthy, drained
        if (instance := self._live.get(key)) is not None:
            instance.healthy, instance.drained = healthy, drained
            instance.judge()

    def noted(self, key: str, news: BreakerNews) -> None:
        """What this worker has to say of it is newer than all that others have said."""
        self._news[key] = news

    def adopt(self, key: str, news: BreakerNews, now: float) -> None:
        """What another worker, or an operator, has to say of an instance's breaker; as `mark`."""
        self._news[key] = news
        if (instance := self._live.get(key)) is not None:
            instance.breaker.adopt(news, now)
            instance.judge()

    async def close(self) -> None:
        for instance in self:
            await instance.transport.close()

    def _opened(self, key: str, snapshot: Snapshot, known: Instance | None) -> Instance:
        backend, address = self._wanted[key]
        settings = TransportSettings(
            address.url, snapshot.max_reply, backend.tls, backend.server_name, backend.host, address.shown,
            backend.tls_contents,
        )  # fmt: skip
        if known is None or known.settings != settings:
            http = HttpPool(settings)
            known = known or self._made(backend, address)
            known.settings, known.http = settings, http
            known.transport = StreamableHttp(http, self._spawn, snapshot.server_info, snapshot.max_reply)
        known.backend, known.address = backend, address
        known.breaker.policy = BreakerPolicy(*backend.breaker)
        known.found_era = self._early_eras.pop(key, known.found_era)
        return known

    def _made(self, backend: Backend, address: Address) -> Instance:
        """A new one, with all that was said of it before it was there."""
        made = Instance(backend, address)
        made.healthy, made.drained = self._marks.get(address.key, (True, False))
        if (news := self._news.get(address.key)) is not None:
            made.breaker.adopt(news, 0.0)
        made.judge()
        return made

    def _let_go(self, transport: StreamableHttp) -> None:
        self._leaving = {key: one for key, one in self._leaving.items() if one.transport is not transport}
        self._spawn(transport.close(), "close connections")
