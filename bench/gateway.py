"""The gateway under test, run as users run it: one worker, the features that are asked for, proof that they work."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
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
        on: what is switched on.
    """

    pid: int
    port: int
    key: str
    usage: Path
    admin: int
    on: Features
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
LIMITS: tuple[dict[str, Any], ...] = (
    {"name": "agents", "by": ["agent"], "rate": "20000/second"},
    {"name": "tools", "by": ["endpoint", "tool"], "rate": "20000/second"},
)
"""More than one worker carries: every refusal would be a wrong answer."""
QUOTAS: tuple[dict[str, Any], ...] = (
    {"name": "monthly", "by": ["claims.team"], "per": "month", "calls": 10**12, "tokens": 10**15, "cost": 10**6},
)
"""Far away, likewise."""
PRICED = {
    "tokens": {"in": "_meta.usage.input_tokens", "out": "_meta.usage.output_tokens"},
    "price": {"per_call": 0.000001, "per_million_tokens_in": 0.15, "per_million_tokens_out": 0.60},
}
"""Of the echo tool, whose results say their tokens (`bench.backend.USAGE`)."""
ACCOUNTED = 10.0
"""Seconds within which calls must show in the account."""


@dataclass(frozen=True, slots=True)
class Features:
    """What of a gateway is switched on.

    Args:
        agents: how many have an API key; 0: no keys, everybody is let in.
        limits, quotas: as in the file, none where it is empty. With quotas tools have a price and say their tokens.
        usage: whether a usage event is written for each call.
        validation: whether arguments are held against the tool's schema.
        further: keys of the file that are to be others.
    """

    agents: int = 10
    policies: bool = True
    limits: tuple[dict[str, Any], ...] = LIMITS
    quotas: tuple[dict[str, Any], ...] = ()
    usage: bool = True
    validation: bool = False
    store: str = "memory"
    further: Mapping[str, Any] = field(default_factory=dict)


ON, OFF = Features(quotas=QUOTAS), Features(0, policies=False, limits=(), usage=False)


def configuration(ports: tuple[int, int], backends: list[Behind], keys: list[str], folder: Path, on: Features) -> Any:
    """The file: one endpoint for each backend, and what is switched on.

    Whatever the gateway learns to do for every call (a breaker, quotas) is added to `ON`, not behind an option:
    the call that counts is one with everything on.
    """
    tools = [backend.tool for backend in backends]
    endpoints: dict[str, Any] = {f"/mcp/{one.era}": {"servers": [one.era]} for one in backends}
    found: dict[str, Any] = {
        "listen": f"127.0.0.1:{ports[0]}",
        "admin": f"127.0.0.1:{ports[1]}",
        "public_url": f"http://127.0.0.1:{ports[0]}",
        "workers": 1,
        "store": on.store,
        "data": str(folder / "data"),
        "limits": on.limits,
        "quotas": on.quotas,
        "servers": {one.era: {"url": f"http://127.0.0.1:{one.port}/mcp", "era": one.era} for one in backends},
        "endpoints": endpoints,
    }
    if keys:
        found["agents"] = {f"agent-{number}": _agent(key, number) for number, key in enumerate(keys)}
    else:
        for endpoint in endpoints.values():
            endpoint["auth"] = "none"
    if on.policies:
        ours = {"claims": {"team": "bench"}} if keys else {"agent": "anonymous"}
        found["policies"] = [
            {"name": "bench", "match": ours, "allow": [f"{name}*" for name in tools]},
            {"name": "trial", "match": {"claims": {"tier": "trial"}}, "allow": ["*"]},
            {"name": "closed", "match": ours, "deny": [f"{name}-00001" for name in tools]},
        ]
    if on.usage:
        found["usage"] = {"sinks": [f"file:{folder / 'usage.jsonl'}"]}
    tool = {**(PRICED if on.quotas else {}), **({"validate": ["arguments"]} if on.validation else {})}
    if tool:
        found["tools"] = dict.fromkeys(tools, tool)
    return {**found, **on.further}


