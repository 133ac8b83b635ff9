"""The gateway's own questions to a server: discover, initialize, list.

Knows: how one question is put and its whole answer read. Refuses to know: what the answers are for.
"""

from __future__ import annotations

import asyncio
import os
import time
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from fastgw.backends.line import NO_SESSION, Line, Spawn
from fastgw.backends.outcome import lost
from fastgw.backends.upstream import Upstream
from fastgw.config.snapshot import Backend
from fastgw.faults import Fault, Kind
from fastgw.mcp import results
from fastgw.mcp.envelope import Message, NotAMessage, NotJson, members, string
from fastgw.mcp.names import Era
from fastgw.ports import Deadlines, UpstreamSession, Wire

LONGEST_REPLY = 64 * 1024 * 1024
QUESTION = Deadlines(connect=3.0, first_byte=10.0, idle=10.0, total=10.0)

_boot = b32encode(os.urandom(4))[:6].decode("ascii").lower()
_numbers = count(1)


def new_id() -> bytes:
    """An id no other request of this process has, as JSON text."""
    return b'"%s-%d"' % (_boot.encode("ascii"), next(_numbers))


@dataclass(frozen=True, slots=True)
class Reply:
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
class Asker:
    """Puts questions to one instance.

    Args:
        wire: connections to it.
        backend: the server.
        spawn: `Registry.spawn`.
        deadlines: of one question.
    """

    wire: Wire
    backend: Backend
    spawn: Spawn
    deadlines: Deadlines = field(default_factory=lambda: QUESTION)

    async def ask(
        self, headers: bytes, body: bytes, upstream_id: bytes, session: UpstreamSession | None = None
    ) -> Reply:
        """Put one question and read the answer to its end.

        Args:
            headers: all header lines.
            body: the request; its id is `upstream_id`.
            upstream_id: JSON text.
            session: of a legacy server; None asks a modern one.

        Raises:
            Fault: as `ports.Wire.request` and `Upstream.next` say; INTERNAL where a modern server wants something
                before it answers: nothing was offered to it.
        """
        began = asyncio.get_running_loop().time()
        answer = await self.wire.request("POST", headers, body, self.deadlines)
        era = Era.MODERN if session is None else Era.LEGACY
        line = Line(
            upstream_id, era, self.wire, self.backend, session or NO_SESSION,
            self.deadlines, began, self.spawn, LONGEST_REPLY,
        )  # fmt: skip
        upstream = Upstream(line, answer)
        try:
            async with asyncio.timeout(max(0.01, line.left().total)):
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
            return Reply(answer.status, answer.headers, None, answer.body)
        finally:
            upstream.close()
        return Reply(answer.status, answer.headers, message, b"")


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
class Reach:
    """How the keeper reaches servers.

    Args:
        asker: puts questions to an instance, by its key; raises Fault NO_SERVER for one that is not configured (any
            more).
        spawn: `Registry.spawn`.
        ours: our `clientInfo` as JSON text.
        clock: monotonic seconds.
    """

    asker: Callable[[str], Asker]
    spawn: Spawn
    ours: bytes
    clock: Callable[[], float] = time.monotonic


def not_evidence(reply: Reply) -> Fault | None:
    """The fault of a server that turned us away or is broken, whatever it speaks; None for a real answer."""
    if reply.status in (401, 403):
        words = f"the server refuses our credential: status {reply.status}"
        return Fault(Kind.NO_SERVER, detail=words, data={"reason": "credential"})
    if reply.status == 429 or reply.status >= 500:
        reason = "busy" if reply.status in (429, 503) else "down"
        return Fault(Kind.NO_SERVER, detail=f"status {reply.status}", data={"reason": reason}, retry_after=1)
    return None
