"""The gateway's own questions to a server: discover, initialize, list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from fastgw.config.instance_urls import unshown
from fastgw.errors import Fault, Kind
from fastgw.ports import Deadlines, Transport, UpstreamSession
from fastgw.protocol import results
from fastgw.protocol.envelope import Message, NotAMessage, NotJson, members, string
from fastgw.protocol.names import Era
from fastgw.snapshot.model import Backend
from fastgw.upstream import legacy
from fastgw.upstream.call_context import NO_SESSION, CallContext, Spawn
from fastgw.upstream.classify import about_session
from fastgw.upstream.failures import lost
from fastgw.upstream.ids import new_id
from fastgw.upstream.reply import UpstreamReply

LONGEST_REPLY = 64 * 1024 * 1024
_MOST_TOLD = 200
"""Characters of what a server says that operators are shown."""
CONNECT = 3.0
ALIVE_WITHIN = 2.0
"""Seconds for an answer to `ping`."""


def question(seconds: float) -> Deadlines:
    """The deadlines of a question that may take so long."""
    return Deadlines(connect=min(CONNECT, seconds), first_byte=seconds, idle=seconds, total=seconds)


@dataclass(frozen=True, slots=True)
class RpcReply:
    """A server's answer to a question.

    Args:
        status: of HTTP.
        headers: names in lower case.
        message: the JSON-RPC response; None where there is none to our question.
        body: the body where `message` is None.
    """

    status: int
    headers: dict[str, str]
    message: Message | None
    body: bytes


@dataclass(frozen=True, slots=True)
class RpcClient:
    """Puts questions to one instance.

    Args:
        wire: connections to it.
        backend: the server.
        spawn: `BackgroundTasks.spawn`.
        deadlines: of one question.
    """

    transport: Transport
    backend: Backend
    spawn: Spawn
    deadlines: Deadlines = field(default_factory=lambda: question(60.0))

    def within(self, seconds: float) -> RpcClient:
        """The same, less patient."""
        return replace(self, deadlines=question(min(seconds, self.deadlines.total)))

    async def ask(
        self, headers: bytes, body: bytes, upstream_id: bytes, session: UpstreamSession | None = None
    ) -> RpcReply:
        """Put one question and read the answer to its end.

        Args:
            headers: all header lines.
            body: the request; its id is `upstream_id`.
            upstream_id: JSON text.
            session: of a legacy server; None asks a modern one.

        Raises:
            Fault: as `ports.Transport.request` and `UpstreamReply.next` say; INTERNAL where a modern server wants
            something
                before it answers: nothing was offered to it.
        """
        began = asyncio.get_running_loop().time()
        answer = await self.transport.request("POST", headers, body, self.deadlines)
        era = Era.MODERN if session is None else Era.LEGACY
        context = CallContext(
            upstream_id, era, self.transport, self.backend, session or NO_SESSION,
            self.deadlines, began, self.spawn, LONGEST_REPLY,
        )  # fmt: skip
        upstream = UpstreamReply(context, answer)
        try:
            async with asyncio.timeout(max(0.01, context.left().total)):
                message = await upstream.next()
                while message.method is not None:
                    message = await upstream.next()
            if message.result is not None and upstream.may_ask:
                refuse_unfinished(message.result)
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, detail="the answer took too long", sent=True) from None
        except Fault as fault:
            if answer.body is None or fault.kind is not Kind.LOST:
                raise
            return RpcReply(answer.status, answer.headers, None, answer.body)
        finally:
            upstream.close()
        self._note(message, upstream_id)
        return RpcReply(answer.status, answer.headers, message, b"")

    def _note(self, message: Message, upstream_id: bytes) -> None:
        if message.nulls:
            self.transport.notes.add(
                "writes outer fields that are null, as `error` beside a result: they count as left out"
            )
        if message.id != upstream_id:
            self.transport.notes.add("gives ids back in another form than it was sent: they are compared as numbers")


async def is_alive(client: RpcClient, session: UpstreamSession) -> bool:
    """Whether a legacy server still knows a session: any answer to `ping` that is not about the session says so."""
    upstream_id = new_id()
    headers = legacy.headers(client.backend, session)
    try:
        reply = await client.within(ALIVE_WITHIN).ask(headers, legacy.ping(upstream_id), upstream_id, session)
    except Fault:
        return False
    if reply.message is None:
        return False
    return reply.message.result is not None or about_session(reply.status, reply.message, b"") is None


def refuse_unfinished(result: bytes) -> None:
    """Raise unless this result of a modern server is its last word.

    Raises:
        Fault: INTERNAL for another `resultType`, LOST for a result that cannot be read.
    """
    # A result that begins or ends so says it at its top level: inside a string the quotes would be escaped.
    if result.startswith(b'{"resultType":"complete"') or result.endswith(b',"resultType":"complete"}'):
        return
    try:
        kind = members(result, _RESULT).get("resultType")
        if kind is None or string(kind, "resultType") == results.COMPLETE:
            return
    except (NotJson, NotAMessage) as wrong:
        raise lost(f"unusable result: {wrong}") from None
    raise Fault(Kind.INTERNAL, detail=f"resultType {kind[:64]!r} was not offered", sent=True)


_RESULT = frozenset(("resultType",))


@dataclass(frozen=True, slots=True)
class RpcClients:
    """How the controller reaches servers.

    Args:
        asker: puts questions to an instance, by its key; raises Fault NO_SERVER for one that is not configured (any
            more).
        spawn: `BackgroundTasks.spawn`.
        ours: our `clientInfo` as JSON text.
        clock: monotonic seconds.
    """

    client: Callable[[str], RpcClient]
    spawn: Spawn
    ours: bytes
    clock: Callable[[], float] = time.monotonic


def result_of(reply: RpcReply) -> dict[str, Any]:
    """The result of a reply that has one, decoded; empty where it is no object."""
    try:
        found = orjson.loads(reply.message.result or b"") if reply.message is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def told(reply: RpcReply, backend: Backend) -> str:
    """What a refusal says, for the operator: the message of its error, less what a careless server repeats of our
    credential.
    """
    try:
        found = orjson.loads((reply.message.error or b"") if reply.message is not None else reply.body)
        words = str((found if reply.message is not None else found["error"])["message"])[:_MOST_TOLD]
    except (ValueError, KeyError, TypeError):
        return ""
    for context in backend.headers.decode("latin-1").split("\r\n"):
        for secret in context.partition(":")[2].split():
            words = words.replace(secret, "***") if len(secret) > 3 else words
    for instance in backend.instances:
        for secret in sorted(unshown(instance.url, instance.shown), key=len, reverse=True):
            words = words.replace(secret, "***") if len(secret) > 3 else words
    return f", {words!r}" if words else ""


def not_evidence(reply: RpcReply, backend: Backend) -> Fault | None:
    """The fault of a server that turned us away or is broken, whatever it speaks; None for a real answer."""
    if reply.status in (401, 403):
        words = f"the server refuses our credential: status {reply.status}{told(reply, backend)}"
        return Fault(Kind.NO_SERVER, detail=words, data={"reason": "credential"})
    if reply.status == 429 or reply.status >= 500:
        reason = "busy" if reply.status in (429, 503) else "down"
        detail = f"status {reply.status}{told(reply, backend)}"
        return Fault(Kind.NO_SERVER, detail=detail, data={"reason": reason}, retry_after=1)
    return None
