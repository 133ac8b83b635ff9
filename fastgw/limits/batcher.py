"""Questions to the store: those that arrive while one is under way go together in the next one.

    up    -- a batch fails, or takes longer than `DEADLINE` -->  away   (all that waits is lost at once)
    away  -- a probe is answered, and a second one in time  -->  up

One question alone costs some 110 us of CPU, most of it in the client; thirty together a tenth of that each.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import chain, count, repeat
from time import monotonic, perf_counter
from typing import Any, Protocol

from fastgw.limits.batch import AwaitedAdmission
from fastgw.limits.script import BadReply, ScriptReply, ScriptRequest, StoreKeys, decode, encode

log = logging.getLogger("fastgw")

Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
Waiting = list[AwaitedAdmission]

DEADLINE = 0.05
"""Seconds an answer may take. What waits for the next batch is decided when this one fails."""
PROMPT = 0.04
"""Seconds in which a store must answer before it is used: one at the edge of the deadline would come and go."""
GRACE, MOST_GRACE = 0.005, 0.25
"""Seconds more in which an answer that is here is read; more where our own loop was late: its timers come first,
and what it has not read may have been there for long."""
MOST = 64
"""Questions in one batch: more would keep the store from its other clients for a millisecond."""
SOON = 1.0
"""Seconds: a store that is lost again so soon is not looked for at once, and later each time, up to `MOST_PAUSE`."""
MOST_PAUSE = 0.6
PROBE_EVERY = (0.02, 0.05, 0.1, 0.2)
PROBE_WITHIN = 0.7
"""Seconds between two probes, the last one repeated, and for one; their sum is below the one second within which a
store that is back must be in use again."""


class StoreAway(Exception):
    """The store did not do what it was asked; `kind` says why, in one word for metrics."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class StoreConnection(Protocol):
    """What limits need of a store."""

    async def decide(self, keys: list[str], argument: bytes) -> object:
        """Run the script once.

        Raises:
            StoreAway: it was not run, or nobody knows.
        """

    async def close(self) -> None:
        """End all connections, and forget what was learned of servers; the next question begins anew."""


class BatchHandler(Protocol):
    """Who makes a request of what waits, and goes by the answer."""

    def compose(self, waiting: Waiting) -> ScriptRequest: ...

    def answered(self, waiting: Waiting, request: ScriptRequest, reply: ScriptReply, sent: float) -> None:
        """`sent`: CLOCK_MONOTONIC seconds of the request."""

    def lost(self, waiting: Waiting, why: StoreAway) -> None:
        """There is no answer to these."""

    def emptied(self, epoch: str) -> None:
        """The store knows nothing any more, and has decided nothing: the same is asked again."""

    def has_more(self) -> bool:
        """Whether there is a request to be sent though nothing waits."""

    def returned(self) -> None:
        """The store is in use again."""


class Batcher:
    """The traffic of one worker with its store.

    Args:
        worker: letters and digits that no other worker has.
    """

    handler: BatchHandler

    def __init__(self, connection: StoreConnection, keys: StoreKeys, worker: str, spawn: Spawn) -> None:
        self._connection = connection
        self._keys = keys
        self._worker = worker
        self._numbers = count(1)
        self._spawn = spawn
        self._waiting: deque[AwaitedAdmission] = deque()
        self._sending = False
        self.away = True
        self._since = -SOON
        self._soon = 0
        self._emptied = False
        self.seconds: Callable[[float], None] = lambda _: None

    def ask(self, question: AwaitedAdmission) -> None:
        """Let it go with the next batch; the handler hears what became of it."""
        self._waiting.append(question)
        self.send()

    def send(self) -> None:
        """Send what waits and what the handler has."""
        if not self._sending and not self.away:
            self._sending = True
            self._spawn(self._send_all(), "store")

    async def _send_all(self) -> None:
        try:
            while (self._waiting or self.handler.has_more()) and not self.away:
                await self._send_batch([self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))])
        finally:
            self._sending = False

    async def _send_batch(self, waiting: Waiting) -> None:
        now = monotonic()
        try:
            request = self.handler.compose(waiting)
            reply = await self._within(DEADLINE, request)
            again, self._emptied = self._emptied, reply.emptied
            if not reply.emptied:
                self.handler.answered(waiting, request, reply, now)
            elif not again:
                self.handler.emptied(reply.epoch)
                self._waiting.extendleft(reversed(waiting))
            else:
                raise StoreAway("reply", "another store at every question")
        except StoreAway as wrong:
            self._store_lost(waiting, wrong)
        except Exception as wrong:  # whoever waits would wait for ever
            log.exception("a question to the store failed")
            self._store_lost(waiting, StoreAway("defect", repr(wrong)))

    async def _within(self, seconds: float, request: ScriptRequest) -> ScriptReply:
        """The answer, if it comes in time.

        Raises:
            StoreAway: it does not, or is none.
        """
        began = perf_counter()
        # Another epoch each time: a store that was emptied must not go on under one that somebody knows.
        argument = encode(request, self._worker, f"{self._worker}-{next(self._numbers)}")
        call = self._spawn(self._answer(request, argument), "asking the store")
        done, _ = await asyncio.wait((call,), timeout=seconds)
        if not done:
            late = perf_counter() - began - seconds
            done, _ = await asyncio.wait((call,), timeout=min(MOST_GRACE, GRACE + late))
        if not done:
            call.cancel()
            raise StoreAway("timeout", f"no answer in {seconds * 1000:.0f} ms")
        reply: ScriptReply | StoreAway = call.result()
        if isinstance(reply, StoreAway):
            raise reply
        self.seconds(perf_counter() - began)
        return reply

    async def _answer(self, request: ScriptRequest, argument: bytes) -> ScriptReply | StoreAway:
        try:
            return decode(await self._connection.decide(self._keys.of(request), argument), request)
        except StoreAway as wrong:
            return wrong
        except BadReply as wrong:
            return StoreAway("reply", str(wrong))

    # -- away and back -------------------------------------------------------------------------------------------

    def _store_lost(self, waiting: Waiting, why: StoreAway) -> None:
        self.away = True
        left = [*waiting, *self._waiting]
        self._waiting.clear()
        log.warning("the store is away: %s", why)
        self._spawn(self.find(), "looking for the store")
        self.handler.lost(left, why)

    async def find(self) -> None:
        """Look for the store until it answers twice, the second time as fast as calls need it."""
        logged = ""
        self._soon = self._soon + 1 if monotonic() - self._since < SOON else 0
        if self._soon:
            await asyncio.sleep(min(MOST_PAUSE, PROBE_EVERY[-1] * self._soon))
        for pause in chain(PROBE_EVERY, repeat(PROBE_EVERY[-1])):
            if not (wrong := await self._probe()):
                break
            if pause == PROBE_EVERY[-1] and wrong != logged:
                logged = wrong
                log.info("the store is not to be had yet: %s", wrong)
            await asyncio.sleep(pause)
        self.away, self._since = False, monotonic()
        log.info("the store answers")
        try:
            self.handler.returned()
        finally:
            self.send()

    async def _probe(self) -> str:
        """What is wrong with the store; nothing where it answers twice."""
        try:
            await self._connection.close()  # what it knows of servers may be wrong
            for seconds in (PROBE_WITHIN, PROMPT):
                request, sent = ScriptRequest(heartbeat=True), monotonic()
                self.handler.answered([], request, await self._within(seconds, request), sent)
        except StoreAway as wrong:
            return str(wrong)
        except Exception as wrong:  # nobody else looks for it
            log.exception("looking for the store failed")
            return repr(wrong)
        return ""
