"""SIGHUP: what is new applies, no call is lost by it, and a file that is wrong changes nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, exchange, legacy, modern, open_session
from tests.e2e.servers import Call, Server, Toolbox, serving

OTHER = "fgw_test_another_agent"
APPLIED = 'fastgw_reloads_total{outcome="applied"}'
REFUSED = 'fastgw_reloads_total{outcome="refused"}'


class Stage:
    """Two servers, the first of which holds a call until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = asyncio.Event()

    async def echo(self, call: Call) -> None:
        await call.text("echo")

    async def held(self, call: Call) -> None:
        self.entered.set()
        await self.release.wait()
        await call.text("held")

    @asynccontextmanager
    async def servers(self) -> AsyncIterator[tuple[Server, Server]]:
        first = Toolbox("legacy", {"first": self.echo, "held": self.held, "secret": self.echo})
        second = Toolbox("modern", {"second": self.echo})
        async with serving(first) as one, serving(second) as two:
            yield one, two


def settings(*agents: str, deny: tuple[str, ...] = (), **servers: Server) -> dict[str, Any]:
    return {
        "servers": {name: {"url": server.url} for name, server in servers.items()},
        "agents": {f"agent-{number}": {"key": fingerprint(key)} for number, key in enumerate(agents)},
        "policies": [{"name": "all", "allow": ["*"], "deny": list(deny) or ["none"]}],
        "drain": "3s",
    }


def calling(tool: str, key: str = KEY) -> Asked:
    return modern("tools/call", {"name": tool, "arguments": {}}, key=key)


async def names(gateway: Gateway, key: str = KEY) -> set[str]:
    reply = await exchange(gateway.url, modern("tools/list", key=key))
    return {tool["name"] for tool in reply.json()["result"]["tools"]} if reply.status == 200 else set()


async def lists(gateway: Gateway, key: str, *wanted: str) -> bool:
    """Whether several fresh connections, so both workers, list exactly these."""
    return all([await names(gateway, key) == set(wanted) for _ in range(4)])


async def reload(gateway: Gateway, line: str) -> None:
    """SIGHUP, and wait until it has been heeded as `line` of the metrics says."""
    before = await asyncio.to_thread(gateway.metric, line)

    async def heeded() -> bool:
        return await asyncio.to_thread(gateway.metric, line) > before

    gateway.process.send_signal(signal.SIGHUP)
    await until(heeded)


async def keep_calling(gateway: Gateway, asked: Asked, over: asyncio.Event) -> int:
    """Call on a fresh connection each time; every answer is demanded to be the tool's."""
    done = 0
    while not over.is_set():
        reply = await exchange(gateway.url, asked)
        assert reply.status == 200, reply
        assert reply.json()["result"]["content"][0]["text"] == "echo", reply
        done += 1
    return done


def test_a_reload_applies_what_is_new_and_loses_no_call(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.servers() as (one, two), running_beside(settings(KEY, one=one), tmp_path) as gateway:
            await until(lambda: lists(gateway, KEY, "first", "held", "secret"))
            session, over = await open_session(gateway.url, key=KEY), asyncio.Event()
            in_session = legacy("tools/call", {"name": "first", "arguments": {}}, key=KEY, session=session)
            both = (calling("first"), in_session)
            load = [asyncio.create_task(keep_calling(gateway, asked, over)) for asked in both]
            held = asyncio.create_task(exchange(gateway.url, calling("held")))
            await stage.entered.wait()
            assert (await exchange(gateway.url, calling("first", OTHER))).status == 401

            gateway.configure(settings(KEY, OTHER, deny=("secret",), one=one, two=two))
            await reload(gateway, APPLIED)
            await until(lambda: lists(gateway, OTHER, "first", "held", "second"))
            await until(lambda: lists(gateway, KEY, "first", "held", "second"))
            for _ in range(4):
                assert (await exchange(gateway.url, calling("second", OTHER))).status == 200
                assert (await exchange(gateway.url, calling("secret"))).json()["error"]["code"] == -32602
            over.set()
            assert min(await asyncio.gather(*load)) > 1

            # The server of the call that is held is taken away, and so is the first agent.
            gateway.configure(settings(OTHER, two=two))
            await reload(gateway, APPLIED)
            await until(lambda: lists(gateway, OTHER, "second"))
            assert (await exchange(gateway.url, calling("second"))).status == 401
            stage.release.set()
            assert (await held).json()["result"]["content"][0]["text"] == "held"
            assert gateway.metric("fastgw_worker_restarts_total") == 0

    asyncio.run(story())


BROKEN = [
    ('{"workres": 2}', r"fastgw\.yaml:1:2: unknown key \"workres\" \(did you mean \"workers\"\?\)"),
    ("listen: [\n  1,", r"fastgw\.yaml:\d+:\d+: "),
    ("agents:\n  a:\n    key: 5\n", r"fastgw\.yaml:3:10: "),
    ("servers: {a: {command: [x]}}\n", r"fastgw\.yaml:1:15: servers\.a\.command is not active"),
]
"""A file that cannot be used, or must not be run, and what the log says of it."""


def test_a_bad_file_keeps_the_old_one_and_the_log_says_where(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.servers() as (one, _), running_beside(settings(KEY, one=one), tmp_path) as gateway:
            await until(lambda: lists(gateway, KEY, "first", "held", "secret"))
            for text, pattern in BROKEN:
                (tmp_path / "fastgw.yaml").write_text(text)
                said = len(gateway.log())
                await reload(gateway, REFUSED)
                assert gateway.logs(pattern, since=said), gateway.log()[said:]
                assert await lists(gateway, KEY, "first", "held", "secret")
                assert (await exchange(gateway.url, calling("first"))).status == 200
            assert gateway.metric(APPLIED) == 0

    asyncio.run(story())