@contextmanager
def gateway(backends: list[Behind], folder: Path, on: Features = ON) -> Iterator[Gateway]:
    """`fastgw run` in front of the backends; its files are below `folder`. Each backend has at least two tools.

    Raises:
        NotStarted: it does not come up.
        NotAsMeant: a stranger or a forbidden tool is let through, or no limit or quota counts.
    """
    keys = [f"fgw_bench_{secrets.token_hex(16)}" for _ in range(on.agents)]
    port, admin = free_port(), free_port()
    file = folder / "fastgw.yaml"
    # JSON is YAML; written so, no quoting rule can bite.
    file.write_text(json.dumps(configuration((port, admin), backends, keys, folder, on), indent=1))
    command = [sys.executable, "-m", "fastgw", "run", "--config", str(file)]
    running = Gateway(0, port, keys[-1] if keys else "", folder / "usage.jsonl", admin, on, tuple(keys))
    targets = [running.target(backend, "modern") for backend in backends]
    # Readiness does not wait long for a catalogue of 10,000 tools, so each tool must have answered too.
    ready = partial(_ready, admin, targets)
    with started(command, folder / "fastgw.log", ready) as pid:
        for target in targets:
            prove(target, on)
        if on.quotas:
            prove_accounted(admin)
        yield replace(running, pid=pid)


def prove(target: Target, on: Features) -> None:
    """Show that the tool answers and that what is switched on decides on this path.

    Raises:
        NotAsMeant: it does not.
    """
    params = {"name": target.tool, "arguments": {"nonce": "abc"}, "_meta": modern_meta()}
    status, lines, body = post(target, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    if status != 200 or b'"abc' not in body:
        raise NotAsMeant(f"{target.path}: the tool {target.tool} does not answer: HTTP {status} {body[:300]!r}")
    if on.limits and "ratelimit" not in lines:
        raise NotAsMeant(f"{target.path}: HTTP {status} without RateLimit: {sorted(lines)}")
    status, body = call(replace(target, key=""), target.tool)
    if on.agents and status != 401:
        raise NotAsMeant(f"{target.path}: without a key: HTTP {status} {body[:300]!r}")
    status, body = call(target, f"{target.tool}-00001")
    if on.policies and b'"error"' not in body:
        raise NotAsMeant(f"{target.path}: a forbidden tool: HTTP {status} {body[:300]!r}")
    del params["arguments"]
    status, _, body = post(target, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    if on.validation and b"-32602" not in body:
        raise NotAsMeant(f"{target.path}: arguments that do not fit: HTTP {status} {body[:300]!r}")


def prove_accounted(admin: int) -> None:
    """Show that calls have taken calls, tokens and money from the account, more than what is only held or reserved.

    Raises:
        NotAsMeant: they have not, within `ACCOUNTED`.
    """
    deadline = time.monotonic() + ACCOUNTED
    accounts: list[dict[str, Any]] = []
    while not any(all(map(_spent, account["amounts"].values())) for account in accounts):
        if time.monotonic() > deadline:
            raise NotAsMeant(f"calls do not show in the account: {accounts}")
        time.sleep(0.05)
        accounts = json.loads(page(admin, "/limits")[1])["quotas"]


def _spent(amount: dict[str, int | str]) -> bool:
    return Decimal(amount["used"]) > Decimal(amount["held"]) + Decimal(amount["reserved"])


def _agent(key: str, number: int) -> dict[str, Any]:
    return {
        "key": "sha256:" + hashlib.sha256(key.encode()).hexdigest(),
        "claims": {"team": "bench", "project": f"project-{number % 10}", "billing_account": "bench"},
    }


def _ready(admin: int, targets: list[Target]) -> bool:
    try:
        return page(admin, "/readyz")[0] == 200 and all(call(target, target.tool)[0] == 200 for target in targets)
    except (OSError, http.client.HTTPException):
        return False


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
