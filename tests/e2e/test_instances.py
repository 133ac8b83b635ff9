"""Instances that die, hang, come back, refuse to be checked, or are taken out by an operator: who gets the calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import asking
from tests.e2e.gateway import KEY, Gateway, launch, running_beside, settings, until
from tests.e2e.http import Asked, Reply, exchange, modern
from tests.e2e.instance_process import instance
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Got, Server, Toolbox, answer, failure, serving

QUICK = {"interval": "100ms", "timeout": "300ms", "unhealthy_after": 3, "healthy_after": 2}
NEVER_OPEN = {"failures": 100_000}
"""So that health alone keeps calls away."""
TOKEN = "the operators' token"
ENVIRONMENT = {"OPERATORS_TOKEN": TOKEN, "FASTGW_SECRET": "a secret for tests, 32 bytes long"}
ENOUGH = 8
"""Connections that meet both workers in all but one of 128 cases; every answer must be right on either."""


async def admin(gateway: Gateway, path: str, order: Any = None, *, token: str | None = TOKEN) -> Reply:
    headers = [] if token is None else [("Authorization", f"Bearer {token}")]
    if order is None:
        return await exchange(gateway.admin + path, Asked(b"", headers, "GET"))
    headers.append(("Content-Type", "application/json"))
    return await exchange(gateway.admin + path, Asked(json.dumps(order).encode(), headers))


async def instances(gateway: Gateway) -> list[dict[str, Any]]:
    """What /backends says of those of `main`; nothing while there is no controller."""
    with suppress(OSError, asyncio.IncompleteReadError):
        reply = await admin(gateway, "/backends")
        if reply.status == 200:
            found: list[dict[str, Any]] = reply.json()["main"]["instances"]
            return found
    return []


async def have_health(gateway: Gateway, *states: str) -> None:
    async def seen() -> bool:
        return tuple(one["health"] for one in await instances(gateway)) == states

    await until(seen, 20.0)


async def where(gateway: Gateway) -> str:
    """Who answers a call; it must be answered."""
    reply = await exchange(gateway.url, modern("tools/call", {"name": "where", "arguments": {}}, key=KEY))
    assert reply.status == 200, reply
    return str(reply.json()["result"]["content"][0]["text"])


async def wheres(gateway: Gateway) -> set[str]:
    return {await where(gateway) for _ in range(ENOUGH)}


# -- they die, hang and come back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("ends_by", [signal.SIGKILL, signal.SIGSTOP])
def test_calls_leave_an_instance_that_does_not_answer_and_return_to_it(
    tmp_path: Path, era: str, ends_by: signal.Signals
) -> None:
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}/mcp" for port in ports]
    more = {"servers": {"main": {"url": urls}}, "health": QUICK, "breaker": NEVER_OPEN}

    async def story(processes: ExitStack) -> None:
        started = [processes.enter_context(instance(port, era)) for port in ports]
        async with running_beside(more, tmp_path) as gateway:
            await have_health(gateway, "healthy", "healthy")
            home = await where(gateway)
            at = ports.index(int(home))
            expected = ["healthy", "healthy"]
            expected[at] = "unhealthy"

            started[at].send_signal(ends_by)
            await have_health(gateway, *expected)
            gone, there = (await instances(gateway))[at], str(ports[1 - at])
            assert gone["health_error"] != ""
            assert await wheres(gateway) == {there}
            labels = f'{{server="main",instance="127.0.0.1:{home}"}}'
            assert await asyncio.to_thread(gateway.metric, f"fastgw_instance_healthy{labels}") == 0
            assert (
                await asyncio.to_thread(gateway.metric, 'fastgw_health_checks_total{server="main",outcome="failed"}')
                >= QUICK["unhealthy_after"]
            )

            if ends_by == signal.SIGKILL:
                await asyncio.to_thread(started[at].wait)
                processes.enter_context(instance(ports[at], era))
            else:
                started[at].send_signal(signal.SIGCONT)
            await have_health(gateway, "healthy", "healthy")

            async def is_home() -> bool:
                return await where(gateway) == home

            await until(is_home)
            assert (await instances(gateway))[at]["health_error"] == ""

    with ExitStack() as processes:
        asyncio.run(story(processes))


class Refusing(Toolbox):
    """Answers what checks ask with a refusal, once its lists were fetched; `asked` counts it."""

    refusal: Callable[[Any], bytes]
    asked = 0

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        is_listed = any(one.verb == "POST" and one.json()["method"] == "tools/list" for one in self.got)
        if is_listed and got.verb == "POST" and got.json()["method"] in ("ping", "server/discover"):
            self.asked += 1
            writer.write(self.refusal(got.json()["id"]))
        else:
            await super().handle(got, writer)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    "refusal",
    [
        lambda identity: failure(identity, -32601, "Method not found"),
        lambda _: answer(b"", status="401 Unauthorized"),
        lambda _: answer(b"", status="404 Not Found"),
    ],
    ids=["no such method", "401", "404"],
)
def test_who_refuses_to_be_checked_is_healthy(tmp_path: Path, era: str, refusal: Callable[[Any], bytes]) -> None:
    async def story() -> None:
        box = Refusing(era, {"where": say("one")})
        box.refusal = refusal
        async with (
            serving(box) as server,
            running_beside({"servers": {"main": {"url": server.url}}, "health": QUICK}, tmp_path) as gateway,
        ):
            await have_health(gateway, "healthy")
            await until_asked(box, 5)
            (one,) = await instances(gateway)
            assert (one["health"], one["health_error"], one["drained"]) == ("healthy", "", False)
            assert len(box.opened) == (era == "legacy")  # the one session that the gateway has anyway

    asyncio.run(story())


async def until_asked(box: Refusing, times: int) -> None:
    async def asked() -> bool:
        return box.asked >= times

    await until(asked)


def test_where_health_is_off_nobody_is_asked(tmp_path: Path) -> None:
    async def story() -> None:
        box = Toolbox("legacy", {"where": say("one")})
        checked = Toolbox("legacy", {"there": say("two")})
        async with serving(box) as server, serving(checked) as other:
            servers = {"main": {"url": server.url, "health": {"interval": "off"}}, "other": {"url": other.url}}
            async with running_beside({"servers": servers, "health": QUICK}, tmp_path) as gateway:

                async def pinged() -> bool:
                    return sum(b'"ping"' in got.body for got in checked.got) > 3

                await until(pinged)
                (one,) = await instances(gateway)
                assert (one["health"], one["checked_at"]) == ("unknown", None)
                assert not any(b'"ping"' in got.body for got in box.got)

    asyncio.run(story())


# -- what operators order ----------------------------------------------------------------------------------------------


def say(words: str) -> Any:
    async def tool(call: Call) -> None:
        await call.text(words)

    return tool


class Field:
    """Two instances; calls of `hold` end when they are let go."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.held = asyncio.Event()
        self.boxes = [Toolbox("modern", {"where": say(name), "hold": self.hold}) for name in ("one", "two")]

    async def hold(self, call: Call) -> None:
        self.held.set()
        await self.release.wait()
        await call.text("held")


