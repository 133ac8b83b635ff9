"""Public MCP servers as processes of their own, each on a free port.

    with launched({name: SERVERS[name] for name in ...}, folder) as running:
        running["everything"].url
        running["everything"].restart()      # killed and started again, on the same port

A server is ready when it answers a ping, with whatever status. Leaving the block ends each by its process id.
"""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.ports import free_port
from tests.e2e.tour import given

HERE = Path(__file__).parent
READY_WITHIN = 30.0
LOOK_EVERY = 0.02
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Place:
    """Where a server finds what it needs: its port, a folder of its own, and the environments."""

    port: int
    folder: Path
    environments: Path
    legacy: Path

    def program(self, name: str) -> str:
        """A program of ours beside this file."""
        return str(HERE / name)

    def python(self, environment: str) -> str:
        """The interpreter of an environment."""
        return str(self.environments / environment / "bin" / "python")

    @property
    def node(self) -> str:
        return str(self.environments / "node-servers" / "node")

    def module(self, path: str) -> str:
        """A file of an npm package."""
        return str(self.environments / "node-servers" / "node_modules" / path)


Order = Callable[[Place], list[str]]


def everything(place: Place) -> list[str]:
    """The reference server, by its own streamable HTTP mode; PORT says where."""
    return [place.node, place.module("@modelcontextprotocol/server-everything/dist/index.js"), "streamableHttp"]


def fastmcp(environment: str, state: str, form: str) -> Order:
    """FastMCP, with sessions or without, answering in JSON or in events."""
    return lambda place: [place.python(environment), place.program("fastmcp_server.py"), str(place.port), state, form]


def filesystem(place: Place) -> list[str]:
    """The filesystem server on stdio, for those that bring it to HTTP."""
    return [place.node, place.module("@modelcontextprotocol/server-filesystem/dist/index.js"), str(place.folder)]


def mcp_proxy(place: Place) -> list[str]:
    """The filesystem server behind mcp-proxy."""
    proxy = str(place.environments / "servers-1" / "bin" / "mcp-proxy")
    return [proxy, "--log-level", "WARNING", "--port", str(place.port), "--", *filesystem(place)]


def supergateway(*flags: str) -> Order:
    """The filesystem server behind supergateway: a process for each request, or for each session."""

    def order(place: Place) -> list[str]:
        flagged = ["--outputTransport", "streamableHttp", "--logLevel", "none", "--port", str(place.port), *flags]
        return [
            place.node,
            place.module("supergateway/dist/index.js"),
            "--stdio",
            shlex.join(filesystem(place)),
            *flagged,
        ]

    return order


def typescript(kind: str) -> Order:
    """A server of the TypeScript SDKs."""

    def order(place: Place) -> list[str]:
        packages = str(place.environments / "node-servers")
        return [place.node, place.program("typescript.mjs"), packages, str(place.port), kind]

    return order


SERVERS: dict[str, Order] = {
    "everything": everything,
    "fastmcp-stateful-sse": fastmcp("servers", "stateful", "sse"),
    "fastmcp-stateful-json": fastmcp("servers", "stateful", "json"),
    "fastmcp-stateless-sse": fastmcp("servers", "stateless", "sse"),
    "fastmcp-stateless-json": fastmcp("servers", "stateless", "json"),
    "fastmcp-3": fastmcp("servers-1", "stateful", "sse"),
    "mcp-proxy": mcp_proxy,
    "supergateway-stateless": supergateway(),
    "supergateway-stateful": supergateway("--stateful"),
    "python-sdk-1": lambda place: [str(place.legacy), place.program("python_sdk.py"), str(place.port)],
    "python-sdk-2": lambda place: [place.python("dev"), place.program("python_sdk.py"), str(place.port)],
    "typescript-sdk-1": typescript("many"),
    "typescript-sdk-1-one": typescript("one"),
    "typescript-sdk-2": typescript("modern"),
}


@dataclass
class Running:
    """A server's process."""

    name: str
    place: Place
    log: Path
    starts: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.place.port}/mcp"

    def start(self) -> None:
        """Start it; do not wait for it. Our own programs offer one tool more from their second start on (STARTS)."""
        self.starts += 1
        around = {
            **os.environ,
            "PORT": str(self.place.port),
            "HOME": str(self.place.folder),
            "STARTS": str(self.starts),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                SERVERS[self.name](self.place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=around,
                cwd=self.place.folder,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Take it away at once, and the processes that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def restart(self) -> None:
        """Kill it, start it again on the same port and wait for it."""
        self.kill()
        self.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return as soon as it answers."""
        end = time.monotonic() + READY_WITHIN
        while not self.answers():
            assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()}"
            assert time.monotonic() < end, f"{self.name} is not ready: {self.log.read_text()}"
            time.sleep(LOOK_EVERY)

    def answers(self) -> bool:
        """Whether it answers a ping outside any session: with a refusal, mostly."""
        asking = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=READY_WITHIN)
        try:
            asking.request("POST", "/mcp", PING, HEADERS)
            return asking.getresponse().status > 0
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asking.close()


@contextmanager
def launched(names: list[str], folder: Path) -> Iterator[dict[str, Running]]:
    """These servers, all ready; each has a folder `files` of its own below `folder`."""
    environments = Path(given("FASTGW_SERVERS", "folder with the environments of `make servers-env`"))
    legacy = Path(given("FASTGW_LEGACY_PYTHON", "Python of the environment of the mcp 1.x client"))
    running: dict[str, Running] = {}
    try:
        for name in names:
            files = folder / name
            files.mkdir()
            place = Place(free_port(), files, environments, legacy)
            running[name] = Running(name, place, folder / f"{name}.log")
        for server in running.values():
            server.wait_until_ready()
        yield running
    finally:
        for server in running.values():
            server.kill()
