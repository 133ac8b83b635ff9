"""`python -m bench steps`: the ten steps of a call in one process, agent and server faked, beside the sketch.

CPU of the process per call, the two in turns; and the function calls of one request, which no noise moves (`counts`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time

import uvloop

from bench import counts
from bench.faked import KEY, LEGACY, MODERN, TOOL, Driver, FakeServer, Question, Scene, driver
from bench.sketch import Sketch
from bench.versions import versions
from fastgw.catalog.route import Deadlines

ERAS = (MODERN, LEGACY)


async def cost(driver: Driver, count: int) -> float:
    """CPU microseconds of one call, the mean of `count`."""
    begun = time.process_time()
    for number in range(count):
        await driver.call()
        if number % 100 == 0:
            await asyncio.sleep(0)  # the loop's timers have their turn
    return (time.process_time() - begun) / count * 1e6


def sketch() -> Driver:
    """The sketch in front of the same fake server."""
    server = FakeServer(MODERN, "json")

    async def wire(head: bytes, body: bytes) -> bytes:
        return (await server.request("POST", head, body, Deadlines())).body or b""

    return Driver(Sketch(KEY, TOOL, {b"localhost:8080"}, wire), Question())


async def measure(rounds: int, count: int, shown: int) -> None:
    """Print a row per pair of eras, and so many of the files that a call enters."""
    gc.set_threshold(50_000, 20, 50)  # as in a worker
    beside = sketch()
    rows = {
        f"{agent[:4]} > {server[:4]}": await driver(Question(agent), Scene(server)) for agent in ERAS for server in ERAS
    }
    costs: dict[str, list[float]] = {name: [] for name in rows}
    basis: list[float] = []
    for turn in range(rounds + 1):
        for name, one in rows.items():
            low = await cost(beside, count)
            own = await cost(one, count)
            if turn:
                basis.append(low)
                costs[name].append(own / low)
    print(f"sketch       {statistics.median(basis):6.1f} us  {(await counts.calls(beside.call))[0]:4d} function calls")
    for name, one in rows.items():
        ratios, (total, files) = costs[name], await counts.calls(one.observed)
        spread = f"{statistics.median(ratios):5.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{name}  {spread}  {total:4d} function calls in {len(files)} files")
        for file, times in files.most_common(shown):
            print(f"    {times:3d} {file}")


def main(argv: list[str]) -> int:
    """Measure and print; exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m bench steps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2000, help="calls per round and row")
    parser.add_argument("--files", type=int, default=0, help="how many of the files that a call enters are named")
    args = parser.parse_args(argv)
    print(versions())
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(measure(args.rounds, args.calls, args.files))
    return 0
