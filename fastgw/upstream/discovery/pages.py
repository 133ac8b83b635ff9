"""One page of one of a server's lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from fastgw.errors import Fault, Kind
from fastgw.ports import UpstreamSession
from fastgw.protocol import names
from fastgw.snapshot.model import Backend
from fastgw.upstream import legacy, modern
from fastgw.upstream.classify import about_session
from fastgw.upstream.failures import lost
from fastgw.upstream.ids import new_id
from fastgw.upstream.rpc import RpcClient, RpcReply, is_alive, not_evidence, told
from fastgw.upstream.sessions import UpstreamSessions, own_identity

Pages = Callable[[str, bytes | None], Awaitable[bytes | None]]
"""Asks for the page of this list method and cursor (JSON text, None for the first); gives `result` as JSON text, or
None where the server says that it has no such method."""


class NoSuchList(Fault):
    """A 404 without a word of JSON-RPC: there is no such method, or for a while nothing at all."""


def modern_pages(client: RpcClient, ours: bytes) -> Pages:
    """Pages of a modern server."""

    async def page(method: str, cursor: bytes | None) -> bytes | None:
        upstream_id = new_id()
        params = {} if cursor is None else {"cursor": cursor}
        headers, body = modern.question(method, params, upstream_id, ours)
        return _result(await client.ask(client.backend.headers + headers, body, upstream_id), client.backend)

    return page


def legacy_pages(client: RpcClient, sessions: UpstreamSessions, instance: str) -> Pages:
    """Pages of a legacy server, in the gateway's own session there; a lost one is opened anew once per page."""
    identity = own_identity(client.backend)

    async def ask(method: str, cursor: bytes | None, session: UpstreamSession) -> RpcReply:
        upstream_id = new_id()
        headers = legacy.headers(client.backend, session)
        return await client.ask(headers, legacy.listing(method, cursor, upstream_id), upstream_id, session)

    async def page(method: str, cursor: bytes | None) -> bytes | None:
        session = await sessions.open(instance, identity)
        reply = await ask(method, cursor, session)
        # A list may be asked for twice, so whatever makes one doubt is reason enough to ask the session itself.
        doubted = about_session(reply.status, reply.message, reply.body) is not None
        if doubted and not await is_alive(client, session):
            reply = await ask(method, cursor, await sessions.open(instance, identity, session))
        return _result(reply, client.backend)

    return page


def _result(reply: RpcReply, backend: Backend) -> bytes | None:
    wrong = not_evidence(reply, backend)
    if wrong is not None:
        raise wrong
    if reply.message is None:
        detail = f"status {reply.status} without a response"
        raise NoSuchList(Kind.LOST, detail=detail, sent=True) if reply.status == 404 else lost(detail)
    if reply.message.result is not None:
        return reply.message.result
    code = _code(reply)
    if code == names.METHOD_NOT_FOUND:
        return None
    raise lost(f"the list was refused: error {code}, status {reply.status}{told(reply, backend)}")


def _code(reply: RpcReply) -> int | None:
    error = reply.message.error if reply.message is not None else None
    try:
        return int(orjson.loads(error or b"")["code"])
    except (ValueError, KeyError, TypeError):
        return None
