"""A snapshot in parts and whole again."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import pytest

from fastgw.catalog.elements import DIALECTS
from fastgw.policy.match import Principal
from fastgw.processes.control_plane import no_collections
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.codec import MOST, EncodedSnapshot, SnapshotDecoder
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Grant, Snapshot
from tests.snapshot.compiling import HASH, brought, compiled, settings, view

OTHER = "sha256:" + "cd" * 32
TWO_CLASSES: dict[str, Any] = {
    "agents": {"bot": {"key": HASH}, "other": {"key": OTHER}},
    "policies": [
        {"name": "all", "match": {"agent": "bot"}, "allow": ["*"]},
        {"name": "few", "match": {"agent": "other"}, "allow": ["t1*"]},
        {"name": "soon", "match": {"agent": "other"}, "allow": ["t2"], "deny": ["t1"], "mode": "shadow"},
    ],
}


class Worker:
    """What a worker has after every part went over the socket."""

    def __init__(self) -> None:
        self.decoder = SnapshotDecoder()
        self.gone: list[Any] = []
        self.sent: list[Any] = []
        """What travelled the last time, as it is here."""

    def take(self, encoded: EncodedSnapshot) -> Any:
        known = set(self.decoder.parts)
        lacked = list(encoded.lacked(known))
        for key, text in lacked:
            for _ in self.decoder.take(key, text):
                pass
        self.sent = [self.decoder.parts[key] for key, _ in lacked]
        snapshot, self.gone = self.decoder.whole(encoded.root, known - encoded.parts.keys())
        return snapshot


def arrived(snapshot: Any) -> Any:
    return Worker().take(EncodedSnapshot(7, snapshot))


class Line:
    """A controller's compiles, each sent to one worker as what has changed."""

    def __init__(self, keys: Any = TWO_CLASSES, **bring: Any) -> None:
        self.settings = settings(bring, **keys)
        self.cache = CompileCache(self.settings)
        self.catalogues = {name: brought(name, what) for name, what in bring.items()}
        self.worker = Worker()
        self.packed: EncodedSnapshot | None = None
        self.generation = 0

    def compile(self, generation: int) -> Snapshot:
        """As the controller does it."""
        learned = Learned(catalogues=dict(self.catalogues))
        return compile_snapshot(self.settings, learned, generation, self.cache)[0]

    def send(self, **bring: Any) -> tuple[Any, Any]:
        """These servers list something else: the snapshot as it was sent, and as it has arrived."""
        self.catalogues.update({name: brought(name, what) for name, what in bring.items()})
        self.generation += 1
        sent = self.compile(self.generation)
        self.packed = EncodedSnapshot(self.generation, sent, self.packed)
        return visible(sent), self.worker.take(self.packed)

    @property
    def items(self) -> int:
        """How many travelled the last time."""
        return sum(len(part) for part in self.worker.sent if isinstance(part, tuple))


def visible(sent: Snapshot) -> Snapshot:
    """Less what only operators see."""
    return replace(sent, endpoints={path: replace(one, routes={}) for path, one in sent.endpoints.items()})


def many() -> Snapshot:
    return compiled({"a": [f"t{number}" for number in range(3 * MOST)], "b": ["t1", "x"]}, **TWO_CLASSES)


def test_what_arrives_is_what_was_sent_less_what_only_operators_see() -> None:
    assert arrived(many()) == visible(many())


def test_names_keep_their_order_in_every_view() -> None:
    for before, after in zip(many().endpoints["/mcp"].views, arrived(many()).endpoints["/mcp"].views, strict=True):
        assert list(before.grants) == list(after.grants)


def test_two_views_share_their_grants_as_before() -> None:
    def objects(snapshot: Snapshot) -> tuple[int, int]:
        views = snapshot.endpoints["/mcp"].views
        grants: list[Grant] = [grant for view in views for grant in view.grants.values()]
        return len(grants), len({id(grant) for grant in grants})

    assert objects(arrived(many())) == objects(many())
    assert objects(many())[1] < objects(many())[0]


def test_no_part_holds_more_grants_than_unpack_in_a_moment() -> None:
    worker = Worker()
    worker.take(EncodedSnapshot(1, many()))
    assert 1 < max(len(part) for part in worker.sent if isinstance(part, tuple)) <= MOST


def test_what_is_no_snapshot_travels_whole() -> None:
    assert arrived("a word") == "a word"


SERVER = [f"t{number}" for number in range(3 * MOST)]
READS = {"capabilities": ["resources"], "resources": ["docs://one", "docs://two"]}


def test_after_a_change_of_one_server_only_what_stands_beside_it_travels() -> None:
    line = Line(a=SERVER, b=["x"], c=READS)
    line.send()
    assert line.items > 3 * MOST

    sent, found = line.send(b=["x", "y", "t7"])

    assert found == sent
    assert line.items <= 2 * MOST
    assert "y" in view(found, "bot").grants


