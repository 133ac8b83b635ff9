"""The controller without its processes: who waits for whom after it was started again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgw.processes.controller import MEET_AT_ONCE, ControllerProcess
from fastgw.processes.ipc_server import WorkerPeer
from fastgw.processes.plan import Factories, Plan
from fastgw.upstream.controller import UpstreamSession
from tests.processes.trivial import FakeControlPlane

PLAN = Plan(("127.0.0.1", 0), ("127.0.0.1", 0), Path("data"), workers=2, settings={"word": "w"})
KNOWN = [("i", "agent:a", UpstreamSession("s", "2025-11-25"))]


class Learner(FakeControlPlane):
    """Opens a session only for whom nobody has told it of one."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.questions |= {"end_session": self.end_session, "doubt_era": self.doubt_era}
        self.over: list[Any] = []
        self.known: dict[tuple[str, str], UpstreamSession] = {}
        self.new: list[str] = []
        self.compiled: list[list[str]] = []

    def meet(self, path: str, principal: Any) -> bool:
        if any(principal in together for together in self.compiled):
            return False
        if principal not in self.new:
            self.new.append(principal)
        return True

    def compile(self, generation: int) -> Any:
        self.compiled.append(self.new)
        self.new = []
        return super().compile(generation)

    def adopted(self, sessions: list[Any]) -> None:
        self.known.update({(instance, identity): session for instance, identity, session in sessions})

    def end_session(self, session: str) -> None:
        self.over.append(session)

    async def doubt_era(self, instance: str, believed: str) -> str:
        return "legacy"

    async def open_session(
        self, instance: str, identity: str, dead: Any = None, headers: Any = None
    ) -> UpstreamSession:
        return self.known.get((instance, identity)) or UpstreamSession("a second one", "2025-11-25")


def worker(number: int) -> WorkerPeer:
    return WorkerPeer(number)


def keeping(folder: Path, planes: list[Learner] | None = None) -> ControllerProcess:
    made = [] if planes is None else planes

    def control_plane(plan: Plan, *_: Any) -> Any:
        made.append(Learner(plan))
        return made[-1]

    parts = Factories(read=lambda _: PLAN, gateway=lambda *_: (None, None), control_plane=control_plane)
    return ControllerProcess(parts, replace(PLAN, data=folder), (b"k" * 32,))


def test_no_session_is_opened_before_every_worker_has_said_which_it_knows(tmp_path: Path) -> None:
    async def story() -> None:
        kept = keeping(tmp_path)
        question = asyncio.create_task(kept.handlers["open_session"](worker(1), "i", "agent:a", None))
        kept.handlers["sessions"](worker(1), [])
        kept.handlers["sessions"](worker(1), [])  # the same one again, after its link was cut
        assert (await asyncio.wait([question], timeout=0))[0] == set(), "the other may know the session"
        kept.handlers["sessions"](worker(2), KNOWN)
        assert await question == KNOWN[0][2]

    asyncio.run(story())


def test_other_questions_do_not_wait(tmp_path: Path) -> None:
    async def story() -> None:
        assert await keeping(tmp_path).handlers["doubt_era"](worker(1), "i", "modern") == "legacy"

    asyncio.run(story())


def test_an_ended_session_is_ended_at_the_servers_too(tmp_path: Path) -> None:
    planes: list[Learner] = []

    async def story() -> None:
        kept = keeping(tmp_path, planes)
        await kept.handlers["end_session"](worker(1), "one", 60.0)
        assert planes[0].over == ["one"]
        assert [session for session, _ in kept._ended.live(time.time())] == ["one"]

    asyncio.run(story())


def test_a_snapshot_that_cannot_be_sent_does_not_end_the_compiling(tmp_path: Path) -> None:
    async def main() -> None:
        made = keeping(tmp_path)
        learner, right = made._control_plane, made._control_plane.compile
        learner.compile = lambda _: lambda: "not to be pickled"  # type: ignore[method-assign, assignment, return-value]
        await made._compile()
        assert made._ipc_server.generation == 0
        learner.compile = right  # type: ignore[method-assign]
        await made._compile()
        assert made._ipc_server.generation == made._generation

    asyncio.run(main())


def test_many_new_classes_at_once_are_compiled_a_few_at_a_time(tmp_path: Path) -> None:
    planes: list[Learner] = []

    async def story() -> None:
        kept = keeping(tmp_path, planes)
        names = [f"class-{at // 2}" for at in range(60)]  # two agents of each
        await asyncio.gather(*(kept.handlers["meet"](worker(1), "/mcp", name) for name in names))
        together = [len(some) for some in planes[0].compiled]
        assert sum(together) == 30
        assert 1 < max(together) <= MEET_AT_ONCE

    asyncio.run(story())
