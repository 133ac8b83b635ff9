"""All pages of one server's tool list.

Knows: pagination, and where it has to end. Refuses to know: how a page is asked for, and when.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from fastgw.backends import lower_legacy, lower_modern
from fastgw.backends.directory import KEEPER, Directory
from fastgw.backends.inquiry import Asker, Reply, new_id, not_evidence
from fastgw.backends.outcome import lost
from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import ToolDefinition, parse_tools
from fastgw.mcp import names
from fastgw.mcp.envelope import NotAMessage, NotJson, members

MOST_PAGES = 100
MOST_TOOLS = 10_000
MOST_BYTES = 64 * 1024 * 1024

_PAGE = frozenset(("tools", "nextCursor", "ttlMs", "cacheScope", "resultType", "_meta"))
_NO_TOOLS = b'{"tools":[]}'

Pages = Callable[[bytes | None], Awaitable[bytes]]
"""Asks for the page of this cursor (JSON text, None for the first); gives `result` as JSON text."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server listed.

    Args:
        tools: in its order, the first of each name.
        notices: what was left out, and why.
        fresh: seconds for which the server vouches for it; None where it gives no hint, or 0.
    """

    tools: tuple[ToolDefinition, ...]
    notices: tuple[Notice, ...]
    fresh: float | None


async def fetch(server: str, page: Pages) -> Listing:
    """Ask for page after page until the last, or until a cap: what was listed up to there is used, with a notice.

    Args:
        server: the server's name.
        page: how one page is had.

    Raises:
        Fault: a page could not be had, or is no list; nothing of the others is used.
    """
    tools: dict[str, ToolDefinition] = {}
    notices: list[Notice] = []
    seen: set[bytes] = set()
    cursor: bytes | None = None
    hints: list[float] = []
    size = 0
    for number in range(1, MOST_PAGES + 1):
        found, more, told = _read(await page(cursor))
        size += len(found)
        if told is not None:
            hints.append(told)
        _add(server, found, tools, notices)
        if more is None:
            break
        cut = "a cursor came twice" if more in seen else _cap(number, len(tools), size)
        if cut:
            notices.append(Notice(server, f"the list is cut off: {cut}"))
            break
        seen.add(more)
        cursor = more
    return Listing(tuple(tools.values())[:MOST_TOOLS], tuple(notices), min(hints, default=0.0) or None)


def _read(result: bytes) -> tuple[bytes, bytes | None, float | None]:
    """Tools, next cursor and freshness in seconds of one page."""
    try:
        found = members(result, _PAGE)
        tools = found["tools"]
    except (NotJson, NotAMessage, KeyError) as wrong:
        raise lost(f"no list of tools: {wrong!r}") from None
    more = found.get("nextCursor")
    ttl = found.get("ttlMs", b"")
    seconds = int(ttl) / 1000 if ttl.isdigit() and len(ttl) <= 12 else None
    return tools, more if more is not None and more[:1] == b'"' else None, seconds


def _add(server: str, array: bytes, tools: dict[str, ToolDefinition], notices: list[Notice]) -> None:
    try:
        found, wrong = parse_tools(server, array)
    except ValueError as strange:
        raise lost(str(strange)) from None
    notices.extend(wrong)
    twice = [tool.name for tool in found if tools.setdefault(tool.name, tool) is not tool]
    notices.extend(Notice(f"{server}/{name}", "left out: listed twice, the first is used") for name in twice)


def _cap(pages: int, tools: int, size: int) -> str:
    """Which cap is reached; empty for none."""
    if tools >= MOST_TOOLS:
        return f"{MOST_TOOLS} tools"
    if size >= MOST_BYTES:
        return f"{MOST_BYTES} bytes"
    return f"{MOST_PAGES} pages" if pages >= MOST_PAGES else ""


def modern_pages(asker: Asker, ours: bytes) -> Pages:
    """Pages of a modern server."""

    async def page(cursor: bytes | None) -> bytes:
        upstream_id = new_id()
        params = {} if cursor is None else {"cursor": cursor}
        headers, body = lower_modern.question(names.TOOLS_LIST, params, upstream_id, ours)
        return _result(await asker.ask(asker.backend.headers + headers, body, upstream_id))

    return page


def legacy_pages(asker: Asker, directory: Directory, instance: str) -> Pages:
    """Pages of a legacy server, in the gateway's own session there; a dead one is opened anew once per page."""

    async def page(cursor: bytes | None) -> bytes:
        session = await directory.open(instance, KEEPER)
        for last in (False, True):
            upstream_id = new_id()
            headers = lower_legacy.headers(asker.backend, session)
            reply = await asker.ask(headers, lower_legacy.listing(cursor, upstream_id), upstream_id, session)
            if last or not _session_dead(reply):
                break
            session = await directory.open(instance, KEEPER, session.id)
        return _result(reply)

    return page


def _session_dead(reply: Reply) -> bool:
    if reply.message is not None and reply.message.result is not None:
        return False
    error = reply.message.error if reply.message is not None else reply.body
    return reply.status == 404 or (reply.status == 400 and b"session" in (error or b"").lower())


def _result(reply: Reply) -> bytes:
    wrong = not_evidence(reply)
    if wrong is not None:
        raise wrong
    if reply.message is None:
        raise lost(f"status {reply.status} without a response")
    if reply.message.result is not None:
        return reply.message.result
    code = _code(reply.message.error or b"")
    if code == names.METHOD_NOT_FOUND:
        return _NO_TOOLS  # a server of prompts or resources only
    raise lost(f"the list was refused: error {code}, status {reply.status}")


def _code(error: bytes) -> int | None:
    try:
        found = orjson.loads(error)
        return int(found["code"])
    except (ValueError, KeyError, TypeError):
        return None
