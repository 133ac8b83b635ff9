"""ASGI applications to compare with, none of them a gateway: one answers by itself, one forwards by `ClientSession`,
one is the sketch of a gateway; and the server that carries fastgw, for those that are to have the same.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from bench.sketch import Sketch
from fastgw.catalog.route import Deadlines
from fastgw.upstream.transports.http import HttpPool, TransportSettings

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


async def serve(application: Callable[..., Awaitable[None]], port: int) -> None:
    """Serve as the gateway's worker does: what is compared is the application, not the server."""
    gc.set_threshold(50_000, 20, 50)
    server = Server(
        application,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        websockets=False,
        log_enabled=False,
    )
    await server.serve()


async def _sketched(upstream: str, key: str, tool: str, port: int) -> None:
    pool, deadlines = HttpPool(TransportSettings(upstream, 1 << 20)), Deadlines()

    async def wire(head: bytes, body: bytes) -> bytes:
        return (await pool.request("POST", head, body, deadlines)).body or b""

    await serve(Sketch(key, tool, {b"127.0.0.1:%d" % port}, wire), port)


def main(argv: list[str]) -> int:
    """Serve the sketch until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench sketch")
    for name in ("--upstream", "--key", "--tool"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)
    uvloop.run(_sketched(args.upstream, args.key, args.tool, args.port))
    return 0
