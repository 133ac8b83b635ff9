"""What makes a gateway read its configuration again, what it says of it, and what a service manager hears."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, fingerprint, running, until
from tests.e2e.http import Asked, exchange, legacy, modern, open_session
from tests.e2e.operated import KEYS, operated
from tests.e2e.servers import Call, Toolbox, serving

APPLIED = 'fastgw_reloads_total{outcome="applied"}'
REFUSED = 'fastgw_reloads_total{outcome="refused"}'
SUCCESSFUL = "fastgw_config_last_reload_successful"


async def echo(call: Call) -> None:
    await call.text("echo")


@pytest.fixture
def toolbox() -> Toolbox:
    return Toolbox("legacy", {"echo": echo})


def test_a_file_that_changes_is_applied_however_it_is_written(tmp_path: Path, toolbox: Toolbox) -> None:
    async def story() -> None:
        async with serving(toolbox) as server, operated(tmp_path, server) as stage:
            file = tmp_path / "fastgw.yaml"
            assert (await stage.config())["applied"]["by"] == "start"
            file.write_text(stage.text(KEYS[0]))
            await until(lambda: stage.lets_in(KEYS[0]))
            assert (await stage.config())["applied"]["by"] == "file"
            (tmp_path / "draft").write_text(stage.text(KEYS[1]))
            (tmp_path / "draft").replace(file)
            await until(lambda: stage.lets_in(KEYS[1]))
            assert not await stage.lets_in(KEYS[0])
            assert await stage.metric(APPLIED) == 2

            file.write_text('{"workres": 2}')

            async def refused() -> bool:
                return await stage.metric(REFUSED) == 1

            await until(refused)
            said = await stage.config()
            assert (said["applied"]["by"], said["refused"]["by"]) == ("file", "file")
            assert f'{file}:1:2: unknown key "workres"' in said["refused"]["error"]
            assert await stage.metric(SUCCESSFUL) == 0
            assert await stage.lets_in(KEYS[1])
            file.write_text(stage.text(KEYS[2]))
            await until(lambda: stage.lets_in(KEYS[2]))
            assert (await stage.config())["refused"] is None
            assert (await stage.metric(SUCCESSFUL), await stage.metric(APPLIED), await stage.metric(REFUSED)) == (
                1,
                3,
                1,
            )

    asyncio.run(story())


def test_a_mounted_config_map_and_what_it_includes(tmp_path: Path, toolbox: Toolbox) -> None:
    """As the kubelet does it: `fastgw.yaml` leads through `..data`, which is renamed to lead to another folder."""

    def mount(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "fastgw.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    async def story() -> None:
        mount("..2026_1", "")
        (tmp_path / "fastgw.yaml").symlink_to("..data/fastgw.yaml")
        async with serving(toolbox) as server, operated(tmp_path, server) as stage:
            (tmp_path / "more").mkdir()
            mount("..2026_2", stage.text(KEYS[0], include="more/*.yaml"))
            await until(lambda: stage.lets_in(KEYS[0]))
            more = {"agents": {"included": {"key": fingerprint(KEYS[1])}}}
            (tmp_path / "more" / "agent.yaml").write_text(json.dumps(more))
            await until(lambda: stage.lets_in(KEYS[1]))
            mount("..2026_3", stage.text(KEYS[2], include="more/*.yaml"))
            await until(lambda: stage.lets_in(KEYS[2]))
            assert await stage.lets_in(KEYS[1])
            assert not await stage.lets_in(KEYS[0])

    asyncio.run(story())


def test_an_order_is_answered_when_it_is_in_force_at_every_worker_or_with_what_is_wrong(
    tmp_path: Path, toolbox: Toolbox
) -> None:
    async def story() -> None:
        async with serving(toolbox) as server, operated(tmp_path, server) as stage:
            for number, key in enumerate(KEYS[:4]):
                (tmp_path / "fastgw.yaml").write_text(stage.text(key))
                reply = await stage.order("POST", "/reload")
                assert (reply.status, reply.json()["applied"]["by"]) == (200, "order")
                assert await stage.lets_in(key), number
                ready = (await exchange(f"{stage.admin}/readyz", Asked(verb="GET"))).json()
                assert ready["generation"] >= reply.json()["generation"]
            (tmp_path / "fastgw.yaml").write_text(stage.text(KEYS[4], tools={"echo": {"to": "nowhere/echo"}}))
            reply = await stage.order("POST", "/reload")
            assert reply.status == 409
            assert re.search(r'fastgw\.yaml:1:\d+: there is no server "nowhere"', reply.json()["error"])
            assert await stage.lets_in(KEYS[3])
            assert not await stage.lets_in(KEYS[4])
            audit = (tmp_path / "data" / "audit.jsonl").read_text().splitlines()
            assert [json.loads(line)["do"] for line in audit] == ["reload"] * 5

    asyncio.run(story())


def test_what_a_reload_would_change_is_what_it_changes(tmp_path: Path, toolbox: Toolbox) -> None:
    async def story() -> None:
        async with serving(toolbox) as server, operated(tmp_path, server) as stage:

            async def listed() -> bool:
                return "echo" in (await exchange(stage.url, modern("tools/list", key=KEY))).body.decode()

            await until(listed)
            assert await stage.diff() == (0, ["no change"])
            denied = {"policies": [{"name": "p", "allow": ["*"], "deny": ["echo"]}], "timeout": "20s", "workers": 3}

            async def compared() -> list[Any]:
                """Before the file is read, which it is half a second after it was written."""
                (tmp_path / "fastgw.yaml").write_text(stage.text())
                await stage.order("POST", "/reload")
                (tmp_path / "fastgw.yaml").write_text(stage.text(KEYS[0], **denied))
                found = (await stage.order("GET", "/config/diff")).json()
                return [found[name] for name in ("access", "settings", "needs_restart") if found["access"]]

            assert await until(compared) == [
                [{"endpoint": "/mcp", "agents": ["agent-0"], "gains": [], "loses": ["echo"]}],
                [
                    {"setting": "agents.agent-1", "change": "added"},
                    {"setting": "policies", "change": "added"},
                    {"setting": "timeout", "change": "changed", "before": 55.0, "after": 20.0},
                ],
                ["workers"],
            ]

            async def told() -> bool:
                return (await stage.config())["needs_restart"] == ["workers"]

            await until(told)
            assert await stage.diff() == (1, ["a restart is needed for workers"])
            (tmp_path / "fastgw.yaml").write_text("servers: [\n")
            code, lines = await stage.diff()
            assert code == 2
            assert re.search(r"fastgw\.yaml:2:1: not YAML", "\n".join(lines)), lines

    asyncio.run(story())


def test_sessions_at_servers_and_of_agents_survive(tmp_path: Path, toolbox: Toolbox) -> None:
    async def story() -> None:
        async with serving(toolbox) as server, operated(tmp_path, server) as stage:
            session = await open_session(stage.url, key=KEY)
            asked = legacy("tools/call", {"name": "echo", "arguments": {}}, key=KEY, session=session)

            async def calls() -> bool:
                return (await exchange(stage.url, asked)).json().get("result") is not None

            await until(calls)
            opened = len(toolbox.opened)
            for number in range(5):
                tools = {"echo": {"description": f"Loaded again: {number}"}}
                (tmp_path / "fastgw.yaml").write_text(stage.text(tools=tools))
                assert (await stage.order("POST", "/reload")).status == 200
                for _ in range(4):
                    assert await calls()
            assert len(toolbox.opened) == opened
            assert len({used for used, tool in toolbox.ledger if tool == "echo"}) == 1

    asyncio.run(story())


@pytest.fixture(params=["in a folder", "abstract"])
def notified(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """`NOTIFY_SOCKET`, and systemd's end of it."""
    name = str(tmp_path / "notify") if request.param == "in a folder" else f"@fastgw-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as heard:
        heard.bind(name.replace("@", "\0", 1))
        heard.settimeout(20)
        yield name, heard


