"""Processes that are killed, stopped, signalled or crowded, while calls run through them.

Each worker signs the request ids it gives with a beginning of its own: that is how a test knows who answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import (
    PATIENCE,
    Asked,
    Reply,
    Stream,
    exchange,
    legacy,
    modern,
    open_session,
    streaming,
)
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, event, serving

LATE = 3.0
"""Seconds by which a busy machine may be late."""
BACK_WITHIN = 4.0
"""Seconds in which a killed process has been replaced, on a busy machine too."""
GONE_WITHIN = 3.0
"""Seconds in which every process has followed its supervisor."""
DRAIN = 3.0
IDLE = 3000
FILES = 8192


class Stage:
    """What the tools of a test wait for."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = 0

    async def echo(self, call: Call) -> None:
        await call.text(str(call.arguments.get("word")))

    async def held(self, call: Call) -> None:
        self.entered += 1
        await self.release.wait()
        await call.text("released")

    async def streamed(self, call: Call) -> None:
        """One progress event at once, the answer after the release."""
        await call.send(STREAM + event(progress(call)))
        self.entered += 1
        await self.release.wait()
        await call.send(event(call.envelope(b'{"content":[{"type":"text","text":"released"}]}')) + STREAM_END)

    async def idle(self, call: Call) -> None:
        """One progress event, then nothing, for ever."""
        await call.send(STREAM + event(progress(call)))
        self.entered += 1
        await asyncio.Event().wait()

    def toolbox(self, era: str = "modern") -> Toolbox:
        return Toolbox(era, {"echo": self.echo, "held": self.held, "streamed": self.streamed, "idle": self.idle})

    async def all_entered(self, count: int) -> None:
        async def there() -> bool:
            return self.entered == count

        await until(there)


def progress(call: Call) -> bytes:
    params = {"progressToken": call.params["_meta"]["progressToken"], "progress": 1}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()


@asynccontextmanager
async def staged(
    folder: Path, era: str = "modern", more: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Gateway, Stage, Toolbox]]:
    """A gateway in front of one server whose tools the test holds and releases."""
    stage = Stage()
    toolbox = stage.toolbox(era)
    async with serving(toolbox) as server:
        settings = {"servers": {"stage": {"url": server.url}}, "drain": f"{DRAIN:g}s", **(more or {})}
        async with running_beside(settings, folder) as gateway:
            await until(lambda: has_tools(gateway))
            yield gateway, stage, toolbox


async def has_tools(gateway: Gateway) -> bool:
    reply = await exchange(gateway.url, modern("tools/list", key=KEY))
    return len(reply.json()["result"]["tools"]) == 4


def asking(tool: str, **meta: Any) -> Asked:
    return modern("tools/call", {"name": tool, "arguments": {"word": "hi"}}, key=KEY, meta=meta)


async def echoes(gateway: Gateway) -> str:
    """One call on a fresh connection, demanded to succeed; the worker that served it."""
    reply = await exchange(gateway.url, asking("echo"))
    assert (reply.status, reply.json()["result"]["content"][0]["text"]) == (200, "hi")
    return worker(reply.header("x-request-id"))


def worker(request: str | None) -> str:
    assert request is not None
    assert request.startswith("req_")
    return request[:14]


async def meet_both(gateway: Gateway) -> set[str]:
    """The signs of both workers."""
    seen: set[str] = set()

    async def met() -> bool:
        seen.add(await echoes(gateway))
        return len(seen) == 2

    await until(met)
    return seen


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


async def dead(*pids: int, within: float = GONE_WITHIN) -> None:
    async def ended() -> bool:
        return not any(alive(pid) for pid in pids)

    await until(ended, within)


async def begun_on_both(gateway: Gateway, open_calls: AsyncExitStack) -> dict[str, list[Stream]]:
    """Streaming calls under way, by the worker that carries them: at least two on each."""
    calls: dict[str, list[Stream]] = {}

    async def enough() -> bool:
        stream = await open_calls.enter_async_context(
            streaming(gateway.url, asking("streamed", progressToken=len(calls)))
        )
        assert (await stream.event()) is not None
        calls.setdefault(worker(stream.header("x-request-id")), []).append(stream)
        return len(calls) == 2 and min(map(len, calls.values())) >= 2

    await until(enough)
    return calls


