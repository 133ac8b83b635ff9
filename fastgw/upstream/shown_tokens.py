"""The tokens that one worker shows to servers: those it was given last, for as long as they are good.

good       a call shows it
old        a call shows it, and the controller is asked for another beside that
expired    the call waits for the controller; where that has none, it cannot go there
refused    by a 401: nothing has run, so the call is asked again, once, if there is another
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from fastgw.credentials.token_endpoint import ServerToken
from fastgw.errors import Fault, Kind
from fastgw.protocol.call import SubjectToken
from fastgw.snapshot.model import ServerCredential
from fastgw.upstream.call_context import Attempt, Spawn
from fastgw.upstream.controller import ControllerPort

MOST_KEPT = 20_000
ASK_AGAIN = 1.0
"""Seconds between two questions for a token in place of an old one."""

Key = tuple[str, str, bytes]
"""Server, `ServerCredential.grant`, digest of the subject's token."""


class ShownTokens:
    """Of one worker; times are Unix seconds."""

    def __init__(self, controller: ControllerPort, spawn: Spawn) -> None:
        self._controller = controller
        self._spawn = spawn
        self._known: dict[Key, ServerToken] = {}
        self._asked: dict[Key, tuple[float, asyncio.Task[ServerToken | Fault]]] = {}

    async def show(self, attempt: Attempt) -> None:
        """Have an attempt show its server the credential for its agent, and what is handed on of the agent's headers.

        Raises:
            Fault: NO_SERVER, not `sent`, where there is no credential for this agent, or no token; TIMEOUT.
        """
        credential, shown = attempt.chosen()
        token = b""
        if credential is not None and credential.grant:
            token = (await self._token(attempt, credential, shown.subject)).line
            attempt.renew = self.renew
        attempt.show(credential, token, shown.lines)

    async def renew(self, attempt: Attempt) -> bool:
        """Whether an attempt, whose token its server has refused, shows another from now on.

        Raises:
            Fault: NO_SERVER, not `sent`, where there is none.
        """
        credential, shown = attempt.chosen()
        assert credential is not None
        attempt.renew = None
        key = _key(attempt, credential, shown.subject)
        known = self._known.get(key)
        if known is None or known.line == attempt.token:  # not if a call beside this one has brought another
            known = await _given(attempt, self._fetch(key, shown.subject, attempt.token))
        if known.line == attempt.token:
            return False
        attempt.show(credential, known.line, shown.lines)
        return True

    async def _token(self, attempt: Attempt, credential: ServerCredential, subject: SubjectToken | None) -> ServerToken:
        if credential.exchanges and subject is None:
            detail = f"{attempt.backend.name} takes a token of the user, and the agent has brought none to exchange"
            raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "credential"})
        key, now = _key(attempt, credential, subject), time.time()
        known = self._known.get(key)
        if known is not None and now < known.refresh_at:
            return known
        if known is None or now >= known.expires:
            return await _given(attempt, asyncio.shield(self._ask(key, subject, now)))
        if key not in self._asked or now - self._asked[key][0] >= ASK_AGAIN:
            self._ask(key, subject, now)
        return known

    def _ask(self, key: Key, subject: SubjectToken | None, now: float) -> asyncio.Task[ServerToken | Fault]:
        """Ask the controller, once for all who want this one."""
        asked = self._asked.get(key)
        if asked is None or asked[1].done():
            asked = self._asked[key] = now, self._spawn(self._fetch(key, subject), "ask for a token")
        return asked[1]

    async def _fetch(self, key: Key, subject: SubjectToken | None, refused: bytes = b"") -> ServerToken | Fault:
        """A failure is the outcome, not an exception: it is for those who wait to make something of it."""
        try:
            found = await self._controller.server_token(*key[:2], subject, refused)
        except Fault as fault:
            return fault
        self._keep(key, found)
        return found

    def _keep(self, key: Key, found: ServerToken) -> None:
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
            self._asked.clear()
        self._known[key] = found


def _key(attempt: Attempt, credential: ServerCredential, subject: SubjectToken | None) -> Key:
    return attempt.backend.name, credential.grant, b"" if subject is None else subject.digest


async def _given(attempt: Attempt, asked: Awaitable[ServerToken | Fault]) -> ServerToken:
    found = await attempt.in_time(asked)
    if not isinstance(found, Fault):
        return found
    words, retry = found.detail or found.message, found.retry_after or 1  # each who waits gets a fault of its own
    raise Fault(Kind.NO_SERVER, detail=words, data={"reason": "credential"}, retry_after=retry)
