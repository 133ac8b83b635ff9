"""The controller's end of the links: every worker on one Unix socket.

Messages, worker to controller:
    hello number pid state | sessions known | ask id verb args | touch pairs | cancel session request |
    usage count lines
    delta Delta | loaded generation | state name | known ticket | operated ticket value
Controller to worker:
    begin, grants, pages, uris, view, gone, load generation shell: a snapshot, see `parcels` | activate generation |
    fresh until | answer id value | fault id kind message detail retry | cancelled session request |
    ended ticket [(session, seconds)] | levels ticket [(session, level)] | suspects ticket [(key, session)] (the
    worker answers `known ticket`) |
    operate ticket verb args (the worker answers `operated ticket value`)
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from itertools import count
from typing import Any, Protocol

from fastgw.errors import Fault, Kind
from fastgw.processes import ipc_framing
from fastgw.snapshot import codec
from fastgw.upstream.tasks import BackgroundTasks

log = logging.getLogger("fastgw")

LOAD_WITHIN = 2.0
"""Seconds in which a worker must have loaded a snapshot or read more of it; a stopped one does not hold the others
up, and one that has much to read is waited for: lists name what it does not know yet.
"""
LOAD_AT_MOST = 30.0
"""Seconds for the slowest worker, however steadily it reads."""
BREATH, PAUSE = 1024 * 1024, 0.005
"""Bytes of a snapshot that are sent without a pause, and seconds of the pause: a worker reads them in 2 to 3 ms."""
KNOW_WITHIN = 1.0
"""Seconds in which workers must have taken note of an ended session."""
OPERATE_WITHIN = 2.0
"""Seconds in which workers must have answered an operator."""
MOST_UNSENT = 128 * 1024 * 1024
"""Bytes that may wait for one worker besides a snapshot, which is as large as it is; one that does not read loses its
link, and gets all anew when it is back.
"""


class IpcHandlers(Protocol):
    """Who hears what workers say."""

    async def asked(self, verb: str, args: tuple[Any, ...]) -> Any:
        """Answer a question, or raise a Fault."""
        ...

    def told(self, worker: WorkerPeer, message: ipc_framing.Message) -> None:
        """A message that wants no answer."""
        ...

    def ended(self) -> list[tuple[str, float]]:
        """Ended sessions that a new worker must know."""
        ...

    def levels(self) -> list[tuple[str, str]]:
        """Log levels of sessions that a new worker must know."""
        ...

    def gone(self, worker: WorkerPeer) -> None:
        """The worker's link has ended."""
        ...


class WorkerPeer:
    """One connected worker."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.number = -1
        self.pid = 0
        self.state = "warming"
        self.loaded = 0
        self.sent = 0
        self.owed: dict[object, asyncio.Future[Any]] = {}
        self._writer = writer
        self._room = MOST_UNSENT

    @property
    def unsent(self) -> int:
        """Bytes that wait for it to read."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, frame: bytes) -> None:
        """Queue a packed frame; cuts the link of a worker that has stopped reading."""
        if self._writer.is_closing():
            return
        if self.unsent > self._room:
            log.warning("worker %d does not read; its link is cut", self.number)
            self._writer.transport.abort()
            return
        self._writer.write(frame)

    def send_all(self, load: list[bytes]) -> None:
        """Queue the frames of a snapshot."""
        self._make_room(load)
        for frame in load:
            self.send(frame)

    async def send_slowly(self, load: list[bytes]) -> None:
        """The same to one that has calls to carry: whoever reads without a pause has a core to itself, or its calls
        wait.
        """
        passed = 0
        self._make_room(load)
        for frame in load:
            self.send(frame)
            passed += len(frame)
            if passed >= BREATH:
                passed = 0
                await asyncio.sleep(PAUSE)

    def _make_room(self, load: list[bytes]) -> None:
        # A link that was cut over one snapshot would be cut over the same one again, for ever.
        self._room = max(self._room, MOST_UNSENT + sum(map(len, load)))

    def owe(self, what: object) -> asyncio.Future[Any]:
        """Done when the worker has acknowledged `what`, or has gone."""
        return self.owed.setdefault(what, asyncio.get_running_loop().create_future())

    def paid(self, what: object, value: Any = None) -> None:
        """The worker has acknowledged `what`, or answered it."""
        owed = self.owed.pop(what, None)
        if owed is not None and not owed.done():
            owed.set_result(value)

    def close(self) -> None:
        """End the link; nobody waits for it any more."""
        for what in list(self.owed):
            self.paid(what)
        self._writer.close()


