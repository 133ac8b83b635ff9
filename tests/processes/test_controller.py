"""The controller without its processes: who waits for whom after it was started again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgw.ports import UpstreamSession
from fastgw.processes.controller import ControllerProcess
from fastgw.processes.ipc_server import WorkerPeer
from fastgw.processes.plan import Factories, Plan
from tests.processes.trivial import Mind

PLAN = Plan(("127.0.0.1", 0), ("127.0.0.1", 0), Path("data"), workers=2, settings={"word": "w"})
KNOWN = [("i", "agent:a", UpstreamSession("s", "2025-11-25"))]


class Learner(Mind):
    """Opens a session only for whom nobody has told it of one."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.over: list[Any] = []
        self.known: dict[tuple[str, str], UpstreamSession] = {}

    def adopted(self, sessions: list[Any]) -> None:
        self.known.update({(instance, identity): session for instance, identity, session in sessions})

    async def asked(self, verb: str, args: tuple[Any, ...]) -> Any:
        if verb == "end_session":
            self.over.append(args)
            return None
        return self.known.get((args[0], args[1])) or UpstreamSession("a second one", "2025-11-25")


class NoWriter:
    """A link that is never written to."""

    def close(self) -> None:
        pass


def worker(number: int) -> WorkerPeer:
    made = WorkerPeer(NoWriter())  # type: ignore[arg-type]
    made.number = number
    return made


def keeping(folder: Path, minds: list[Learner] | None = None) -> ControllerProcess:
    made = [] if minds is None else minds

    def control_plane(plan: Plan, *_: Any) -> Any:
        made.append(Learner(plan))
        return made[-1]

    parts = Factories(read=lambda: PLAN, gateway=lambda *_: (None, None), control_plane=control_plane)
    return ControllerProcess(parts, replace(PLAN, data=folder), (b"k" * 32,))


def test_no_session_is_opened_before_every_worker_has_said_which_it_knows(tmp_path: Path) -> None:
    async def story() -> None:
        kept = keeping(tmp_path)
        question = asyncio.create_task(kept.asked("open_session", ("i", "agent:a", None)))
        kept.told(worker(1), ("sessions", []))
        kept.told(worker(1), ("sessions", []))  # the same one again, after its link was cut
        assert (await asyncio.wait([question], timeout=0))[0] == set(), "the other may know the session"
        kept.told(worker(2), ("sessions", KNOWN))
        assert await question == KNOWN[0][2]

    asyncio.run(story())


def test_other_questions_do_not_wait(tmp_path: Path) -> None:
    async def story() -> None:
        found = await keeping(tmp_path).asked("doubt_era", ("i", "modern"))
        assert found.id == "a second one"

    asyncio.run(story())


def test_an_ended_session_is_ended_at_the_servers_too(tmp_path: Path) -> None:
    minds: list[Learner] = []

    async def story() -> None:
        kept = keeping(tmp_path, minds)
        await kept.asked("end_session", ("one", 60.0))
        assert minds[0].over == [("one", 60.0)]
        assert [session for session, _ in kept.ended()] == ["one"]

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
