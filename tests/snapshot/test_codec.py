"""A snapshot in parcels and whole again."""

from __future__ import annotations

import gc
import pickle
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from fastgw.processes import garbage
from fastgw.snapshot import codec
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.codec import GRANTS, EncodedSnapshot, Message, SnapshotDecoder, StaleSnapshot
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Grant, Snapshot
from tests.snapshot.compiling import HASH, brought, compiled, settings, view

OTHER = "sha256:" + "cd" * 32
TWO_CLASSES: dict[str, Any] = {
    "agents": {"bot": {"key": HASH}, "other": {"key": OTHER}},
    "policies": [
        {"name": "all", "match": {"agent": "bot"}, "allow": ["*"]},
        {"name": "few", "match": {"agent": "other"}, "allow": ["t1*"]},
    ],
}


def unpacked(unpacking: SnapshotDecoder, messages: Iterable[Message]) -> Any:
    """What a worker has after every parcel went through its pickle."""
    for message in messages:
        name, *rest = pickle.loads(pickle.dumps(message))
        if name == "load":
            return unpacking.whole(*rest)
        for _ in unpacking.take((name, *rest)):
            pass
    raise AssertionError("the last parcel is missing")


def arrived(snapshot: Any) -> Any:
    return unpacked(SnapshotDecoder(), EncodedSnapshot(7, snapshot).whole())


class Line:
    """A controller's compiles, each sent to one worker as what has changed."""

    def __init__(self, **bring: Any) -> None:
        self.settings = settings(bring, **TWO_CLASSES)
        self.workshop = CompileCache(self.settings)
        self.catalogues = {name: brought(name, what) for name, what in bring.items()}
        self.worker = SnapshotDecoder()
        self.packed: EncodedSnapshot | None = None
        self.generation = 0
        self.messages: list[Message] = []

    def compile(self, generation: int) -> Snapshot:
        """As the controller does it."""
        learned = Learned(catalogues=dict(self.catalogues))
        return compile_snapshot(self.settings, learned, generation, self.workshop)[0]

    def send(self, **bring: Any) -> tuple[Any, Any]:
        """These servers list something else: the snapshot as it was sent, and as it has arrived."""
        self.catalogues.update({name: brought(name, what) for name, what in bring.items()})
        self.generation += 1
        sent = self.compile(self.generation)
        self.packed = EncodedSnapshot(self.generation, sent, self.packed)
        self.messages = list(self.packed.changes())
        return visible(sent), unpacked(self.worker, self.messages)

    def amount(self, kind: str) -> int:
        """How many of a kind travelled the last time."""
        return sum(len(message[2]) for message in self.messages if message[0] == kind)


def visible(sent: Snapshot) -> Snapshot:
    """Less what only operators see."""
    return replace(sent, endpoints={path: replace(one, routes={}) for path, one in sent.endpoints.items()})


def many() -> Snapshot:
    return compiled({"a": [f"t{number}" for number in range(3 * GRANTS)], "b": ["t1", "x"]}, **TWO_CLASSES)


def test_what_arrives_is_what_was_sent_less_what_only_operators_see() -> None:
    assert arrived(many()) == visible(many())


def test_names_keep_their_order_in_every_view() -> None:
    for before, after in zip(many().endpoints["/mcp"].views, arrived(many()).endpoints["/mcp"].views, strict=True):
        assert list(before.grants) == list(after.grants)


def test_two_views_share_their_grants_and_pages_as_before() -> None:
    def objects(snapshot: Snapshot) -> tuple[int, int]:
        views = snapshot.endpoints["/mcp"].views
        grants: list[Grant] = [grant for view in views for grant in view.grants.values()]
        return len(grants), len({id(grant) for grant in grants})

    assert objects(arrived(many())) == objects(many())
    assert objects(many())[1] < objects(many())[0]


def test_no_parcel_holds_more_grants_than_unpack_in_a_moment() -> None:
    assert max(len(message[2]) for message in EncodedSnapshot(1, many()).whole() if message[0] == "grants") == GRANTS


def test_what_is_no_snapshot_travels_whole() -> None:
    assert arrived("a word") == "a word"


