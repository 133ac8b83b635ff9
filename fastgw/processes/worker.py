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
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from fastgw.processes import child
from fastgw.processes.ipc_client import IpcClient
from fastgw.processes.plan import Factories, GatewayPort, Lifecycle, StoreAccess
from fastgw.telemetry import logs
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.process import ProcessMeter
from fastgw.telemetry.spans import SpanSender, spans_socket
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.usage.spool import SpoolWriter

log = logging.getLogger("fastgw")

BACKLOG = 4096
MOST_CONNECTIONS = 100_000
"""Granian leaves connections beyond this unanswered, without a word; our own limits answer."""
HEADERS_WITHIN = 30_000
"""Milliseconds for the head of a request."""
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
        self._served, self._application = parts.gateway(self._client, self._counters, self._tasks, self._life, own)
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
        server = embedded(self._application, address)
        serving = self._tasks.spawn(server.serve(), "server")
        self._tasks.spawn(self._become_active(address), "becoming active")
        gc.collect()
        gc.freeze()
        await asyncio.wait([serving, self._leave], return_when=asyncio.FIRST_COMPLETED)
        if not self._leave.done():
            raise RuntimeError("the embedded server ended by itself")
        await self._drain(server, serving, self._leave.result())

    async def _become_active(self, address: tuple[str, int]) -> None:
        """Once somebody answers at the port: Granian listens in a thread of its own and does not say when."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
        writer: asyncio.StreamWriter | None = None
        while writer is None:
            try:
                _, writer = await asyncio.open_connection(host, address[1])
            except OSError:
                await asyncio.sleep(0.005)
        writer.close()
        self._life.activate()
        self._client.send_state()

    async def _drain(self, server: Server, serving: asyncio.Task[Any], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(min(GRACE, seconds))
        # New requests are still answered while old ones run: a cancel may come on a connection of its own. Where
        # requests never cease, the listener closes after a third of the time. Looking, and not being told, keeps this
        # off the path of a call.
        while self._served.in_flight and loop.time() < begun + seconds / 3:  # noqa: ASYNC110 - see above
            await asyncio.sleep(LOOK_EVERY)
        server.stop()  # type: ignore[no-untyped-call]
        end = begun + seconds
        await asyncio.wait([serving], timeout=max(0.0, end - EXPIRE_BEFORE - loop.time()))
        if self._served.in_flight:
            log.warning("%d calls did not end within the drain of %g s", self._served.in_flight, seconds)
            self._served.expire()
            await asyncio.wait([serving], timeout=max(0.0, end - loop.time()))
        self._served.flush()
        await asyncio.to_thread(self._spool.close, SPOOL_WITHIN)
        await self._client.close(0.5 - SPOOL_WITHIN)


def embedded(application: Any, address: tuple[str, int]) -> Server:
    """Granian's embedded server for this ASGI application; it shares the port by SO_REUSEPORT."""
    return Server(
        application,
        address=address[0],
        port=address[1],
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADERS_WITHIN),
        websockets=False,
        backlog=BACKLOG,
        backpressure=MOST_CONNECTIONS,
        log_enabled=False,
        # Its default set of loggers would replace ours.
        log_dictconfig={"disable_existing_loggers": False, "root": {}, "handlers": {}, "loggers": {}},
    )


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
