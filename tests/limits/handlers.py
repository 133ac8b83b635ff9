"""One worker's traffic with a store: the handler notes what it heard, the store is a connection the test answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from fastgw.limits.batcher import Batcher, StoreAway
from fastgw.limits.script import ScriptReply, ScriptRequest, ScriptRow, StoreKeys
from tests.limits.fakes import Asked, FakeConnection, Spawner, until
from tests.policy.test_bucket import START

AWAY = StoreAway("connection", "reset by peer")


class FakeHandler:
    """Questions are numbers; each is a check of one row."""

    def __init__(self) -> None:
        self.answered_: list[list[int]] = []
        self.lost_: list[tuple[list[int], str]] = []
        self.emptied_: list[str] = []
        self.returned_ = 0
        self.to_say = False
        self.known = ""
        self.fails: Callable[[str], None] = lambda _: None

    def compose(self, waiting: list[int]) -> ScriptRequest:
        self.fails("compose")
        self.to_say = False
        return ScriptRequest([ScriptRow("k", most=START)], [[1, question, 0] for question in waiting], known=self.known)

    def answered(self, waiting: list[int], request: ScriptRequest, reply: ScriptReply, sent: float) -> None:
        assert 0 <= time.monotonic() - sent < 5
        assert len(reply.checks) == len(waiting)
        self.fails("answered")
        self.answered_.append(waiting)

    def lost(self, waiting: list[int], why: StoreAway) -> None:
        self.lost_.append((waiting, why.kind))
        self.fails("lost")

    def emptied(self, epoch: str) -> None:
        self.fails("emptied")
        self.known = epoch
        self.emptied_.append(epoch)

    def has_more(self) -> bool:
        return self.to_say

    def returned(self) -> None:
        self.fails("returned")
        self.returned_ += 1

    @property
    def heard(self) -> list[int]:
        """Questions that became known to have answered or to be lost."""
        return [one for some in (*self.answered_, *(lost for lost, _ in self.lost_)) for one in some]


class Scene:
    """One worker's traffic."""

    def __init__(self) -> None:
        self.connection, self.handler, self.spawner = FakeConnection(), FakeHandler(), Spawner()
        self.batcher = Batcher(self.connection, StoreKeys("fastgw"), "w1", self.spawner.spawn)
        self.batcher.handler = self.handler
        self.took: list[float] = []
        self.batcher.seconds = self.took.append

    async def find(self) -> None:
        """The store is found: two probes are answered."""
        self.spawner.spawn(self.batcher.find(), "find")
        await self.answer_probes()

    async def answer_probes(self) -> None:
        returned = self.handler.returned_
        for _ in range(2):
            probe = await self.hear()
            assert probe.request == ScriptRequest(heartbeat=True)
            probe.admits()
        await until(lambda: self.handler.returned_ > returned)
        self.handler.answered_ = [some for some in self.handler.answered_ if some]

    def ask(self, *questions: int) -> None:
        for question in questions:
            self.batcher.ask(question)

    async def hear(self) -> Asked:
        return await self.connection.hear()

    async def lose(self, *questions: int) -> None:
        """These fail."""
        self.ask(*questions)
        (await self.hear()).fails(AWAY)
        await until(lambda: self.batcher.away)


def played(story: Callable[[Scene], Awaitable[None]], fails: type[BaseException] | None = None) -> Scene:
    """A worker whose store was found; nothing may fail in it but what the story makes fail."""

    async def main() -> Scene:
        scene = Scene()
        await scene.find()
        try:
            async with asyncio.timeout(20):
                await story(scene)
        finally:
            await scene.spawner.close()
        return scene

    scene = asyncio.run(main())
    assert all(fails is not None and isinstance(wrong, fails) for wrong in scene.spawner.failed)
    return scene


def asked(question: Asked) -> list[int]:
    return [check[1] for check in question.request.checks]
