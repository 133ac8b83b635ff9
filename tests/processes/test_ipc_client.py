"""The link between worker and controller, both ends real, in one loop over a real socket."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.processes import ipc, ipc_client, ipc_server
from fastgw.processes.ipc import BadMessage, pack, read
from fastgw.processes.ipc_client import IpcClient
from fastgw.processes.ipc_server import IpcServer, WorkerPeer
from fastgw.processes.plan import Lifecycle
from fastgw.snapshot.codec import EncodedSnapshot
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import UpstreamSession
from tests.snapshot.compiling import compiled, view


class FakeController:
    """Answers one thing and remembers the rest."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.ended: list[tuple[str, float]] = []
        self.levels: list[tuple[str, str]] = []
        self.statuses: list[tuple[str, str, str]] = []
        self.ipc_server: IpcServer
        self.handlers: dict[str, Callable[..., Any]] = {
            "open_session": self.open_session,
            "doubt_era": self.open_session,
            "end_session": lambda _, *args: self.ipc_server.announce("ended", [args]),
            "set_level": self.set_level,
            **{name: self._remember(name) for name in ("sessions", "touch", "delta")},
        }

    def _remember(self, name: str) -> Callable[..., None]:
        return lambda worker, *args: self.heard.append((name, *args))

    async def open_session(
        self, worker: WorkerPeer, instance: str, identity: str, dead: Any = None, headers: Any = None
    ) -> Any:
        if identity == "nobody":
            raise Fault(Kind.NO_SERVER, detail="why", data={"reason": "busy"}, retry_after=5)
        return UpstreamSession("id", "2025-11-25")

    async def set_level(self, worker: WorkerPeer, session: str, level: str) -> None:
        self.levels.append((session, level))
        await self.ipc_server.announce("levels", [(session, level)])

    def welcome(self, worker: WorkerPeer) -> None:
        worker.channel.send("ended", self.ended)
        worker.channel.send("levels", self.levels)
        for status in self.statuses:
            worker.channel.send("instance_status", *status)

    def gone(self, worker: WorkerPeer) -> None:
        self.heard.append(("gone", worker.number))


class Served:
    """A gateway that remembers the order in which it was told things."""

    def __init__(self, order: list[str], name: str) -> None:
        self.order, self.name = order, name
        self.in_flight = 0
        self.slots = memoryview(b"")
        self.over: list[str] = []
        self.levels: dict[str, str] = {}
        self.eras: dict[str, tuple[str, str]] = {}
        self.health: dict[str, tuple[bool, bool]] = {}
        self.news: dict[str, tuple[Any, ...]] = {}
        self.withdrawn: list[tuple[str, bytes]] = []

    def quarantined(self, fingerprints: frozenset[int]) -> None:
        """Not looked at."""

    def breakers(self) -> list[Any]:
        return []

    def issuer_keys(self, documents: dict[str, bytes]) -> None: ...

    def instance_health(self, key: str, *, healthy: bool, drained: bool) -> None:
        self.health[key] = healthy, drained

    def breaker(self, key: str, news: Any) -> None:
        self.news[key] = tuple(news)

    def leveled(self, session: str, level: str) -> None:
        self.levels[session] = level

    def suspected(self, key: tuple[str, str], session: str) -> None:
        self.order.append(f"{self.name} suspects {session}")

    def instance_status(self, key: str, era: str, version: str) -> None:
        self.eras[key] = era, version

    async def prepare(self) -> None:
        pass

    def operate(self, verb: str, args: tuple[Any, ...], answer: Callable[[Any], object]) -> None:
        answer(f"{self.name}: {verb} {args}")

    def expire(self) -> None:
        self.order.append(f"{self.name} expires")

    def known_sessions(self) -> list[Any]:
        return [("i", "agent:a", UpstreamSession("s", "v"))]

    def load(self, snapshot: Any) -> None:
        if snapshot == "broken":
            raise ValueError(snapshot)
        self.order.append(f"{self.name} loads {snapshot}")

    def activate(self, generation: int) -> None:
        self.order.append(f"{self.name} activates {generation}")

    def freshened(self, until: dict[str, float]) -> None:
        self.order.append(f"{self.name} is fresh until {until}")

    def ended(self, session: str, seconds: float) -> None:
        self.over.append(session)

    def cancelled(self, session: str, request: bytes) -> bool:
        self.withdrawn.append((session, request))
        return False


