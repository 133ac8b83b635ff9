"""No request is lost by a reload, and no configuration takes traffic down, however it is spoiled.

For seconds here; in their full size with the tests that take minutes.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.http import Connection, connected, exchange, modern
from tests.e2e.operated import Operated, operated, served
from tests.e2e.servers import Call, Toolbox, serving

CONTRACT = Path(__file__).parents[1] / "config" / "contract.yaml"
ENGINEERING = "fgw_contract_engineering"
SECRETS = ("DEPLOYMENT_TOKEN", "CUSTOMER_DATA_SECRET", "DB_KEY")
SEED = 20_260_728
LATE = 1.0
"""Seconds that calls may be behind their time before no more are begun: the machine has no room for them."""


class Load:
    """Calls of a tool at a steady rate, every second one on a fresh connection; all answers are looked at."""

    def __init__(self, url: str, rate: float) -> None:
        self._url, self._rate = url, rate
        self._asked = modern("tools/call", {"name": "echo", "arguments": {}}, key=KEY)
        self._idle: list[Connection] = []
        self._connections = AsyncExitStack()
        self.done = 0
        self.wrong: Counter[str] = Counter()

    async def run(self, over: asyncio.Event) -> None:
        begun, number = time.monotonic(), 0
        async with self._connections, asyncio.TaskGroup() as calls:
            while not over.is_set():
                number += 1
                due = begun + number / self._rate
                await asyncio.sleep(due - time.monotonic())
                if number - self.done < self._rate * LATE:
                    calls.create_task(self._fresh() if number % 2 else self._kept())
                else:
                    number -= 1
                    begun += 1 / self._rate
            while self.done < number:  # before the connections are closed
                await asyncio.sleep(0.01)

    async def _fresh(self) -> None:
        try:
            reply = await exchange(self._url, self._asked)
            self._look(reply.status, reply.body)
        except (OSError, asyncio.IncompleteReadError) as wrong:
            self._look(0, repr(wrong).encode())

    async def _kept(self) -> None:
        try:
            if not self._idle:
                self._idle.append(await self._connections.enter_async_context(connected(self._url)))
            connection = self._idle.pop()
            stream = await connection.ask(self._asked.having("Connection", "keep-alive"))
            self._look(stream.status, (await stream.rest()).body)
            self._idle.append(connection)
        except (OSError, asyncio.IncompleteReadError) as wrong:
            self._look(0, repr(wrong).encode())

    def _look(self, status: int, body: bytes) -> None:
        self.done += 1
        if status != 200 or b'"text":"echo"' not in body.replace(b" ", b""):
            self.wrong[f"{status} {body[:200]!r}"] += 1


async def echo(call: Call) -> None:
    await call.text("echo")


@pytest.mark.parametrize(
    ("reloads", "rate"), [(100, 200.0), pytest.param(500, 1000.0, marks=pytest.mark.soak)], ids=["short", "whole"]
)
def test_no_request_is_lost_by_reloads(tmp_path: Path, reloads: int, rate: float) -> None:
    async def story() -> None:
        async with serving(Toolbox("modern", {"echo": echo})) as server, operated(tmp_path, server) as stage:

            async def listed() -> bool:
                return "echo" in (await exchange(stage.url, modern("tools/list", key=KEY))).body.decode()

            while not await listed():
                await asyncio.sleep(0.02)
            load, over = Load(stage.url, rate), asyncio.Event()
            begun = time.monotonic()
            calling = asyncio.create_task(load.run(over))
            for number in range(reloads):
                # A policy, a limit and a tool are other ones each time, and so are the list and every view.
                tools = {"echo": {"description": f"Loaded again: {number}"}}
                limits = [{"name": "l", "by": ["agent"], "rate": f"{100_000 + number}/second"}]
                policies = [{"name": f"p-{number % 3}", "allow": ["*"]}]
                text = stage.text(tools=tools, limits=limits, policies=policies)
                (tmp_path / "fastgw.yaml").write_text(text)
                reply = await stage.order("POST", "/reload")
                assert reply.status == 200, reply
            seconds = time.monotonic() - begun
            over.set()
            await calling
            print(f"{reloads} reloads in {seconds:.1f} s, {load.done} calls, {load.done / seconds:.0f} a second")
            assert load.wrong == {}
            assert load.done > reloads
            assert await stage.metric("fastgw_worker_restarts_total") == 0
            assert await stage.metric("fastgw_snapshot_failures_total") == 0

    asyncio.run(story())


WORDS = ("url", "key", "match", "allow", "to", "rate", "by", "name", "servers", "tools", "secret", "timeout", "claims")
VALUES = (
    "5",
    "-1",
    "null",
    "true",
    "[]",
    "{}",
    '""',
    "*",
    "&a",
    "*a",
    "${env:NO}",
    "${file:no}",
    "{{}}",
    "9" * 30,
    "10s",
)


def spoiled(dice: random.Random, text: str) -> str:
    """The text with one to three things done to it, as a hand or a broken copy would."""
    for _ in range(dice.randint(1, 3)):
        lines = text.split("\n")
        at = dice.randrange(len(lines))
        match dice.randrange(8):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[dice.randrange(len(lines))])
            case 2:
                lines[at] = " " * dice.randint(0, 9) + lines[at].lstrip()
            case 3:
                lines[at] = re.sub(r": .*", lambda _: f": {dice.choice(VALUES)}", lines[at])
            case 4:
                lines[at] = re.sub(r"\w+", lambda word: dice.choice((word[0], dice.choice(WORDS))), lines[at])
            case 5:
                place = dice.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + dice.choice("\"'{}[]:,#&*!|>%@`\t\0\ud7ff\u2028-?") + lines[at][place:]
            case 6:
                del lines[at:]
            case 7:
                lines.append(f"{dice.choice(WORDS)}: {dice.choice(VALUES)}")
        text = "\n".join(lines)
    return text


@pytest.mark.parametrize(
    "count", [150, pytest.param(1000, marks=pytest.mark.soak)], ids=lambda count: f"{count} configurations"
)
def test_no_configuration_takes_traffic_down(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is refused the error says where, and the one before serves on; where one applies, that is no crash."""
    for name in SECRETS:
        monkeypatch.setenv(name, "a secret of a server")
    dice = random.Random(SEED)
    file = tmp_path / "fastgw.yaml"
    place = re.compile(rf"{re.escape(str(tmp_path))}/\S+:\d+:\d+: ")

    async def story() -> None:
        stage = Operated(tmp_path, {})
        right = contract(stage)
        async with served(stage, right, "--allow-inactive") as gateway:
            outcomes: Counter[int] = Counter()
            for number in range(count):
                text = spoiled(dice, right)
                file.write_text(text)
                reply = await stage.order("POST", "/reload")
                outcomes[reply.status] += 1
                if reply.status == 200:
                    file.write_text(right)
                    assert (await stage.order("POST", "/reload")).status == 200
                else:
                    assert reply.status == 409, text
                    assert place.match(reply.json()["error"]), (reply.json(), text)
                    assert (await stage.config())["refused"]["error"] == reply.json()["error"]
                listed = await exchange(stage.url, modern("tools/list", key=ENGINEERING))
                assert listed.status == 200, (number, text)
            assert outcomes[409] > count / 3, outcomes
            for role in ("worker", "controller"):
                assert await stage.metric(f"fastgw_{role}_restarts_total") == 0
            assert await stage.metric("fastgw_snapshot_failures_total") == 0
            assert "ended with" not in gateway.log()
            print(dict(outcomes))

    asyncio.run(story())


def contract(stage: Operated) -> str:
    """The complete configuration as users write it, on ports of our own."""
    text = CONTRACT.read_text()
    listen, admin = (url.removeprefix("http://").removesuffix("/mcp") for url in (stage.url, stage.admin))
    token = "${env:OPERATORS_TOKEN}"
    for key, value in (("listen", listen), ("admin", f'{{listen: "{admin}", token: "{token}"}}'), ("workers", "2")):
        text, found = re.subn(rf"(?m)^{key}: .*$", lambda _, line=f"{key}: {value}": line, text)
        assert found == 1, key
    return text.replace("    - stdout ", "    - file:usage.jsonl ")
