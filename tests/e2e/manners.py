"""Servers as they are met in the wild: each departs in one manner from what the specification says of a server.

    async with street({"gzip": Coded("gzip"), "slow": Slow(1.0)}) as urls:     # one socket, told apart by path
        urls["gzip"]                                                           # http://127.0.0.1:port/gzip/mcp

`Polite` departs in nothing. It counts in each session, so that a lost or a foreign session shows in every answer, and
writes down who asked in which session, what ran, and which sessions were opened when.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from itertools import count
from typing import Any, ClassVar

from tests.e2e.servers import LEGACY, MODERN, STREAM, STREAM_END, Got, answer, chunk, scripted

CALLS = {"tools/call": "arguments", "prompts/get": "arguments", "resources/read": ""}
NO_METHOD, NO_PARAMS = -32601, -32602
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@dataclass(frozen=True)
class Failed(Exception):
    """A JSON-RPC error instead of a result."""

    code: int
    message: str


@dataclass(frozen=True)
class Asking:
    """Somebody's request as it came, whether it was answered or refused."""

    at: float
    session: str | None
    who: str


@dataclass(frozen=True)
class Opening:
    """A session as it was opened."""

    at: float
    session: str
    capabilities: dict[str, Any]


def status_line(status: int) -> str:
    """`404 Not Found`."""
    known = {one.value: one.phrase for one in HTTPStatus}
    return f"{status} {known.get(status, 'Unknown')}"


def plain(status: int, body: bytes = b"", media: str = "text/plain", **headers: str) -> bytes:
    """A whole answer of any status; without a media type where the body is empty."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    if not body:
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Content-Length": "0", **more}.items())
        return f"HTTP/1.1 {status_line(status)}\r\n{head}\r\n".encode()
    return answer(body, status=status_line(status), headers={"Content-Type": media, **more})


def error(status: int, identity: Any, code: int, words: str, **more: Any) -> bytes:
    """A JSON-RPC error under any status."""
    said = {"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": words, **more}}
    return plain(status, json.dumps(said).encode(), "application/json")


Manner = Callable[[Got, asyncio.StreamWriter], Any]
"""Any way to answer: the whole answer, or None where it was written by hand or nothing is; waits where it likes."""


async def given(manner: Manner, got: Got, writer: asyncio.StreamWriter) -> bytes | None:
    """The answer that it gives."""
    said = manner(got, writer)
    return await said if asyncio.iscoroutine(said) else said


def saying(status: int, body: bytes = b"", media: str = "text/plain", **headers: str) -> Manner:
    """The same answer to whatever is asked."""
    return lambda got, writer: plain(status, body, media, **headers)


def failing(status: int, code: int, words: str, *, own: bool = True, **more: Any) -> Manner:
    """The same JSON-RPC error, under the request's own id or under none of ours."""
    return lambda got, writer: error(status, got.json()["id"] if own else "server-error", code, words, **more)


def giving(result: Any) -> Manner:
    """The same result."""
    return lambda got, writer: plain(
        200, json.dumps({"jsonrpc": "2.0", "id": got.json()["id"], "result": result}).encode(), "application/json"
    )


async def silence(got: Got, writer: asyncio.StreamWriter) -> None:
    """Nothing, until the other side gives up."""
    await gone(got)
    writer.close()


def resetting(got: Got, writer: asyncio.StreamWriter) -> None:
    """A reset instead of an answer."""
    reset(writer)


def closing(got: Got, writer: asyncio.StreamWriter) -> None:
    """The connection's end instead of an answer."""
    writer.close()