class Stage:
    """An IPC server and as many workers as asked for."""

    def __init__(self, folder: Path, controller: FakeController) -> None:
        self.path = str(folder / "k")
        self.tasks = BackgroundTasks()
        self.controller = controller
        self.order: list[str] = []

    async def open(self) -> IpcServer:
        listener = socket.socket(socket.AF_UNIX)
        Path(self.path).unlink(missing_ok=True)
        listener.bind(self.path)
        listener.listen()
        controller = self.controller
        self.ipc_server = IpcServer(self.tasks, controller.handlers, controller.welcome, controller.gone)
        controller.ipc_server = self.ipc_server
        self.server = await self.ipc_server.listen(listener)
        return self.ipc_server

    async def join(self, name: str, number: int) -> tuple[IpcClient, Served, Counters]:
        counters = Counters()
        made = IpcClient(self.path, number, counters, Lifecycle(), self.tasks)
        served = Served(self.order, name)
        made.attach(served)
        self.tasks.spawn(made.run(), name)
        await until(lambda: any(worker.number == number for worker in self.ipc_server.workers))
        return made, served, counters


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(3):
        while not look():
            await asyncio.sleep(0)


def play(
    scene: Callable[[Stage], Awaitable[None]], folder: Path, make: Callable[[], FakeController] = FakeController
) -> None:
    async def main() -> None:
        stage = Stage(folder, make())
        await stage.open()
        try:
            await scene(stage)
        finally:
            await stage.tasks.close()
            stage.server.close()

    asyncio.run(main())


def test_all_have_loaded_before_any_activates(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.join("a", 1)
        await stage.join("b", 2)
        await stage.ipc_server.push(7, "seven")
        await until(lambda: len(stage.order) == 4)
        assert sorted(stage.order[:2]) == ["a loads seven", "b loads seven"]
        assert sorted(stage.order[2:]) == ["a activates 7", "b activates 7"]

    play(scene, tmp_path)


def test_a_worker_that_does_not_answer_holds_nobody_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_server, "LOAD_WITHIN", 0.05)

    async def scene(stage: Stage) -> None:
        await stage.join("a", 1)
        _, deaf = await asyncio.open_unix_connection(stage.path)
        deaf.write(pack("hello", 2, "warming", []))
        await until(lambda: len(stage.ipc_server.workers) == 2)
        await stage.ipc_server.push(7, "seven")
        await until(lambda: stage.order == ["a loads seven", "a activates 7"])
        deaf.close()

    play(scene, tmp_path)


