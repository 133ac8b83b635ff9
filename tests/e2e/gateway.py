"""A real gateway as a process tree of its own: supervisor, controller, two workers.

    with running({"servers": {...}}, tmp_path) as gateway:
        reply = asyncio.run(exchange(gateway.url, modern("tools/list", key=KEY)))

Leaving the block sends SIGTERM and demands exit code 0; a test that ends it itself calls `stop` or `kill` before.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastgw.cli.main import main
from tests.e2e.ports import free_port
from tests.forking import Forked

WORKERS = 2
KEY = "fgw_test_everything"
HEARD_WITHIN = 3.0
READY_WITHIN = 15.0
STOP_WITHIN = 35.0
LOOK_EVERY = 0.02


def fingerprint(key: str) -> str:
    """A key as the configuration holds it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def settings(more: dict[str, Any], listen: int, admin: int) -> dict[str, Any]:
    """`more` over what every test's gateway has: two workers, one agent whose key is `KEY`, a secret."""
    usual: dict[str, Any] = {
        "listen": f"127.0.0.1:{listen}",
        "admin": f"127.0.0.1:{admin}",
        "workers": WORKERS,
        "data": "data",
        "secret": "${env:FASTGW_SECRET}",
        "agents": {"tester": {"key": fingerprint(KEY), "claims": {"team": "test"}}},
        "usage": {"sinks": ["file:usage.jsonl"]},
    }
    return {**usual, **more}


@dataclass
class Gateway:
    """A started gateway. `url` is its endpoint /mcp, `admin` the root of its admin port."""

    url: str
    admin: str
    folder: Path
    process: Forked
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The listener without a path."""
        return self.url.removesuffix("/mcp")

    def log(self) -> str:
        """What it wrote to stderr so far."""
        return (self.folder / "stderr.log").read_text(errors="replace")

    def logs(self, pattern: str, since: int = 0, within: float = 5.0) -> bool:
        """Whether the log says so after its first `since` characters; a thread writes it, so it may take a moment."""
        end = time.monotonic() + within
        while re.search(pattern, self.log()[since:]) is None:
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_EVERY)
        return True

    def events(self) -> list[dict[str, Any]]:
        """The usage events written so far; not one that is being written."""
        file = self.folder / "usage.jsonl"
        whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def ask_admin(self, path: str) -> tuple[int, bytes]:
        """Status and body of GET `path` on the admin port; status 0 where nobody answers."""
        asking = http.client.HTTPConnection(self.admin.removeprefix("http://"), timeout=5)
        try:
            asking.request("GET", path)
            answer = asking.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            asking.close()

    def configure(self, more: dict[str, Any]) -> None:
        """Write another configuration with the same ports; a SIGHUP or a new start applies it."""
        ports = [int(url.rpartition(":")[2]) for url in (self.root, self.admin)]
        (self.folder / "fastgw.yaml").write_text(json.dumps(settings(more, *ports), indent=2))

    def start_again(self) -> None:
        """Start it anew where it has ended: the same files, ports and `data`; do not wait for it."""
        assert self.process.poll() is not None, "it still runs"
        self.process = launch(self.folder, self.environment)

    def metric(self, line: str) -> float:
        """The value on a line of /metrics, 0 where there is none."""
        text = self.ask_admin("/metrics")[1].decode()
        values = [row.removeprefix(f"{line} ") for row in text.splitlines() if row.startswith(f"{line} ")]
        return float(values[0]) if values else 0.0

    def child(self, role: str) -> int:
        """Process id of `controller`, `worker-1` or `worker-2`; 0 while there is none (Linux)."""
        for pid in self.children():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"fastgw-{role}"[:15]:
                    return pid
        return 0

    def children(self) -> list[int]:
        """Process ids of controller and workers (Linux)."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                pid, _, rest = stat.read_text().partition(" (")
                if int(rest.rpartition(") ")[2].split()[1]) == self.process.pid:
                    found.append(int(pid))
        return sorted(found)

    def wait_until_ready(self, within: float = READY_WITHIN) -> None:
        """Return as soon as /readyz is 200, and every server has been heard of or had some seconds for it: on a busy
        machine the gateway is ready before it has waited long enough for them.
        """
        until = time.monotonic() + within
        while self.ask_admin("/readyz")[0] != 200:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < until, f"not ready within {within} s:\n{self.log()}"
            time.sleep(LOOK_EVERY)
        until = time.monotonic() + HEARD_WITHIN
        while not self._all_heard_of() and time.monotonic() < until:
            time.sleep(LOOK_EVERY)

    def _all_heard_of(self) -> bool:
        """Whether each server has given its lists, or failed to."""
        status, body = self.ask_admin("/backends")
        servers = json.loads(body).values() if status == 200 else ()  # with a token it is closed to us
        return all(one["fetched_at"] or any(known["error"] for known in one["instances"]) for one in servers)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the supervisor and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_WITHIN)

    def kill(self) -> None:
        """Take everything away at once: the supervisor and, as its group, all it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_WITHIN)


def start(more: dict[str, Any], folder: Path, environment: dict[str, str] | None = None) -> Gateway:
    """Start a gateway with its files in `folder`; do not wait for it. A second start there goes on with its `data`."""
    listen, admin = free_port(), free_port()
    (folder / "fastgw.yaml").write_text(json.dumps(settings(more, listen, admin), indent=2))  # JSON is YAML
    around = environment or {}
    process = launch(folder, around)
    return Gateway(f"http://127.0.0.1:{listen}/mcp", f"http://127.0.0.1:{admin}", folder, process, around)


def launch(folder: Path, environment: dict[str, str], *options: str) -> Forked:
    """`fastgw run` on the configuration in `folder`, the leader of a process group of its own, its imports done."""
    around = {**os.environ, "FASTGW_SECRET": "a secret for tests, 32 bytes long", **environment}
    return Forked(main, ["run", *options, "--config", str(folder / "fastgw.yaml")], folder, around)


@contextmanager
def running(more: dict[str, Any], folder: Path, environment: dict[str, str] | None = None) -> Iterator[Gateway]:
    """A gateway that is ready; at the end of the block it must stop with exit code 0, unless the test ended it."""
    gateway = start(more, folder, environment)
    ended = False
    try:
        gateway.wait_until_ready()
        yield gateway
        ended = gateway.process.poll() is not None
        code = gateway.stop()
        assert ended or code == 0, f"exit code {code}:\n{gateway.log()}"
    finally:
        gateway.kill()


@asynccontextmanager
async def running_beside(
    more: dict[str, Any], folder: Path, environment: dict[str, str] | None = None
) -> AsyncIterator[Gateway]:
    """`running`, for a test whose servers live in the running loop: waiting does not hold them up."""
    block = running(more, folder, environment)
    gateway = await asyncio.to_thread(block.__enter__)
    try:
        yield gateway
    except BaseException:
        gateway.kill()
        raise
    await asyncio.to_thread(block.__exit__, None, None, None)


async def until(look: Callable[[], Awaitable[Any]], within: float = 10.0) -> Any:
    """What `look` answers as soon as it is true; fails when the time is up."""
    end = time.monotonic() + within
    while not (found := await look()):
        assert time.monotonic() < end, f"not within {within} s"
        await asyncio.sleep(LOOK_EVERY)
    return found
