"""Two plain ASGI applications for Granian, to compare with: one answers by itself, one forwards by `ClientSession`.

Knows: the least that gives a right answer. Refuses to know: policies, sessions, errors; neither is a gateway.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

HOP = frozenset({b"host", b"content-length", b"connection", b"authorization", b"transfer-encoding"})
JSON = (b"content-type", b"application/json")
_session: list[aiohttp.ClientSession] = []


async def answer(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The reply of the echo tool, cut out of the request without reading it as JSON."""
    body = await _body(receive)
    id = body.split(b'"id":', 1)[1].split(b",", 1)[0]
    nonce = body.split(b'"nonce":"', 1)[1].split(b'"', 1)[0]
    text = b'"content":[{"type":"text","text":"%b"}],"isError":false,"resultType":"complete"' % nonce
    await _send(send, 200, b'{"jsonrpc":"2.0","id":%b,"result":{%b}}' % (id, text))


async def forward(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """What one would write first: the body as it came to BENCH_UPSTREAM, the answer as it came back."""
    body = await _body(receive)
    if not _session:
        _session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    headers = {name.decode(): value.decode() for name, value in scope["headers"] if name not in HOP}
    async with _session[0].post(os.environ["BENCH_UPSTREAM"], data=body, headers=headers) as reply:
        await _send(send, reply.status, await reply.read())


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        piece: bytes = message.get("body", b"")
        body += piece
        if not message.get("more_body"):
            return body


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