@asynccontextmanager
async def operated(folder: Path, field: Field) -> AsyncIterator[tuple[Gateway, list[Server]]]:
    """A gateway in front of both, whose admin port has a token."""
    async with serving(field.boxes[0]) as one, serving(field.boxes[1]) as two:
        listen, port = free_port(), free_port()
        more: dict[str, Any] = {
            "admin": {"listen": f"127.0.0.1:{port}", "token": "${env:OPERATORS_TOKEN}"},
            "servers": {"main": {"url": [one.url, two.url]}},
            "health": QUICK,
        }
        (folder / "fastgw.yaml").write_text(json.dumps(settings(more, listen, port)))
        process = launch(folder, ENVIRONMENT)
        gateway = Gateway(f"http://127.0.0.1:{listen}/mcp", f"http://127.0.0.1:{port}", folder, process, ENVIRONMENT)
        try:
            await asyncio.to_thread(gateway.wait_until_ready)
            await asking.listed(gateway, "where")
            yield gateway, [one, two]
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()
        finally:
            field.release.set()
            gateway.kill()


async def fastgw(gateway: Gateway, *words: str) -> list[str]:
    """What the command prints; it must succeed."""
    typed = [sys.executable, "-m", "fastgw", *words, "--config", str(gateway.folder / "fastgw.yaml")]
    process = await asyncio.create_subprocess_exec(
        *typed, env={**os.environ, **ENVIRONMENT}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await process.communicate()
    assert (process.returncode, wrong) == (0, b""), wrong.decode()
    return said.decode().splitlines()


async def killed(gateway: Gateway, *roles: str) -> None:
    """SIGKILL these processes, and wait until others are in their place."""
    before = {role: gateway.child(role) for role in roles}
    assert all(before.values())
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    async def anew() -> bool:
        is_new = all(gateway.child(role) not in (0, pid) for role, pid in before.items())
        with suppress(OSError, asyncio.IncompleteReadError):
            ready = await exchange(f"{gateway.admin}/readyz", Asked(verb="GET"))
            return is_new and ready.status == 200 and ready.json()["workers"]["active"] == 2
        return False

    await until(anew, 30.0)


def test_a_drained_instance_gets_no_calls_whoever_is_started_again(tmp_path: Path) -> None:
    async def story() -> None:
        field = Field()
        async with operated(tmp_path, field) as (gateway, (one, two)):
            field.boxes[1].tools.pop("hold")  # so that it is held at the first
            holding = asyncio.create_task(held_at_the_first(gateway, field))
            await field.held.wait()
            said = await fastgw(gateway, "backends", "drain", "main/1")
            assert said == [f"main/1 (127.0.0.1:{one.port}): drain"]

            assert await wheres(gateway) == {"two"}
            (drained, other) = await instances(gateway)
            assert (drained["drained"]["who"][:16], other["drained"]) == ("127.0.0.1 token:", False)
            assert drained["in_flight"] == 1
            field.release.set()
            assert await holding == "held"

            await killed(gateway, "controller")
            assert await wheres(gateway) == {"two"}
            await killed(gateway, "worker-1", "worker-2")
            assert await wheres(gateway) == {"two"}
            gateway.process.send_signal(signal.SIGHUP)
            await until(lambda: asyncio.to_thread(gateway.logs, "the configuration was read again"))
            assert await wheres(gateway) == {"two"}
            assert [bool(found["drained"]) for found in await instances(gateway)] == [True, False]
            now = next(line for line in await explained(gateway) if line.startswith("now: "))
            assert now == f"now: main/2 at 127.0.0.1:{two.port}"
            kept = tmp_path / "data" / "drains.json"
            assert kept.stat().st_mode & 0o777 == 0o600
            assert str(one.port) not in kept.read_text()

            await fastgw(gateway, "backends", "close", f"main/127.0.0.1:{one.port}")

            async def both() -> bool:
                return await wheres(gateway) == {"one", "two"}

            await until(both)
            lines = [json.loads(line) for line in (tmp_path / "data" / "audit.jsonl").read_text().splitlines()]
            assert [(line["do"], line["server"], line["instance"]) for line in lines] == [
                ("drain", "main", f"127.0.0.1:{one.port}"), ("close", "main", f"127.0.0.1:{one.port}"),
            ]  # fmt: skip

    asyncio.run(story())


async def explained(gateway: Gateway) -> list[str]:
    return await fastgw(gateway, "explain", "--agent", "tester", "--tool", "where")


async def held_at_the_first(gateway: Gateway, field: Field) -> str:
    """The words of a call of `hold` that came to the first instance."""
    while True:
        asked = modern("tools/call", {"name": "hold", "arguments": {}}, key=KEY)
        reply = await exchange(gateway.url, asked)
        if field.held.is_set():
            return str(reply.json()["result"]["content"][0]["text"])


def test_a_breaker_that_is_opened_by_hand_is_open_in_all_workers_until_it_is_closed(tmp_path: Path) -> None:
    async def story() -> None:
        async with operated(tmp_path, Field()) as (gateway, (one, two)):
            await fastgw(gateway, "backends", "open", "main/2")
            assert await wheres(gateway) == {"one"}
            breaker = (await instances(gateway))[1]["breaker"]
            assert (breaker["state"], breaker["why"]) == ("open", "an operator has opened it")
            assert 0 < breaker["opens_for"] <= 30
            table = [line.split() for line in await fastgw(gateway, "backends")]
            assert table[0][:4] == ["instance", "address", "era", "health"]
            assert table[1][:5] == ["main/1", f"127.0.0.1:{one.port}", "modern", "healthy", "closed"]
            assert table[2][:5] == ["main/2", f"127.0.0.1:{two.port}", "modern", "healthy", "open,"]
            shown = json.loads("\n".join(await fastgw(gateway, "backends", "--json")))
            assert [len(server["instances"]) for server in shown.values()] == [2]
            metrics = (await admin(gateway, "/metrics")).body.decode()
            assert f'fastgw_breaker_open{{server="main",instance="127.0.0.1:{two.port}"}} 1\n' in metrics

            await fastgw(gateway, "backends", "close", "main/2")

            async def both() -> bool:
                return await wheres(gateway) == {"one", "two"}

            await until(both)

    asyncio.run(story())


def test_only_the_token_orders_and_only_about_what_there_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with operated(tmp_path, Field()) as (gateway, (one, two)):
            good = {"server": "main", "instance": 1}
            for token in (None, "wrong"):
                assert (await admin(gateway, "/backends/drain", good, token=token)).status == 401
            for order, words in (
                ({"server": "none", "instance": 1}, "there is no server 'none' with an address; there are main"),
                (
                    {"server": "main", "instance": 3},
                    f"main has no instance 3; there are 1 (127.0.0.1:{one.port}), 2 (127.0.0.1:{two.port})",
                ),
                ({"server": "main"}, "An order is a JSON object with server and instance: Object missing"),
                ({**good, "who": "me"}, "An order is a JSON object with server and instance: Object contains unknown"),
            ):
                reply = await admin(gateway, "/backends/drain", order)
                assert reply.status == 400
                assert reply.json()["error"].startswith(words)
            assert await wheres(gateway) == {"one", "two"}
            assert not (tmp_path / "data" / "audit.jsonl").exists()

    asyncio.run(story())
