"""The gateway under test: one worker, everything that exists switched on, and proof that it is.

Knows: the configuration file as users write it, the command line, the ports. Refuses to know: the gateway's code.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.handshake import call, post
from bench.messages import Target, modern_meta
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
        pid: of the supervisor; the tree below it is all of it.
        key: API key of an agent that may call every echo tool; the last of `keys`, one for each agent.
        usage: the file its usage events go to.
        admin: port of its operators' pages.
    """

    pid: int
    port: int
    key: str
    usage: Path
    admin: int
    keys: tuple[str, ...] = ()

    def target(self, backend: Behind, era: str) -> Target:
        """How an agent of `era` calls this backend's echo tool."""
        return Target(self.port, era, f"/mcp/{backend.era}", backend.tool, self.key)

    def events(self) -> int:
        """Usage events written so far."""
        if not self.usage.exists():
            return 0
        with self.usage.open("rb") as file:
            return sum(1 for _ in file)

    def decisions(self) -> dict[str, int]:
        """Calls that limits have admitted so far, by who decided, as its metrics tell a second later at most."""
        found = _DECIDED.findall(page(self.admin, "/metrics")[1].decode())
        return {how: int(float(calls)) for how, calls in found}


_DECIDED = re.compile(r'^fastgw_limit_decisions_total\{how="(\w+)",outcome="admitted"\} (\S+)', re.MULTILINE)
LIMITS: list[dict[str, Any]] = [
    {"name": "agents", "by": ["agent"], "rate": "20000/second"},
    {"name": "tools", "by": ["endpoint", "tool"], "rate": "20000/second"},
]
"""More than one worker carries: every refusal would be a wrong answer."""


def configuration(port: int, admin: int, backends: list[Behind], keys: list[str], folder: Path) -> dict[str, Any]:
    """The file: one endpoint for each backend, API keys, policies, two limits, usage events to a file.

    Whatever the gateway learns to do for every call (quotas, a breaker) is added here, not behind an option:
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
        "limits": LIMITS,
        "servers": {one.era: {"url": f"http://127.0.0.1:{one.port}/mcp", "era": one.era} for one in backends},
        "endpoints": {f"/mcp/{one.era}": {"servers": [one.era]} for one in backends},
        "usage": {"sinks": [f"file:{folder / 'usage.jsonl'}"]},
    }


@contextmanager
def gateway(
    backends: list[Behind], folder: Path, agents: int = 10, further: Mapping[str, Any] | None = None
) -> Iterator[Gateway]:
    """`fastgw run` in front of the backends; its files are below `folder`. Each backend has at least two tools.

    Args:
        further: keys of the file that are to be others.

    Raises:
        NotStarted: it does not come up.
        NotAsMeant: a stranger or a forbidden tool is let through, or no limit counts.
    """
    keys = [f"fgw_bench_{secrets.token_hex(16)}" for _ in range(agents)]
    port, admin = free_port(), free_port()
    file = folder / "fastgw.yaml"
    # JSON is YAML; written so, no quoting rule can bite.
    found = {**configuration(port, admin, backends, keys, folder), **(further or {})}
    file.write_text(json.dumps(found, indent=1))
    command = [sys.executable, "-m", "fastgw", "run", "--config", str(file)]
    running = Gateway(0, port, keys[-1], folder / "usage.jsonl", admin, tuple(keys))
    targets = [running.target(backend, "modern") for backend in backends]
    # Readiness does not wait long for a catalogue of 10,000 tools, so each tool must have answered too.
    ready = partial(_ready, admin, targets)
    with started(command, folder / "fastgw.log", ready) as pid:
        for target in targets:
            prove(target)
            if found["limits"]:
                prove_limits(target)
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


def prove_limits(target: Target) -> None:
    """Show that limits count on this path.

    Raises:
        NotAsMeant: an answer does not tell of any.
    """
    params = {"name": target.tool, "arguments": {"nonce": "abc"}, "_meta": modern_meta()}
    status, lines, _ = post(target, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    if "ratelimit" not in lines:
        raise NotAsMeant(f"{target.path}: HTTP {status} without RateLimit: {sorted(lines)}")


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
    return page(admin, "/readyz")[0] == 200


def page(admin: int, path: str) -> tuple[int, bytes]:
    """Status and body of one of the operators' pages.

    Raises:
        OSError: nobody listens.
    """
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
