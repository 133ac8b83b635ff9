"""An MCP server of either era that fails as it is told and keeps a ledger of what ran; in a test's loop or by itself.

    async with faulty(box := Faulty("modern")) as door:              # door.url
        box.inject("reset in the head", "tools/call", rate=0.05)
        await door.become("refused")
    async with FaultyProcess(port, folder) as server:                # python -m tests.e2e.faulty PORT LEDGER [ERA]
        await server.inject("silent", "tools/call")
        server.signal(signal.SIGKILL)                                # the ledger is still there
    ledger_of(file)["nonce"]                                         # how often it ran

What a request does is written down at the moment it would do it, before a word of the answer. Two tools: `safe`, which
says that it only reads, and `unsafe`, which says nothing; each call carries a `nonce`. `FAULTS` in `faults.py` has the
faults by name.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.e2e.faults import FAULTS, Exchange, Injected
from tests.e2e.library import Library, said, text
from tests.e2e.servers import BACKLOG, STREAM, STREAM_END, Call, Got, event, read_request

CALLS = ("tools/call", "prompts/get", "resources/read", "completion/complete")
"""What agents ask of a server."""
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
OPENINGS = ("server/discover", "initialize", "ping")
"""What is asked of a server about itself."""
SILENT = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}}
"""Capabilities without announcements: nobody listens, so that a request is one that a test or a timer made."""
STARTED_WITHIN = 20.0


class Collected:
    """A writer that keeps what is written."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    async def drain(self) -> None:
        """There is no wire."""

    @property
    def text(self) -> bytes:
        """What was written."""
        return b"".join(self.pieces)


