"""Every way of a server to fail that the tests inject, by name: what becomes of one request, or of its port.

Knows bytes, sockets, and the right answer, which a fault spoils, leaves out, or sends too late. Refuses to know which
method is asked and what the gateway makes of it (`test_fault_matrix.py` has that, one row for each).
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.e2e.manners import reset
from tests.e2e.servers import STREAM, STREAM_END, Got, answer, chunk, event

SECRET = "S3CRET"
"""Stands in what no agent may hear."""
DRIP = 0.1
"""Seconds between two bytes of an answer that drips: it would take minutes."""
LARGEST = 64 * 1024
"""What the gateway of the tests reads of an answer (`max_reply`)."""
JSON_STREAM = STREAM.replace(b"text/event-stream", b"application/json")


@dataclass
class Exchange:
    """One request, and the right answer to it over HTTP; b"" where the request was not carried out."""

    got: Got
    writer: asyncio.StreamWriter
    right: bytes

    @property
    def body(self) -> bytes:
        """The JSON-RPC message of the right answer."""
        return self.right.partition(b"\r\n\r\n")[2]

    @property
    def id(self) -> bytes:
        """The request's id as JSON text."""
        return json.dumps(self.got.json().get("id")).encode()

    async def send(self, *pieces: bytes, every: float = 0.0) -> None:
        """Write the pieces, each by itself, as long as somebody reads."""
        with suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(every)

    async def for_ever(self, piece: bytes, *before: bytes, every: float = 0.0) -> None:
        """Write `before` and then this piece again and again, until the other side has gone."""
        await self.send(*before)
        while not (self.writer.is_closing() or self.got.reader is None or self.got.reader.at_eof()):
            await self.send(piece, every=every)


Act = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Injected:
    """A fault.

    Args:
        act: answers one request wrongly; None where the port itself fails.
        runs: whether the request is carried out before, so that the ledger has it.
        door: what becomes of the port, as `Door.become` knows it; requests that come nevertheless are answered rightly.
    """

    act: Act | None = None
    runs: bool = field(default=True, kw_only=True)
    door: str = field(default="", kw_only=True)


def sends(made: Callable[[Exchange], bytes], then: str = "") -> Act:
    """Answer with these bytes; `then` leave it at that, `close`, or `reset`."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(made(exchange))
        if then == "close":
            exchange.writer.close()
        elif then == "reset":
            # Now the bytes would be lost with it: the other side must have read them before.
            await asyncio.sleep(0.05)
            reset(exchange.writer)

    return act


def status(line: str, *headers: str, body: bytes = b"<h1>S3CRET</h1>") -> Injected:
    """A refusal that is no JSON-RPC, before anything runs."""
    lines = "".join(f"{one}\r\n" for one in headers)
    text = f"HTTP/1.1 {line} {SECRET}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    return Injected(sends(lambda _: text.encode() + body), runs=False)


def says(made: Callable[[Exchange], bytes]) -> Injected:
    """An answer of 200 with this body."""
    return Injected(sends(lambda exchange: answer(made(exchange))))


def error(code: int, words: str = "It broke") -> Injected:
    """A JSON-RPC error of the server's own."""
    said = json.dumps({"code": code, "message": words}).encode()
    return says(lambda exchange: b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (exchange.id, said))


def result(text: bytes) -> Injected:
    """This for a result."""
    return says(lambda exchange: b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (exchange.id, text))


def renamed(text: bytes) -> Injected:
    """The right answer under another id."""
    return says(lambda exchange: exchange.body.replace(b'"id": ' + exchange.id, b'"id":' + exchange.id).replace(
        b'"id":' + exchange.id, b'"id":' + text
    ))  # fmt: skip


async def silence(exchange: Exchange) -> None:
    """Not a word, until the other side has gone."""
    with suppress(ConnectionError):
        while exchange.got.reader is not None and await exchange.got.reader.read(65536):
            pass
    exchange.writer.close()


async def reset_at_once(exchange: Exchange) -> None:
    reset(exchange.writer)


async def half_closed_before(exchange: Exchange) -> None:
    """The end of the stream before any answer, while the socket stays open."""
    exchange.writer.write_eof()
    await silence(exchange)


async def half_closed_after(exchange: Exchange) -> None:
    """The whole answer, then the end of the stream: nothing is wrong with that."""
    await exchange.send(exchange.right)
    exchange.writer.write_eof()
    await silence(exchange)


def cut(share: Callable[[bytes], int], then: str) -> Injected:
    """The beginning of the right answer, so many bytes, and no more."""
    return Injected(sends(lambda exchange: exchange.right[: share(exchange.right)], then))


def _head(text: bytes) -> int:
    return text.index(b"\r\n\r\n")


def dripping(made: Callable[[Exchange], tuple[bytes, bytes]]) -> Injected:
    """Something at once, the rest a byte at a time."""

    async def act(exchange: Exchange) -> None:
        at_once, rest = made(exchange)
        await exchange.send(at_once)
        await exchange.send(*[rest[at : at + 1] for at in range(len(rest))], every=DRIP)

    return Injected(act)


def endless(piece: bytes, *before: bytes, every: float = 0.0) -> Injected:
    """An answer that never ends."""

    async def act(exchange: Exchange) -> None:
        await exchange.for_ever(piece, *before, every=every)

    return Injected(act)


