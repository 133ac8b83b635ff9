"""The tokens that servers are shown, for all workers: fetched once whoever asks, ahead of their expiry, kept in memory.

none       --asked for-->                  being fetched; whoever asks waits for that
good       --asked for-->                  good
old        --asked for-->                  good still, and another is being fetched
good, old  --a server has refused it-->    none, unless it was fetched only just now
           --the endpoint fails-->         stays what it is; not asked again for a while, which grows
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from math import ceil
from random import uniform
from typing import Any

from fastgw.config.schema.servers import OAuthSettings
from fastgw.credentials.token_endpoint import ServerToken, TokenUnavailable, fetch_token
from fastgw.errors import Fault, Kind
from fastgw.protocol.call import SubjectToken

log = logging.getLogger("fastgw")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds after a failure in which an endpoint is not asked again."""
SETTLED = 2.0
"""Seconds after which a token may be called refused: one that was fetched just before is no better the next time."""
MOST_KEPT = 20_000
"""Tokens; of those of users the ones asked for longest ago go first."""

Grant = tuple[str, str]
"""Server, and `ServerCredential.grant`."""
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


@dataclass(slots=True, eq=False)
class _TokenState:
    token: ServerToken | None = None
    fetched_at: float = 0.0
    flight: asyncio.Task[None] | None = None
    failures: int = 0
    error: str = ""
    retry_at: float = 0.0


class ServerTokens:
    """Of the controller. Times are Unix seconds."""

    def __init__(self, spawn: Spawn, count: Callable[..., object], clock: Callable[[], float] = time.time) -> None:
        self._spawn, self._count, self._clock = spawn, count, clock
        self._wanted: Mapping[Grant, OAuthSettings] = {}
        self._states: dict[tuple[str, str, bytes], _TokenState] = {}

    def watch(self, wanted: Mapping[Grant, OAuthSettings]) -> None:
        """Get tokens by these from now on. Those of accounts that stay are kept; where one has another secret or key
        now, its endpoint is asked at once.
        """
        before, self._wanted = self._wanted, wanted
        self._states = {key: state for key, state in self._states.items() if key[:2] in wanted}
        for key, state in self._states.items():
            if before.get(key[:2]) != wanted[key[:2]]:
                state.failures, state.retry_at = 0, 0.0

    async def token(
        self, server: str, grant: str, subject: SubjectToken | None = None, refused: bytes = b""
    ) -> ServerToken:
        """The token to show a server now, perhaps one that is already being replaced.

        Args:
            refused: header lines, the last of which shows a token that the server has refused.

        Raises:
            Fault: NO_SERVER, not `sent`, where there is none and none can be had.
        """
        state = self._state(server, grant, subject)
        now, token = self._clock(), state.token
        if token is not None and refused.endswith(token.line) and refused and now - state.fetched_at >= SETTLED:
            token = state.token = None
        if token is not None and now < token.refresh_at:
            return token
        if state.flight is None and now >= state.retry_at:
            work = self._fetch((server, grant), state, subject)
            state.flight = self._spawn(work, f"token for {server}")
        if token is not None and now < token.expires:
            return token
        if state.flight is not None:
            await asyncio.shield(state.flight)
        if state.token is None or self._clock() >= state.token.expires:
            wait = max(1, ceil(state.retry_at - self._clock()))
            detail = f"there is no token for {server}: {state.error}"
            raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "credential"}, retry_after=wait)
        return state.token

    def _state(self, server: str, grant: str, subject: SubjectToken | None) -> _TokenState:
        if (server, grant) not in self._wanted:
            detail = f"a token for {server} is not configured any more"
            raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "credential"}, retry_after=1)
        key = server, grant, b"" if subject is None else subject.digest
        state = self._states.pop(key, None) or _TokenState()
        self._states[key] = state  # asked for last
        if len(self._states) > MOST_KEPT:
            del self._states[next(one for one in self._states if one[2])]
        return state

    async def _fetch(self, grant: Grant, state: _TokenState, subject: SubjectToken | None) -> None:
        server = grant[0]
        try:
            state.token = await fetch_token(self._wanted[grant], subject)
        except Exception as wrong:
            state.error = str(wrong) if isinstance(wrong, TokenUnavailable) else type(wrong).__name__
            if not isinstance(wrong, TokenUnavailable):
                log.exception("a token for %s", server)
            if not state.failures:
                log.warning("there is no new token for %s: %s", server, state.error)
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(state.failures, 10)) * uniform(0.75, 1.0)
            state.failures, state.retry_at = state.failures + 1, self._clock() + pause
            self._count("fastgw_server_tokens_total", server, "failed")
        else:
            if state.failures and subject is None:
                log.info("there are tokens for %s again", server)
            state.failures, state.error, state.fetched_at = 0, "", self._clock()
            self._count("fastgw_server_tokens_total", server, "fetched")
        finally:
            state.flight = None
