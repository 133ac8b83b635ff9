"""Agents of both eras, each with a key, listing and calling tools with a nonce of its own, at an ordinary pace.

Knows: what an agent does and how long it may wait. Refuses to know: anything beyond loopback; another host is refused.

Environment: LOAD_KEY, the agents' API key; LOAD_BUDGET, milliseconds of p99 in place of `BUDGET`'s.
"""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Any
from urllib.parse import urlsplit

from locust import FastHttpUser, constant_throughput, events, task

from bench.messages import LEGACY, Target, headers, modern_meta

BUDGET = {"modern": 100.0, "legacy": 150.0}
"""p99 in milliseconds by the agent's era, over both eras of servers. Generous: it finds stalls, not slowness."""
LEAST = 50
"""Calls of each era below which a run has shown nothing and fails."""
TOOLS = {"modern": "echo", "legacy": "echo-legacy"}
_ids = itertools.count(1)


class Agent(FastHttpUser):
    """What both eras do: ten requests a second, nine in ten of them calls."""

    abstract = True
    era = ""
    wait_time = constant_throughput(10)
    network_timeout = connection_timeout = 10.0

    def on_start(self) -> None:
        """A session for each kind of server where the era has sessions."""
        self.key = os.environ["LOAD_KEY"]
        self.sessions = {server: self.open(server) for server in TOOLS}

    def open(self, server: str) -> str:
        """The session's id; empty where there are none."""
        return ""

    @task(9)
    def call(self) -> None:
        """Call a tool of a server of one era or the other; the answer must carry this call's nonce."""
        nonce = secrets.token_hex(8)
        server = secrets.choice(("modern", "legacy"))
        params = {"name": TOOLS[server], "arguments": {"nonce": nonce}}
        self.ask(server, "tools/call", params, lambda result: result["content"][0]["text"] == nonce)

    @task(1)
    def list(self) -> None:
        """List the tools; the echo tool must be there and the denied one must not."""
        server = secrets.choice(("modern", "legacy"))
        echo = TOOLS[server]

        def right(result: dict[str, Any]) -> bool:
            names = {tool["name"] for tool in result["tools"]}
            return echo in names and f"{echo}-00001" not in names

        self.ask(server, "tools/list", {}, right)

    def ask(self, server: str, method: str, params: dict[str, Any], right: Any) -> None:
        """One request, its answer's status, id and content checked."""
        id = next(_ids)
        if self.era == "modern":
            params = {**params, "_meta": modern_meta()}
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        lines = headers(self.target(server), method, params.get("name", ""), self.sessions[server])
        name = f"{self.era} {method}"
        with self.client.post(f"/mcp/{server}", json=message, headers=lines, name=name, catch_response=True) as answer:
            try:
                reply = answer.json()
                if answer.status_code != 200 or reply["id"] != id or not right(reply["result"]):
                    answer.failure(f"wrong answer: HTTP {answer.status_code} {answer.text[:200]}")
            except (ValueError, KeyError, TypeError, IndexError) as exc:
                answer.failure(f"not an answer: {exc!r}: HTTP {answer.status_code} {(answer.text or '')[:200]}")

    def target(self, server: str) -> Target:
        """Where and as whom."""
        return Target(urlsplit(self.host or "").port or 80, self.era, f"/mcp/{server}", TOOLS[server], self.key)


class Modern(Agent):
    """Sends everything in each request."""

    era = "modern"


class Legacy(Agent):
    """Initializes first, then sends its session's id."""

    era = "legacy"

    def open(self, server: str) -> str:
        """See `Agent.open`."""
        client = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
        target = self.target(server)
        answer = self.client.post(
            target.path, json=message, headers=headers(target, "initialize"), name="legacy initialize"
        )
        session = (answer.headers or {}).get("mcp-session-id") or ""
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        lines = headers(target, "notifications/initialized", session=session)
        self.client.post(target.path, json=done, headers=lines, name="legacy initialized")
        return session


@events.test_start.add_listener
def only_loopback(environment: Any, **_: Any) -> None:
    """Refuse any other host: this is a load generator."""
    host = urlsplit(environment.host or "").hostname
    if host not in ("127.0.0.1", "localhost", "::1"):
        environment.process_exit_code = 2
        raise SystemExit(f"loopback only, not {host}")


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Fail on any wrong answer, on a p99 over its budget, and on a run too small to show anything."""
    faults = [f"{error.name}: {error.error} ({error.occurrences} times)" for error in environment.stats.errors.values()]
    for era, budget in BUDGET.items():
        entry = environment.stats.get(f"{era} tools/call", "POST")
        allowed = float(os.environ.get("LOAD_BUDGET", budget))
        p99 = entry.get_response_time_percentile(0.99) or 0.0
        print(f"{era}: {entry.num_requests} calls, p99 {p99:.0f} ms, budget {allowed:.0f} ms")
        if entry.num_requests < LEAST:
            faults.append(f"{era}: only {entry.num_requests} calls")
        if p99 > allowed:
            faults.append(f"{era}: p99 {p99:.0f} ms, budget {allowed:.0f} ms")
    for fault in faults:
        print(f"load: {fault}")
    environment.process_exit_code = 1 if faults else 0
