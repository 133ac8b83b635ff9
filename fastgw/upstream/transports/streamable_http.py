"""The Streamable HTTP transport (MCP 2025-03-26 to 2026-07-28): one POST for each call, answered by JSON or events."""

from __future__ import annotations

import asyncio

from fastgw.errors import Fault, Kind
from fastgw.protocol.names import Era
from fastgw.protocol.quick import QuickResult, read_result
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import Attempt, CallContext, Spawn
from fastgw.upstream.classify import answers, classify, id_numbers
from fastgw.upstream.reply import UpstreamReply, withdraw
from fastgw.upstream.transports.http import HttpPool

_OK, _UNAUTHORIZED = 200, 401
_MOMENT = 0.002  # seconds of an attempt that do not count against its deadlines


class StreamableHttp:
    """How calls get to one address of a server, and the server's messages back.

    It gives the server one attempt and comes back as soon as it answers; what the answer means stands in
    `UpstreamReply.classified`, and anything but RELAY is for the caller to mend. It sends nothing twice by itself but
    what a 401 has turned away unread: once, with another token. `ours` is our `clientInfo` as JSON text, for agents
    that gave none; an event of a stream has `limit` bytes at most.
    """

    def __init__(self, http: HttpPool, spawn: Spawn, ours: bytes, limit: int) -> None:
        self._http = http
        self._spawn = spawn
        self._ours = ours
        self._limit = limit
        self._numbers = id_numbers()
        self._loop = asyncio.get_running_loop()

    async def send(self, attempt: Attempt) -> UpstreamReply | QuickResult:
        """Give the call to the server and wait until it begins to answer; cancelled meanwhile, the call is withdrawn.
        Raises Fault: `sent` says whether the server may have run it; BAD_PARAMS for arguments that cannot be sent.
        """
        call, target, credential = attempt.call, attempt.target, attempt.credential
        upstream_id, era = b"%d" % next(self._numbers), attempt.era
        if call.trace is not None:
            credential += attempt.carry(call.trace)
        if era is Era.MODERN:
            headers, body = modern.request(call, target, upstream_id, credential, self._ours)
        else:
            headers, body = legacy.request(call, target, upstream_id, credential, attempt.session)
        try:
            is_new = self._loop.time() - attempt.begun < _MOMENT
            deadlines = attempt.deadlines if is_new else attempt.remaining_deadlines()
            answer = await self._http.request("POST", headers, body, deadlines)
        except BaseException as stopped:
            is_late = isinstance(stopped, Fault) and stopped.kind is Kind.TIMEOUT
            # The server may be at work on a call whose answer nobody will read.
            if era is Era.LEGACY and (is_late or isinstance(stopped, asyncio.CancelledError)):
                self._spawn(withdraw(self._context(attempt, upstream_id), "no longer wanted"), "cancel a call")
            raise
        if answer.status == _OK and answer.body is not None:
            quick = read_result(answer.body, upstream_id)
            if quick is not None:
                return quick
        if answer.status == _UNAUTHORIZED and attempt.renew is not None:
            is_answered = answer.body is not None and answers(answer.body, upstream_id)
            if await attempt.renew(attempt) and not is_answered:
                answer.close()
                return await self.send(attempt)
        return UpstreamReply(
            self._context(attempt, upstream_id), answer, classify(answer, era, upstream_id, attempt.call.capabilities)
        )

    def _context(self, attempt: Attempt, upstream_id: bytes) -> CallContext:
        return CallContext(
            upstream_id, attempt.era, self._http, attempt.credential, attempt.session,
            attempt.deadlines, attempt.begun, self._spawn, self._limit,
        )  # fmt: skip

    async def close(self) -> None:
        """Close every connection; what is under way is LOST."""
        await self._http.close()
