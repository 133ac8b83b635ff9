"""One call in flight at a server: its messages in order, the final one last.

waiting --notification--> waiting            handed up
waiting --server asks--> waiting             answered aside (legacy), dropped (modern)
waiting --stream ends--> resumed             2025-11-25 with an event id; else LOST
waiting --our response--> over               handed up
waiting --other response--> over             LOST, the connection is closed
waiting --closed or cancelled--> over        the server gets a cancel, or sees the connection close
over    --anything--> over                   nothing is handed up any more
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import msgspec

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.envelope import Message, NotAMessage, NotJson, members, read_reply
from fastgw.protocol.names import Era
from fastgw.protocol.sse import EventParser, EventTooLong
from fastgw.upstream import legacy
from fastgw.upstream.call_context import ASIDE, CallContext
from fastgw.upstream.classify import RELAYED, Classified, is_out_of_step, same_id
from fastgw.upstream.transports import lost
from fastgw.upstream.transports.http_exchange import HttpAnswer

LINGER = 1.0  # seconds a stream may take to end after its response; then its connection is not waited for any longer

_MOST_ASKED = 64  # requests of a server within one call that are answered; a server that asks more is out of order
_MOST_RESUMED = 100
_LONGEST_RETRY = 30.0
_FIRST_RETRY = 1.0
_RESUMABLE = "2025-11-25"
_OLDEST_BATCHING = ("2025-03-26", "2024-11-05")
_TOKEN = frozenset(("progressToken",))
_EVENT_ID = re.compile(r"[!-~]{1,1024}")
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode


class UpstreamReply:
    """A call that a server has been given; `classified` says what its answer means.

    Attributes:
        on_over: called once when nothing more will come.
    """

    __slots__ = (
        "_answer", "_asked", "_context", "_due", "_last_event", "_over", "_parser", "_ready", "_resumed", "_retry",
        "_text", "classified", "on_over",
    )  # fmt: skip

    def __init__(self, context: CallContext, answer: HttpAnswer, classified: Classified = RELAYED) -> None:
        self.classified = classified
        self.on_over: Callable[[], None] | None = None
        self._context = context
        self._answer = answer
        self._ready: deque[Message] = deque()
        self._over = False
        self._parser: EventParser | None = None
        self._asked = 0
        self._due: Deadlines | None = None
        self._resumed = 0
        self._retry = _FIRST_RETRY
        self._last_event: str | None = None
        self._text = answer.body
        if classified.message is not None:
            self._ready.append(classified.message)
        elif answer.body is None:
            self._parser = EventParser(context.limit)

    @property
    def streams(self) -> bool:
        """Whether the server answers with an event stream, so that there may be silence before its next word."""
        return self._parser is not None

    @property
    def may_ask(self) -> bool:
        """Whether its result may ask the agent for input, since it is asked again with the answers."""
        return self._context.era is Era.MODERN

    async def next(self) -> Message:
        """The next notification of this call, or its final response (`method` is None), after which it is over. Raises
        Fault: LOST (no response came, or one to another question), TIMEOUT; the call is over then too.
        """
        try:
            while not self._ready:
                if self._over:
                    raise lost("the call is over")
                await self._fill()
        except Fault:
            self._stop("no answer in time")
            raise
        message = self._ready.popleft()
        if message.method is None and not self._over:
            if self._parser is not None:
                # The connection goes back to the pool when the stream ends, if that is soon.
                asyncio.get_running_loop().call_later(LINGER, self._answer.close)
            self._end()
        return message

    def renew(self) -> None:
        """Let its total start anew: it has reported progress that its agent asked for (2025-11-25, Timeouts)."""
        context = self._context
        due, seconds = context.deadlines.renewed(context.started, asyncio.get_running_loop().time())
        self._due = replace(context.deadlines, total=due - context.started, granted=seconds)
        self._answer.extend(due, seconds)

    def close(self) -> None:
        """Give the call up if it still runs: a modern server sees the connection close, a legacy one gets a cancel.

        May be called at any time, any number of times.
        """
        self._stop("closed")

    async def _fill(self) -> None:
        if self._parser is None:
            text, self._text = self._text, None
            if text is None:
                raise lost("the body holds no response")
            self._take(text)
            return
        try:
            piece = await self._answer.read()
        except Fault as cut:
            if cut.kind is not Kind.LOST or not self._may_resume():
                raise
            piece = b""
        if piece:
            self._feed(piece, self._parser)
        else:
            await self._resume()

    def _feed(self, piece: bytes, parser: EventParser) -> None:
        try:
            events = parser.feed(piece)
        except EventTooLong as wrong:
            raise lost(str(wrong)) from None
        for event in events:
            if event.id is not None:
                self._last_event = event.id if _EVENT_ID.fullmatch(event.id) else None
            if event.retry is not None:
                self._retry = min(event.retry / 1000, _LONGEST_RETRY)
            if event.data and event.kind == "message":
                if self._ready and self._ready[-1].method is None:
                    # Twice answered: the first answer stands, but this connection has lost our trust.
                    self._answer.close()
                    return
                self._take(event.data)

    def _take(self, text: bytes) -> None:
        context = self._context
        for message in self._messages(text):
            if message.method is None:
                if not same_id(message.id, context.id):
                    if is_out_of_step(self._answer.status, message.id, context.id):
                        self._answer.poison()
                    raise lost("a response with another id")
                self._ready.append(message)
                return
            if message.id is not None:
                self._asked += 1
                if self._asked > _MOST_ASKED:
                    raise lost("the server keeps asking")
                # A modern one must not ask here, and there is no way to answer it (2026-07-28, Streamable HTTP).
                if context.era is Era.LEGACY:
                    answer = legacy.response(message.method, message.id)
                    context.spawn(aside(context, answer), "answer a server's request")
            elif self._is_ours(message):
                self._ready.append(message)

    def _messages(self, text: bytes) -> list[Message]:
        try:
            if text.lstrip()[:1] == b"[" and self._context.session.version in _OLDEST_BATCHING:
                return [read_reply(bytes(item)) for item in _ARRAY(text)]
            return [read_reply(text)]
        except (NotJson, NotAMessage, msgspec.MsgspecError, RecursionError) as wrong:
            raise lost(f"not a JSON-RPC message: {wrong}") from None

    def _is_ours(self, message: Message) -> bool:
        """Whether the notification is part of this call: log messages, and progress under our own token."""
        if message.method == names.LOG_MESSAGE:
            return True
        if message.method != names.PROGRESS:
            return False
        try:
            return same_id(members(message.params or b"{}", _TOKEN).get("progressToken"), self._context.id)
        except (NotJson, NotAMessage):
            return False

    def _may_resume(self) -> bool:
        return self._last_event is not None and self._context.session.version >= _RESUMABLE

    async def _resume(self) -> None:
        """Ask for the rest of a stream that ended before its response (2025-11-25, Resumability and Redelivery). Raises
        Fault: LOST where it cannot be had.
        """
        context = self._context
        self._resumed += 1
        if not self._may_resume() or self._resumed > _MOST_RESUMED:
            raise lost("the stream ended before its response")
        if self._left().total <= self._retry:
            raise lost("the stream ended, and its rest cannot come in time")
        await asyncio.sleep(self._retry)
        try:
            headers = legacy.stream_headers(context.credential, context.session, self._last_event)
            self._answer = await context.http.request("GET", headers, b"", self._left())
        except Fault as fault:
            # The call itself was sent long before.
            raise lost(f"the stream could not be resumed: {fault}") from None
        if self._answer.status != 200 or self._answer.body is not None:
            raise lost(f"the stream could not be resumed: status {self._answer.status}")
        self._parser = EventParser(context.limit)

    def _left(self) -> Deadlines:
        """The deadlines of a further request on behalf of this call, as far as it has been let go on."""
        spent = asyncio.get_running_loop().time() - self._context.started
        return (self._due or self._context.deadlines).left(spent)

    def _stop(self, reason: str) -> None:
        if self._over:
            return
        context = self._context
        answered = bool(self._ready) and self._ready[-1].method is None
        self._ready.clear()
        self._answer.close()
        if self._parser is not None and context.era is Era.LEGACY and not answered:
            context.spawn(withdraw(context, reason), "cancel a call")
        self._end()

    def _end(self) -> None:
        self._over = True
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()


class FinalReply:
    """An answer that is here already, as the last message of a call."""

    streams = may_ask = False

    def __init__(self, message: Message) -> None:
        self._message = message

    async def next(self) -> Message:
        return self._message

    def renew(self) -> None: ...

    def close(self) -> None: ...


async def withdraw(context: CallContext, reason: str) -> None:
    """Tell a legacy server that a request of ours is no longer wanted (2025-11-25, Cancellation)."""
    await aside(context, legacy.cancelled(context.id, reason))


async def aside(context: CallContext, body: bytes) -> None:
    """POST a message that has no answer; that it may not arrive is in its nature."""
    try:
        answer = await context.http.request("POST", legacy.headers(context.credential, context.session), body, ASIDE)
    except Fault:
        return  # the server is gone, and with it the call this was about
    if answer.body:
        with suppress(NotJson, NotAMessage):
            message = read_reply(answer.body)
            # Nothing was asked that has a response: one is late.
            if message.method is None and is_out_of_step(answer.status, message.id, context.id):
                answer.poison()
    answer.close()
