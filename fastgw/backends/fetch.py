"""All pages of a server's lists.

Knows: what is listed, pagination, and where it has to end. Refuses to know: how a page is asked for, and when.

One list never costs another: all are asked for at once, and those that come soon do not wait for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fastgw.backends.line import Spawn
from fastgw.backends.outcome import lost
from fastgw.backends.pages import Pages
from fastgw.catalog.definitions import Sort, parse_definitions
from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import parse_tools
from fastgw.faults import Fault, Kind
from fastgw.mcp import names
from fastgw.mcp.envelope import NotAMessage, NotJson, members

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
"""Bytes of a page from which on it is read in a thread: workers ask the keeper for sessions meanwhile."""

Parse = Callable[[str, bytes], tuple[Sequence[Any], tuple[Notice, ...]]]


@dataclass(frozen=True, slots=True)
class Sheet:
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


TOOLS: Final = Sheet(names.TOOLS_LIST, "tools", "name", "tools", 10_000, parse_tools)
SHEETS: Final = (
    TOOLS,
    Sheet(names.PROMPTS_LIST, "prompts", "key", "prompts", 2_000, partial(parse_definitions, Sort.PROMPT)),
    Sheet(names.RESOURCES_LIST, "resources", "key", "resources", 10_000, partial(parse_definitions, Sort.RESOURCE)),
    Sheet(names.TEMPLATES_LIST, "templates", "key", "resources", 1_000, partial(parse_definitions, Sort.TEMPLATE)),
)


@dataclass(frozen=True, slots=True)
class Listing:
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


NO_LIST: Final = Listing((), known=False)


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
    sheets: Iterable[Sheet], source: Source, spawn: Spawn
) -> AsyncIterator[dict[Sheet, Listing | Fault]]:
    """Fetch several lists of one server: what came of each, those that come soon together, every other by itself.

    Args:
        sheets: which lists.
        source: where they come from.
        spawn: `Registry.spawn`.
    """
    waiting = {spawn(_outcome(sheet, source), f"{sheet.method} of {source.server}"): sheet for sheet in sheets}
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


async def _outcome(sheet: Sheet, source: Source) -> Listing | Fault:
    """A failure is the outcome, not an exception: it is for whoever waits to make something of it."""
    within = source.within if sheet.is_asked(source.declared) else min(source.within, UNDECLARED_WITHIN)
    reading = _Reading(sheet, source.server)
    try:
        async with asyncio.timeout(within):
            return await reading.fetch(source.page)
    except TimeoutError:
        fault = Fault(Kind.TIMEOUT, detail=f"{sheet.method}: no whole answer within {within:g} s")
    except Fault as wrong:
        fault = wrong
    return reading.listing(fault) if reading.found else fault


async def fetch(sheet: Sheet, server: str, page: Pages) -> Listing:
    """Ask for page after page until the last, or until a cap: what was listed up to there is used, with a notice.

    Args:
        sheet: which list.
        server: the server's name.
        page: how one page is had.

    Raises:
        Fault: a page could not be had, or is no list.
    """
    return await _Reading(sheet, server).fetch(page)


class _Reading:
    """One list while it is read: what came of it stays where a page fails."""

    def __init__(self, sheet: Sheet, server: str) -> None:
        self._sheet = sheet
        self._server = server
        self._notices: list[Notice] = []
        self._hints: list[float] = []
        self.found: dict[str, Any] = {}

    async def fetch(self, page: Pages) -> Listing:
        """See `fetch`."""
        sheet = self._sheet
        seen: set[bytes] = set()
        cursor: bytes | None = None
        size = 0
        for number in range(1, MOST_PAGES + 1):
            result = await page(sheet.method, cursor)
            if result is None:
                return NO_LIST
            array, more, hint = _read(sheet, result)
            size += len(result)
            if hint is not None:
                self._hints.append(hint)
            await self._add(array)
            cut = _cut(sheet, (number, len(self.found), size), more, seen)
            if cut:
                self._notices.append(Notice(self._server, f"{sheet.method}: the list is cut off: {cut}"))
            if cut or more is None:
                break
            seen.add(more)
            cursor = more
        return self.listing(None)

    def listing(self, cut: Fault | None) -> Listing:
        """What has come, and the failure that kept the rest away."""
        items = tuple(self.found.values())[: self._sheet.most]
        notices = _few(self._notices, self._server, self._sheet)
        return Listing(items, notices, min(self._hints, default=None) if cut is None else None, True, cut)

    async def _add(self, array: bytes) -> None:
        sheet, server = self._sheet, self._server
        try:
            if len(array) < _LONG:
                items, notices = sheet.parse(server, array)
            else:
                items, notices = await asyncio.to_thread(sheet.parse, server, array)
        except ValueError as strange:
            raise lost(str(strange)) from None
        if len(self._notices) < _MOST_COUNTED:
            self._notices.extend(
                notice for notice in notices if notice.subject != server or notice not in self._notices
            )
        for item in items:
            key = getattr(item, sheet.key)
            if self.found.setdefault(key, item) is not item:
                self._notices.append(Notice(f"{server}/{key[:128]}", "left out: listed twice, the first is used"))


def _read(sheet: Sheet, result: bytes) -> tuple[bytes, bytes | None, float | None]:
    """Items, next cursor and freshness in seconds of one page."""
    member = names.LISTS[sheet.method]
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


def _cut(sheet: Sheet, so_far: tuple[int, int, int], more: bytes | None, seen: set[bytes]) -> str:
    """Why the list ends here although the server has more; empty where it need not.

    Args:
        sheet: which list.
        so_far: pages, items and bytes of it.
        more: the cursor of the next page; None where there is none.
        seen: cursors that were followed.
    """
    pages, items, size = so_far
    if items > sheet.most or (items == sheet.most and more is not None):
        return f"{sheet.most} {sheet.place}"
    if more is None:
        return ""
    if more in seen:
        return "a cursor came twice"
    if size >= MOST_BYTES:
        return f"{MOST_BYTES} bytes"
    return f"{MOST_PAGES} pages" if pages >= MOST_PAGES else ""


def _few(notices: list[Notice], server: str, sheet: Sheet) -> tuple[Notice, ...]:
    """A server whose every item is bad fills neither memory nor the page of notices."""
    if len(notices) <= MOST_NOTICES:
        return tuple(notices)
    rest = Notice(server, f"{sheet.method}: {len(notices) - MOST_NOTICES + 1} more notices like these")
    return (*notices[: MOST_NOTICES - 1], rest)
