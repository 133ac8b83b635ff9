"""What the machine has no more of: descriptors, room on the disk. Calls fail alone, or not at all, and it passes."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.e2e.asking import listed
from tests.e2e.faulty import Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.http import Connection, Reply, connected
from tests.e2e.load import many, tool, words


@contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """The process may open nothing more (Linux)."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir()}
    first_free = next(number for number in count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def ask(connection: Connection, nonce: str) -> Reply:
    """A call on a connection that is kept."""
    return await (await connection.ask(tool("unsafe")(nonce).having("Connection", "keep-alive"))).rest()


def test_a_worker_without_descriptors_says_that_nothing_ran(tmp_path: Path) -> None:
    box = Faulty("modern")

    async def story() -> None:
        async with (
            faulty(box) as door,
            running_beside({"servers": {"box": {"url": door.url}}}, tmp_path) as gateway,
        ):
            await listed(gateway, "unsafe")
            async with connected(gateway.url) as connection:
                assert (await ask(connection, "before")).json()["result"]
                await door.become("refused")  # what is pooled is gone
                await door.become("open")
                pids = [gateway.child("worker-1"), gateway.child("worker-2")]
                with no_descriptor_left(pids[0]), no_descriptor_left(pids[1]):
                    refused = await exhausted(connection)
                error = refused.json()["error"]
                assert (error["code"], error["data"]["mayHaveRun"]) == (-31001, False), error
                assert gateway.logs("too many open files")
                await until(lambda: is_well(gateway))
                assert [gateway.child("worker-1"), gateway.child("worker-2")] == pids, gateway.log()
            assert max(box.executions.runs.values()) == 1

    asyncio.run(story())


async def exhausted(connection: Connection) -> Reply:
    """The answer to a call for which no connection can be opened: the first may go by one that is just being closed."""
    replies = [await ask(connection, f"during-{number}") for number in range(3)]
    assert all("error" in reply.json() for reply in replies[1:]), replies
    return replies[-1]


async def is_well(gateway: Gateway) -> bool:
    outcomes = await many(gateway.url, tool("unsafe"), [f"after-{os.urandom(4).hex()}"], 1)
    return outcomes[0].is_right


def test_a_full_disk_costs_no_call_and_no_other_sink_an_event(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "full").symlink_to("/dev/full")
        usage = {"sinks": ["file:full", "file:usage.jsonl"]}
        async with (
            faulty(Faulty("modern")) as door,
            running_beside({"servers": {"box": {"url": door.url}}, "usage": usage}, tmp_path) as gateway,
        ):
            await listed(gateway, "unsafe")
            outcomes = await many(gateway.url, tool("unsafe"), map(str, range(100)))
            assert all(one.is_right for one in outcomes), words(outcomes)

            refused = f'fastgw_usage_sink_errors_total{{sink="file:{tmp_path}/full"}}'

            async def is_told() -> bool:
                return await asyncio.to_thread(gateway.metric, refused) >= 1

            await until(is_told)

            async def all_written() -> bool:
                return len(gateway.events()) == 100

            await until(all_written)
            assert json.loads(gateway.ask_admin("/readyz")[1])["workers"]["active"] == 2

    asyncio.run(story())
