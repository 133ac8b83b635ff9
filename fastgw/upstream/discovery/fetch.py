"""All pages of a server's lists.

One list never costs another: all are asked for at once, and those that come soon do not wait for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fastgw.catalog.definitions import DefinitionKind, parse_definitions
from fastgw.catalog.elements import Notice
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, members
from fastgw.snapshot.model import Backend
from fastgw.upstream.call_context import Spawn
from fastgw.upstream.rpc import RpcReply
from fastgw.upstream.transports.http_client import lost

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
class ListKind:
    """One of the lists that a server may have, of which `most` items are used.

    Args:
        place: the field of `Catalogue` that holds it; `key`: the field of its items that names them.
        parse: of a server's name and a page, a JSON array, makes items and notices; raises ValueError.
    """

    method: str
    place: str
    key: str
    capability: str
    most: int
    parse: Callable[[str, bytes], tuple[Sequence[Any], tuple[Notice, ...]]]

    def is_declared(self, capabilities: frozenset[str] | None) -> bool:
        """Whether a server of these capabilities has it; one that says nothing of them may have everything."""
        return capabilities is None or self.capability in capabilities


_TOOLS = partial(parse_definitions, DefinitionKind.TOOL)
_PROMPTS = partial(parse_definitions, DefinitionKind.PROMPT)
_RESOURCES = partial(parse_definitions, DefinitionKind.RESOURCE)
_TEMPLATES = partial(parse_definitions, DefinitionKind.TEMPLATE)
TOOLS: Final = ListKind(names.TOOLS_LIST, "tools", "key", "tools", 10_000, _TOOLS)
LIST_KINDS: Final = (
    TOOLS,
    ListKind(names.PROMPTS_LIST, "prompts", "key", "prompts", 2_000, _PROMPTS),
    ListKind(names.RESOURCES_LIST, "resources", "key", "resources", 10_000, _RESOURCES),
    ListKind(names.TEMPLATES_LIST, "templates", "key", "resources", 1_000, _TEMPLATES),
)


@dataclass(frozen=True, slots=True)
class FetchedList:
    """What a server listed, in its order.

    Args:
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
    kinds: Mapping[ListKind, float], server: str, page: Page, spawn: Spawn
) -> AsyncIterator[dict[ListKind, FetchedList]]:
    """Fetch several lists of one server, each within its seconds for all pages: what came of each, those that come
    soon together, every other by itself.
    """
    waiting = {
        spawn(ListReader(kind, server).outcome(page, within), f"{kind.method} of {server}"): kind
        for kind, within in kinds.items()
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


class ListReader:
    """One list while it is read, page after page until the last or until a cap."""

    def __init__(self, kind: ListKind, server: str) -> None:
        self._kind = kind
        self._server = server
        self._notices: dict[Notice, None] = {}
        self._hints: list[float] = []
        self._found: dict[str, Any] = {}

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
        followed: set[bytes] = set()
        cursor: bytes | None = None
        size = 0
        while (result := await page(self._kind.method, cursor)) is not None:
            array, cursor = self._page(result)
            await self._add(array)
            size += len(result)
            capped = ""
            if len(self._found) + (cursor is not None) > self._kind.most:
                capped = f"{self._kind.most} {self._kind.place}"
            elif cursor is None:
                return self._listed(None)
            elif cursor in followed:
                capped = "a cursor came twice"
            elif size >= MOST_BYTES:
                capped = f"{MOST_BYTES} bytes"
            elif len(followed) + 1 >= MOST_PAGES:
                capped = f"{MOST_PAGES} pages"
            if capped or cursor is None:
                self._notices[Notice(self._server, f"{self._kind.method}: the list is cut off: {capped}")] = None
                return self._listed(None)
            followed.add(cursor)
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
        parse, server = self._kind.parse, self._server
        try:
            is_long = len(array) >= _LONG
            items, notices = await asyncio.to_thread(parse, server, array) if is_long else parse(server, array)
        except ValueError as strange:
            raise lost(str(strange)) from None
        if len(self._notices) < _MOST_COUNTED:
            self._notices |= dict.fromkeys(notices)
        for item in items:
            key = getattr(item, self._kind.key)
            if self._found.setdefault(key, item) is not item:
                self._notices[Notice(f"{server}/{key[:128]}", "left out: listed twice, the first is used")] = None
