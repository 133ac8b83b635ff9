"""All pages of a server's lists.

Knows: what is listed, pagination, and where it has to end. Refuses to know: how a page is asked for, and when.

One list never costs another: all are asked for at once, and those that come soon do not wait for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
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

LIST_WITHIN = 10.0
"""Seconds for all pages of one list."""
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
    """

    items: tuple[Any, ...]
    notices: tuple[Notice, ...] = ()
    fresh: float | None = None
    known: bool = True


NO_LIST: Final = Listing((), known=False)


async def fetch_all(
    sheets: Iterable[Sheet], server: str, page: Pages, spawn: Spawn
) -> AsyncIterator[dict[Sheet, Listing | Fault]]:
    """Fetch several lists of one server: what came of each, in at most two parts.

    Args:
        sheets: which lists.
        server: the server's name.
        page: how one page is had.
        spawn: `Registry.spawn`.
    """
    waiting = {spawn(_outcome(sheet, server, page), f"{sheet.method} of {server}"): sheet for sheet in sheets}
    tasks = list(waiting)
    try:
        for patience in (PATIENCE, None):
            if waiting:
                done, _ = await asyncio.wait(waiting, timeout=patience)
                yield {waiting.pop(task): task.result() for task in tasks if task in done}
    finally:
        for task in tasks:
            task.cancel()


async def _outcome(sheet: Sheet, server: str, page: Pages) -> Listing | Fault:
    """A failure is the outcome, not an exception: it is for whoever waits to make something of it."""
    try:
        async with asyncio.timeout(LIST_WITHIN):
            return await fetch(sheet, server, page)
    except TimeoutError:
        return Fault(Kind.TIMEOUT, detail=f"not listed within {LIST_WITHIN:g} s")
    except Fault as fault:
        return fault


async def fetch(sheet: Sheet, server: str, page: Pages) -> Listing:
    """Ask for page after page until the last, or until a cap: what was listed up to there is used, with a notice.

    Args:
        sheet: which list.
        server: the server's name.
        page: how one page is had.

    Raises:
        Fault: a page could not be had, or is no list; nothing of the others is used.
    """
    found: dict[str, Any] = {}
    notices: list[Notice] = []
    seen: set[bytes] = set()
    cursor: bytes | None = None
    hints: list[float] = []
    size = 0
    for number in range(1, MOST_PAGES + 1):
        result = await page(sheet.method, cursor)
        if result is None:
            return NO_LIST
        array, more, told = _read(sheet, result)
        size += len(result)
        if told is not None:
            hints.append(told)
        await _add(sheet, server, array, found, notices)
        cut = _cut(sheet, (number, len(found), size), more, seen)
        if cut:
            notices.append(Notice(server, f"{sheet.method}: the list is cut off: {cut}"))
        if cut or more is None:
            break
        seen.add(more)
        cursor = more
    return Listing(tuple(found.values())[: sheet.most], _few(notices, server, sheet), min(hints, default=None))


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


async def _add(sheet: Sheet, server: str, array: bytes, found: dict[str, Any], notices: list[Notice]) -> None:
    try:
        if len(array) < _LONG:
            items, wrong = sheet.parse(server, array)
        else:
            items, wrong = await asyncio.to_thread(sheet.parse, server, array)
    except ValueError as strange:
        raise lost(str(strange)) from None
    if len(notices) < _MOST_COUNTED:
        notices.extend(wrong)
    for item in items:
        key = getattr(item, sheet.key)
        if found.setdefault(key, item) is not item:
            notices.append(Notice(f"{server}/{key[:128]}", "left out: listed twice, the first is used"))


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
