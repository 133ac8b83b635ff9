"""The Streamable HTTP transport (MCP 2025-03-26 to 2026-07-28): one POST for each call, answered by JSON or events."""

from __future__ import annotations

import asyncio

from fastgw.errors import Fault, Kind
from fastgw.protocol.names import Era
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import Attempt, CallContext, Spawn
from fastgw.upstream.classify import classify
from fastgw.upstream.ids import new_id
from fastgw.upstream.reply import UpstreamReply, withdraw
from fastgw.upstream.transports.http_client import HttpClient


class StreamableHttp:
    """A `port.Transport`.

    Args:
        http: the connections.
        spawn: `BackgroundTasks.spawn`.
        ours: our `clientInfo` as JSON text, for agents that gave none.
        limit: most bytes of one event of a stream.
    """

    def __init__(self, http: HttpClient, spawn: Spawn, ours: bytes, limit: int) -> None:
        self._http = http
        self._spawn = spawn
        self._ours = ours
        self._limit = limit

    async def send(self, attempt: Attempt) -> UpstreamReply:
        upstream_id, era, session = new_id(), attempt.era, attempt.session
        if era is Era.MODERN:
            headers, body = modern.request(attempt.call, attempt.target, upstream_id, attempt.credential, self._ours)
        else:
            headers, body = legacy.request(attempt.call, attempt.target, upstream_id, attempt.credential, session)
        context = CallContext(
            upstream_id, era, self._http, attempt.credential, session,
            attempt.deadlines, attempt.begun, self._spawn, self._limit,
        )  # fmt: skip
        try:
            answer = await self._http.request("POST", headers, body, context.left())
        except BaseException as stopped:
            if era is Era.LEGACY and _may_still_run(stopped):
                self._spawn(withdraw(context, "no longer wanted"), "cancel a call")
            raise
        return UpstreamReply(context, answer, classify(answer, era, upstream_id, attempt.call.capabilities))

    async def close(self) -> None:
        await self._http.close()


def _may_still_run(stopped: BaseException) -> bool:
    """Whether the server may be at work on a call whose answer nobody will read."""
    if isinstance(stopped, Fault):
        return stopped.kind is Kind.TIMEOUT
    return isinstance(stopped, asyncio.CancelledError)
