"""One exchange of the lean kind: its deadlines, its body, its reader. The connection below it is somebody else's."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from fastgw.errors import Fault
from fastgw.ports import Deadlines
from fastgw.upstream.failures import late, lost
from fastgw.upstream.transports.decoding import Decoder, decoder_of
from fastgw.upstream.transports.head import check_length, is_stream

HIGH_WATER = 64 * 1024
"""Bytes of a stream that may wait for their reader before the socket is left alone."""

_JOIN_AT = 512
_DAY = 86_400.0
_TICK = 0.001
"""Seconds to which loops round their timers."""


class HttpCarrier(Protocol):
    """What an exchange asks of its connection."""

    transport: asyncio.Transport | None
    exchange: HttpAnswer | None

    def release(self) -> None:
        """Give the connection back: the exchange under way is over."""
        ...

    def drop(self) -> None:
        """Close now and give the slot back; the exchange under way hears nothing of it."""
        ...


class HttpAnswer:
    """`ports.Answer`, and the state of its exchange."""

    __slots__ = (
        "_blocks",
        "_carrier",
        "_deadlines",
        "_decoder",
        "_fault",
        "_held",
        "_limit",
        "_loop",
        "_moved",
        "_over",
        "_paused",
        "_pieces",
        "_sent",
        "_stream",
        "_timer",
        "_total",
        "body",
        "headers",
        "status",
        "waiter",
    )

    def __init__(self, carrier: HttpCarrier, started: float, deadlines: Deadlines, limit: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self._carrier = carrier
        self._loop = loop = asyncio.get_running_loop()
        self._deadlines = deadlines
        self._decoder: Decoder | None = None
        self._limit = limit
        self._total = started + deadlines.total, deadlines.whole, "total"
        self._sent = self._moved = now = loop.time()
        self._pieces: list[bytes] = []
        self._blocks: list[bytes] = []
        self._held = 0
        self._paused = self._stream = self._over = False
        self._fault: Fault | None = None
        self.waiter: asyncio.Future[None] | None = loop.create_future()
        self._timer: asyncio.TimerHandle | None = self._armed(self._due(now)[0], now)

    async def read(self) -> bytes:
        if not self._pieces and self._decoder is not None:
            self._decode_on(self._decoder)
        if not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self._over:
                return b""
            self._moved = self._loop.time()
            self.waiter = self._loop.create_future()
            await self.until_woken()
            if not self._pieces and self._decoder is not None:
                self._decode_on(self._decoder)
        pieces = self._pieces
        if not pieces:
            return b""
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if self._decoder is None or not self._decoder.pending:
            self.resume()
        return whole

    def _decode_on(self, decoder: Decoder) -> None:
        """Have the next bytes of a stream that is encoded; a little of it can stand for very much.

        Raises:
            Fault: LOST for damaged data, and at its end for a body that breaks off.
        """
        try:
            piece = decoder.pull(HIGH_WATER)
            if piece:
                self._pieces.append(piece)
            elif self._over and self._fault is None and (cut := decoder.cut_short()) is not None:
                raise cut
        except Fault as wrong:
            self.close()
            self._fault = wrong
            raise
        if not decoder.pending:
            self.resume()

    async def until_woken(self) -> None:
        """Wait for the head, or for the next piece; whoever is cancelled meanwhile closes the connection.

        Raises:
            Fault: there is nothing more to come.
        """
        waiter = cast("asyncio.Future[None]", self.waiter)
        try:
            await waiter
        except BaseException:
            self.close()
            raise
        finally:
            self.waiter = None
        if self._fault is not None and not (self._stream and self._pieces):
            raise self._fault
        if self._over:
            self._give_back()

    def close(self) -> None:
        if self._carrier.exchange is self:
            self._carrier.drop()
        if not self._over:
            self._settle(lost("the answer was given up"))

    def poison(self) -> None:
        """This answer was another's (its JSON-RPC id says so): close the connection it came by, whoever has it now.

        HTTP/1.1 cannot tell an unasked answer from the next one's once a request is out; every later answer on the
        connection would be off by one. An exchange that has it meanwhile is LOST.
        """
        other = self._carrier.exchange
        self._carrier.drop()
        if other is not None:
            other.failed(lost("the connection answered out of step"))

    def begun(self, status: int, headers: dict[str, str]) -> None:
        """The head is here.

        Raises:
            Fault: LOST for a body that announces too much, or is encoded in a way not known here.
        """
        if "content-encoding" in headers:
            self._decoder = decoder_of(headers)
        stream = is_stream(status, headers)
        if not stream:
            check_length(headers, self._limit)
        self.status = status
        self.headers = headers
        if stream:
            self._stream = True
            self._moved = now = self._loop.time()
            self._hasten(now)
            self._wake()

    def take(self, piece: bytes) -> None:
        """Bytes of the body.

        Raises:
            Fault: LOST for a body that is too large, or cannot be decoded.
        """
        if self._decoder is not None:
            piece = self._decoded(piece, self._decoder)
            if not piece:  # to whoever reads, nothing would be the end
                self._moved = self._loop.time()
                return
        self._pieces.append(piece)
        self._held += len(piece)
        if self._stream:
            self._moved = self._loop.time()
            if self._held > HIGH_WATER and not self._paused:
                self._pause()
            self._wake()
        elif self._held > self._limit:
            raise lost("body too large")
        elif len(self._pieces) == _JOIN_AT:
            # Chunks of one byte must not cost fifty times their size in list and objects.
            self._blocks.append(b"".join(self._pieces))
            self._pieces.clear()

    def _decoded(self, piece: bytes, decoder: Decoder) -> bytes:
        if not self._stream:
            return decoder.feed(piece, self._limit - self._held)
        decoder.push(piece)
        found = b"" if self._pieces else decoder.pull(HIGH_WATER)
        if decoder.pending and not self._paused:
            self._pause()
        return found

    def ended(self) -> None:
        """The whole answer is here. Of a stream the connection is given back now, of others when it has been taken."""
        if self._decoder is not None and not self._stream and (cut := self._decoder.cut_short()) is not None:
            if self._carrier.exchange is self:
                self._carrier.drop()
            self._settle(cut)
            return
        if self._stream:
            self.resume()
            self._give_back()
        else:
            parts = self._blocks + self._pieces if self._blocks else self._pieces
            self.body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._blocks = self._pieces = []
        self._settle(None)

    def extend(self, due: float, seconds: float) -> None:
        """See `ports.Answer.extend`. The timer stays as it is: it fires early, and looks again."""
        self._total = due, seconds, "total"

    def failed(self, fault: Fault) -> None:
        """There will be no more of this answer; its connection has been closed."""
        self._settle(fault)

    def resume(self) -> None:
        """Listen to the socket again."""
        if self._paused:
            self._paused = False
            transport = self._carrier.transport
            if transport is not None and not transport.is_closing():
                transport.resume_reading()

    def _give_back(self) -> None:
        if self._carrier.exchange is self:
            self._carrier.release()

    def _pause(self) -> None:
        transport = self._carrier.transport
        if transport is not None and not transport.is_closing():
            self._paused = True
            transport.pause_reading()

    def _settle(self, fault: Fault | None) -> None:
        self._over = True
        self._fault = fault
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def _due(self, now: float) -> tuple[float, float, str]:
        """When the nearest deadline passes (loop time), its seconds and name."""
        limits, total = self._deadlines, self._total
        if self._stream:
            # Silence counts against the server only while somebody waits for it.
            next_piece = (self._moved if self.waiter is not None and not self._pieces else now) + limits.idle
            return (next_piece, limits.idle, "idle") if next_piece < total[0] else total
        head = self._sent + limits.first_byte
        if self.status or total[0] <= head:
            return total
        return head, limits.first_byte, "first byte"

    def _armed(self, when: float, now: float) -> asyncio.TimerHandle:
        return self._loop.call_at(min(when, now + _DAY), self._expire)

    def _hasten(self, now: float) -> None:
        """Bring the timer forward where silence in the stream that begins may pass before what it was armed for.

        That is the only time when something becomes due earlier than it was. All else comes later than the timer, which
        looks again when it fires; so bytes need not touch it.
        """
        when = self._due(now)[0]
        if self._timer is not None and when < self._timer.when() - _TICK:
            self._timer.cancel()
            self._timer = self._armed(when, now)

    def _expire(self) -> None:
        now = self._loop.time()
        when, seconds, which = self._due(now)
        if when > now + _TICK:
            self._timer = self._armed(when, now)
            return
        self._timer = None
        self._carrier.drop()
        self._settle(late(seconds, which))
