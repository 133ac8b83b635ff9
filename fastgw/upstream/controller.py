"""What the path of a call asks of the controller, and the sessions it gets from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fastgw.credentials.token_endpoint import ServerToken
    from fastgw.policy.match import Principal
    from fastgw.protocol.call import SubjectToken
    from fastgw.upstream.breaker import BreakerNews


@dataclass(frozen=True, slots=True)
class UpstreamSession:
    """A session that a server gave the gateway.

    Args:
        id: value of `Mcp-Session-Id`; empty where the server issues none.
        version: the revision the server settled on in `initialize`.
        opened: CLOCK_MONOTONIC seconds when it was opened.
    """

    id: str
    version: str
    opened: float = 0.0


NO_SESSION = UpstreamSession("", "")


class ControllerPort(Protocol):
    """What a worker asks of the controller. Every wait is bounded; without one the worker goes on with what it knows.

    `instance` is a key, `Address.key`; `identity` whose session, `*` where they are shared. Where the controller is
    away, or cannot do it, what waits raises NO_SERVER, TIMEOUT or FULL, never `sent`.
    """

    async def open_session(
        self, instance: str, identity: str, dead: UpstreamSession | None = None, headers: bytes | None = None
    ) -> UpstreamSession:
        """The session of this identity, opened if there is none, or only the dead one: once, whoever asks first.
        `headers` are the lines by which it is opened; None: the gateway's own.
        """

    async def keep_session(
        self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession
    ) -> UpstreamSession:
        """Go back to a session that was called dead and is not; the one opened `instead` of it is ended."""

    async def suspect_session(self, key: tuple[str, str], session: str) -> None:
        """A server may have lost this session: every worker knows when this returns, and asks before the next call."""

    def touch(self, instance: str, identity: str) -> None:
        """Say that the session is in use (batched; ends idle ones only by what was said)."""

    async def server_token(
        self, server: str, grant: str, subject: SubjectToken | None = None, refused: bytes = b""
    ) -> ServerToken:
        """The token to show a server, by `ServerCredential.grant`; see `ServerTokens.token`."""

    async def doubt_era(self, instance: str, believed: str) -> str:
        """Probe an instance again because it answered unlike `believed`; what it speaks, as in `Address.era`."""

    async def refresh(self, server: str, tool: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
        """Fetch a server's catalogue anew; the `ParamHeader`s that the tool wants now, none for one that is gone."""

    async def end_session(self, session: str, seconds: float) -> None:
        """An agent's session has ended, with those opened for it: every worker knows on return, for `seconds`."""

    async def set_level(self, session: str, level: str) -> None:
        """An agent's session wants log messages from `level` on: every worker knows when this returns."""

    async def look_for_key(self, issuer: str, kid: str | None) -> None:
        """An access token names a key that is not known here: the issuer's are, as far as it has them, on return."""

    async def introspect(self, issuer: str, token: bytes) -> bytes:
        """What an issuer says of an opaque token (RFC 7662, section 2.2; a JSON object), with `known_until`, in Unix
        seconds, until when that counts.
        """

    async def meet(self, path: str, principal: Principal) -> None:
        """One has come to this endpoint who is known by claims alone, the first of its class: the class is in the
        newest snapshot, and every worker has that, on return.
        """

    def cancel(self, session: str, request: bytes) -> None:
        """Cancel the call with this JSON-RPC id (its JSON text) of this agent's session, whichever worker has it."""

    def breaker(self, instance: str, news: BreakerNews) -> None:
        """Tell every other worker what became of an instance's breaker."""

    def alert(self, kind: str, text: str, details: dict[str, Any]) -> None:
        """Warn operators, where the configuration says; `details` are fit for JSON."""
