"""A real HTTP server as a process of its own that takes what sinks post, may be killed, and answers as it is told.

with HttpReceiver(tmp_path) as receiver:
    receiver.answer(503, {"Retry-After": "2"})   # the next requests get what was told, one each; then 200
    sink.deliver(lines)
    receiver.requests()[0].body                  # gunzipped; written down before the answer went out
    receiver.answer(DIES)                        # SIGKILL: the request is written down, and not answered
    receiver.kill(); receiver.start()            # the same port, what it has taken is still there
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

EXAMPLE = {
    "schema": 1,
    "requestId": "req_0",
    "timestamp": "2026-02-26T14:32:01.445Z",
    "gateway": "gw-1",
    "endpoint": "/mcp",
    "agentId": "deploy-bot",
    "userId": None,
    "credential": "key:f784e848",
    "team": "engineering",
    "project": None,
    "billingAccount": "acme-eng",
    "labels": {"tier": "internal"},
    "method": "tools/call",
    "tool": "generate-code",
    "mcpServer": "codegen",
    "instance": "127.0.0.1:9006",
    "outcome": "ok",
    "statusCode": 200,
    "errorCode": None,
    "attempts": 1,
    "tokensIn": 1250,
    "cost": "COST",
    "currency": "USD",
    "traceId": "0af7651916cd43dd8448eb211c80319c",
}
DIES = 0
COST = "123456789.123456789"
"""More places than a double has."""


FIRST, SECOND = "0000000000001-1-1.jsonl", "0000000000002-1-1.jsonl"


def event(number: int, **other: object) -> bytes:
    """A line of the spool."""
    text = json.dumps({**EXAMPLE, "requestId": f"req_{number}", **other}, ensure_ascii=False, separators=(",", ":"))
    return text.replace('"COST"', COST).encode()


def names(first: int, end: int) -> set[str]:
    return {f"req_{number}" for number in range(first, end)}


def until(look: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


@dataclass
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str

    def lines(self) -> list[str]:
        return self.body.splitlines()


class HttpReceiver:
    def __init__(self, folder: Path, name: str = "receiver") -> None:
        self._file = folder / f"{name}.requests"
        self._answers = folder / f"{name}.answers"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it listens, on the port that it had before."""
        command = [sys.executable, "-S", __file__, str(self.port), str(self._file), str(self._answers)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ""})
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def answer(self, status: int, headers: dict[str, str] | None = None, body: str = "", times: int = 1) -> None:
        with self._answers.open("a") as file:
            file.write((json.dumps([status, headers or {}, body]) + "\n") * times)

    def requests(self) -> list[Request]:
        """Those that came whole."""
        whole = self._file.read_text().rpartition("\n")[0] if self._file.exists() else ""
        return [Request(**json.loads(line)) for line in whole.splitlines()]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def spooled(folder: Path, name: str, lines: list[bytes]) -> None:
    """A file of the spool that nobody writes to any more."""
    spool = folder / "usage" / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    hidden = spool / ".hidden"
    hidden.write_bytes(b"".join(line + b"\n" for line in lines))
    hidden.rename(spool / name)


@contextmanager
def feeding(folder: Path, lines: list[bytes], **sink: str) -> Iterator[Any]:
    """The feed of a sink, at work on a spool of these lines."""
    from fastgw.config.schema.settings import SinkSettings
    from fastgw.usage.feed import SinkFeed
    from fastgw.usage.sinks import make_sink

    spooled(folder, FIRST, lines)
    settings = SinkSettings.model_validate(sink)
    feed = SinkFeed(settings, partial(make_sink, base=folder), folder / "usage", from_now=False)
    feed.start()
    try:
        yield feed
    finally:
        feed.finish(time.monotonic())
        feed.join(time.monotonic() + 10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file = answers = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        place = urlsplit(self.path)
        status, headers, text = self._planned()
        if status < 300:
            told = {
                "path": place.path,
                "query": {key: values[0] for key, values in parse_qs(place.query).items()},
                "headers": {key.lower(): value for key, value in self.headers.items()},
                "body": body.decode(),
            }
            with Path(self.file).open("a") as file:
                file.write(json.dumps(told) + "\n")
        if status == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def _planned(self) -> tuple[int, dict[str, str], str]:
        file = Path(self.answers)
        first, _, rest = file.read_text().partition("\n") if file.exists() else ("", "", "")
        if not first:
            return 200, {}, "{}"
        file.write_text(rest)
        status, headers, text = json.loads(first)
        return status, headers, text

    def log_message(self, *_: object) -> None:
        pass


def _serve(port: str, file: str, answers: str) -> None:
    _Handler.file, _Handler.answers = file, answers
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
