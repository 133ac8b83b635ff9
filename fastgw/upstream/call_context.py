"""One call on its way to a server: what an attempt is, what each request of it needs, and what runs beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from random import getrandbits
from typing import Any, TypeVar

import msgspec

from fastgw.catalog.route import Deadlines, Target
from fastgw.errors import Fault, Kind
from fastgw.protocol.call import Call, SentAs
from fastgw.protocol.envelope import quote
from fastgw.protocol.names import Era
from fastgw.protocol.trace_context import TraceContext
from fastgw.snapshot.model import Address, Backend, ServerCredential
from fastgw.upstream.classify import ReplyKind
from fastgw.upstream.controller import NO_SESSION, UpstreamSession
from fastgw.upstream.transports.http import HttpPool

log = logging.getLogger("fastgw")

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]
"""`BackgroundTasks.spawn`: runs work beside the caller and logs its failure under the name."""

ASIDE = Deadlines(connect=2.0, first_byte=5.0, idle=5.0, total=5.0)  # for messages nobody waits for


_ALIKE = SentAs()


def new_span_id() -> str:
    """16 hex digits, not all of them 0."""
    return f"{getrandbits(64) or 1:016x}"


class Attempt(msgspec.Struct, eq=False):
    """One try of a call at one instance of a server, and how it ended.

    Args:
        target: the tool, prompt or resource by its server's own name.
        identity: whose session, where the server has sessions.
        deadlines: of the whole attempt, repeats included, which began at loop time `begun`.
        credential: header lines, each ended by CRLF.
        token: header line with the token that it shows; `renew` has it show another, where that can be had.
        opens_with: header lines by which its session is opened; None where those are the gateway's own.
        known_eras: what the instance was last heard to speak, as in `Address.era`; empty where it was never asked.
        session: in the legacy era, the one it goes in; `lost`: the one before that.
        sent: whether the server may have got the call.
        failed_with: how the server failed, as `Fault.failure`; empty while it runs, and where it was answered.
        waited: seconds spent waiting for the server.
        trial: it is the one call that an open breaker lets through.
        row: failures of its instance that its answer made forgotten: they count again where that turns out unsound.
        leave: gives its place at the server back, where places are counted; `queued`: seconds it waited for that.
        started, ended: CLOCK_MONOTONIC seconds; an answer in several messages ends with the last that was asked for.
        span_id: its span, 16 hex digits; empty where the call is not recorded, and before it is sent.
    """

    call: Call
    target: Target
    backend: Backend
    address: Address
    identity: str
    deadlines: Deadlines
    begun: float
    credential: bytes = b""
    known_eras: str = ""
    era: Era = Era.MODERN
    session: UpstreamSession = NO_SESSION
    lost: UpstreamSession | None = None
    mended: tuple[ReplyKind, ...] = ()
    sent: bool = True
    failed_with: str = ""
    waited: float = 0.0
    trial: bool = False
    row: int = 0
    leave: Callable[[], None] | None = None
    queued: float = 0.0
    opens_with: bytes | None = None
    token: bytes = b""
    renew: Callable[[Attempt], Awaitable[bool]] | None = None
    started: float = 0.0
    ended: float = 0.0
    span_id: str = ""

    def remaining_deadlines(self) -> Deadlines:
        return self.deadlines.left(asyncio.get_running_loop().time() - self.begun)

    def chosen(self) -> tuple[ServerCredential | None, SentAs]:
        """The server's credential for this agent, None where all show that of `Backend.headers`; what else it is shown.
        Raises Fault: NO_SERVER, not `sent`, where none of its credentials is for this agent.
        """
        backend, every = self.backend, self.call.sent_as
        shown = every.get(backend.name, _ALIKE) if every is not None else _ALIKE
        if not backend.credentials:
            return None, shown
        tag = None if shown.credential is None else shown.credential.partition(".")[0]
        for one in backend.credentials:
            if one.tag == tag:
                return one, shown
        detail = f"no credential of {backend.name} is for this agent"
        raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "credential"})

    def show(self, credential: ServerCredential | None, token: bytes, forwarded: bytes) -> None:
        """Have the server shown this: of requests from now on."""
        lines = (self.backend.headers if credential is None else credential.lines) + token
        self.credential, self.token = lines + forwarded, token
        self.opens_with = lines if credential is not None and credential.tag else None

    def carry(self, trace: TraceContext) -> bytes:
        """Have the server hear, in `_meta` and in the header lines given back, what trace the call is part of: below a
        span of this attempt where the call is recorded, else below the agent's own.
        """
        if trace.span_id and not self.span_id:
            self.span_id = new_span_id()
        found = trace.members(self.span_id or trace.parent_id)
        self.call.meta = {**self.call.meta, **{name: quote(text) for name, text in found.items()}}
        return "".join([f"{name}: {text}\r\n" for name, text in found.items()]).encode("ascii")

    def first_time(self, what: ReplyKind) -> bool:
        """Whether this has not been mended yet; it now counts as mended."""
        new = what not in self.mended
        self.mended += (what,)
        return new

    async def in_time(self, answer: Awaitable[T]) -> T:
        """The controller's answer, as long as the call has time: the server may take its time for it. Raises Fault:
        TIMEOUT, not `sent`.
        """
        try:
            async with asyncio.timeout(self.remaining_deadlines().total):
                return await answer
        except TimeoutError:
            data = {"timeoutMs": round(self.deadlines.whole * 1000)}
            raise Fault(Kind.TIMEOUT, detail="the server was not ready in time", data=data) from None


class CallContext(msgspec.Struct):
    """The way one request went, kept for what has to follow it: a cancel, a resumed stream, the answer to a question.

    Args:
        id: our JSON-RPC id, as JSON text.
        credential: header lines.
        session: of a legacy server; `NO_SESSION` for a modern one.
        deadlines: of the whole exchange, which began at loop time `started`.
        limit: most bytes of one event.
    """

    id: bytes
    era: Era
    http: HttpPool
    credential: bytes
    session: UpstreamSession
    deadlines: Deadlines
    started: float
    spawn: Spawn
    limit: int = 64 * 1024 * 1024

    def remaining_deadlines(self) -> Deadlines:
        return self.deadlines.left(asyncio.get_running_loop().time() - self.started)


class BackgroundTasks:
    """What runs beside the calls, referenced: a task nobody holds may be collected in mid-flight."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` beside the caller; a failure is logged under `name`, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (wrong := task.exception()) is not None:
            log.error("%s failed: %s", task.get_name(), type(wrong).__name__, exc_info=wrong)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