async def last_word(stream: Stream) -> Any:
    """The final message of a stream; None where the connection broke off before it."""
    try:
        found = await stream.event()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return found.json() if found is not None else None


@pytest.mark.parametrize("role", ["worker-1", "worker-2"])
def test_a_killed_worker_costs_only_its_calls_in_flight(tmp_path: Path, role: str) -> None:
    async def story() -> None:
        async with staged(tmp_path) as (gateway, stage, _), AsyncExitStack() as open_calls:
            calls = await begun_on_both(gateway, open_calls)
            victim, killed = gateway.child(role), time.monotonic()
            os.kill(victim, signal.SIGKILL)
            await reaped(victim)
            for _ in range(10):
                await echoes(gateway)
            await until(lambda: serves_another(gateway, set(calls)), killed + BACK_WITHIN - time.monotonic())
            assert gateway.child(role) != victim
            stage.release.set()
            words = {name: [await last_word(stream) for stream in streams] for name, streams in calls.items()}
            lost = [name for name, said in words.items() if said == [None] * len(said)]
            assert len(lost) == 1, words
            (kept,) = set(words) - set(lost)
            assert [said["result"]["content"][0]["text"] for said in words[kept]] == ["released"] * len(words[kept])
            assert gateway.metric("fastgw_worker_restarts_total") == 1

    asyncio.run(story())


async def reaped(pid: int) -> None:
    """Wait for the last thread's end: until then the kernel queues, and resets, connections of a dying listener."""

    async def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await until(gone, GONE_WITHIN)


async def serves_another(gateway: Gateway, known: set[str]) -> bool:
    return await echoes(gateway) not in known


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path) as (gateway, _, _), AsyncExitStack() as open_calls:
            await begun_on_both(gateway, open_calls)
            family = gateway.children()
            assert len(family) == 5, "controller, usage process, two workers and the store"
            assert all(map(alive, family))
            gateway.process.kill()
            gateway.process.wait()
            await dead(*family)

    asyncio.run(story())


def test_ctrl_c_answers_the_slow_call_ends_the_idle_stream_and_exits_with_0(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path) as (gateway, stage, _), AsyncExitStack() as open_calls:
            slow = asyncio.create_task(exchange(gateway.url, asking("held")))
            stream = await open_calls.enter_async_context(streaming(gateway.url, asking("idle", progressToken="p")))
            assert (await stream.event()) is not None
            await stage.all_entered(2)
            family, begun = gateway.children(), time.monotonic()
            os.killpg(gateway.process.pid, signal.SIGINT)  # as a terminal does it: the whole group hears
            await until(lambda: is_draining(gateway))
            stage.release.set()
            assert (await slow).json()["result"]["content"][0]["text"] == "released"
            final = await last_word(stream)
            assert (final["error"]["code"], final["error"]["data"]["mayHaveRun"]) == (-31003, True)
            assert await stream.event() is None, "the stream ends in order"
            assert await asyncio.to_thread(gateway.process.wait, PATIENCE) == 0
            assert time.monotonic() - begun < DRAIN + LATE
            await dead(*family)

    asyncio.run(story())


async def is_draining(gateway: Gateway) -> bool:
    return (await asyncio.to_thread(gateway.ask_admin, "/readyz"))[0] == 503


def test_without_anything_open_a_stop_takes_no_drain(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path, more={"drain": "30s"}) as (gateway, _, _):
            begun = time.monotonic()
            assert await asyncio.to_thread(gateway.stop, signal.SIGINT) == 0
            assert time.monotonic() - begun < LATE

    asyncio.run(story())