def said(heard: socket.socket) -> dict[str, str]:
    """One message, its lines by name."""
    return dict(line.split("=", 1) for line in heard.recv(4096).decode().splitlines())


def test_a_service_manager_hears_of_start_reload_and_stop(tmp_path: Path, notified: tuple[str, socket.socket]) -> None:

    name, heard = notified
    with running({"servers": {}}, tmp_path, {"NOTIFY_SOCKET": name}) as gateway:
        assert said(heard)["READY"] == "1"
        assert gateway.ask_admin("/readyz")[0] == 200
        for text, status in ((None, "serving"), ("{", "the configuration was refused")):
            if text is not None:
                (tmp_path / "fastgw.yaml").write_text(text)
            before = time.monotonic_ns() // 1000
            gateway.process.send_signal(signal.SIGHUP)
            told = said(heard)
            assert told["RELOADING"] == "1"
            assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert said(heard) == {"READY": "1", "STATUS": status}
        gateway.process.send_signal(signal.SIGTERM)
        assert said(heard)["STOPPING"] == "1"
        assert gateway.stop() == 0


def test_a_reload_while_the_controller_is_away_is_not_lost(tmp_path: Path, toolbox: Toolbox) -> None:

    with running({"servers": {}}, tmp_path) as gateway:
        controller = gateway.child("controller")
        os.kill(controller, signal.SIGKILL)
        gateway.configure({"servers": {}, "agents": {"other": {"key": fingerprint(KEYS[0])}}})
        gateway.process.send_signal(signal.SIGHUP)

        async def story() -> None:
            async def let_in() -> bool:
                replies = [await exchange(gateway.url, modern("tools/list", key=KEYS[0])) for _ in range(4)]
                return {reply.status for reply in replies} == {200}

            await until(let_in, 15)

        asyncio.run(story())
        os.kill(gateway.child("controller"), signal.SIGKILL)

        async def still() -> None:
            async def back() -> bool:
                return gateway.child("controller") != 0 and gateway.ask_admin("/readyz")[0] == 200

            await until(back, 15)
            for _ in range(4):
                assert (await exchange(gateway.url, modern("tools/list", key=KEYS[0]))).status == 200

        asyncio.run(still())