def test_where_nothing_has_changed_nothing_travels_and_the_same_objects_are_in_force() -> None:
    line = Line(a=SERVER, c=READS)
    _, before = line.send()
    sent, found = line.send()
    one, other = before.endpoints["/mcp"], found.endpoints["/mcp"]

    assert found == sent
    assert line.worker.sent == line.worker.gone == []
    assert all(a is b for a, b in zip(one.views, other.views, strict=True))
    assert one.uris is other.uris, "its tables would be worked out again in the midst of calls"


def test_of_a_long_list_only_the_pieces_around_a_change_travel() -> None:
    items = [{"name": f"tool-{number}", "description": "x" * 400} for number in range(3000)]
    line, sizes = Line(a=items), []
    line.send()
    for tools in (items, [{"name": "new"}, *items]):
        sent, found = line.send(a=tools)
        assert found == sent
        entries = [entry for part in line.worker.sent if isinstance(part, tuple) for _, _, entry in part]
        sizes.append(sum(len(entry[0]) for entry in entries))
    assert line.packed is not None
    assert sizes[0] == 0 < sizes[1] < sum(map(len, line.packed.parts.values())) / 20


def test_many_changes_in_a_row_are_what_a_compile_from_nothing_gives() -> None:
    line = Line(a=SERVER, b=["x"], c=READS)
    for number in range(12):
        more = {**READS, "resources": [f"docs://{at}" for at in range(number)]} if number % 2 else READS
        sent, found = line.send(b=["x", *SERVER[number : 2 * number]], c=more, a=SERVER[number:])
        assert found == sent
    assert arrived(line.compile(99)) == replace(found, generation=99)


def test_what_is_gone_is_handed_out_once() -> None:
    line = Line(a=SERVER, b=["x"])
    line.send()
    line.send(a=SERVER[:-5])
    gone = {name for part in line.worker.gone if isinstance(part, tuple) for name, _, _ in part}
    assert gone >= set(SERVER[-5:])
    line.send(a=SERVER[:-5])
    assert line.worker.gone == []


def test_parts_that_are_missing_are_found_out_and_the_whole_is_taken() -> None:
    line = Line(a=SERVER)
    line.send()
    sent, _ = line.send(a=SERVER[1:])
    assert line.packed is not None
    late = Worker()
    with pytest.raises(KeyError):
        late.decoder.whole(line.packed.root, ())
    key, text = list(line.packed.parts.items())[-1]
    with pytest.raises(KeyError):
        list(late.decoder.take(key, text))

    assert late.take(line.packed) == sent


def test_a_list_has_the_same_bytes_for_every_dialect() -> None:
    items = [
        {"name": f"t{at}", "title": text}
        for at, text in enumerate(["[", '","', "},{", "\\u0000", "\u00fc", "\u65e5\u672c"])
    ]
    sent, found = Line(a=[*SERVER, *items]).send()
    for before, after in zip(sent.endpoints["/mcp"].views, found.endpoints["/mcp"].views, strict=True):
        one, other = before.lists["tools/list"], after.lists["tools/list"]
        assert [one.page(0, dialect) for dialect in DIALECTS] == [other.page(0, dialect) for dialect in DIALECTS]
        assert all(entry[0] is entry[-1] for entry in other.entries), "equal texts are kept once"


def test_who_comes_later_needs_no_item_that_is_there() -> None:
    policies = [
        {"name": "odd", "match": {"claims": {"team": "odd"}}, "allow": ["t*1", "t*3"]},
        {"name": "dry", "match": {"claims": {"team": "dry"}, "arguments": {"dry": "true"}}, "allow": ["t1*"]},
    ]
    keys = {"policies": policies, "identity": {"login": {"issuer": "https://login.example.com/"}}}
    line = Line(keys, a=SERVER)
    line.send()
    for team, conditional in (("odd", 0), ("dry", 11)):
        stranger = Principal("a", {"team": team}, "login", None, frozenset())
        line.cache.strangers = {"/mcp": [stranger]}
        sent, found = line.send()
        view_ = found.endpoints["/mcp"].view_for(stranger)
        assert len(view_.grants) >= 11
        assert view_ == sent.endpoints["/mcp"].view_for(stranger)
        assert line.items == conditional


def test_no_stretch_of_unpacking_is_long() -> None:
    """In CPU time, the least of three: a part takes 1 to 2 ms, all of ten thousand tools at once took 100."""
    encoded = EncodedSnapshot(1, compiled({"a": [f"t{number}" for number in range(10_000)]}, **TWO_CLASSES))
    assert min(longest_stretch(encoded) for _ in range(3)) < 0.010


def longest_stretch(encoded: EncodedSnapshot) -> float:
    """CPU seconds of the longest step between two in which a worker may serve calls."""
    decoder, longest = SnapshotDecoder(), 0.0
    gc.collect()
    with no_collections():
        for key, text in encoded.parts.items():
            steps = decoder.take(key, text)
            begun = time.thread_time()
            while next(steps, encoded) is not encoded:
                longest = max(longest, time.thread_time() - begun)
                begun = time.thread_time()
    return longest
