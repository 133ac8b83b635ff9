"""Stores behind the port `Connection`, a handler, and agents, all of them the test itself.

`FakeConnection` hears questions and waits until the test answers each. `FakeStore` is a store of one process: it
answers by the model of the script at once, by the clock it is given, and can be emptied or taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fastgw.limits.batch import AwaitedAdmission
from fastgw.limits.batcher import StoreAway
from fastgw.limits.script import RATE, VERSION, ScriptReply, ScriptRequest, ScriptRow
from fastgw.policy.bucket import BucketRate
from fastgw.policy.limits import BucketCharge, LimitVerdict
from tests.limits.models import Model, Whole

PATIENCE = 5.0  # seconds, for what must happen


async def until(done: Callable[[], object]) -> None:
    """Let the others go on until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not done():
            await asyncio.sleep(0)


class Spawner:
    """Keeps what runs; all of it must have ended well, or be cancelled here."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failed: list[BaseException] = []

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (wrong := task.exception()) is not None:
            self.failed.append(wrong)

    async def close(self) -> None:
        left = list(self.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def asked_in(keys: list[str], argument: bytes) -> tuple[ScriptRequest, str, str]:
    """What the script is asked, by whom, and the epoch it is to begin with."""
    version, worker, epoch, heartbeat, rows, checks, resets, known = msgspec.msgpack.decode(argument)
    assert version == VERSION
    made = [_row(keys, *row) for row in rows]
    return ScriptRequest(made, checks, bool(heartbeat), known, resets), worker, epoch


def _row(keys: list[str], key: int, kind: int, *rest: int) -> ScriptRow:
    if kind == RATE:
        *rate, held, back, ahead = rest
        return ScriptRow(keys[key - 1], BucketRate(*rate), 0, held, back, ahead)
    most, used, ahead = rest
    return ScriptRow(keys[key - 1], None, most, used, 0, ahead)


def packed(reply: ScriptReply) -> bytes:
    """An answer as the script writes it."""
    return msgspec.msgpack.encode((VERSION, reply.epoch, reply.workers, reply.resets, reply.held, reply.checks))


class Asked:
    """One question under way."""

    def __init__(self, keys: list[str], argument: bytes) -> None:
        self.request, self.worker, self.epoch = asked_in(keys, argument)
        self.answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def admits(self, epoch: str = "one", workers: int = 1) -> None:
        """Everything is let through, of buckets that lack nothing."""
        checks = [[0, 0, 0, *[0] * (len(check) // 3)] for check in self.request.checks]
        held = [row.held for row in self.request.rows]
        self.answers(packed(ScriptReply(epoch, workers, [], held, checks)))

    def answers(self, answer: object) -> None:
        self.answer.set_result(answer)

    def fails(self, wrong: BaseException) -> None:
        self.answer.set_exception(wrong)


class FakeConnection:
    """See `fastgw.limits.batcher.StoreConnection`."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Asked] = asyncio.Queue()
        self.closed = 0
        self.given_up = 0

    async def decide(self, keys: list[str], argument: bytes) -> object:
        question = Asked(keys, argument)
        self.asked.put_nowait(question)
        try:
            return await question.answer
        except asyncio.CancelledError:
            self.given_up += 1
            raise

    async def hear(self) -> Asked:
        """The next question."""
        async with asyncio.timeout(PATIENCE):
            return await self.asked.get()

    async def close(self) -> None:
        self.closed += 1


@dataclass
class FakeStore:
    """A store that answers at once, by a clock of its own (microseconds); `wrong`: what it does instead."""

    clock: Callable[[], int]
    model: Model = field(default_factory=lambda: Model(Whole))
    epoch: str = ""
    beats: dict[str, int] = field(default_factory=dict)
    resets: list[str] = field(default_factory=list)
    asked: list[tuple[str, ScriptRequest]] = field(default_factory=list)
    wrong: Callable[[], object] | None = None
    """Asked for every question: raises, or gives the answer; None as an answer: none at all."""

    async def decide(self, keys: list[str], argument: bytes) -> object:
        request, worker, epoch = asked_in(keys, argument)
        if self.wrong is not None:
            answer = self.wrong()
            return answer if answer is not None else await asyncio.Event().wait()
        self.asked.append((worker, request))
        self.epoch = self.epoch or epoch
        if request.known not in ("", self.epoch):
            return packed(ScriptReply(self.epoch, 0, [], [], []))
        told = self.model.decide(request, worker, self.clock())
        self.resets += request.resets
        if not request.heartbeat:
            return packed(ScriptReply(self.epoch, 0, [], told.held, told.checks))
        self.beats[worker] = self.clock()
        return packed(ScriptReply(self.epoch, len(self.beats), self.resets, told.held, told.checks))

    def empty(self) -> None:
        """It loses all it had."""
        self.model, self.epoch, self.beats = Model(Whole), "", {}

    def goes(self) -> None:
        """It is away."""
        self.wrong = _refuse

    def returns(self) -> None:
        self.wrong = None

    async def close(self) -> None:
        pass


def _refuse() -> object:
    raise StoreAway("connection", "refused")


class Caller(AwaitedAdmission):
    """A call that asks to be admitted. `gone`: nobody waits for it any more."""

    def __init__(self, charges: Sequence[BucketCharge]) -> None:
        super().__init__(charges)
        self.heard: list[LimitVerdict] = []
        self.gone = False

    def decided(self, verdict: LimitVerdict) -> bool:
        self.heard.append(verdict)
        super().decided(verdict)
        return not self.gone
