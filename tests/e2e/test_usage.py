"""Usage events of the whole gateway: one for each tool call however it ended, whole lines; no call waits for one."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import select
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from fastgw.usage.manifest import parquet_path, read_manifest
from tests.e2e.gateway import KEY, Gateway, fingerprint, running, running_beside, until
from tests.e2e.http import Asked, exchange, initialize, legacy, modern, open_session
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, failure, serving

DOCS = Path(__file__).parents[2] / "docs" / "usage-events.md"
BATCHING = "2025-03-26"
BATCH = 100
CALLS = 5000
PIPE = 4096
CLAIM = "x" * 10_000
"""A claim that makes events so long that a pipe is full after a few of them."""
LAG = 'fastgw_usage_sink_lag_seconds{sink="stdout"}'
NOT_LATE = 10.0
"""Seconds for one call on a busy machine; one that waited for a stopped reader would never end."""

CLAIMS = {"team": "platform", "project": "checkout", "billing_account": "acme-1", "tier": "gold", "secret": "hush"}


async def echo(call: Call) -> None:
    await call.text(str(call.arguments.get("word")))


async def fails(call: Call) -> None:
    await call.result(b'{"content":[],"isError":true}')


async def breaks(call: Call) -> None:
    await call.send(failure(call.id, -32050, "broken"))


async def spurns(call: Call) -> None:
    await call.send(failure(call.id, -32602, "Invalid arguments for tool spurns: word is required"))


async def stuck(call: Call) -> None:
    await asyncio.Event().wait()


TOOLS = {
    "echo": echo,
    "fails": fails,
    "breaks": breaks,
    "spurns": spurns,
    "stuck": stuck,
    "held": stuck,
    "deploy": echo,
}


def settings(port: int, **usage: Any) -> dict[str, Any]:
    return {
        "servers": {"main": {"url": f"http://127.0.0.1:{port}/mcp?key=hush"}},
        "agents": {"tester": {"key": fingerprint(KEY), "claims": CLAIMS}},
        "policies": [
            {"name": "most", "allow": ["*"], "except": {"agent": "nobody"}},
            {"name": "not-in-production", "match": {"arguments": {"environment": "production"}}, "deny": ["deploy"]},
        ],
        "tools": {"stuck": {"timeout": "300ms"}},
        "usage": {"sinks": ["stdout", "file:events/usage.jsonl"], "labels": ["tier"], "gateway": "gw-7", **usage},
        "drain": "1s",
    }


def fields() -> set[str]:
    """The fields that the page documents."""
    rows = [line.split("|")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def lines(gateway: Gateway) -> list[str]:
    file = gateway.folder / "events" / "usage.jsonl"  # beside the configuration file, which is where it starts
    return file.read_text().splitlines() if file.exists() else []


def events(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(gateway)]


async def has_events(gateway: Gateway, count: int) -> bool:
    return len(lines(gateway)) >= count


async def has_tools(gateway: Gateway) -> bool:
    reply = await exchange(gateway.url, modern("tools/list", key=KEY))
    return len(reply.json()["result"]["tools"]) == len(TOOLS)


async def counted(gateway: Gateway, row: str, count: int) -> bool:
    return await asyncio.to_thread(gateway.metric, row) == count


def calling(tool: str, **arguments: Any) -> Asked:
    return modern("tools/call", {"name": tool, "arguments": arguments}, key=KEY)


async def tell(gateway: Gateway, asked: Asked) -> dict[str, Any]:
    """The one event that this request makes."""
    before = len(lines(gateway))
    reply = await exchange(gateway.url, asked)
    await until(lambda: has_events(gateway, before + 1))
    (event,) = events(gateway)[before:]
    assert event["requestId"] == reply.header("x-request-id")
    return dict(event)


def ending(event: dict[str, Any]) -> tuple[Any, ...]:
    names = ("outcome", "statusCode", "errorCode", "tool", "attempts", "refusedBy")
    return tuple(event[name] for name in names)


def test_every_ending_of_a_call_makes_one_event_with_every_field(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(Toolbox("modern", dict(TOOLS))) as server:
            place = f"127.0.0.1:{server.port}"
            async with running_beside(settings(server.port), tmp_path) as gateway:
                await until(lambda: has_tools(gateway))
                began = time.time()
                ok = await tell(gateway, calling("echo", word="hi"))
                assert ending(ok) == ("ok", 200, None, "echo", 1, None)
                assert set(ok) == fields()
                check_ok(ok, place, began)
                assert ending(await tell(gateway, calling("fails"))) == ("tool_error", 200, None, "fails", 1, None)
                broken = await tell(gateway, calling("breaks"))
                assert ending(broken) == ("server_error", 502, -32050, "breaks", 1, None)
                session = await open_session(gateway.url, key=KEY)
                params = {"name": "spurns", "arguments": {}}
                for asked in (calling("spurns"), legacy("tools/call", params, key=KEY, session=session)):
                    spurned = await tell(gateway, asked)
                    assert ending(spurned) == ("invalid", 502, -32602, "spurns", 1, None)
                    assert spurned["mcpServer"] == "main"
                late = await tell(gateway, calling("stuck"))
                assert ending(late) == ("timeout", 504, -31002, "stuck", 1, None)
                assert 300 <= late["latencyMs"] < 2000
                assert late["overheadMs"] < late["latencyMs"] / 2
                unknown = await tell(gateway, calling("nothing"))
                assert ending(unknown) == ("unknown", 404, -32602, None, 0, None)
                denied = await tell(gateway, calling("deploy", environment="production"))
                assert ending(denied) == ("denied", 403, -31040, "deploy", 0, "not-in-production")
                invalid = await tell(gateway, calling("echo").having("Mcp-Name", "another"))
                assert ending(invalid)[:3] == ("invalid", 400, -32020)
                wrong = await tell(gateway, modern("tools/call", {"name": "echo", "arguments": 5}, key=KEY))
                assert ending(wrong)[:3] == ("invalid", 400, -32602)
                for event in (unknown, denied, invalid, wrong):
                    assert (event["mcpServer"], event["instance"], event["attempts"]) == (None, None, 0)
                for event in (ok, broken, late):
                    assert (event["mcpServer"], event["instance"]) == ("main", place)
                for outcome, count in (("invalid", 4), ("server_error", 1)):
                    row = f'fastgw_requests_total{{endpoint="/mcp",method="tools/call",outcome="{outcome}"}}'
                    await until(lambda row=row, count=count: counted(gateway, row, count))
                await left_calls(gateway)
                everything = events(gateway)
                assert all(set(event) == fields() for event in everything)
                assert "hush" not in "\n".join(lines(gateway)), "secrets of URLs and claims are nobody's to read"
            # Each worker's are in order; of two workers it is the sink's luck whose comes first.
            assert sorted((tmp_path / "stdout.log").read_text().splitlines()) == sorted(lines(gateway))

    asyncio.run(story())


def check_ok(event: dict[str, Any], place: str, began: float) -> None:
    """Every field of a plain successful call."""
    stamp = event.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert abs(time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - began) < 5
    assert 0 < event.pop("overheadMs") <= event.pop("latencyMs") < 2000
    assert event.pop("bytesIn") > 100
    assert event.pop("bytesOut") > 50
    del event["requestId"]
    assert event == {
        "schema": 1,
        "gateway": "gw-7",
        "endpoint": "/mcp",
        "agentId": "tester",
        "userId": None,
        "credential": "key:" + fingerprint(KEY).removeprefix("sha256:")[:8],
        "team": "platform",
        "project": "checkout",
        "billingAccount": "acme-1",
        "labels": {"tier": "gold"},
        "method": "tools/call",
        "tool": "echo",
        "mcpServer": "main",
        "instance": place,
        "outcome": "ok",
        "statusCode": 200,
        "errorCode": None,
        "refusedBy": None,
        "attempts": 1,
        "failover": False,
        "cached": False,
        "tokensIn": None,
        "tokensOut": None,
        "cost": None,
        "currency": "USD",
        "rateLimitRemaining": None,
        "protocolVersion": "2026-07-28",
        "traceId": None,
    }


async def left_calls(gateway: Gateway) -> None:
    """A modern agent that leaves, a legacy one that cancels by a notification: both calls are cancelled, once."""
    before = len(lines(gateway))
    leaving = asyncio.create_task(exchange(gateway.url, calling("held")))
    session = await open_session(gateway.url, key=KEY)
    params = {"name": "held", "arguments": {}}
    withdrawn = asyncio.create_task(
        exchange(gateway.url, legacy("tools/call", params, key=KEY, session=session, id="w"))
    )
    await until(lambda: in_flight(gateway, 2))
    leaving.cancel()
    note = {"requestId": "w"}
    asked = legacy("notifications/cancelled", note, key=KEY, session=session, id=None)
    assert (await exchange(gateway.url, asked)).status == 202
    await withdrawn
    await until(lambda: has_events(gateway, before + 2))
    left = events(gateway)[before:]
    assert [ending(event) for event in left] == [("cancelled", 499, None, "held", 1, None)] * 2
    assert {event["protocolVersion"] for event in left} == {"2026-07-28", "2025-11-25"}


async def in_flight(gateway: Gateway, count: int) -> bool:
    return await asyncio.to_thread(gateway.metric, "fastgw_in_flight") == count


def test_a_dead_server_makes_an_event_and_what_is_no_tool_call_makes_none(tmp_path: Path) -> None:
    port = free_port()

    async def story() -> None:
        async with running_beside(settings(port), tmp_path) as gateway:
            async with serving(Toolbox("legacy", dict(TOOLS)), port):
                await until(lambda: has_tools(gateway))
                session = await open_session(gateway.url, key=KEY)
            strangers = [modern("tools/call", {"name": "echo"}), modern("tools/call", {"name": "echo"}, key="wrong")]
            for asked in (
                *strangers,
                modern("tools/list", key=KEY),
                modern("server/discover", key=KEY),
                modern("prompts/list", key=KEY),
                initialize(key=KEY),
                legacy("ping", key=KEY, session=session),
                legacy("tools/list", key=KEY, session=session),
                Asked(b"{", modern("tools/call", {"name": "echo"}, key=KEY).headers),
            ):
                await exchange(gateway.url, asked)
            for asked in (calling("echo"), legacy("tools/call", {"name": "echo"}, key=KEY, session=session)):
                event = await tell(gateway, asked)
                assert ending(event) == ("unavailable", 503, -31001, "echo", 0, None)
            # The requests above were finished before these two events were there.
            assert len(events(gateway)) == 2

    asyncio.run(story())


def batch(tool: str, session: str, first: int) -> Asked:
    """So many calls in one request, in the only revision that has batches."""
    one = legacy("tools/call", {"name": tool, "arguments": {"word": "w"}}, key=KEY, session=session, version=BATCHING)
    message = json.loads(one.body)
    return Asked(json.dumps([{**message, "id": first + step} for step in range(BATCH)]).encode(), one.headers)


async def send_batch(gateway: Gateway, tool: str, session: str, first: int) -> float:
    """Seconds that the whole batch took."""
    begun = time.monotonic()
    reply = await exchange(gateway.url, batch(tool, session, first))
    assert (reply.status, len(reply.json())) == (200, BATCH)
    return time.monotonic() - begun


def test_lines_of_two_workers_never_mix_and_none_is_lost(tmp_path: Path) -> None:
    async def story() -> None:
        toolbox = Toolbox("modern", dict(TOOLS))
        async with serving(toolbox) as server, running_beside(settings(server.port), tmp_path) as gateway:
            await until(lambda: has_tools(gateway))
            session = await open_session(gateway.url, key=KEY, version=BATCHING)
            for first in range(0, CALLS, 4 * BATCH):
                steps = range(first, min(first + 4 * BATCH, CALLS), BATCH)
                both = zip(steps, ("echo", "nothing", "nothing", "nothing"), strict=False)
                await asyncio.gather(*(send_batch(gateway, tool, session, step) for step, tool in both))
            # The gateway is stopped now: what was written down last must still arrive.

    asyncio.run(story())
    for file in (tmp_path / "stdout.log", tmp_path / "events" / "usage.jsonl"):
        written = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(written) == CALLS
        assert len({event["requestId"] for event in written}) == CALLS
        assert len({event["requestId"][:14] for event in written}) == 2, "both workers have served"
        assert set(Counter(event["outcome"] for event in written)) == {"ok", "unknown"}


def test_a_reader_that_stops_reading_delays_no_call_and_no_other_sink_and_loses_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stdout.log")  # what the gateway prints goes where the test reads when it likes
    reader = os.open(tmp_path / "stdout.log", os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)
    more = settings(free_port(), labels=["big"])
    more["agents"]["tester"]["claims"] = {"big": CLAIM}

    async def story(gateway: Gateway) -> None:
        session = await open_session(gateway.url, key=KEY, version=BATCHING)
        sent = 0
        while sent < 3 * BATCH:
            assert await send_batch(gateway, "nothing", session, sent) < NOT_LATE
            sent += BATCH
        await until(lambda: reached(gateway, sent))
        await until(lambda: has_events(gateway, sent))
        await until(lambda: lags(gateway))
        read, end = b"", time.monotonic() + NOT_LATE
        while read.count(b"\n") < sent and time.monotonic() < end:
            if select.select([reader], [], [], 1)[0]:
                read += os.read(reader, 1 << 20)
        written = [json.loads(line)["requestId"] for line in read.splitlines()]
        assert (len(written), len(set(written))) == (sent, sent), "whole lines, each once"

    try:
        with running(more, tmp_path) as gateway:
            asyncio.run(story(gateway))
    finally:
        os.close(reader)


async def lags(gateway: Gateway) -> bool:
    return gateway.metric(LAG) > 0


async def reached(gateway: Gateway, count: int) -> bool:
    return gateway.metric("fastgw_usage_events_total") == count


def test_killed_processes_lose_no_event_that_was_written_and_a_stop_delivers_the_rest(tmp_path: Path) -> None:
    """SIGKILL of the usage process, then of a worker, in the middle of traffic."""
    answered: list[tuple[float, str]] = []

    async def traffic(gateway: Gateway, ends: asyncio.Event) -> None:
        while not ends.is_set():
            with suppress(OSError, EOFError, AssertionError, ValueError, IndexError):
                reply = await exchange(gateway.url, calling("nothing"))
                answered.append((time.monotonic(), str(reply.header("x-request-id"))))

    async def more(count: int) -> bool:
        return len(answered) >= count

    async def story(gateway: Gateway) -> None:
        ends = asyncio.Event()
        sending = [asyncio.create_task(traffic(gateway, ends)) for _ in range(4)]
        await until(lambda: more(100))
        usage = gateway.child("usage")
        os.kill(usage, signal.SIGKILL)
        await until(lambda: more(300))
        await until(lambda: again(gateway, "usage", usage))
        worker = gateway.child("worker-1")
        os.kill(worker, signal.SIGKILL)
        killed.append(time.monotonic())
        await until(lambda: again(gateway, "worker-1", worker))
        count = len(answered) + 200
        await until(lambda: more(count))
        ends.set()
        await asyncio.gather(*sending)

    killed: list[float] = []
    with running(settings(free_port(), sinks=["file:events/usage.jsonl"]), tmp_path) as gateway:
        asyncio.run(story(gateway))
    arrived = Counter(event["requestId"] for event in events(gateway))
    missing = [when for when, request in answered if request not in arrived]
    assert all(killed[0] - 1 < when <= killed[0] + 0.1 for when in missing), "the last second of the worker's, no more"
    assert len(missing) < 200
    assert max(arrived.values()) <= 2, "what came since the last position is delivered once more"
    files = list((tmp_path / "data" / "usage" / "spool").glob("*.jsonl"))
    assert all((file.stat().st_mode & 0o077) == 0 for file in files)


def test_every_event_is_in_the_archive_or_the_spool_once(tmp_path: Path) -> None:
    usage = tmp_path / "data" / "usage"

    def seen() -> list[str]:
        manifest = read_manifest(usage)
        found = []
        for file in manifest.parquet:
            select = f"SELECT request_id FROM '{parquet_path(usage, file.name)}'"
            found += [value for (value,) in duckdb.sql(select).fetchall()]
        for path in (usage / "spool").glob("*.jsonl"):
            if path.name not in manifest.spool:
                found += [json.loads(line)["requestId"] for line in path.read_bytes().splitlines()]
        return sorted(found)

    async def ask(gateway: Gateway, asked: list[str]) -> None:
        for _ in range(20):
            asked.append((await exchange(gateway.url, calling("nothing"))).header("x-request-id") or "")

    async def gone(files: list[Path]) -> bool:
        return not any(file.exists() for file in files)

    asked: list[str] = []
    with running(settings(free_port(), sinks=["file:events/usage.jsonl"]), tmp_path) as gateway:
        asyncio.run(ask(gateway, asked))
        gateway.stop()  # which ends the workers' files
        first, first_files = list(asked), list((usage / "spool").glob("*.jsonl"))
        assert seen() == sorted(first)
        gateway.start_again()
        gateway.wait_until_ready()
        asyncio.run(until(lambda: gone(first_files)))
        assert sum(file.rows for file in read_manifest(usage).parquet) == len(first)
        asyncio.run(ask(gateway, asked))
    assert seen() == sorted(asked)
    assert len(set(asked)) == 40


async def again(gateway: Gateway, role: str, before: int) -> bool:
    return gateway.child(role) not in (0, before)


def test_a_folder_that_cannot_be_written_costs_no_call_and_shows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "usage").write_bytes(b"")

    async def shows(gateway: Gateway) -> bool:
        return gateway.metric("fastgw_usage_write_errors_total") > 0

    async def story(gateway: Gateway) -> None:
        for _ in range(10):
            assert (await exchange(gateway.url, calling("nothing"))).header("x-request-id")
        await until(lambda: shows(gateway))
        (tmp_path / "data" / "usage").unlink()
        await until(lambda: has_events(gateway, 10))

    with running(settings(free_port(), sinks=["file:events/usage.jsonl"]), tmp_path) as gateway:
        asyncio.run(story(gateway))
    assert len({event["requestId"] for event in events(gateway)}) == 10, "they waited for the disk"


def test_a_reload_that_names_another_sink_begins_it_and_no_other_anew(tmp_path: Path) -> None:
    async def in_second(gateway: Gateway, count: int) -> bool:
        file = tmp_path / "second.jsonl"
        return file.exists() and len(file.read_text().splitlines()) >= count

    async def story(gateway: Gateway) -> None:
        port = free_port()
        await exchange(gateway.url, calling("nothing"))
        await until(lambda: has_events(gateway, 1))
        first = gateway.child("usage")
        gateway.configure(settings(port, sinks=["file:events/usage.jsonl"], labels=["team"]))
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: counted(gateway, 'fastgw_reloads_total{outcome="applied"}', 1))
        assert gateway.child("usage") == first, "what has nothing to do with it leaves it alone"
        gateway.configure(settings(port, sinks=["file:events/usage.jsonl", "file:second.jsonl"]))
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: again(gateway, "usage", first))
        await until(lambda: has_position(tmp_path, 2))
        await exchange(gateway.url, calling("nothing"))
        await until(lambda: has_events(gateway, 2))
        await until(lambda: in_second(gateway, 1))
        assert gateway.metric("fastgw_usage_restarts_total") == 0

    with running(settings(free_port(), sinks=["file:events/usage.jsonl"]), tmp_path) as gateway:
        asyncio.run(story(gateway))
    assert len(events(gateway)) == 2
    assert len((tmp_path / "second.jsonl").read_text().splitlines()) == 1


async def has_position(folder: Path, count: int) -> bool:
    return len(list((folder / "data" / "usage" / "positions").glob("*.json"))) == count


def test_a_stop_does_not_wait_for_a_reader_that_has_stopped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stdout.log")
    reader = os.open(tmp_path / "stdout.log", os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)

    async def story(gateway: Gateway) -> None:
        session = await open_session(gateway.url, key=KEY, version=BATCHING)
        await send_batch(gateway, "nothing", session, 0)
        begun = time.monotonic()
        assert await asyncio.to_thread(gateway.stop) == 0
        assert time.monotonic() - begun < 3
        assert len(lines(gateway)) == BATCH

    try:
        with running(settings(free_port()), tmp_path) as gateway:
            asyncio.run(story(gateway))
    finally:
        os.close(reader)
