"""The controller's end of the links: every worker on one Unix socket, and snapshots on their way to all of them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastgw.processes.ipc import MOST_UNSENT, BadMessage, Channel, Handler
from fastgw.snapshot.codec import EncodedSnapshot, Part
from fastgw.upstream.call_context import BackgroundTasks

log = logging.getLogger("fastgw")

LOAD_WITHIN = 2.0
"""Seconds in which a worker must have loaded a snapshot or read more of it; a stopped one does not hold the others
up, and one that has much to read is waited for: lists name what it does not know yet.
"""
LOAD_AT_MOST = 30.0
"""Seconds for the slowest worker, however steadily it reads."""
BATCH = 64 * 1024
"""Bytes from which parts of a snapshot are sent: a frame holds no more of them."""
AT_ONCE, PAUSE = 1024 * 1024, 0.005
"""Bytes of a snapshot that are sent without a pause, and seconds of the pause: whoever reads without one has a core to
itself, or its calls wait.
"""
KNOW_WITHIN = 1.0
"""Seconds in which workers must have taken note of an ended session."""
OPERATE_WITHIN = 2.0
"""Seconds in which workers must have answered an operator."""


@dataclass(eq=False)
class WorkerPeer:
    """One connected worker; `has` are the hashes of the parts that it has when all that was sent has arrived."""

    number: int = -1
    state: str = "warming"
    has: Collection[bytes] = ()
    channel: Channel = field(init=False)

    def send_parts(self, snapshot: EncodedSnapshot) -> Iterator[int]:
        """Send it the parts that it lacks; the bytes of each frame."""
        lacked = list(snapshot.lacked(self.has))
        # A link that was cut over one snapshot would be cut over the same one again, for ever.
        self.channel.room = max(self.channel.room, MOST_UNSENT + 2 * sum(len(text) for _, text in lacked))
        for parts in batches(lacked):
            self.channel.send("parts", parts)
            yield sum(len(text) for _, text in parts)

    def load(self, snapshot: EncodedSnapshot) -> asyncio.Future[Any]:
        """Have it load a snapshot whose parts it was sent."""
        gone = [key for key in self.has if key not in snapshot.parts]
        self.has = snapshot.parts.keys()
        return self.channel.ask("load", snapshot.generation, snapshot.root, gone)


class IpcServer:
    """All workers.

    Args:
        handlers: what messages of workers do, by name; called with the worker and the message's arguments.
        welcome: sends a new worker what it must know besides the snapshot.
        gone: a worker's link has ended.
    """

    def __init__(
        self,
        tasks: BackgroundTasks,
        handlers: Mapping[str, Handler],
        welcome: Callable[[WorkerPeer], object],
        gone: Callable[[WorkerPeer], object],
    ) -> None:
        self.workers: set[WorkerPeer] = set()
        self.generation = 0
        """Of the snapshot that lists are answered from."""
        self._tasks = tasks
        self._handlers: dict[str, Handler] = {"hello": self._hello, "state": _state, "cancel": self._cancel, **handlers}
        self._welcome = welcome
        self._gone = gone
        self._snapshot: EncodedSnapshot | None = None
        self._fresh: dict[str, float] | None = None

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Take workers' connections from now on."""
        return await asyncio.start_unix_server(self._serve, sock=listener, limit=1 << 20)

    # -- snapshots -----------------------------------------------------------------------------------------------

    async def push(self, generation: int, snapshot: Any) -> None:
        """Give every worker a snapshot: all load it, and when all have, all activate it.

        One push at a time; a worker that connects in between is given the newest.
        """
        self._fresh = None  # what was known of freshness is in the snapshot, what comes from here on is not
        # Beside what workers ask: 30,000 tools for 20 classes take more than a second.
        self._snapshot = await asyncio.to_thread(EncodedSnapshot, generation, snapshot, self._snapshot)
        try:
            await self._load(self._snapshot)
        finally:
            self.generation = generation
            self.broadcast("activate", generation)

    async def _load(self, snapshot: EncodedSnapshot) -> None:
        """Until all who are here have it, or do not go on reading it."""
        now = list(self.workers)
        found = await asyncio.gather(*(self._bring(worker, snapshot) for worker in now))
        waits = dict(zip(found, now, strict=True))
        end = asyncio.get_running_loop().time() + LOAD_AT_MOST
        while waits and asyncio.get_running_loop().time() < end:
            unsent = {wait: worker.channel.unsent for wait, worker in waits.items()}
            done, _ = await asyncio.wait(waits, timeout=LOAD_WITHIN)
            waits = {wait: worker for wait, worker in waits.items() if wait not in done}
            if not done and all(worker.channel.unsent >= unsent[wait] for wait, worker in waits.items()):
                return

    async def _bring(self, worker: WorkerPeer, snapshot: EncodedSnapshot) -> asyncio.Future[Any]:
        passed = 0
        for size in worker.send_parts(snapshot):
            passed += size
            if passed >= AT_ONCE:
                passed = 0
                await asyncio.sleep(PAUSE)
        loaded = worker.load(snapshot)
        if self._fresh is not None:  # what came while parts were on their way was said of the snapshot before
            worker.channel.send("fresh", self._fresh)
        return loaded

    # -- messages ------------------------------------------------------------------------------------------------

    def freshen(self, until: dict[str, float]) -> None:
        """Tell every worker how fresh the catalogues are where that alone has changed; see `plan.GatewayPort`."""
        self._fresh = until
        self.broadcast("fresh", until)

    def broadcast(self, name: str, *args: Any, but: WorkerPeer | None = None) -> None:
        """Send every worker (but one) a message."""
        for worker in list(self.workers):
            if worker is not but:
                worker.channel.send(name, *args)

    async def announce(self, name: str, *args: Any) -> None:
        """Send every worker a message; returns when all know, or time is up."""
        await self._ask_all(KNOW_WITHIN, name, args)

    async def operate(self, verb: str, args: tuple[Any, ...], within: float = OPERATE_WITHIN) -> list[Any]:
        """Have every worker do what an operator asks; the answers of those that give one in time."""
        return await self._ask_all(within, "operate", (verb, args))

    async def _ask_all(self, seconds: float, name: str, args: tuple[Any, ...]) -> list[Any]:
        waits = [worker.channel.ask(name, *args) for worker in list(self.workers)]
        done, late = await asyncio.wait(waits, timeout=seconds) if waits else ((), ())
        for wait in late:
            wait.cancel()
        return [wait.result() for wait in done if wait.exception() is None]

    # -- workers -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_ours(writer):
            log.error("a stranger's connection to the controller's socket was refused")
            writer.close()
            return
        worker = WorkerPeer()
        handlers = {name: partial(handler, worker) for name, handler in self._handlers.items()}
        worker.channel = Channel(reader, writer, handlers, self._tasks)
        try:
            await worker.channel.run()
        except BadMessage as wrong:
            log.error("worker %d: %s", worker.number, wrong)
        finally:
            self.workers.discard(worker)
            if worker.number >= 0:
                self._gone(worker)

    def _hello(self, worker: WorkerPeer, number: int, state: str, has: Collection[bytes]) -> None:
        worker.number, worker.state, worker.has = number, state, has
        self.workers.add(worker)
        self._welcome(worker)
        if self._snapshot is not None:
            list(worker.send_parts(self._snapshot))
            worker.load(self._snapshot)
        if self._fresh is not None:
            worker.channel.send("fresh", self._fresh)
        if self._snapshot is not None and self.generation == self._snapshot.generation:
            # While a push is under way the others have not all loaded it: the push's own activation follows.
            worker.channel.send("activate", self.generation)

    def _cancel(self, worker: WorkerPeer, session: str, request: bytes) -> None:
        self.broadcast("cancelled", session, request, but=worker)


def _state(worker: WorkerPeer, name: str) -> None:
    worker.state = name


def batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """What goes into one frame each."""
    some: list[Part] = []
    size = 0
    for part in parts:
        some.append(part)
        size += len(part[1])
        if size >= BATCH:
            yield some
            some, size = [], 0
    if some:
        yield some


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer runs as our own user (SO_PEERCRED: pid, uid, gid)."""
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", peer)[1] == os.getuid())
