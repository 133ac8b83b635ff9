"""All pages of a server's lists.

One list never costs another: all are asked for at once, and those that come soon do not wait for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fastgw.catalog.definitions import DefinitionKind, parse_definitions
from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import parse_tools
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, members
from fastgw.upstream.call_context import Spawn
from fastgw.upstream.discovery.pages import Pages
from fastgw.upstream.failures import lost

UNDECLARED_WITHIN = 3.0
"""Seconds for a list that a server does not declare: it may never answer."""
PATIENCE = 1.0
"""Seconds that lists which are there wait for those which are not."""
MOST_PAGES = 100
MOST_BYTES = 64 * 1024 * 1024
MOST_NOTICES = 100
"""Of one list."""
MOST_COMMAS = 2_000_000
"""Of one page: 64 MiB of `{},` would be a gigabyte once it is taken apart."""
_MOST_COUNTED = 10_000
_LONG = 256 * 1024
"""Bytes of a page from which on it is read in a thread: workers ask the controller for sessions meanwhile."""

Parse = Callable[[str, bytes], tuple[Sequence[Any], tuple[Notice, ...]]]


@dataclass(frozen=True, slots=True)
class ListKind:
    """One of the lists that a server may have.

    Args:
        method: asks for it.
        place: the field of `Catalogue` that holds it.
        key: the field of its items that names them.
        capability: declares it.
        most: items that are used.
        parse: reads one page of it: of a server's name and a JSON array makes items and notices; raises ValueError.
    """

    method: str
    place: str
    key: str
    capability: str
    most: int
    parse: Parse

    def is_asked(self, declared: frozenset[str] | None) -> bool:
        """Whether it is asked for at a server that declares these capabilities; None where that is not known."""
        return declared is None or self.capability in declared


TOOLS: Final = ListKind(names.TOOLS_LIST, "tools", "name", "tools", 10_000, parse_tools)
SHEETS: Final = (
    TOOLS,
    ListKind(names.PROMPTS_LIST, "prompts", "key", "prompts", 2_000, partial(parse_definitions, DefinitionKind.PROMPT)),
    ListKind(
        names.RESOURCES_LIST,
        "resources",
        "key",
        "resources",
        10_000,
        partial(parse_definitions, DefinitionKind.RESOURCE),
    ),
    ListKind(
        names.TEMPLATES_LIST,
        "templates",
        "key",
        "resources",
        1_000,
        partial(parse_definitions, DefinitionKind.TEMPLATE),
    ),
)


@dataclass(frozen=True, slots=True)
class FetchedList:
    """What a server listed.

    Args:
        items: in its order, the first of each key.
        notices: what was left out, and why.
        fresh: seconds for which the server vouches for it; None where it gives no hint.
        known: whether the server knows this list at all.
        cut: the failure that kept the pages after these from coming.
    """

    items: tuple[Any, ...]
    notices: tuple[Notice, ...] = ()
    fresh: float | None = None
    known: bool = True
    cut: Fault | None = field(default=None, compare=False)


NO_LIST: Final = FetchedList((), known=False)


@dataclass(frozen=True, slots=True)
class Source:
    """Where lists come from.

    Args:
        server: the server's name.
        page: how one page is had.
        within: seconds for all pages of one list.
        declared: names of the capabilities it declares; None where that is not known.
    """

    server: str
    page: Pages
    within: float
    declared: frozenset[str] | None = None


async def fetch_all(
    sheets: Iterable[ListKind], source: Source, spawn: Spawn
) -> AsyncIterator[dict[ListKind, FetchedList | Fault]]:
    """Fetch several lists of one server: what came of each, those that come soon together, every other by itself.

    Args:
        sheets: which lists.
        source: where they come from.
        spawn: `BackgroundTasks.spawn`.
    """
    waiting = {
        spawn(_outcome(list_kind, source), f"{list_kind.method} of {source.server}"): list_kind for list_kind in sheets
    }
    tasks = list(waiting)
    try:
        if waiting:
            await asyncio.wait(waiting, timeout=PATIENCE)
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            yield {waiting.pop(task): task.result() for task in tasks if task in done}
    finally:
        for task in tasks:
            task.cancel()


async def _outcome(list_kind: ListKind, source: Source) -> FetchedList | Fault:
    """A failure is the outcome, not an exception: it is for whoever waits to make something of it."""
    within = source.within if list_kind.is_asked(source.declared) else min(source.within, UNDECLARED_WITHIN)
    reading = _ListReading(list_kind, source.server)
    try:
        async with asyncio.timeout(within):
            return await reading.fetch(source.page)
    except TimeoutError:
        fault = Fault(Kind.TIMEOUT, detail=f"{list_kind.method}: no whole answer within {within:g} s")
    except Fault as wrong:
        fault = wrong
    return reading.listing(fault) if reading.found else fault


async def fetch(list_kind: ListKind, server: str, page: Pages) -> FetchedList:
    """Ask for page after page until the last, or until a cap: what was listed up to there is used, with a notice.

    Args:
        sheet: which list.
        server: the server's name.
        page: how one page is had.

    Raises:
        Fault: a page could not be had, or is no list.
    """
    return await _ListReading(list_kind, server).fetch(page)


class _ListReading:
    """One list while it is read: what came of it stays where a page fails."""

    def __init__(self, list_kind: ListKind, server: str) -> None:
        self._sheet = list_kind
        self._server = server
        self._notices: list[Notice] = []
        self._hints: list[float] = []
        self.found: dict[str, Any] = {}

    async def fetch(self, page: Pages) -> FetchedList:
        list_kind = self._sheet
        status: set[bytes] = set()
        cursor: bytes | None = None
        size = 0
        for number in range(1, MOST_PAGES + 1):
            result = await page(list_kind.method, cursor)
            if result is None:
                return NO_LIST
            array, more, hint = _read(list_kind, result)
            size += len(result)
            if hint is not None:
                self._hints.append(hint)
            await self._add(array)
            cut = _cut(list_kind, (number, len(self.found), size), more, status)
            if cut:
                self._notices.append(Notice(self._server, f"{list_kind.method}: the list is cut off: {cut}"))
            if cut or more is None:
                break
            status.add(more)
            cursor = more
        return self.listing(None)

    def listing(self, cut: Fault | None) -> FetchedList:
        """What has come, and the failure that kept the rest away."""
        items = tuple(self.found.values())[: self._sheet.most]
        notices = _few(self._notices, self._server, self._sheet)
        return FetchedList(items, notices, min(self._hints, default=None) if cut is None else None, True, cut)

    async def _add(self, array: bytes) -> None:
        list_kind, server = self._sheet, self._server
        try:
            if len(array) < _LONG:
                items, notices = list_kind.parse(server, array)
            else:
                items, notices = await asyncio.to_thread(list_kind.parse, server, array)
        except ValueError as strange:
            raise lost(str(strange)) from None
        if len(self._notices) < _MOST_COUNTED:
            self._notices.extend(
                notice for notice in notices if notice.subject != server or notice not in self._notices
            )
        for item in items:
            key = getattr(item, list_kind.key)
            if self.found.setdefault(key, item) is not item:
                self._notices.append(Notice(f"{server}/{key[:128]}", "left out: listed twice, the first is used"))


def _read(list_kind: ListKind, result: bytes) -> tuple[bytes, bytes | None, float | None]:
    """Items, next cursor and freshness in seconds of one page."""
    member = names.LISTS[list_kind.method]
    try:
        found = members(result, frozenset((member, "nextCursor", "ttlMs", "cacheScope", "resultType", "_meta")))
        array = found[member]
    except (NotJson, NotAMessage, KeyError) as wrong:
        raise lost(f"no list of {member}: {wrong!r}") from None
    if array.count(b",") > MOST_COMMAS:
        raise lost(f"a page of {member} holds too much")
    more = found.get("nextCursor")
    ttl = found.get("ttlMs", b"")
    seconds = int(ttl) / 1000 if ttl.isdigit() and len(ttl) <= 12 else None
    return array, more if more is not None and more[:1] == b'"' else None, seconds


def _cut(list_kind: ListKind, so_far: tuple[int, int, int], more: bytes | None, status: set[bytes]) -> str:
    """Why the list ends here although the server has more; empty where it need not.

    Args:
        sheet: which list.
        so_far: pages, items and bytes of it.
        more: the cursor of the next page; None where there is none.
        seen: cursors that were followed.
    """
    pages, items, size = so_far
    if items > list_kind.most or (items == list_kind.most and more is not None):
        return f"{list_kind.most} {list_kind.place}"
    if more is None:
        return ""
    if more in status:
        return "a cursor came twice"
    if size >= MOST_BYTES:
        return f"{MOST_BYTES} bytes"
    return f"{MOST_PAGES} pages" if pages >= MOST_PAGES else ""


def _few(notices: list[Notice], server: str, list_kind: ListKind) -> tuple[Notice, ...]:
    """A server whose every item is bad fills neither memory nor the page of notices."""
    if len(notices) <= MOST_NOTICES:
        return tuple(notices)
    rest = Notice(server, f"{list_kind.method}: {len(notices) - MOST_NOTICES + 1} more notices like these")
    return (*notices[: MOST_NOTICES - 1], rest)