def half(got: Got, writer: asyncio.StreamWriter) -> None:
    """An answer that breaks off."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"jsonrpc":"2.0"')
    writer.close()


async def gone(got: Got) -> None:
    """Return when the other side has closed the connection: silence until then."""
    assert got.reader is not None
    with suppress(ConnectionError):
        await got.reader.read(1)


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Polite:
    """A server without a manner.

    `eras` says what it speaks, `tools` what it lists (the call of any of them counts in its session), `offers` the
    other lists as they are sent. `restart()` makes it forget every session and have one tool more.
    """

    ERAS: ClassVar[tuple[str, ...]] = ("legacy",)

    def __init__(self, **changed: Any) -> None:
        self.name = ""
        self.eras: tuple[str, ...] = self.ERAS
        self.capabilities: Any = {"tools": {}}
        self.tools: list[dict[str, Any]] = [{"name": "count", "inputSchema": {"type": "object"}}]
        self.offers: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        self.sessions: dict[str, int] = {}
        self.opened: list[Opening] = []
        self.ended: list[str] = []
        self.asked: list[Asking] = []
        self.ran: Counter[str] = Counter()
        self.got: list[Got] = []
        self.ids: dict[str | None, list[Any]] = {}
        self.streams: list[asyncio.StreamWriter] = []
        self.numbers = count(1)
        self.pings = True
        for name, value in changed.items():
            assert hasattr(self, name), name
            setattr(self, name, value)

    # -- what a test looks at or does -------------------------------------------------------------------------------

    def methods(self) -> list[str]:
        """What was asked by POST, in order."""
        return [got.json().get("method", "") for got in self.got if got.verb == "POST"]

    def restart(self) -> None:
        """Forget every session, close every stream, come back with the tool `added`."""
        self.sessions.clear()
        for writer in self.streams:
            writer.close()
        self.streams.clear()
        self.add("added")

    def add(self, tool: str) -> None:
        """Have one tool more."""
        self.tools = [*self.tools, {"name": tool, "inputSchema": {"type": "object"}}]

    def announce(self) -> None:
        """Say on every stream that the tools have changed."""
        for writer in self.streams:
            writer.write(chunk(b"data: " + json.dumps(CHANGED).encode() + b"\n\n"))

    # -- one request ------------------------------------------------------------------------------------------------

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        """Answer it, or hold the connection."""
        self.got.append(got)
        said = await self.reply(got, writer)
        if said is not None and not writer.is_closing():
            writer.write(said)

    async def reply(self, got: Got, writer: asyncio.StreamWriter) -> bytes | None:
        """The whole answer; None where it was written already, or never will be."""
        if got.verb == "POST":
            return await self.post(got, got.json(), writer)
        session = got.header("mcp-session-id")
        if session not in self.sessions:
            return self.lost({}, got)
        if got.verb == "GET":
            return await self.listening(got, writer)
        del self.sessions[str(session)]
        self.ended.append(str(session))
        return plain(200)

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        """The answer to a message."""
        modern = got.header("mcp-protocol-version") == MODERN
        method, session = message["method"], None if modern else got.header("mcp-session-id")
        if method in CALLS:
            who = who_asks(method, message["params"])
            self.asked.append(Asking(asyncio.get_running_loop().time(), session, who))
        if method == "server/discover":
            return await self.discover(got, message, writer)
        if modern and "modern" not in self.eras:
            return error(400, None, -32000, "Bad Request: Unsupported protocol version")
        if not modern and "legacy" not in self.eras:
            versions = {"supported": [MODERN], "requested": LEGACY[-1]}
            return error(400, message.get("id"), -32022, "Unsupported protocol version", data=versions)
        if method == "initialize":
            return await self.open(message)
        if not modern and not self.knows(session):
            return self.lost(message, got)
        if "id" not in message:
            return plain(202)
        self.ids.setdefault(session, []).append(message["id"])
        return await self.do(message, session, modern)

    async def do(self, message: dict[str, Any], session: str | None, modern: bool) -> bytes | None:
        """Run what is asked and say what came of it."""
        try:
            result = await self.result(message, session)
        except Failed as wrong:
            return self.said(message["id"], "error", {"code": wrong.code, "message": wrong.message})
        hints = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else {}
        return self.said(message["id"], "result", {**hints, **result})

    async def result(self, message: dict[str, Any], session: str | None) -> dict[str, Any]:
        """The result of a request that belongs to a session, or to none where it is modern.

        Raises:
            Failed: it has none.
        """
        method, params = message["method"], message.get("params") or {}
        if method == "ping" and self.pings:
            return {}
        if method == "tools/list":
            return await self.listed(session, params)
        if method in self.offers:
            place, items = self.offers[method]
            return {place: items}
        if method not in CALLS or (method != "tools/call" and not self.offers):
            raise Failed(NO_METHOD, "Method not found")
        if method == "tools/call" and params["name"] not in {tool["name"] for tool in self.tools}:
            raise Failed(NO_PARAMS, "Unknown tool")
        return self.counted(method, params, session)

    async def listed(self, session: str | None, params: dict[str, Any]) -> dict[str, Any]:
        """One page of tools."""
        return {"tools": self.tools}

    def counted(self, method: str, params: dict[str, Any], session: str | None) -> dict[str, Any]:
        """One more in this session; how many there were by now."""
        self.ran[who_asks(method, params)] += 1
        number = 1
        if session is not None:
            number = self.sessions[session] = self.sessions[session] + 1
        if method == "tools/call":
            return {"content": [{"type": "text", "text": str(number)}]}
        if method == "prompts/get":
            return {"messages": [{"role": "user", "content": {"type": "text", "text": str(number)}}]}
        return {"contents": [{"uri": params["uri"], "text": str(number)}]}

    # -- steps that manners depart from -----------------------------------------------------------------------------

    async def discover(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        """What `server/discover` hears."""
        if "modern" not in self.eras:
            return error(400, None, -32000, "Bad Request: Unsupported protocol version")
        return self.said(message["id"], "result", self.discovered())

    def discovered(self) -> dict[str, Any]:
        """The result of `server/discover`."""
        about = {"supportedVersions": [MODERN], "capabilities": self.capabilities}
        return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **about}

    async def open(self, message: dict[str, Any]) -> bytes | None:
        """Open a session."""
        session = f"{self.name}-{next(self.numbers)}"
        self.sessions[session] = 0
        params = message["params"]
        self.opened.append(Opening(asyncio.get_running_loop().time(), session, params["capabilities"]))
        asked = params["protocolVersion"]
        about = self.initialized(asked if asked in LEGACY else LEGACY[-1])
        return self.said(message["id"], "result", about, {"Mcp-Session-Id": session})

    def initialized(self, version: str) -> dict[str, Any]:
        """The result of `initialize`."""
        info = {"name": self.name, "version": "1"}
        return {"protocolVersion": version, "capabilities": self.capabilities, "serverInfo": info}

    def knows(self, session: str | None) -> bool:
        """Whether a request of this session is let in."""
        return session in self.sessions

    def lost(self, message: dict[str, Any], got: Got) -> bytes:
        """What a request hears whose session is not known."""
        return error(404, None, -32001, "Session not found")

    async def listening(self, got: Got, writer: asyncio.StreamWriter) -> bytes | None:
        """What the GET for a stream hears."""
        return plain(405, allow="POST, DELETE")

    def said(self, identity: Any, kind: str, inner: Any, headers: Mapping[str, str] | None = None) -> bytes:
        """A whole answer with a `result` or an `error`."""
        return self.dressed(
            f'{{"jsonrpc":"2.0","id":{self.echoed(identity)},"{kind}":{json.dumps(inner)}}}', headers or {}
        )

    def echoed(self, identity: Any) -> str:
        """A request's id as the answer has it, JSON text."""
        return json.dumps(identity)

    def dressed(self, text: str, headers: Mapping[str, str]) -> bytes:
        """A message as a whole answer."""
        return answer(text.encode(), headers=dict(headers))