def stream(*pieces: bytes, end: bytes = STREAM_END, then: str = "") -> Injected:
    """An event stream without a response."""
    return Injected(sends(lambda _: STREAM + b"".join(pieces) + end, then))


NOTE = event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"debug","data":"S3CRET"}}')
OK = b"HTTP/1.1 200 OK\r\n"
GZIP = {"Content-Encoding": "gzip"}
FAULTS: dict[str, Injected] = {
    # of the port
    "refused": Injected(door="refused"),
    "accepts and is silent": Injected(door="silent"),
    "accepts and closes": Injected(door="closes"),
    "accepts and resets": Injected(door="resets"),
    "backlog full": Injected(door="full"),
    "plain HTTP where TLS is expected": Injected(door="plain"),
    "an expired certificate": Injected(door="expired"),
    "a stranger's certificate": Injected(door="foreign"),
    # of the connection, after the request
    "silent": Injected(silence),
    "reset before the answer": Injected(reset_at_once),
    "closed before the answer": Injected(sends(lambda _: b"", "close")),
    "half closed before the answer": Injected(half_closed_before),
    "half closed after the answer": Injected(half_closed_after),
    "reset at byte 1": cut(lambda text: 1, "reset"),
    "reset in the head": cut(lambda text: _head(text) // 2, "reset"),
    "reset in the body": cut(lambda text: (_head(text) + len(text)) // 2, "reset"),
    "closed in the head": cut(lambda text: _head(text) // 2, "close"),
    "closed in the body": cut(lambda text: (_head(text) + len(text)) // 2, "close"),
    # of HTTP
    "101": Injected(sends(lambda _: b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")),
    "202": Injected(sends(lambda _: answer(b"", status="202 Accepted"))),
    "204": Injected(sends(lambda _: b"HTTP/1.1 204 No Content\r\n\r\n")),
    "301 elsewhere": status("301", "Location: http://192.0.2.1/"),
    "307 elsewhere": status("307", "Location: http://192.0.2.1/mcp"),
    "400": status("400"),
    "401": status("401", 'WWW-Authenticate: Bearer resource_metadata="http://S3CRET/"'),
    "403": status("403"),
    "404": status("404"),
    "408": status("408"),
    "421": status("421"),
    "429": status("429"),
    "429 with Retry-After": status("429", "Retry-After: 7"),
    "500": status("500"),
    "502": status("502"),
    "503": status("503"),
    "503 with Retry-After": status("503", "Retry-After: 9"),
    "504 of a proxy": status("504", body=b"<html><h1>504 Gateway Time-out</h1><hr>S3CRET</html>"),
    "HTTP/0.9": Injected(sends(lambda exchange: exchange.body, "close")),
    "HTTP/2": Injected(sends(lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "close")),
    "a header without end": endless(b"S3CRET" * 1000, OK + b"X-S: "),
    "headers without end": endless(b"X-S: S3CRET\r\n" * 500, OK),
    "Content-Length and chunked": Injected(
        sends(lambda exchange: answer(chunk(exchange.body) + STREAM_END, headers={"Transfer-Encoding": "chunked"}))
    ),
    "a bad chunk size": Injected(sends(lambda _: JSON_STREAM + b"zz\r\nS3CRET\r\n")),
    "a chunk without end": endless(b" " * 4096, JSON_STREAM + b"7fffffff\r\n"),
    "gzip that is none": Injected(sends(lambda exchange: answer(exchange.body, headers=GZIP))),
    "gzip of too much": Injected(sends(lambda _: answer(gzip.compress(b" " * 100 * LARGEST), headers=GZIP))),
    "a head that drips": dripping(lambda exchange: (b"HTTP/1.1 ", exchange.right.removeprefix(b"HTTP/1.1 "))),
    "a body that drips": dripping(lambda exchange: (
        exchange.right[: _head(exchange.right) + 8], exchange.right[_head(exchange.right) + 8 :]
    )),
    # of event streams
    "comments for ever": endless(chunk(b": S3CRET\n\n"), STREAM, every=DRIP),
    "a stream without an event": stream(),
    "a stream without a response": stream(NOTE),
    "a stream cut in an event": stream(NOTE, end=chunk(b"data: {"), then="close"),
    "a line without end": endless(chunk(b"x" * 4096), STREAM + chunk(b"data: ")),
    # of JSON and JSON-RPC
    "cut JSON": says(lambda exchange: exchange.body[:-5]),
    "not UTF-8": says(lambda exchange: exchange.body.replace(b'"jsonrpc"', b'"\xff":1,"jsonrpc"', 1)),
    "no JSON": says(lambda _: b"S3CRET"),
    "an array": says(lambda exchange: b"[" + exchange.body + b"]"),
    "deep JSON": result(b'{"content":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "NaN": result(b'{"content":[],"x":NaN}'),
    "another's id": renamed(b'"S3CRET"'),
    "a null id": renamed(b"null"),
    "two answers": Injected(sends(lambda exchange: exchange.right * 2)),
    "a result that is no object": result(b'"S3CRET"'),
    "a result that is too large": result(b'{"content":"' + b"x" * LARGEST + b'"}'),
    "isError": result(b'{"resultType":"complete","content":[],"isError":true}'),
    "-32603": error(-32603),
    "-32602": error(-32602, "Invalid arguments"),
    "-32601": error(-32601, "Method not found"),
}  # fmt: skip