def test_a_late_worker_gets_the_newest_snapshot_and_all_ended_sessions(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.controller.ended = [("old", 5.0)]
        await stage.ipc_server.push(7, "seven")
        _, served, _ = await stage.join("late", 3)
        await until(lambda: stage.order == ["late loads seven", "late activates 7"])
        assert served.over == ["old"]

    play(scene, tmp_path)


def test_freshness_reaches_every_worker_and_those_that_come_later(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.join("a", 1)
        await stage.ipc_server.push(7, "seven")
        stage.ipc_server.freshen({"s": 9.0})
        await until(lambda: stage.order[2:] == ["a is fresh until {'s': 9.0}"])
        await stage.join("b", 2)
        expected = ["b loads seven", "b is fresh until {'s': 9.0}", "b activates 7"]
        await until(lambda: stage.order[3:] == expected)
        await stage.ipc_server.push(8, "eight")
        await stage.join("c", 3)
        await until(lambda: "c activates 8" in stage.order)
        assert not any(line.startswith("c is fresh") for line in stage.order), "the snapshot knows better"

    play(scene, tmp_path)


def test_freshness_told_while_a_snapshot_is_on_its_way_is_that_of_this_snapshot_too(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.join("a", 1)
        under_way = asyncio.ensure_future(stage.ipc_server.push(7, "seven"))
        await asyncio.sleep(0)
        stage.ipc_server.freshen({"s": 9.0})
        await under_way
        await until(lambda: "a activates 7" in stage.order)
        assert "a is fresh until {'s': 9.0}" in stage.order[stage.order.index("a loads seven") :]

    play(scene, tmp_path)


def test_whoever_comes_while_others_still_load_lists_nothing_before_they_have(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ipc_server.push(7, "seven")
        reader, slow = await asyncio.open_unix_connection(stage.path)
        slow.write(pack("hello", 2, "warming", []))
        await until(lambda: len(stage.ipc_server.workers) == 1)
        under_way = asyncio.ensure_future(stage.ipc_server.push(8, "eight"))
        number = 0
        while not number:
            name, asked, args = await read(reader) or ("", 1, ())
            number = asked if (name, args[:1]) == ("load", (8,)) else 0
        made, _, _ = await stage.join("late", 3)
        await until(lambda: "late loads eight" in stage.order)
        await made.open_session("i", "agent:a")  # whatever was said before the answer has been heard
        assert not made.activated.is_set()

        slow.write(pack("answer", None, None, number=number))
        await under_way
        await made.activated.wait()
        assert stage.order == ["late loads eight", "late activates 8"]
        slow.close()

    play(scene, tmp_path)


def test_a_snapshot_may_be_larger_than_what_may_wait_for_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc, "MOST_UNSENT", 1000)
    monkeypatch.setattr(ipc_server, "MOST_UNSENT", 1000)
    large = compiled({"a": [{"name": f"t{at}", "description": "x" * 50_000} for at in range(100)]})

    async def scene(stage: Stage) -> None:
        early = Keeping(stage, "a", 1)
        await until(lambda: len(stage.ipc_server.workers) == 1)
        await stage.ipc_server.push(1, large)
        late = Keeping(stage, "b", 2)
        await until(late.link.activated.is_set)
        assert len(early.snapshots) == len(late.snapshots) == 1
        assert {worker.number for worker in stage.ipc_server.workers} == {1, 2}, "no link was cut"

    play(scene, tmp_path)


def test_a_worker_that_goes_on_reading_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc_server, "LOAD_WITHIN", 0.2)

    async def scene(stage: Stage) -> None:
        reader, slow = await asyncio.open_unix_connection(stage.path)
        slow.write(pack("hello", 2, "warming", []))
        await until(lambda: len(stage.ipc_server.workers) == 1)
        under_way = asyncio.ensure_future(stage.ipc_server.push(7, "x" * 8_000_000))
        heard = 0
        while heard < 8_000_000:
            heard += len(await reader.read(1 << 18))
            await asyncio.sleep(0.02)  # all of it takes three times as long as one may be silent
            assert not under_way.done()
        slow.write(pack("answer", None, None, number=1))
        await under_way
        slow.close()

    play(scene, tmp_path)


def test_a_snapshot_that_lacks_parcels_costs_the_link_and_comes_again_whole(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        one = Keeping(stage, "a", 1)
        await until(lambda: len(stage.ipc_server.workers) == 1)
        await stage.ipc_server.push(1, compiled({"a": ["x"]}))
        (first,) = stage.ipc_server.workers
        stage.ipc_server.broadcast("load", 2, EncodedSnapshot(2, compiled({"a": ["y"]})).root, [])
        await until(lambda: stage.ipc_server.workers and first not in stage.ipc_server.workers)
        await stage.ipc_server.push(3, replace(compiled({"a": ["z"]}), generation=3))
        assert [set(view(snapshot).grants) for snapshot in one.snapshots] == [{"x"}, {"z"}]

    play(scene, tmp_path)


def test_what_is_replaced_does_not_pile_up_however_fast_servers_change(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        made, _, _ = await stage.join("a", 1)
        most = 0
        for _ in range(60):
            made._old.extend(range(2_000))
            await made._free_old_parts()
            most = max(most, len(made._old))
        assert most < 10_000

    play(scene, tmp_path)


def test_an_older_generation_is_not_taken(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.join("a", 1)
        await stage.ipc_server.push(7, "seven")
        await stage.ipc_server.push(6, "six")
        await until(lambda: "a activates 6" in stage.order)
        assert "a loads six" not in stage.order

    play(scene, tmp_path)


def test_answers_and_faults_cross_whole(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        asked, _, _ = await stage.join("a", 1)
        assert await asked.open_session("i", "agent:a") == UpstreamSession("id", "2025-11-25")
        with pytest.raises(Fault) as refused:
            await asked.open_session("i", "nobody")
        fault = refused.value
        assert (fault.kind, fault.detail, fault.data, fault.retry_after) == (
            Kind.NO_SERVER, "why", {"reason": "busy"}, 5,
        )  # fmt: skip

    play(scene, tmp_path)


def test_without_a_controller_a_question_fails_soon_and_nothing_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_client, "CONNECT_WITHIN", 0.02)

    async def main() -> None:
        alone = IpcClient(str(tmp_path / "nobody"), 1, Counters(), Lifecycle(), BackgroundTasks())
        alone.attach(Served([], "a"))
        with pytest.raises(Fault) as refused:
            await alone.open_session("i", "x")
        assert refused.value.kind is Kind.NO_SERVER
        assert not refused.value.sent
        await alone.end_session("s", 5)
        alone.cancel("s", b"1")
        alone.touch("i", "x")
        await alone.close(0.1)

    asyncio.run(main())


def test_a_silent_controller_is_not_waited_for_longer_than_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_client, "ASK_WITHIN", 0.02)

    async def scene(stage: Stage) -> None:
        asked, _, _ = await stage.join("a", 1)
        with pytest.raises(Fault) as late:
            await asked.doubt_era("i", "modern")
        assert late.value.kind is Kind.TIMEOUT

    play(scene, tmp_path, Deaf)


class Deaf(FakeController):
    """Never answers, and says when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.handlers["end_session"] = self.open_session

    async def open_session(self, *_: Any) -> Any:
        self.begun.set()
        await asyncio.Event().wait()


async def succeed(stage: Stage, next_one: FakeController) -> None:
    """The controller dies, and another takes its place."""
    stage.server.close()
    first, stage.controller = stage.controller, next_one
    await stage.open()
    for worker in list(first.ipc_server.workers):
        worker.channel.close()


def test_the_next_controller_hears_all_and_answers_what_the_last_one_left(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        asked, _, _ = await stage.join("a", 1)
        deaf = stage.controller
        assert isinstance(deaf, Deaf)
        question = stage.tasks.spawn(asked.open_session("i", "agent:a"), "question")
        ended = stage.tasks.spawn(asked.end_session("s", 60), "end")
        await deaf.begun.wait()
        await succeed(stage, FakeController())
        assert await question == UpstreamSession("id", "2025-11-25")
        await ended
        assert stage.controller.heard[0] == ("sessions", [("i", "agent:a", UpstreamSession("s", "v"))])

    play(scene, tmp_path, Deaf)


def test_a_question_over_which_controllers_die_is_given_up(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        asked, _, _ = await stage.join("a", 1)
        deaf = stage.controller
        assert isinstance(deaf, Deaf)
        question = stage.tasks.spawn(asked.doubt_era("i", "modern"), "question")
        await deaf.begun.wait()
        await succeed(stage, second := Deaf())
        await second.begun.wait()
        await succeed(stage, FakeController())
        with pytest.raises(Fault) as told:
            await question
        assert (told.value.kind, told.value.retry_after, told.value.sent) == (Kind.NO_SERVER, 1, False)

    play(scene, tmp_path, Deaf)


def test_an_ended_session_is_known_to_all_when_the_wait_is_over(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ending, own, _ = await stage.join("a", 1)
        _, other, _ = await stage.join("b", 2)
        await stage.ipc_server.push(1, "one")
        await ending.end_session("s", 60)
        assert own.over == other.over == ["s"]

    play(scene, tmp_path)


def test_a_log_level_is_known_to_all_when_the_wait_is_over_and_to_who_comes_later(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        setting, own, _ = await stage.join("a", 1)
        _, other, _ = await stage.join("b", 2)
        await setting.set_level("s", "warning")
        assert own.levels == other.levels == {"s": "warning"}
        _, late, _ = await stage.join("c", 3)
        await until(lambda: late.levels == {"s": "warning"})

    play(scene, tmp_path)


def test_the_status_of_an_instance_is_known_to_all_and_to_who_comes_later(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        _, one, _ = await stage.join("a", 1)
        _, other, _ = await stage.join("b", 2)
        stage.ipc_server.broadcast("instance_status", "i", "modern", "2026-07-28")
        await until(lambda: one.eras == other.eras == {"i": ("modern", "2026-07-28")})
        stage.controller.statuses = [("i", "legacy", "2025-11-25")]
        _, late, _ = await stage.join("c", 3)
        await until(lambda: late.eras == {"i": ("legacy", "2025-11-25")})

    play(scene, tmp_path)


def test_every_worker_answers_an_operator_in_time_or_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_server, "OPERATE_WITHIN", 0.05)

    async def scene(stage: Stage) -> None:
        await stage.join("a", 1)
        _, deaf = await asyncio.open_unix_connection(stage.path)
        deaf.write(pack("hello", 2, "warming", []))
        await until(lambda: len(stage.ipc_server.workers) == 2)
        assert await stage.ipc_server.operate("report", ()) == ["a: report ()"]
        deaf.close()

    play(scene, tmp_path)


def test_over_a_new_link_only_what_is_lacking_is_sent(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        one = Keeping(stage, "a", 1)
        await until(lambda: len(stage.ipc_server.workers) == 1)
        await stage.ipc_server.push(1, compiled({"a": ["x"]}))
        await succeed(stage, FakeController())
        await until(lambda: len(stage.ipc_server.workers) == 1)
        (again,) = stage.ipc_server.workers
        assert set(again.has) == set(one.link._decoder.parts)
        await stage.ipc_server.push(2, replace(compiled({"a": ["x"]}), generation=2))
        await until(lambda: len(one.snapshots) == 2)
        assert view(one.snapshots[0]) is view(one.snapshots[1])

    play(scene, tmp_path)


def test_a_cancel_goes_to_the_others_only(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        sender, own, _ = await stage.join("a", 1)
        _, other, _ = await stage.join("b", 2)
        sender.cancel("s", b'"7"')
        await until(lambda: other.withdrawn == [("s", b'"7"')])
        assert own.withdrawn == []

    play(scene, tmp_path)


def test_counts_and_touches_arrive_before_the_link_closes(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        told, _, counters = await stage.join("a", 1)
        counters.inc("fastgw_requests_total", "/mcp", "ping", "ok")
        told.touch("i", "x")
        await told.close(1)
        await until(lambda: ("gone", 1) in stage.controller.heard)
        kinds = [message[0] for message in stage.controller.heard]
        assert kinds[-1] == "gone"
        assert {"touch", "delta"} <= set(kinds)

    play(scene, tmp_path)


def test_a_frame_cut_at_any_byte_is_an_end_and_never_a_message() -> None:
    async def main() -> None:
        whole = pack("word", 1, b"x" * 20)
        for cut in range(len(whole)):
            reader = asyncio.StreamReader()
            reader.feed_data(whole[:cut])
            reader.feed_eof()
            assert await read(reader) is None
        reader = asyncio.StreamReader()
        for at in range(len(whole)):
            reader.feed_data(whole[at : at + 1])
        assert await read(reader) == ("word", 0, (1, b"x" * 20))

    asyncio.run(main())


def framed(what: object) -> bytes:
    body = pickle.dumps(what)
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02xx", framed(()), framed(7)])
def test_what_is_no_frame_is_refused(raw: bytes) -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(raw)
        with pytest.raises(BadMessage):
            await read(reader)

    asyncio.run(main())


def test_sessions_ended_before_the_first_snapshot_are_known_when_it_is_there(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.controller.ended = [("old", 60.0)]
        made, served, _ = await stage.join("a", 1)
        await stage.ipc_server.push(1, "one")
        await made.activated.wait()
        assert served.over == ["old"]

    play(scene, tmp_path)


def test_a_snapshot_that_a_worker_cannot_load_does_not_cost_the_link(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        made, served, _ = await stage.join("a", 1)
        await stage.ipc_server.push(1, "broken")
        await stage.ipc_server.push(2, "sound")
        await made.activated.wait()
        await until(lambda: served.order[-1] == "a activates 2")
        assert "a loads sound" in served.order

    play(scene, tmp_path)


class Keeping(Served):
    """A gateway that keeps what it was given, with its link."""

    def __init__(self, stage: Stage, name: str, number: int) -> None:
        super().__init__(stage.order, name)
        self.snapshots: list[Snapshot] = []
        self.link = IpcClient(stage.path, number, Counters(), Lifecycle(), stage.tasks)
        self.link.attach(self)
        stage.tasks.spawn(self.link.run(), name)

    def load(self, snapshot: Any) -> None:
        self.snapshots.append(snapshot)


def test_early_and_late_workers_have_the_same_after_every_change(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        early = Keeping(stage, "a", 1)
        await until(lambda: len(stage.ipc_server.workers) == 1)
        await stage.ipc_server.push(1, compiled({"a": ["x"]}))
        second = compiled({"a": ["x", "y"]})
        await stage.ipc_server.push(2, second)
        late = Keeping(stage, "b", 2)
        await until(lambda: late.snapshots)
        await stage.ipc_server.push(3, replace(second, generation=3))
        await until(lambda: early.snapshots[-1].generation == late.snapshots[-1].generation == 3)

        assert early.snapshots[-1] == late.snapshots[-1]
        assert set(view(late.snapshots[-1]).grants) == {"x", "y"}
        for one in (early, late):
            assert view(one.snapshots[-1]) is view(one.snapshots[-2]), "what has not changed is not sent again"

    play(scene, tmp_path)
