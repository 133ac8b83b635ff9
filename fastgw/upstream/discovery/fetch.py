"""All pages of a server's lists.

One list never costs another: all are asked for at once, and those that come soon do not wait for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.elements import Notice
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, members
from fastgw.snapshot.model import Backend
from fastgw.upstream.call_context import Spawn
from fastgw.upstream.rpc import RpcReply
from fastgw.upstream.transports import lost

PATIENCE = 1.0  # seconds that lists which are there wait for those which are not
MOST_PAGES = 100
MOST_BYTES = 64 * 1024 * 1024
MOST_NOTICES = 100  # of one list
MOST_COMMAS = 2_000_000  # of one page: 64 MiB of `{},` would be a gigabyte once it is taken apart
_MOST_COUNTED = 10_000
_LONG = 256 * 1024
"""Bytes of a page from which on it is read in a thread: workers ask the controller for sessions meanwhile."""

Page = Callable[[str, bytes | None], Awaitable[bytes | None]]
"""Asks for the page of this list method and cursor (JSON text, None for the first); as `page_of`."""


@dataclass(frozen=True, slots=True)
class FetchedList:
    """What a server listed, in its order.

    Args:
        fresh: seconds for which the server vouches for it; None where it gives no hint.
        known: whether the server knows this list at all.
        cut: the failure that kept the pages after these from coming.
    """

    items: tuple[Definition, ...]
    notices: tuple[Notice, ...] = ()
    fresh: float | None = None
    known: bool = True
    cut: Fault | None = field(default=None, compare=False)


NO_LIST: Final = FetchedList((), known=False)


class NoSuchList(Fault):
    """A 404 without a word of JSON-RPC: there is no such method, or for a while nothing at all."""


def page_of(reply: RpcReply, backend: Backend) -> bytes | None:
    """The `result` of an answer to a list method; None where there is no such method. Raises Fault for a refusal."""
    if (refusal := reply.refusal(backend)) is not None:
        raise refusal
    if reply.message is None:
        detail = f"status {reply.status} without a response"
        raise NoSuchList(Kind.LOST, detail=detail, sent=True) if reply.status == 404 else lost(detail)
    code = reply.error.get("code")
    if reply.message.result is None and code != names.METHOD_NOT_FOUND:
        raise lost(f"the list was refused: error {code}, status {reply.status}{reply.shown_error(backend)}")
    return reply.message.result


async def fetch_all(
    kinds: Mapping[DefinitionKind, float], server: str, page: Page, spawn: Spawn
) -> AsyncIterator[dict[DefinitionKind, FetchedList]]:
    """Fetch several lists of one server, each within its seconds for all pages: what came of each, those that come
    soon together, every other by itself.
    """
    tasks = {
        kind: spawn(ListReader(kind, server).outcome(page, within), f"{kind.method} of {server}")
        for kind, within in kinds.items()
    }
    try:
        if tasks:
            await asyncio.wait(tasks.values(), timeout=PATIENCE)
        while tasks:
            done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            yield {kind: tasks.pop(kind).result() for kind, task in list(tasks.items()) if task in done}
    finally:
        for task in tasks.values():
            task.cancel()


class ListReader:
    """One list while it is read, page after page until the last or until a cap."""

    def __init__(self, kind: DefinitionKind, server: str) -> None:
        self._kind = kind
        self._server = server
        self._notices: dict[Notice, None] = {}
        self._hints: list[float] = []
        self._found: dict[str, Definition] = {}

    async def outcome(self, page: Page, within: float) -> FetchedList:
        """The list, cut where a page failed: failures are for whoever waits to make something of them."""
        try:
            async with asyncio.timeout(within):
                return await self.read(page)
        except TimeoutError:
            return self._listed(Fault(Kind.TIMEOUT, detail=f"{self._kind.method}: no whole answer within {within:g} s"))
        except Fault as wrong:
            return self._listed(wrong)

    async def read(self, page: Page) -> FetchedList:
        """The whole list; where it is capped, what came up to there, with a notice. Raises Fault: a page could not be
        had, or is no list.
        """
        kind, followed, size = self._kind, set[bytes](), 0
        cursor: bytes | None = None
        while (result := await page(kind.method, cursor)) is not None:
            array, cursor = self._page(result)
            await self._add(array)
            size += len(result)
            if cursor is None and len(self._found) <= kind.most:
                return self._listed(None)
            caps = {
                f"{kind.most} {kind.field}": len(self._found) + (cursor is not None) > kind.most,
                "a cursor came twice": cursor in followed,
                f"{MOST_BYTES} bytes": size >= MOST_BYTES,
                f"{MOST_PAGES} pages": len(followed) + 1 >= MOST_PAGES,
            }
            if cap := next((words for words, is_reached in caps.items() if is_reached), ""):
                self._notices[Notice(self._server, f"{kind.method}: the list is cut off: {cap}")] = None
                return self._listed(None)
            followed.add(cursor or b"")
        return NO_LIST

    def _listed(self, cut: Fault | None) -> FetchedList:
        """What has come. A server whose every item is bad fills neither memory nor the page of notices."""
        notices = list(self._notices)
        if len(notices) > MOST_NOTICES:
            rest = f"{self._kind.method}: {len(notices) - MOST_NOTICES + 1} more notices like these"
            notices = [*notices[: MOST_NOTICES - 1], Notice(self._server, rest)]
        fresh = min(self._hints, default=None) if cut is None else None
        return FetchedList(tuple(self._found.values())[: self._kind.most], tuple(notices), fresh, True, cut)

    def _page(self, result: bytes) -> tuple[bytes, bytes | None]:
        """Items and next cursor of one page; notes how long it is fresh for."""
        member = names.LISTS[self._kind.method]
        try:
            found = members(result, frozenset((member, "nextCursor", "ttlMs")))
            array = found[member]
        except (NotJson, NotAMessage, KeyError) as wrong:
            raise lost(f"no list of {member}: {wrong!r}") from None
        if array.count(b",") > MOST_COMMAS:
            raise lost(f"a page of {member} holds too much")
        cursor, ttl = found.get("nextCursor", b""), found.get("ttlMs", b"")
        if ttl.isdigit() and len(ttl) <= 12:
            self._hints.append(int(ttl) / 1000)
        return array, cursor if cursor[:1] == b'"' else None

    async def _add(self, array: bytes) -> None:
        kind, server = self._kind, self._server
        try:
            if len(array) >= _LONG:
                items, notices = await asyncio.to_thread(parse_definitions, kind, server, array)
            else:
                items, notices = parse_definitions(kind, server, array)
        except ValueError as strange:
            raise lost(str(strange)) from None
        if len(self._notices) < _MOST_COUNTED:
            self._notices |= dict.fromkeys(notices)
        for item in items:
            if self._found.setdefault(item.key, item) is not item:
                self._notices[Notice(f"{server}/{item.key[:128]}", "left out: listed twice, the first is used")] = None
