"""What of a server's lists is pinned at first sight, where they come whole and where they break off."""

from __future__ import annotations

import json
from typing import Any

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.tools import Catalogue, dump, load
from fastgw.errors import Fault, Kind
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.upstream.discovery.fetch import FetchedList
from fastgw.upstream.discovery.status import ServerStatus, WatchedServer
from fastgw.upstream.rpc import NOTHING
from tests.snapshot.compiling import names, settings, shown
from tests.upstream.fakes import backend

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
        return {name: shown(snapshot, name)["description"] for name in names(snapshot)}


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