def test_3000_idle_connections_do_not_delay_a_new_one(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, before[1]), before[1]))

    async def story() -> None:
        async with staged(tmp_path) as (gateway, _, _):
            port = int(gateway.root.rpartition(":")[2])
            with ExitStack() as idle:
                for _ in range(IDLE):
                    idle.enter_context(socket.create_connection(("127.0.0.1", port), 5))
                begun = time.monotonic()
                for _ in range(10):
                    await echoes(gateway)
                assert time.monotonic() - begun < LATE

    try:
        asyncio.run(story())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_metrics_answer_while_both_workers_are_stopped(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path) as (gateway, _, _):
            await meet_both(gateway)
            line = 'fastgw_requests_total{endpoint="/mcp",method="tools/call",outcome="ok"}'
            await until(lambda: counted(gateway, line))
            workers = [gateway.child("worker-1"), gateway.child("worker-2")]
            assert all(workers)
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
            try:
                for path in ("/metrics", "/metrics", "/livez", "/backends", "/catalogue"):
                    begun = time.monotonic()
                    status, text = await asyncio.to_thread(gateway.ask_admin, path)
                    assert time.monotonic() - begun < 1
                    assert status == 200
                    assert path != "/metrics" or line in text.decode()
            finally:
                for pid in workers:
                    os.kill(pid, signal.SIGCONT)
            await meet_both(gateway)

    asyncio.run(story())


async def counted(gateway: Gateway, line: str) -> bool:
    return await asyncio.to_thread(gateway.metric, line) > 0


def test_a_killed_controller_costs_no_call_and_the_next_one_learns_the_sessions(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path, "legacy") as (gateway, stage, toolbox), AsyncExitStack() as open_calls:
            sessions = [await open_session(gateway.url, key=KEY) for _ in range(4)]
            for session in sessions:
                await echoes_in(gateway, session)
            theirs = {session for session, _ in toolbox.ledger}
            assert len(theirs) == 4
            stream = await open_calls.enter_async_context(streaming(gateway.url, in_session(sessions[0], "streamed")))
            assert (await stream.event()) is not None
            over = asyncio.Event()
            load = [asyncio.create_task(keep_calling(gateway, session, over)) for session in sessions]
            controller, killed = gateway.child("controller"), time.monotonic()
            os.kill(controller, signal.SIGKILL)
            await until(lambda: opens_anew(gateway), BACK_WITHIN)
            assert time.monotonic() - killed < BACK_WITHIN
            assert gateway.child("controller") not in (0, controller)
            await until(lambda: holds_sessions(gateway, 5), BACK_WITHIN)
            stage.release.set()
            assert (await last_word(stream))["result"]["content"][0]["text"] == "released"
            over.set()
            assert min(await asyncio.gather(*load)) >= 1
            used = [session for session, tool in toolbox.ledger if tool == "echo"]
            assert len(set(used) - theirs) == 1, "only the new agent's session was opened"

    asyncio.run(story())


def in_session(session: str, tool: str) -> Asked:
    params = {"name": tool, "arguments": {"word": "hi"}, "_meta": {"progressToken": 1}}
    return legacy("tools/call", params, key=KEY, session=session)


async def echoes_in(gateway: Gateway, session: str) -> Reply:
    reply = await exchange(gateway.url, in_session(session, "echo"))
    content = reply.json().get("result", {}).get("content")
    assert (reply.status, content) == (200, [{"type": "text", "text": "hi"}]), reply.body
    return reply


async def keep_calling(gateway: Gateway, session: str, over: asyncio.Event) -> int:
    done = 0
    while not over.is_set():
        await echoes_in(gateway, session)
        done += 1
    return done


async def opens_anew(gateway: Gateway) -> bool:
    """Whether an agent's new session gets one at the server. A refusal says that nothing was sent."""
    session = await open_session(gateway.url, key=KEY)
    reply = await exchange(gateway.url, in_session(session, "echo"))
    said = reply.json()
    assert "result" in said or said["error"]["data"]["mayHaveRun"] is False
    return "result" in said


async def holds_sessions(gateway: Gateway, count: int) -> bool:
    backends = json.loads((await asyncio.to_thread(gateway.ask_admin, "/backends"))[1] or "{}")
    return bool(backends) and backends["stage"]["sessions"] >= count