SERVER = [f"t{number}" for number in range(3 * GRANTS)]
READS = {"capabilities": ["resources"], "resources": ["docs://one", "docs://two"]}


def test_after_a_change_of_one_server_only_its_own_travels() -> None:
    line = Line(a=SERVER, b=["x"], c=READS)
    line.send()
    assert line.amount("grants") > 3 * GRANTS

    sent, found = line.send(b=["x", "y", "t7"])

    assert found == sent
    assert line.amount("grants") <= 8
    assert "y" in view(found, "bot").grants


def test_where_nothing_has_changed_nothing_travels_and_the_same_objects_are_in_force() -> None:
    line = Line(a=SERVER, c=READS)
    _, before = line.send()
    sent, found = line.send()
    one, other = before.endpoints["/mcp"], found.endpoints["/mcp"]

    assert found == sent
    assert line.amount("grants") == line.amount("pages") == 0
    assert all(a is b for a, b in zip(one.views, other.views, strict=True))
    assert one.uris is other.uris, "its tables would be worked out again in the midst of calls"


def test_many_changes_in_a_row_are_what_a_compile_from_nothing_gives() -> None:
    line = Line(a=SERVER, b=["x"], c=READS)
    for number in range(12):
        more = {**READS, "resources": [f"docs://{at}" for at in range(number)]} if number % 2 else READS
        sent, found = line.send(b=["x", *SERVER[number : 2 * number]], c=more, a=SERVER[number:])
        assert found == sent
    assert arrived(line.compile(99)) == replace(found, generation=99)


def test_what_is_gone_is_let_go_once_and_not_before_the_snapshot_is_whole() -> None:
    line = Line(a=SERVER, b=["x"])
    line.send()
    line.send(a=SERVER[:-5])
    names = [one.route.name for one in line.worker.left() if isinstance(one, Grant)]

    assert sorted(set(names)) == sorted(SERVER[-5:])
    assert line.worker.left() == []


def test_a_change_of_what_is_not_here_is_refused_and_the_whole_is_taken() -> None:
    line = Line(a=SERVER)
    line.send()
    sent, _ = line.send(a=SERVER[1:])
    late = SnapshotDecoder()
    with pytest.raises(StaleSnapshot):
        unpacked(late, line.messages)
    assert line.packed is not None

    assert unpacked(late, line.packed.whole()) == sent
    again, found = line.send(a=SERVER[2:])
    assert unpacked(late, line.messages) == found == again


def test_a_snapshot_that_broke_off_half_way_is_no_base() -> None:
    line = Line(a=SERVER)
    line.send()
    with pytest.raises(AssertionError, match="missing"):
        unpacked(line.worker, [("begin", 2, 1)])
    with pytest.raises(StaleSnapshot):
        line.send(a=SERVER[1:])


def test_when_numbers_run_out_counting_begins_anew_with_a_whole_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_NUMBER", 4 * GRANTS)
    line, bases = Line(a=SERVER, b=["x"]), set()
    for number in range(1, 20):
        sent, found = line.send(b=[f"x{number}"], a=SERVER[number:])
        assert found == sent
        assert line.packed is not None
        bases.add(line.packed.base)
    assert 0 < len([base for base in bases if base]) < 19


def test_no_stretch_of_unpacking_is_long() -> None:
    """In CPU time, the least of three: a parcel takes 1 to 2 ms, all of ten thousand tools at once took 100."""
    messages = list(
        EncodedSnapshot(1, compiled({"a": [f"t{number}" for number in range(10_000)]}, **TWO_CLASSES)).whole()
    )
    assert min(longest_stretch(messages) for _ in range(3)) < 0.010


def longest_stretch(messages: list[Message]) -> float:
    """CPU seconds of the longest step between two in which a worker may serve calls."""
    unpacking, longest = SnapshotDecoder(), 0.0
    gc.collect()
    with garbage.undisturbed():
        for text in map(pickle.dumps, messages[:-1]):
            begun = time.thread_time()
            steps = unpacking.take(pickle.loads(text))
            while next(steps, messages) is not messages:
                longest = max(longest, time.thread_time() - begun)
                begun = time.thread_time()
            longest = max(longest, time.thread_time() - begun)
    return longest
