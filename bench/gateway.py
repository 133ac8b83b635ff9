"""The gateway under test: one worker, everything that exists switched on, and proof that it is.

Knows: the configuration file as users write it, the command line, the ports. Refuses to know: the gateway's code.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.handshake import call
from bench.messages import Target
from bench.started import free_port, started


class NotAsMeant(Exception):
    """The gateway runs, but something that was switched on does not show: what it costs would be understated."""


@dataclass(frozen=True, slots=True)
class Behind:
    """One backend: its port, era and the name of its echo tool (unique among the backends of one gateway)."""

    port: int
    era: str
    tool: str


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that runs.

    Args:
        pid: of the launcher; the tree below it is all of it.
        key: API key of an agent that may call every echo tool.
        usage: the file its usage events go to.
    """

    pid: int
    port: int
    key: str
    usage: Path

    def target(self, backend: Behind, era: str) -> Target:
        """How an agent of `era` calls this backend's echo tool."""
        return Target(self.port, era, f"/mcp/{backend.era}", backend.tool, self.key)

    def events(self) -> int:
        """Usage events written so far."""
        if not self.usage.exists():
            return 0
        with self.usage.open("rb") as file:
            return sum(1 for _ in file)


def configuration(port: int, admin: int, backends: list[Behind], keys: list[str], folder: Path) -> dict[str, Any]:
    """The file: one endpoint for each backend, API keys, policies, usage events to a file.

    Whatever the gateway learns to do for every call (limits, quotas, a breaker) is added here, not behind an option:
    a call is measured with everything on.
    """
    agents = {f"agent-{number}": _agent(key, number) for number, key in enumerate(keys)}
    tools = [backend.tool for backend in backends]
    return {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "public_url": f"http://127.0.0.1:{port}",
        "workers": 1,
        "store": "memory",
        "data": str(folder / "data"),
        "agents": agents,
        "policies": [
            {
                "name": "bench",
                "match": {"claims": {"team": ["bench", "other"]}},
                "allow": [f"{name}*" for name in tools],
            },
            {"name": "trial", "match": {"claims": {"tier": "trial"}}, "allow": ["*"]},
            {"name": "closed", "match": {"claims": {"team": "bench"}}, "deny": [f"{name}-00001" for name in tools]},
        ],
        "servers": {one.era: {"url": f"http://127.0.0.1:{one.port}/mcp", "era": one.era} for one in backends},
        "endpoints": {f"/mcp/{one.era}": {"servers": [one.era]} for one in backends},
        "usage": {"sinks": [f"file:{folder / 'usage.jsonl'}"]},
    }


@contextmanager
def gateway(backends: list[Behind], folder: Path, agents: int = 10) -> Iterator[Gateway]:
    """`fastgw run` in front of the backends; its files are below `folder`. Each backend has at least two tools.

    Raises:
        NotStarted: it does not come up.
        NotAsMeant: a stranger or a forbidden tool is let through.
    """
    keys = [f"fgw_bench_{secrets.token_hex(16)}" for _ in range(agents)]
    port, admin = free_port(), free_port()
    file = folder / "fastgw.yaml"
    # JSON is YAML; written so, no quoting rule can bite.
    file.write_text(json.dumps(configuration(port, admin, backends, keys, folder), indent=1))
    command = [sys.executable, "-m", "fastgw", "run", "--config", str(file)]
    running = Gateway(0, port, keys[-1], folder / "usage.jsonl")
    targets = [running.target(backend, "modern") for backend in backends]
    # Readiness does not wait long for a catalogue of 10,000 tools, so each tool must have answered too.
    ready = partial(_ready, admin, targets)
    with started(command, folder / "fastgw.log", ready) as pid:
        for target in targets:
            prove(target)
        yield replace(running, pid=pid)


def prove(target: Target) -> None:
    """Show that keys and policies decide on this path, and that the tool answers.

    Raises:
        NotAsMeant: they do not.
    """
    status, body = call(target, target.tool)
    if status != 200 or b'"abc' not in body:
        raise NotAsMeant(f"{target.path}: the tool {target.tool} does not answer: HTTP {status} {body[:300]!r}")
    status, body = call(replace(target, key=""), target.tool)
    if status != 401:
        raise NotAsMeant(f"{target.path}: without a key: HTTP {status} {body[:300]!r}")
    status, body = call(target, f"{target.tool}-00001")
    if b'"error"' not in body:
        raise NotAsMeant(f"{target.path}: a forbidden tool: HTTP {status} {body[:300]!r}")


def _agent(key: str, number: int) -> dict[str, Any]:
    return {
        "key": "sha256:" + hashlib.sha256(key.encode()).hexdigest(),
        "claims": {"team": "bench", "project": f"project-{number % 10}", "billing_account": "bench"},
    }


def _ready(admin: int, targets: list[Target]) -> bool:
    try:
        return says_ready(admin) and all(call(target, target.tool)[0] == 200 for target in targets)
    except (OSError, http.client.HTTPException):
        return False


def says_ready(admin: int) -> bool:
    """Whether the gateway calls itself ready on its admin port."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()