def who_asks(method: str, params: dict[str, Any]) -> str:
    """The asker's word for this request, which it puts into an argument or into the URI."""
    if method == "resources/read":
        return str(params["uri"]).rpartition("/")[2]
    return str((params.get("arguments") or {}).get("who", ""))


class Listening(Polite):
    """Keeps the stream of a GET open."""

    async def listening(self, got: Got, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(STREAM)
        self.streams.append(writer)
        await gone(got)
        writer.close()
        return None


# -- lost sessions ----------------------------------------------------------------------------------------------------

Wording = Callable[[int, Any], bytes]
"""An answer by its status and the id of what was asked."""
HTML = b"<!doctype html><html><body><h1>That did not work</h1></body></html>"
NULL_SESSION: dict[str, Wording] = {
    "null-session": lambda status, _: error(status, None, -32001, "Session not found"),
    "null-terminated": lambda status, _: error(status, None, -32000, "Bad Request: the session was terminated"),
}
OWN: dict[str, Wording] = {
    "own-session": lambda status, own: error(status, own, -32001, "Session not found"),
    "own-initialize": lambda status, own: error(status, own, -32600, "expected initialize request"),
    "own-initialized": lambda status, own: error(status, own, -32000, "Bad Request: Server not initialized"),
    "own-unauthorized": lambda status, own: error(status, own, -32001, "Unauthorized: Session not found"),
}
SILENT: dict[str, Wording] = {
    "null-other": lambda status, _: error(status, None, -32600, "Bad Request"),
    "foreign-id": lambda status, _: error(status, "server-error", -32600, "Session not found"),
    "text": lambda status, _: plain(status, b"Not here.\n"),
    "html": lambda status, _: plain(status, HTML, "text/html; charset=utf-8"),
    "empty": lambda status, _: plain(status),
    "json": lambda status, _: plain(status, b'{"detail":"No valid session","status":4}', "application/json"),
}
ABOUT_THE_CALL: dict[str, Wording] = {"own-other": lambda status, own: error(status, own, -32050, "Not allowed")}
WORDINGS = {**NULL_SESSION, **OWN, **SILENT, **ABOUT_THE_CALL}


class Lost(Polite):
    """Says in its own way that it does not know a session (any more)."""

    def __init__(self, status: int, wording: str, **changed: Any) -> None:
        self.status, self.words = status, WORDINGS[wording]
        super().__init__(**changed)

    def lost(self, message: dict[str, Any], got: Got) -> bytes:
        return self.words(self.status, message.get("id"))


class Deaf(Lost, Listening):
    """The same, and it has streams: they end with the sessions."""


class Forgetful(Lost):
    """Loses every session as soon as something ran in it."""

    def counted(self, method: str, params: dict[str, Any], session: str | None) -> dict[str, Any]:
        try:
            return super().counted(method, params, session)
        finally:
            del self.sessions[str(session)]


class Nameless(Lost):
    """Gives no session id; it is initialized or it is not."""

    async def open(self, message: dict[str, Any]) -> bytes | None:
        self.sessions.clear()
        said = await super().open(message)
        assert said is not None
        return b"\r\n".join(line for line in said.split(b"\r\n") if not line.lower().startswith(b"mcp-session-id"))

    def knows(self, session: str | None) -> bool:
        return bool(self.sessions)

    def counted(self, method: str, params: dict[str, Any], session: str | None) -> dict[str, Any]:
        return super().counted(method, params, next(iter(self.sessions)))


class Blind(Lost):
    """Answers `ping` in whatever session, also in one that it has lost."""

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        if message["method"] == "ping":
            return self.said(message["id"], "result", {})
        return await super().post(got, message, writer)


class Forbidding(Lost):
    """Refuses one tool in the same way, whatever the session."""

    async def do(self, message: dict[str, Any], session: str | None, modern: bool) -> bytes | None:
        if message["method"] == "tools/call" and message["params"]["name"] == "forbidden":
            return self.words(self.status, message["id"])
        return await super().do(message, session, modern)


class Single(Polite):
    """Takes one `initialize` in its life, until its one session is ended."""

    def __init__(self, status: int = 400, **changed: Any) -> None:
        self.status, self.refused = status, 0
        super().__init__(**changed)

    async def open(self, message: dict[str, Any]) -> bytes | None:
        if self.sessions:
            self.refused += 1
            return error(self.status, None, -32600, "Invalid Request: Server already initialized")
        return await super().open(message)


class Both(Polite):
    """Speaks both eras at one address, the older one with sessions."""

    ERAS = ("legacy", "modern")


# -- finding the era out ----------------------------------------------------------------------------------------------


class Probed(Polite):
    """An older server that answers `server/discover` in a way of its own, until it is brought up to date."""

    def __init__(self, manner: Manner, **changed: Any) -> None:
        self.manner: Manner | None = manner
        self.probed: list[float] = []
        super().__init__(**changed)

    def update(self) -> None:
        """Speak both eras from now on."""
        self.eras = ("legacy", "modern")
        self.manner = None

    async def discover(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        self.probed.append(asyncio.get_running_loop().time())
        if self.manner is None:
            return await super().discover(got, message, writer)
        return await given(self.manner, got, writer)


class Slow(Polite):
    """Takes its time for some methods."""

    def __init__(self, seconds: float, *methods: str, **changed: Any) -> None:
        self.seconds, self.late = seconds, methods
        super().__init__(**changed)

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        if message["method"] in self.late:
            await asyncio.sleep(self.seconds)
        return await super().post(got, message, writer)


# -- how answers are dressed ------------------------------------------------------------------------------------------


class Moved(Listening):
    """Everything is a slash further on: what comes to `/name/mcp` is sent elsewhere, once it has moved.

    Args:
        location: what the redirect says, with {path}, {host} and {port} of what was asked; empty: it does not say.
    """

    def __init__(self, status: int, location: str, **changed: Any) -> None:
        self.status, self.location, self.moved = status, location, True
        self.turned_away: list[Got] = []
        super().__init__(**changed)

    def is_here(self, got: Got) -> bool:
        """Whether a request has come to the right place."""
        return not self.moved or got.target.endswith("/")

    async def reply(self, got: Got, writer: asyncio.StreamWriter) -> bytes | None:
        if self.is_here(got):
            return await super().reply(got, writer)
        self.turned_away.append(got)
        return plain(self.status, location=self.where(got)) if self.location else plain(self.status)

    def where(self, got: Got) -> str:
        """Where a request is sent."""
        host = got.header("host") or ""
        return self.location.format(path=got.target, host=host, port=host.rpartition(":")[2])


class Circling(Moved):
    """Sends whoever comes with a slash away to where there is none, and the other way round."""

    def __init__(self, status: int, **changed: Any) -> None:
        super().__init__(status, "/", **changed)

    def is_here(self, got: Got) -> bool:
        self.location = got.target.removesuffix("/") if got.target.endswith("/") else f"{got.target}/"
        return False


def deflated(data: bytes) -> bytes:
    """Without the zlib header, as some servers understand the word."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzipped),
    "deflate": ("deflate", zlib.compress),
    "deflate-raw": ("deflate", deflated),
    "x-gzip": ("x-gzip", gzipped),
    "upper-case": ("GZIP", gzipped),
    "identity": ("identity", bytes),
    "br": ("br", lambda data: b"\x0b\x02\x80" + data + b"\x03"),
}


class Coded(Polite):
    """Encodes every body, asked or not."""

    def __init__(self, coding: str, *, streams: bool = False, **changed: Any) -> None:
        (self.coding, self.encode), self.as_stream = CODINGS[coding], streams
        super().__init__(**changed)

    def dressed(self, text: str, headers: Mapping[str, str]) -> bytes:
        coded = {"Content-Encoding": self.coding, **headers}
        if not self.as_stream:
            return answer(self.encode(text.encode()), headers=coded)
        head = "".join(f"{name}: {value}\r\n" for name, value in coded.items()).encode()
        body = self.encode(b": so far\n\nevent: message\ndata: " + text.encode() + b"\n\n")
        pieces = b"".join(chunk(body[at : at + 40]) for at in range(0, len(body), 40))
        return STREAM.removesuffix(b"\r\n") + head + b"\r\n" + pieces + STREAM_END


HUGE = 512
"""MiB of the bomb's text once it is decoded."""
WINDOWS = {"gzip": 31, "deflate": 15, "deflate-raw": -15}


@cache
def zeros() -> bytes:
    """One MiB of zeros as a piece of any deflated body."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(b"0" * 1024 * 1024) + packer.flush(zlib.Z_FULL_FLUSH)


class Bomb(Coded):
    """The answer of its tool `bomb` is small on the wire and huge once it is decoded."""

    def __init__(self, coding: str, **changed: Any) -> None:
        self.window = WINDOWS[coding]
        super().__init__(coding, **changed)

    async def do(self, message: dict[str, Any], session: str | None, modern: bool) -> bytes | None:
        if message["method"] != "tools/call" or message["params"]["name"] != "bomb":
            return await super().do(message, session, modern)
        self.counted("tools/call", message["params"], session)
        text = f'{{"jsonrpc":"2.0","id":{message["id"]},"result":{{"content":[{{"type":"text","text":"'
        packer = zlib.compressobj(wbits=self.window)
        begin = packer.compress(b"data: " * self.as_stream + text.encode()) + packer.flush(zlib.Z_FULL_FLUSH)
        media = "text/event-stream" if self.as_stream else "application/json"
        return answer(begin + zeros() * HUGE, headers={"Content-Type": media, "Content-Encoding": self.coding})


class Streaming(Coded):
    """Tells of its progress in a stream that is encoded as it goes, and ends it when it is told to."""

    def __init__(self, coding: str, **changed: Any) -> None:
        self.window, self.release = WINDOWS[coding], asyncio.Event()
        super().__init__(coding, **changed)

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        params = message.get("params") or {}
        token = (params.get("_meta") or {}).get("progressToken")
        if message["method"] != "tools/call" or token is None:
            return await super().post(got, message, writer)
        progress = {"jsonrpc": "2.0", "method": "notifications/progress"}
        told = json.dumps({**progress, "params": {"progressToken": token, "progress": 1}}).encode()
        packer = zlib.compressobj(wbits=self.window)
        writer.write(STREAM.removesuffix(b"\r\n") + f"Content-Encoding: {self.coding}\r\n\r\n".encode())
        writer.write(chunk(packer.compress(b"data: " + told + b"\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)))
        await self.release.wait()
        modern = got.header("mcp-protocol-version") == MODERN
        hints = {"resultType": "complete"} if modern else {}
        result = self.counted("tools/call", params, None if modern else got.header("mcp-session-id"))
        said = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {**hints, **result}}).encode()
        return chunk(packer.compress(b"data: " + said + b"\n\n") + packer.flush()) + STREAM_END


class Numbered(Polite):
    """Takes integers only as ids, and echoes them in its own way."""

    def __init__(self, echo: Callable[[Any], str] = json.dumps, **changed: Any) -> None:
        self.echo = echo
        super().__init__(**changed)

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        if "id" in message and type(message["id"]) is not int:
            return error(400, None, -32600, "Invalid Request: id must be an integer")
        return await super().post(got, message, writer)

    def echoed(self, identity: Any) -> str:
        return self.echo(identity)


class Written(Polite):
    """Writes its answers as `rewrite` has them: the whole message, and what it answers."""

    def __init__(self, rewrite: Callable[[dict[str, Any]], None], **changed: Any) -> None:
        self.rewrite = rewrite
        super().__init__(**changed)

    def dressed(self, text: str, headers: Mapping[str, str]) -> bytes:
        message = json.loads(text)
        self.rewrite(message)
        return super().dressed(json.dumps(message), headers)


class Hosted(Listening):
    """Answers to one name."""

    def __init__(self, host: str, **changed: Any) -> None:
        self.host = host
        super().__init__(**changed)

    async def reply(self, got: Got, writer: asyncio.StreamWriter) -> bytes | None:
        if [value for name, value in got.headers if name == "host"] != [self.host]:
            return plain(421, b"Invalid Host header")
        return await super().reply(got, writer)


# -- what is listed ---------------------------------------------------------------------------------------------------


class Paged(Polite):
    """Lists one tool a page; what `broken` writes is the answer to the third, while there is such a thing."""

    def __init__(self, broken: Manner | None, **changed: Any) -> None:
        self.broken = broken
        self.failed = 0
        super().__init__(**changed)
        self.tools = [{"name": f"page-{number}", "inputSchema": {"type": "object"}} for number in range(1, 5)]

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        params = message.get("params") or {}
        if self.broken is None or message["method"] != "tools/list" or params.get("cursor") != "2":
            return await super().post(got, message, writer)
        self.failed += 1
        return await given(self.broken, got, writer)

    async def listed(self, session: str | None, params: dict[str, Any]) -> dict[str, Any]:
        at = int(params.get("cursor") or 0)
        more = {"nextCursor": str(at + 1)} if at + 1 < len(self.tools) else {}
        return {"tools": self.tools[at : at + 1], **more}


class Undeclared(Polite):
    """Answers in a way of its own what it does not declare."""

    def __init__(self, manner: Manner, **changed: Any) -> None:
        self.manner = manner
        super().__init__(**changed)

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        if message["method"].startswith(("prompts/", "resources/")):
            return await given(self.manner, got, writer)
        return await super().post(got, message, writer)


class Waking(Polite):
    """Fails at one method so many times, in one way, before it answers."""

    def __init__(self, method: str, times: int, manner: Manner, **changed: Any) -> None:
        self.method, self.times, self.manner = method, times, manner
        super().__init__(**changed)

    async def post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> bytes | None:
        if message["method"] != self.method or self.times <= 0:
            return await super().post(got, message, writer)
        self.times -= 1
        return await given(self.manner, got, writer)


class Wanting(Polite):
    """Lists a tool for each capability that the client declared when it opened the session."""

    async def listed(self, session: str | None, params: dict[str, Any]) -> dict[str, Any]:
        declared = next((one.capabilities for one in self.opened if one.session == session), {})
        wanted = [{"name": f"with-{name}", "inputSchema": {"type": "object"}} for name in sorted(declared)]
        return {"tools": [*self.tools, *wanted]}


# -- all of them on one socket ----------------------------------------------------------------------------------------


@asynccontextmanager
async def street(manners: Mapping[str, Polite]) -> AsyncIterator[dict[str, str]]:
    """These servers on one socket; their URLs by name."""
    for name, server in manners.items():
        server.name = name

    async def handle(got: Got, writer: asyncio.StreamWriter) -> None:
        server = manners.get(got.target.split("/")[1])
        if server is None:
            writer.write(plain(404))
        else:
            await server.handle(got, writer)

    async with scripted(handle) as one:
        yield {name: f"http://127.0.0.1:{one.port}/{name}/mcp" for name in manners}
