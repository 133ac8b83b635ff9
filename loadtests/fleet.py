"""The gateway and its two servers for one load, and what may happen to them meanwhile. All are ours, ended by pid."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway import Behind, Features, Gateway, NotAsMeant, gateway
from bench.handshake import post
from bench.messages import Target, modern_meta
from bench.started import free_port, started
from loadtests.scenarios import Scenario
from loadtests.server import TOOLS

WITHIN = 10.0
"""Seconds within which what was done must show."""


@dataclass
class Fleet:
    """What runs: the gateway, and the two servers by era. `done` is how often something happened beside the load."""

    folder: Path
    ports: dict[str, int]
    servers: dict[str, ExitStack] = field(default_factory=dict)
    gateway: Gateway = field(init=False)
    done: int = 0

    def start(self, era: str) -> None:
        """Start the server of an era."""
        log = self.folder / f"{era}.log"
        command = [sys.executable, "-m", "loadtests.server", "--era", era, "--port", str(self.ports[era])]
        self.servers[era] = ExitStack()
        self.servers[era].enter_context(started(command, log, lambda: b"port=" in log.read_bytes()))

    def flap(self) -> None:
        """End the legacy server, with its sessions; the next time, start it again."""
        if self.done % 2 == 0:
            self.servers["legacy"].close()
        else:
            self.start("legacy")

    def reload(self) -> None:
        """Change a tool's description and a limit, and wait until agents see it."""
        file = self.folder / "fastgw.yaml"
        settings = json.loads(file.read_text())
        text = f"Loaded again: {self.done}"
        settings["tools"] = {"echo": {"description": text}}
        settings["limits"][0]["rate"] = f"{20000 + self.done}/second"
        file.write_text(json.dumps(settings))
        os.kill(self.gateway.pid, signal.SIGHUP)
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": modern_meta()}}
        target = Target(self.gateway.port, key=self.gateway.key)
        until("the reload", lambda: text.encode() in post(target, message)[2])

    def kill_store(self) -> None:
        """Kill the embedded store, by pid; it must come back."""
        dead = store_of(self.gateway.pid)
        if not dead:
            raise NotAsMeant("there is no embedded store")
        os.kill(dead, signal.SIGKILL)
        until("another store", lambda: store_of(self.gateway.pid) not in (0, dead))

    def happen(self, what: str) -> None:
        """What a scenario's `beside` names, once.

        Raises:
            NotAsMeant: it has no effect.
        """
        {"flap": self.flap, "reload": self.reload, "kill store": self.kill_store}[what]()
        self.done += 1


@contextmanager
def fleet(scenario: Scenario, folder: Path) -> Iterator[Fleet]:
    """Start both servers, and the gateway once they listen; end what runs of them with the block.

    Raises:
        NotStarted, NotAsMeant: see `bench.gateway.gateway`.
    """
    running = Fleet(folder, {era: free_port() for era in TOOLS})
    behind = [Behind(running.ports[era], era, tool) for era, tool in TOOLS.items()]
    endpoints = {"/mcp": {}, **{f"/mcp/{era}": {"servers": [era]} for era in TOOLS}}
    with ExitStack() as stack:
        for era in TOOLS:
            running.start(era)
            stack.callback(lambda era=era: running.servers[era].close())
        on = Features(scenario.agents, further={"endpoints": endpoints, **scenario.settings})
        running.gateway = stack.enter_context(gateway(behind, folder, on))
        yield running


def until(what: str, look: Callable[[], bool]) -> None:
    """Wait until `look()` is true.

    Raises:
        NotAsMeant: it is not within `WITHIN`.
    """
    end = time.monotonic() + WITHIN
    while not look():
        if time.monotonic() > end:
            raise NotAsMeant(f"{what}: nothing to be seen within {WITHIN:g} s")
        time.sleep(0.05)


def store_of(supervisor: int) -> int:
    """Process id of a gateway's embedded store; 0 while there is none."""
    return next((pid for pid, command in children(supervisor) if command == "valkey-server"), 0)


def children(parent: int) -> Iterator[tuple[int, str]]:
    """Process id and command of each child (proc(5))."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            command, _, fields = rest.rpartition(") ")
            if int(fields.split()[1]) == parent:
                yield int(pid), command


def resident(parent: int) -> int:
    """KiB of memory of a process' children; what they share counts for each."""
    pages = 0
    for pid, _ in children(parent):
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
