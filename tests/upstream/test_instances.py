"""What is learned of an instance stays over a reload; what leaves is found until its calls must be over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.snapshot.model import Backend, Snapshot
from fastgw.upstream import instances
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.instances import Instances
from tests.upstream.fakes import FakeWire, backend, registry, run, settle

KEY = "shop|http://a/mcp"


class Wire(FakeWire):
    """One that knows whether it was closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> list[Wire]:
    """Those that were opened, in order."""
    opened: list[Wire] = []

    def opening(settings: Any) -> Wire:
        if settings.tls[0] == "broken":
            raise ValueError("tls: cannot read broken")
        opened.append(Wire(None))
        return opened[-1]

    monkeypatch.setattr(instances, "HttpPool", opening)
    monkeypatch.setattr(instances, "_GRACE", 0.0)
    return opened


def snapshot(*backends: Backend) -> Snapshot:
    return Snapshot(
        1, {}, {one.name: one for one in backends}, {}, frozenset(), frozenset(), 1000, 1000, (), "fastgw", "0", "gw"
    )


def story(play: Any) -> None:
    async def whole() -> None:
        async with registry() as found:
            await play(Instances(found.spawn))

    run(whole())


def test_a_reload_keeps_what_was_learned_and_opens_anew_only_what_is_reached_otherwise(wires: list[Wire]) -> None:
    async def play(found: Instances) -> None:
        found.load(snapshot(backend()))
        known = found.find(KEY)
        known.keep("agent:a", UpstreamSession("s1", "2025-11-25"))
        found.load(snapshot(replace(backend(), max_sessions=5)), 0.0)
        assert found.find(KEY) is known
        assert (len(wires), known.backend.max_sessions) == (1, 5)
        found.load(snapshot(backend(host="b")), 0.0)
        assert found.find(KEY) is known
        assert known.http is wires[1]
        assert list(known.sessions) == ["agent:a"]
        await asyncio.sleep(0.01)
        await settle()
        assert [wire.closed for wire in wires] == [True, False]

    story(play)


@pytest.mark.parametrize("longest", [0.0, None])
def test_what_leaves_is_found_until_its_calls_are_over(wires: list[Wire], longest: float | None) -> None:
    async def play(found: Instances) -> None:
        found.load(snapshot(backend()))
        found.find(KEY).keep("agent:a", UpstreamSession("s1", "2025-11-25"))
        found.load(snapshot(), longest)
        if longest is not None:
            assert found.find(KEY).http is wires[0]
            await asyncio.sleep(0.01)
        with pytest.raises(Fault) as wrong:
            found.find(KEY)
        assert (wrong.value.kind, wrong.value.sent) == (Kind.NO_SERVER, False)
        await settle()
        assert wires[0].closed
        found.load(snapshot(backend()), 0.0)
        assert found.find(KEY).sessions == {}

    story(play)


def test_one_whose_files_cannot_be_used_keeps_no_other_away_and_is_tried_again(
    wires: list[Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(found: Instances) -> None:
        other = backend("http://b/mcp", name="other")
        found.load(snapshot(backend(tls=("broken", None, None)), other))
        assert found.find("shop|http://b/mcp").http is wires[0]
        with pytest.raises(Fault, match="cannot read") as wrong:
            found.find(KEY)
        assert wrong.value.kind is Kind.NO_SERVER
        monkeypatch.setattr(instances, "HttpPool", lambda _: Wire(None))
        assert found.find(KEY).backend.name == "shop"

    story(play)


def test_what_the_controller_finds_out_is_newer_than_any_snapshot(wires: list[Wire]) -> None:
    async def play(found: Instances) -> None:
        found.learn(KEY, "modern")  # before the first snapshot
        found.load(snapshot(backend()))
        known = found.find(KEY)
        legacy = replace(known.address, era="legacy")
        assert known.found_era == "modern"
        found.learn(KEY, "both")
        found.load(snapshot(replace(backend(), instances=(legacy,))), 0.0)
        assert found.find(KEY) is known
        assert (known.found_era, known.address.era) == ("both", "legacy")

    story(play)


def test_an_era_is_remembered_for_the_next_snapshot_only(wires: list[Wire]) -> None:
    async def play(found: Instances) -> None:
        found.load(snapshot())
        found.learn(KEY, "modern")
        found.load(snapshot())
        found.load(snapshot(backend()))
        assert found.find(KEY).found_era is None

    story(play)
