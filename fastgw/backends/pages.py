"""One page of one of a server's lists.

Knows: how a page is asked for, in either era, and what counts as one. Refuses to know: what is in it, and when to ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from fastgw.backends import lower_legacy, lower_modern
from fastgw.backends.directory import Directory, own_identity
from fastgw.backends.ids import new_id
from fastgw.backends.inquiry import Asker, Reply, is_alive, not_evidence, told
from fastgw.backends.outcome import lost
from fastgw.backends.verdict import about_session
from fastgw.config.snapshot import Backend
from fastgw.faults import Fault, Kind
from fastgw.mcp import names
from fastgw.ports import UpstreamSession

Pages = Callable[[str, bytes | None], Awaitable[bytes | None]]
"""Asks for the page of this list method and cursor (JSON text, None for the first); gives `result` as JSON text, or
None where the server says that it has no such method."""


class NotThere(Fault):
    """A 404 without a word of JSON-RPC: there is no such method, or for a while nothing at all."""


def modern_pages(asker: Asker, ours: bytes) -> Pages:
    """Pages of a modern server."""

    async def page(method: str, cursor: bytes | None) -> bytes | None:
        upstream_id = new_id()
        params = {} if cursor is None else {"cursor": cursor}
        headers, body = lower_modern.question(method, params, upstream_id, ours)
        return _result(await asker.ask(asker.backend.headers + headers, body, upstream_id), asker.backend)

    return page


def legacy_pages(asker: Asker, directory: Directory, instance: str) -> Pages:
    """Pages of a legacy server, in the gateway's own session there; a lost one is opened anew once per page."""
    identity = own_identity(asker.backend)

    async def ask(method: str, cursor: bytes | None, session: UpstreamSession) -> Reply:
        upstream_id = new_id()
        headers = lower_legacy.headers(asker.backend, session)
        return await asker.ask(headers, lower_legacy.listing(method, cursor, upstream_id), upstream_id, session)

    async def page(method: str, cursor: bytes | None) -> bytes | None:
        session = await directory.open(instance, identity)
        reply = await ask(method, cursor, session)
        # A list may be asked for twice, so whatever makes one doubt is reason enough to ask the session itself.
        doubted = about_session(reply.status, reply.message, reply.body) is not None
        if doubted and not await is_alive(asker, session):
            reply = await ask(method, cursor, await directory.open(instance, identity, session))
        return _result(reply, asker.backend)

    return page


def _result(reply: Reply, backend: Backend) -> bytes | None:
    wrong = not_evidence(reply, backend)
    if wrong is not None:
        raise wrong
    if reply.message is None:
        detail = f"status {reply.status} without a response"
        raise NotThere(Kind.LOST, detail=detail, sent=True) if reply.status == 404 else lost(detail)
    if reply.message.result is not None:
        return reply.message.result
    code = _code(reply)
    if code == names.METHOD_NOT_FOUND:
        return None
    raise lost(f"the list was refused: error {code}, status {reply.status}{told(reply, backend)}")


def _code(reply: Reply) -> int | None:
    error = reply.message.error if reply.message is not None else None
    try:
        return int(orjson.loads(error or b"")["code"])
    except (ValueError, KeyError, TypeError):
        return None