@dataclass
class Ledger:
    """How often what was run, by nonce; also in a file, a line each, which a SIGKILL leaves as it is."""

    file: Path | None = None
    runs: Counter[str] = field(default_factory=Counter)
    _opened: int | None = None

    def run(self, nonce: str) -> None:
        """Note one execution."""
        self.runs[nonce] += 1
        if self.file is not None:
            if self._opened is None:
                self._opened = os.open(self.file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.write(self._opened, nonce.encode() + b"\n")


def ledger_of(*files: Path) -> Counter[str]:
    """The executions that these files name, by nonce."""
    return Counter(line for file in files if file.exists() for line in file.read_text().splitlines())


@dataclass
class Fault:
    """What is injected for a method now, and how often: `rate` of 1 is always."""

    injected: Injected
    rate: float = 1.0


class Faulty(Library):
    """A library that fails as it is told.

    Args:
        era: "modern", "legacy" or "both".
        prefix: of all its names, so that two of these can stand behind one gateway.
        ledger: where it is written down what has run.
        delay: seconds that each call takes.
        streams: whether it answers calls with event streams.
    """

    def __init__(
        self, era: str, prefix: str = "", ledger: Ledger | None = None, *, delay: float = 0.0, streams: bool = False
    ) -> None:
        super().__init__(
            era,
            {f"{prefix}safe": self.call, f"{prefix}unsafe": self.call},
            definitions={f"{prefix}safe": {"annotations": {"readOnlyHint": True}}},
            prompts={f"{prefix}prompt": said()},
            templates=[f"{prefix or 'x'}://pages/{{page}}"],
            unlisted=text,
            values={f"{prefix}prompt": b'{"values":["a"]}'},
            capabilities=SILENT,
        )
        self.executions = ledger or Ledger()
        self.delay = delay
        self.streams = streams
        self.faults: dict[str, Fault] = {}
        self.asked_for: Counter[str] = Counter()
        """Requests by method, failed or not."""
        self.in_hand = self.most_in_hand = 0
        self._dice = random.Random(0)

    def inject(self, name: str | None, *methods: str, rate: float = 1.0) -> None:
        """From now on this fault for these methods, or for all calls of agents; None ends what was injected there."""
        for method in methods or CALLS:
            self.faults.pop(method, None)
            if name is not None and FAULTS[name].act is not None:
                self.faults[method] = Fault(FAULTS[name], rate)

    async def call(self, call: Call) -> None:
        self.in_hand += 1
        self.most_in_hand = max(self.most_in_hand, self.in_hand)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            await call.text(str(call.arguments.get("nonce")))
        finally:
            self.in_hand -= 1

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        for kept in (self.got, self.heard, self.ledger):
            kept.clear()  # of a million calls
        if got.verb != "POST":
            await super().handle(got, writer)
            return
        message = got.json()
        method = message.get("method", "")
        self.asked_for[method] += 1
        fault = self.faults.get(method)
        if fault is not None and self._dice.random() < fault.rate and fault.injected.act is not None:
            right = await self._carried_out(got, message) if fault.injected.runs else b""
            await fault.injected.act(Exchange(got, writer, right))
        elif method == "tools/call" and self.streams:
            _, _, body = (await self._carried_out(got, message)).partition(b"\r\n\r\n")
            writer.write(STREAM + event(body) + STREAM_END)
        else:
            self._write_down(method, message)
            await super().handle(got, writer)

    async def _carried_out(self, got: Got, message: dict[str, Any]) -> bytes:
        self._write_down(message["method"], message)
        collected: Any = Collected()
        await super().handle(got, collected)
        return bytes(collected.text)

    def _write_down(self, method: str, message: dict[str, Any]) -> None:
        if method in CALLS:
            self.executions.run(nonce_of(message["params"]))


def nonce_of(params: dict[str, Any]) -> str:
    """What tells a call from others: the argument `nonce`, the URI, the value to be completed."""
    found = params.get("arguments", {}).get("nonce") or params.get("uri") or params.get("argument", {}).get("value")
    return str(found or "")


class Door:
    """A port, and what becomes of those who knock.

        open       the handler answers
        plain      likewise, without TLS where there was any
        expired, foreign   likewise, with another certificate
        silent     they are let in, and nobody says a word
        closes, resets     they are let in, and at once the connection is closed, or reset
        refused    nobody listens
        full       somebody listens, and the backlog is full: no word at all

    Every change closes the connections there are. `certificates` are those of an https server, by these words.
    """

    def __init__(self, certificates: Mapping[str, ssl.SSLContext] | None = None, port: int = 0) -> None:
        self._certificates = certificates or {}
        self._held = _bound(port)  # bound, not listening: nobody else gets the port
        self.port = self._held.getsockname()[1]
        self._mode = ""
        self._server: asyncio.Server | None = None
        self._crowd: list[socket.socket] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._box: Faulty | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._certificates else 'http'}://127.0.0.1:{self.port}/mcp"

    async def open(self, box: Faulty) -> None:
        """Begin, with `box` answering."""
        self._box = box
        await self.become("open")

    async def become(self, mode: str) -> None:
        """Be this from now on."""
        if mode == self._mode:
            return
        await self.close()
        self._mode = mode
        if mode == "refused":
            return
        if mode == "full":
            self._crowd = _crowded(self.port)
            return
        tls = None if mode == "plain" else self._certificates.get(mode, self._certificates.get("open"))
        listening = _bound(self.port)
        self._server = await asyncio.start_server(self._met, sock=listening, limit=1 << 26, backlog=BACKLOG, ssl=tls)

    async def close(self) -> None:
        """Let nobody in, and let those go who are in."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, writer in list(self._connections.items()):
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for one in self._crowd:
            one.close()
        self._crowd.clear()

    def shut(self) -> None:
        """Give the port back."""
        self._held.close()

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            if self._mode == "silent":
                await asyncio.Event().wait()
            elif self._mode == "resets":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            elif self._mode != "closes":
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # who knocked has left, or the door has changed
        finally:
            writer.close()
            self._connections.pop(task, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._box is not None
        while not writer.is_closing() and (got := await read_request(reader)):
            await self._box.handle(got, writer)


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _crowded(port: int) -> list[socket.socket]:
    """Somebody who listens and never accepts, and so many who wait that the kernel answers nobody else (Linux)."""
    crowd = [_bound(port)]
    crowd[0].listen(0)
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        with suppress(BlockingIOError):
            one.connect(("127.0.0.1", port))
        crowd.append(one)
    return crowd


@asynccontextmanager
async def faulty(box: Faulty, door: Door | None = None) -> AsyncIterator[Door]:
    """The server behind its door."""
    found = door or Door()
    await found.open(box)
    try:
        yield found
    finally:
        await found.close()
        found.shut()


class FaultyProcess:
    """A `Faulty` that runs by itself, and may be killed, stopped and started again on the same port.

    Args:
        ledger: the file of its executions.
        options: of `Faulty`, and `era`.
    """

    def __init__(self, port: int, ledger: Path, **options: Any) -> None:
        self.url = f"http://127.0.0.1:{port}/mcp"
        self._words = [sys.executable, "-m", "tests.e2e.faulty", str(port), str(ledger), json.dumps(options)]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it, and return when it listens."""
        pipe, root = asyncio.subprocess.PIPE, Path(__file__).parents[2]
        self._process = await asyncio.create_subprocess_exec(*self._words, stdin=pipe, stdout=pipe, cwd=root)
        assert await self._heard() == "listening"

    async def inject(self, name: str | None, *methods: str, rate: float = 1.0) -> None:
        """As `Faulty.inject`; returns when it holds."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, methods, rate]).encode() + b"\n")
        assert await self._heard() == "injected"

    def signal(self, number: int) -> None:
        """SIGSTOP it, or SIGCONT it."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _heard(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(STARTED_WITHIN):
            return (await self._process.stdout.readline()).decode().strip()


async def main(port: int, ledger: Path, options: dict[str, Any]) -> None:
    """Serve until stdin ends; each line of it is [fault or null, methods, rate]."""
    box = Faulty(options.pop("era", "modern"), ledger=Ledger(ledger), **options)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with faulty(box, Door(port=port)) as door:
        print("listening", flush=True)
        while line := await lines.readline():
            name, methods, rate = json.loads(line)
            box.inject(name, *methods, rate=rate)
            await door.become((name and FAULTS[name].door) or "open")
            print("injected", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