class IpcServer:
    """All workers."""

    def __init__(self, tasks: BackgroundTasks) -> None:
        self.workers: set[WorkerPeer] = set()
        self.ears: IpcHandlers
        self._tasks = tasks
        self._tickets = count(1)
        self._active = 0
        self._packed: codec.EncodedSnapshot | None = None
        self._whole: list[bytes] = []
        self._fresh: bytes = b""

    async def listen(self, listener: socket.socket, ears: IpcHandlers) -> asyncio.Server:
        """Take workers' connections from now on."""
        self.ears = ears
        return await asyncio.start_unix_server(self._serve, sock=listener, limit=1 << 20)

    @property
    def generation(self) -> int:
        """Generation of the snapshot that lists are answered from."""
        return self._active

    async def push(self, generation: int, snapshot: Any) -> None:
        """Give every worker a snapshot: all load it, and when all have, all activate it.

        One push at a time; a worker that connects in between is given the newest.
        """
        self._fresh = b""  # what was known of freshness is in the snapshot, what comes from here on is not
        # Beside what workers ask: 30,000 tools for 20 classes take more than a second.
        packed = await asyncio.to_thread(codec.EncodedSnapshot, generation, snapshot, self._packed)
        load = []
        for parcel in packed.changes():
            load.append(ipc_framing.pack(parcel))
            await asyncio.sleep(0)  # workers that ask something meanwhile are not kept waiting
        self._packed, self._whole = packed, [] if packed.base else load
        try:
            await self._load(packed, load)
        finally:
            self._active = generation
            self.broadcast(("activate", generation))

    async def _load(self, packed: codec.EncodedSnapshot, load: list[bytes]) -> None:
        """Send it to all who are here; returns when all have it, or do not go on reading it."""
        now = list(self.workers)
        loads = [load if worker.sent == packed.base else self._all() for worker in now]
        waits = {worker.owe(("load", packed.generation)): worker for worker in now}
        for worker in now:
            worker.sent = packed.generation
        await asyncio.gather(*(self._bring(worker, one) for worker, one in zip(now, loads, strict=True)))
        end = asyncio.get_running_loop().time() + LOAD_AT_MOST
        while waits and asyncio.get_running_loop().time() < end:
            unsent = {wait: worker.unsent for wait, worker in waits.items()}
            done, _ = await asyncio.wait(waits, timeout=LOAD_WITHIN)
            waits = {wait: worker for wait, worker in waits.items() if wait not in done}
            if not done and all(worker.unsent >= unsent[wait] for wait, worker in waits.items()):
                return

    async def _bring(self, worker: WorkerPeer, load: list[bytes]) -> None:
        await worker.send_slowly(load)
        if self._fresh:  # what was told while parcels were on their way was told of the snapshot before
            worker.send(self._fresh)

    def _all(self) -> list[bytes]:
        """The newest snapshot for one that has none; kept for the next such one, until there is a newer snapshot."""
        if not self._whole and self._packed is not None:
            self._whole = [ipc_framing.pack(parcel) for parcel in self._packed.whole()]
        return self._whole

    def freshen(self, until: dict[str, float]) -> None:
        """Tell every worker how fresh the catalogues are where that alone has changed; see `plan.GatewayPort`."""
        self._fresh = ipc_framing.pack(("fresh", until))
        self._send_all(self._fresh)

    def broadcast(self, message: ipc_framing.Message, but: WorkerPeer | None = None) -> None:
        """Tell every worker (but one)."""
        self._send_all(ipc_framing.pack(message), but)

    def _send_all(self, frame: bytes, but: WorkerPeer | None = None) -> None:
        for worker in list(self.workers):
            if worker is not but:
                worker.send(frame)

    async def announce(self, what: str, session: Any, value: Any) -> None:
        """Tell every worker of a session (`ended`, `levels`, `suspects`); returns when all know, or time is up."""
        ticket = next(self._tickets)
        waits = [worker.owe(ticket) for worker in self.workers]
        self.broadcast((what, ticket, [(session, value)]))
        if waits:
            await asyncio.wait(waits, timeout=KNOW_WITHIN)

    async def operate(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        """Have every worker do what an operator asks; the answers of those that give one in time."""
        ticket = next(self._tickets)
        waits = [worker.owe(ticket) for worker in self.workers]
        self.broadcast(("operate", ticket, verb, args))
        done, _ = await asyncio.wait(waits, timeout=OPERATE_WITHIN) if waits else ((), ())
        for worker in self.workers:  # what comes later is not waited for
            worker.owed.pop(ticket, None)
        return [wait.result() for wait in done]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_ours(writer):
            log.error("a stranger's connection to the controller's socket was refused")
            writer.close()
            return
        worker = WorkerPeer(writer)
        try:
            await self._converse(worker, reader)
        except ipc_framing.BadMessage as wrong:
            log.error("worker %d: %s", worker.number, wrong)
        finally:
            self.workers.discard(worker)
            worker.close()
            if worker.number >= 0:
                self.ears.gone(worker)

    async def _converse(self, worker: WorkerPeer, reader: asyncio.StreamReader) -> None:
        hello = await ipc_framing.read(reader)
        if hello is None or hello[0] != "hello":
            return
        _, worker.number, worker.pid, worker.state = hello
        self._welcome(worker)
        while (message := await ipc_framing.read(reader)) is not None:
            self._hear(worker, message)

    def _welcome(self, worker: WorkerPeer) -> None:
        self.workers.add(worker)
        worker.send(ipc_framing.pack(("ended", 0, self.ears.ended())))
        worker.send(ipc_framing.pack(("levels", 0, self.ears.levels())))
        if self._packed is not None:
            worker.sent = self._packed.generation
            worker.send_all(self._all())
        if self._fresh:
            worker.send(self._fresh)
        if self._packed is not None and self._active == self._packed.generation:
            # While a push is under way the others have not all loaded it: the push's own activation follows.
            worker.send(ipc_framing.pack(("activate", self._active)))

    def _hear(self, worker: WorkerPeer, message: ipc_framing.Message) -> None:
        match message:
            case ("ask", number, verb, args):
                self._tasks.spawn(self._answer(worker, number, verb, args), f"answer {verb}")
            case ("loaded", generation):
                worker.loaded = generation
                worker.paid(("load", generation))
            case ("known", ticket):
                worker.paid(ticket)
            case ("operated", ticket, value):
                worker.paid(ticket, value)
            case ("state", name):
                worker.state = name
            case ("cancel", session, request):
                self.broadcast(("cancelled", session, request), but=worker)
            case _:
                self.ears.told(worker, message)

    async def _answer(self, worker: WorkerPeer, number: int, verb: str, args: tuple[Any, ...]) -> None:
        reply: ipc_framing.Message
        try:
            reply = ("answer", number, await self.ears.asked(verb, args))
        except Fault as fault:
            reply = ("fault", number, fault.kind, fault.message, fault.detail, fault.retry_after, fault.data)
        except Exception as wrong:  # whoever asked must not wait out its deadline for a defect of ours
            log.exception("the question %s of worker %d failed", verb, worker.number)
            reply = ("fault", number, Kind.INTERNAL, None, repr(wrong), None, {})
        worker.send(ipc_framing.pack(reply))


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer runs as our own user (SO_PEERCRED: pid, uid, gid)."""
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", peer)[1] == os.getuid())
