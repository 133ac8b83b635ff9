"""One worker: a uvloop, Granian's embedded server, the gateway, and the link to the controller.

Granian's `stop` closes the listener and idle connections at once and waits for answers under way, for ever where a
stream never ends: so the whole has a limit, and shortly before it every call still in flight is answered.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import socket
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import uvloop

from fastgw.processes import child
from fastgw.processes.ipc_client import IpcClient
from fastgw.processes.listener import AgentListener
from fastgw.processes.plan import Factories, GatewayPort, Lifecycle, StoreAccess
from fastgw.telemetry import logs
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.process import ProcessMeter
from fastgw.telemetry.spans import SpanSender, spans_socket
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.usage.spool import SpoolWriter

log = logging.getLogger("fastgw")

GRACE = 0.25
"""Seconds in which connections in use still get an answer that says `connection: close`, once the drain has begun."""
LOOK_EVERY = 0.02
"""Seconds between two looks at what is in flight, while draining."""
SPOOL_WITHIN = 0.3
"""Seconds for the last usage events to be written."""
EXPIRE_BEFORE = 0.5
"""Seconds before the end in which calls still in flight are told that they will not be waited for."""
FREED_KEPT = 8 * 2**20
"""Bytes of freed memory that a worker keeps at hand. By itself glibc gives each freed megabyte back at once, and the
page faults of the next one cost more than all the rest of its call (`bench edge --large arguments`: 11 times nginx's
CPU, with this 4.8).
"""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of `mallopt`."""


class RunningWorker:
    """Worker `number` (from 1) at work, at the controller's socket and the folder of spool files in `places`."""

    def __init__(
        self, parts: Factories, number: int, places: tuple[str, Path], store: StoreAccess, slots: memoryview
    ) -> None:
        path, spool = places
        self._life = Lifecycle()
        self._tasks = BackgroundTasks()
        self._counters = Counters()
        self._client = IpcClient(path, number, self._counters, self._life, self._tasks)
        self._served: GatewayPort
        own = replace(store, number=number)
        self._served, application = parts.gateway(self._client, self._counters, self._tasks, own)
        self._listener = AgentListener(application, self._tasks.spawn)
        self._client.on_listener_tls = self._listener.show
        self._served.slots = slots
        self._spool = SpoolWriter(spool)
        self._served.write_event = self._spool.add
        spans = SpanSender(spans_socket(path))
        self._served.write_spans = spans.send
        self._client.usage_counts = lambda: chain(self._spool.counted(), spans.counted())
        self._client.attach(self._served)
        self._leave: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_command(self, words: list[str]) -> None:
        """A line of the supervisor."""
        match words:
            case ["drain", seconds] if not self._leave.done():
                # First of all, and the controller is told: once it says so, no answer leaves a connection open.
                self._life.drain()
                self._listener.close_with_answers()
                self._client.send_state()
                self._leave.set_result(float(seconds))
            case ["quarantine", *fingerprints]:
                self._served.quarantined(frozenset(map(int, fingerprints)))
            case ["log", level, form]:
                logs.change(level, form)
            case ["stop"]:
                os._exit(0)

    async def run(self, address: tuple[str, int]) -> None:
        """Serve until the supervisor says otherwise.

        Raises:
            RuntimeError: the server ended by itself.
        """
        gc.set_threshold(50_000, 20, 50)  # a snapshot is much that lives long, and has no cycles
        self._tasks.spawn(self._client.run(), "link to the controller")
        self._tasks.spawn(self._client.report(), "reporting to the controller")
        self._tasks.spawn(ProcessMeter("worker", self._counters).watch(self._served.measure), "measuring the process")
        # What was loaded is listed at once where nothing was before: by then every other worker must have it.
        first: asyncio.Future[Any] = asyncio.gather(self._client.activated.wait(), self._served.prepare())
        await asyncio.wait([first, self._leave], return_when=asyncio.FIRST_COMPLETED)
        if self._leave.done():
            return
        gc.collect()
        gc.freeze()
        self._listener.open(address)
        # Who connects from here on is in the queue, for the milliseconds that the server's thread takes to begin.
        self._life.activate()
        self._client.send_state()
        await asyncio.wait([self._listener.broken, self._leave], return_when=asyncio.FIRST_COMPLETED)
        if not self._leave.done():
            raise RuntimeError("the embedded server ended by itself")
        await self._drain(self._leave.result())

    async def _drain(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(min(GRACE, seconds))
        # New requests are still answered while old ones run: a cancel may come on a connection of its own. Where
        # requests never cease, the listener closes after a third of the time. Looking, and not being told, keeps this
        # off the path of a call.
        while self._served.in_flight and loop.time() < begun + seconds / 3:  # noqa: ASYNC110 - see above
            await asyncio.sleep(LOOK_EVERY)
        serving = self._listener.stop()
        end = begun + seconds
        await asyncio.wait(serving, timeout=max(0.0, end - EXPIRE_BEFORE - loop.time()))
        if self._served.in_flight:
            log.warning("%d calls did not end within the drain of %g s", self._served.in_flight, seconds)
            self._served.expire()
            await asyncio.wait(serving, timeout=max(0.0, end - loop.time()))
        self._served.flush()
        await asyncio.to_thread(self._spool.close, SPOOL_WITHIN)
        await self._client.close(0.5 - SPOOL_WITHIN)


def run(  # noqa: PLR0913 - all that a worker is told before it begins
    parts: Factories,
    number: int,
    places: tuple[tuple[str, int], str, Path],
    store: StoreAccess,
    slots: memoryview,
    control: socket.socket,
) -> None:
    """The whole life of a forked worker, at `places`: address to serve on, controller's socket, folder of the spool."""
    child.raise_files()
    with suppress(AttributeError):  # no glibc
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, FREED_KEPT)
    address, path, spool = places

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(_unexpected)
        running = RunningWorker(parts, number, (path, spool), store, slots)
        child.listen(control, running.on_command)
        await running.run(address)
        # Ending the loop would cancel calls that outlast the drain, and the server would tell their agents of an
        # internal error; a connection that ends says the truth.
        logging.shutdown()
        os._exit(0)

    uvloop.run(main())


def _unexpected(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("%s", context.get("message", "unexpected"), exc_info=context.get("exception"))
