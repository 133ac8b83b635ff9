"""What Locust runs: agents of both eras in the load of one scenario, judged by its budgets at the end.

`python -m loadtests` sets the environment: LOAD_SCENARIO, LOAD_SECONDS, LOAD_BUDGETS (a file), LOAD_KEYS (with commas),
LOAD_URL (the endpoint's, on loopback), LOAD_GATEWAY (its pid, or nothing), LOAD_CALL (a foreign gateway's tool).
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from locust import FastHttpUser, LoadTestShape, constant, constant_throughput, events, task

from bench.messages import Target
from loadtests.budgets import Entry, verdict
from loadtests.conversation import WRONG, Conversation, admitted
from loadtests.fleet import resident
from loadtests.scenarios import BURST, LIST, RATE, SCENARIOS

NAME = os.environ["LOAD_SCENARIO"]
SCENARIO = SCENARIOS[NAME]
SECONDS = float(os.environ["LOAD_SECONDS"])
URL = urlsplit(os.environ["LOAD_URL"])
STREAMS = int(os.environ.get("LOAD_STREAMS") or SCENARIO.streams)
BUDGETS = yaml.safe_load(Path(os.environ["LOAD_BUDGETS"]).read_text(encoding="utf-8"))[NAME]
KIB = BUDGETS.pop("memory", {}).get("kib_per_stream", float("inf"))
KEYS = itertools.cycle(os.environ["LOAD_KEYS"].split(","))
CALL: dict[str, Any] = json.loads(os.environ.get("LOAD_CALL") or "{}")
GATEWAY = int(os.environ.get("LOAD_GATEWAY") or 0)
TURNS = 50
"""Requests of one conversation; then it is ended and another begun."""
STREAM_SECONDS = min(SECONDS / 2, 40.0)
"""One stream's; then the next is opened. A gateway takes a server that says nothing for 55 s for dead."""


class Agent(FastHttpUser):
    """What both eras do."""

    abstract = True
    era = ""
    weight = SCENARIO.agents
    wait_time = constant_throughput(SCENARIO.pace)
    network_timeout = connection_timeout = 60.0

    def on_start(self) -> None:
        """Begin a conversation with a key of its own."""
        target = Target(URL.port or 80, self.era, URL.path or "/mcp", key=next(KEYS))
        self.turns = 0
        self.conversation = Conversation(self.client, target)
        self.conversation.open()

    def on_stop(self) -> None:
        """End it."""
        self.conversation.close()

    @task
    def turn(self) -> None:
        """One request; the next conversation after `TURNS`."""
        self.turns += 1
        if self.turns % TURNS == 0:
            self.conversation.close()
            self.conversation.open()
        self.ask()

    def ask(self) -> None:
        """One request of those that the scenario names."""
        asked = {CALL["name"]: 9, LIST: 1} if CALL else SCENARIO.asks
        tool = random.choices(list(asked), list(asked.values()))[0]
        if tool == LIST:
            wanted = set(asked) - {LIST}
            self.conversation.ask(LIST, {}, lambda result, _: wanted <= {tool["name"] for tool in result["tools"]})
        elif CALL:
            self.conversation.ask("tools/call", CALL, lambda result, _: not result.get("isError"), tool)
        else:
            self.echo(tool, tool + (" beside streams" if Load.streams else ""), 1.0 if tool.endswith("-slow") else 0.0)

    def echo(self, tool: str, label: str, seconds: float, notes: int = 0) -> None:
        """Call a tool of ours: the answer must carry this call's nonce, and as many notifications come before it."""
        nonce = secrets.token_hex(8)
        arguments = {"nonce": nonce, **({"seconds": seconds, "events": notes} if seconds else {})}

        def right(result: dict[str, Any], told: list[dict[str, Any]]) -> bool:
            return bool(result["content"][0]["text"] == nonce) and len(told) == notes

        self.conversation.ask("tools/call", {"name": tool, "arguments": arguments}, right, label)


class Modern(Agent):
    """Sends everything in each request."""

    era = "modern"


class Legacy(Agent):
    """Initializes first, then sends its session's id."""

    era = "legacy"


class Streamer(Agent):
    """Has an event stream open all the time, which says nothing but its reply; every fifth tells of progress."""

    abstract = not STREAMS
    era = "modern"
    weight = max(1, 2 * STREAMS)
    wait_time = constant(0)

    def ask(self) -> None:
        """One stream."""
        tool = random.choice(("echo-stream", "echo-legacy-stream"))
        self.echo(tool, tool, STREAM_SECONDS, 7 * (secrets.randbelow(5) == 0))


class Load(LoadTestShape):
    """The scenario's stages; streams come after a quarter. Looks at the gateway's memory once a second."""

    streams = False
    before = most = 0
    begun = 0.0

    def tick(self) -> Any:
        """Agents now, how many more a second, and which; None at the end."""
        share = self.get_run_time() / SECONDS
        if GATEWAY and STREAMS:
            Load.most = max(Load.most, resident(GATEWAY)) if Load.streams else resident(GATEWAY)
            Load.before = Load.before if Load.streams else Load.most
        for stage, agents in SCENARIO.stages:
            if share < stage:
                Load.streams = bool(STREAMS) and self.get_run_time() > SECONDS / 4
                if Load.streams:
                    return agents + STREAMS, 100, [Modern, Legacy, Streamer]
                return agents, 100, [Modern, Legacy]
            share -= stage
        return None


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Count anew, and heed no other host: on Locust's page people start a run again, and may name one."""
    environment.host = f"{URL.scheme}://{URL.netloc}"
    logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)  # its table: ours says more
    Load.begun, Load.streams = time.monotonic(), False
    admitted.clear()


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Print a table; exit code 1 on a wrong answer, a missed budget, a broken limit."""
    environment.process_exit_code = 1
    entries = [
        Entry(
            *entry.name.split(" ", 1),
            entry.num_requests,
            entry.num_failures,
            [entry.get_response_time_percentile(part) or 0.0 for part in (0.5, 0.95, 0.99)],
        )
        for entry in sorted(environment.stats.entries.values(), key=lambda one: one.name)
    ]
    budgets = {tool: BUDGETS.get(tool, BUDGETS.get("echo", {})) for tool in (CALL["name"], LIST)} if CALL else BUDGETS
    lines, faults = verdict(entries, budgets)
    for error in environment.stats.errors.values():
        text = f"{error.name}: {error.error} ({error.occurrences} times)"
        (faults if WRONG in str(error.error) else lines).append(text)
    if Load.streams and GATEWAY:
        each = max(0, Load.most - Load.before) / STREAMS
        lines.append(f"{STREAMS} streams, {each:.1f} KiB of the gateway's memory each (budget {KIB:g})")
        faults += [f"{each:.1f} KiB a stream, budget {KIB:g}"] if each > KIB else []
    if NAME == "limits":
        most = BURST + RATE * (time.monotonic() - Load.begun)
        lines.append(f"the busiest agent had {max(admitted.values(), default=0)} calls let in of {most:.0f} allowed")
        faults += [f"an agent had {calls} calls, allowed {most:.0f}" for calls in admitted.values() if calls > most]
    print("\n".join([f"{NAME}: {SCENARIO.about}", *lines, *(f"MISSED {fault}" for fault in faults)]), flush=True)
    environment.process_exit_code = 1 if faults else 0
