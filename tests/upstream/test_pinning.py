"""What of a server's lists is pinned at first sight, where they come whole and where they break off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.tools import Catalogue, dump, load
from fastgw.errors import Fault, Kind
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.upstream.discovery.fetch import FetchedList
from fastgw.upstream.discovery.status import ServerStatus, WatchedServer
from fastgw.upstream.rpc import NOTHING
from tests.snapshot.compiling import items, settings, view
from tests.upstream.fakes import backend
from tests.upstream.test_poll import Server, World, play, tool

CUT = Fault(Kind.LOST, detail="the second page never comes")


def tools(**described: str) -> tuple[Definition, ...]:
    array = [{"name": key, "description": text, "inputSchema": {"type": "object"}} for key, text in described.items()]
    return parse_definitions(DefinitionKind.TOOL, "shop", json.dumps(array).encode())[0]


class Seen:
    """A server whose tools are held, as its lists come."""

    def __init__(self) -> None:
        self.watched = WatchedServer(backend(), pins=True)
        self.status = ServerStatus(self.watched)

    def come(self, cut: Fault | None = None, **described: str) -> dict[str, str]:
        """A list comes; what agents see then."""
        lists = {DefinitionKind.TOOL: FetchedList(tools(**described), cut=cut)}
        self.status.catalogue = self.status.updated(lists, NOTHING, 0.0, 0.0)
        return self.seen(self.status.catalogue)

    def restart(self) -> None:
        """All that is left is what was kept."""
        assert self.status.catalogue is not None
        kept = load(dump(self.status.catalogue))
        self.status = ServerStatus(self.watched, self.watched.pinned(kept, grows=kept.is_part))

    def seen(self, catalogue: Catalogue) -> dict[str, str]:
        wanted: Any = settings({"shop": []}, shop={"on_change": "hold"})
        snapshot, _ = compile_snapshot(wanted, Learned({"shop": catalogue}), 1, CompileCache(wanted))
        return {one["name"]: one["description"] for one in items(view(snapshot), "tools/list")}


def test_a_list_that_breaks_off_for_ever_changes_nothing_that_was_seen() -> None:
    server = Seen()
    assert server.come(CUT, pay="Pays.") == {"pay": "Pays."}
    assert server.come(CUT, pay="Steals.", more="More.") == {"pay": "Pays.", "more": "More."}
    server.restart()
    assert server.come(CUT, pay="Steals.", more="Worse.", x="X.") == {"pay": "Pays.", "more": "More.", "x": "X."}
    assert server.come(pay="Steals.", last="Last.") == {"pay": "Pays.", "last": "Last."}
    assert server.come(CUT, pay="Pays.", last="Last.", x="X.", late="Late.") == {
        "pay": "Pays.",
        "last": "Last.",
        "x": "X.",
    }


def test_a_restart_between_two_pages_holds_back_nothing_of_the_second() -> None:
    server = Seen()
    server.come(CUT, pay="Pays.")
    server.restart()
    assert server.come(pay="Pays.", look="Looks.") == {"pay": "Pays.", "look": "Looks."}
    server.restart()
    assert server.come(pay="Pays.", look="Looks.", new="New.") == {"pay": "Pays.", "look": "Looks."}


def test_what_is_pinned_does_not_grow_for_ever() -> None:
    server = Seen()
    for turn in range(4):
        server.come(CUT, **{f"{turn}-{place}": "" for place in range(4000)})
    assert server.status.catalogue is not None
    assert len(server.status.catalogue.first) == 12000


def test_what_accept_has_had_forgotten_no_restart_finds_again(tmp_path: Path) -> None:
    async def kept(world: World) -> None:
        while world.found._servers["a"].kept is not world.found.catalogues()["a"]:
            await asyncio.sleep(0.001)

    async def first(world: World) -> None:
        world.found.watch(world.watched(pins=True, refresh=0.001))
        await world.until("a", "x")
        server.tools = [tool("y")]
        await world.until("a", "y")
        assert [one.key for one in world.found.catalogues()["a"].first] == ["x"]
        for pins in (False, True):
            server.away = Fault(Kind.NO_SERVER)
            world.found.watch(world.watched(pins=pins))
            await kept(world)

    async def second(world: World) -> None:
        world.found.watch(world.watched(pins=True))
        assert [one.key for one in world.found.catalogues()["a"].first] == ["y"]

    server = Server("modern", "x")
    play(tmp_path, first, a=server)
    play(tmp_path, second, a=server)
