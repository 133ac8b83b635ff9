"""Thirty MCP servers in one process with the made-up catalogues of `bench.catalogues`, and a gateway in front of them.

`python -m bench servers` prints `ports=A,B,...` when all listen. SIGUSR1: from now on the first server's tools are
others at every look, once a second; once more: no longer.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench import backend
from bench.catalogues import NAMES, Lists, Size, changed, offered
from bench.gateway import Features, gateway
from bench.handshake import post
from bench.messages import MODERN, Target, modern_meta
from bench.started import START, NotStarted, started

SMALL = "small"
"""The endpoint with few tools: those of one server that its `tools` name."""
VERSIONS = 60
"""Of the list that changes; then it begins again."""


@dataclass(slots=True)
class Listing(backend.Server):
    """One of the servers: modern, its tools all do the same."""

    lists: Lists = field(default_factory=dict)
    ttl: int = backend.TTL_MS
    changing: bool = False
    looks: int = 0
    prepared: dict[str, list[bytes]] = field(default_factory=dict)

    def prepare(self, versions: int) -> None:
        """Encode all answers now, and so many versions of the tools: nothing may hold up calls that are measured."""
        meanings = {method: {NAMES[method]: items} for method, items in self.lists.items()}
        meanings["server/discover"] = {
            "supportedVersions": [MODERN],
            "capabilities": {name: {} for name in NAMES.values()},
        }
        meanings["resources/templates/list"] = {"resourceTemplates": []}
        self.prepared = {method: [self.encoded(found)] for method, found in meanings.items()}
        later = (changed(self.lists, times)["tools/list"] for times in range(1, versions))
        self.prepared["tools/list"].extend(self.encoded({"tools": tools}) for tools in later)

    def encoded(self, found: dict[str, Any]) -> bytes:
        """A result with all that a modern one must carry, as JSON text."""
        return json.dumps({**self.cached(found), "ttlMs": self.ttl}).encode()

    def rest(self, id: bytes, request: Any) -> tuple[int, bytes, bytes]:
        """See `backend.Server.rest`."""
        versions = self.prepared.get(request.method)
        if versions is None:
            return backend.Server.rest(self, id, request)
        if request.method == "tools/list" and self.changing:
            self.looks += 1
        return 200, b"", b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, versions[self.looks % len(versions)])


def servers(size: Size, again: int) -> list[Listing]:
    """All of them; the first one's lists look fresh for `again` milliseconds only, unless that is 0."""
    found = []
    for number in range(size.servers):
        lists = offered(size, number)
        one = Listing(lists=lists, ttl=again if again and number == 0 else backend.TTL_MS)
        one.prepare(VERSIONS if number == 0 else 1)
        one.known = frozenset(tool["name"] for tool in lists["tools/list"])
        found.append(one)
    return found


@dataclass(frozen=True, slots=True)
class Crowd:
    """The servers and a gateway that run.

    Args:
        servers, gateway: pids.
        port: of the gateway; `key` of an agent that sees everything.
        tools: names of tools that can be called.
    """

    servers: int
    gateway: int
    port: int
    key: str
    tools: tuple[str, ...]

    def target(self, endpoint: str = "") -> Target:
        """How an agent calls the last tool."""
        return Target(self.port, "modern", f"/mcp{endpoint and '/' + endpoint}", self.tools[-1], self.key)


@contextmanager
def crowd(folder: Path, size: Size, workers: int, again: int = 0) -> Iterator[Crowd]:
    """The servers (see `servers`), and `fastgw run` in front of them once it lists everything.

    Raises:
        NotStarted: something does not come up.
    """
    log = folder / "servers.log"
    command = [sys.executable, "-m", "bench", "servers", "--again", str(again)]
    with started(command, log, lambda: b"ports=" in log.read_bytes()) as pid:
        ports = log.read_text().split("ports=")[1].split()[0].split(",")
        on = Features(2, limits=(), store="auto", further={**configuration(ports[: size.servers]), "workers": workers})
        names = tuple(tool["name"] for tool in offered(size, size.servers - 1)["tools/list"])
        with gateway([], folder, on) as running:
            found = Crowd(pid, running.pid, running.port, running.key, names)
            deadline = time.monotonic() + START
            while not _lists_all(found.target(), size):
                if time.monotonic() > deadline:
                    raise NotStarted(f"not all is listed within {START:g} s")
                time.sleep(0.05)
            yield found


def configuration(ports: list[str]) -> dict[str, Any]:
    """Of the file: all servers on `/mcp`, ten tools on `/mcp/small`; two agents that see different things."""
    policies = [("agent-0", ["get_*", "list_*", "resource:*"]), ("agent-1", ["*", "prompt:*", "resource:*"])]
    return {
        "policies": [{"name": one, "match": {"agent": one}, "allow": allowed} for one, allowed in policies],
        "servers": {
            f"server-{at:02d}": {"url": f"http://127.0.0.1:{port}/mcp", "era": "modern"}
            for at, port in enumerate(ports)
        },
        "endpoints": {"/mcp": {}, f"/mcp/{SMALL}": {"servers": ["server-01"], "tools": ["*_01_00*"]}},
    }


def ask(target: Target, method: str, **params: Any) -> dict[str, Any]:
    """The result of one request.

    Raises:
        OSError, KeyError: there is none.
    """
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": modern_meta()}}
    found: dict[str, Any] = json.loads(post(target, message)[2])["result"]
    return found


def _lists_all(target: Target, size: Size) -> bool:
    """Whether every list has everything."""
    try:
        for method, member in NAMES.items():
            count, cursor = 0, {}
            while True:
                found = ask(target, method, **cursor)
                count += len(found[member])
                if "nextCursor" not in found:
                    break
                cursor = {"cursor": found["nextCursor"]}
            if count < getattr(size, member):
                return False
    except (OSError, KeyError, ValueError, http.client.HTTPException):
        return False
    return True


async def _forever(size: Size, again: int) -> None:
    made = servers(size, again)
    listeners = [await backend.serve(one, 0) for one in made]

    def toggle() -> None:
        made[0].changing = not made[0].changing

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, toggle)
    print("ports=" + ",".join(str(one.sockets[0].getsockname()[1]) for one in listeners), flush=True)
    await asyncio.gather(*(one.serve_forever() for one in listeners))


def main(argv: list[str]) -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench servers", description=__doc__.split("\n")[0])
    parser.add_argument("--again", type=int, default=0, metavar="MS", help="the first one's lists are fresh so long")
    uvloop.run(_forever(Size(), parser.parse_args(argv).again))
    return 0
