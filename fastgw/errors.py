"""What went wrong, and how each kind of asker is told. Foreign exceptions become a `Fault` where they enter."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any

CREDENTIAL_WANTED = "A valid credential is needed: Authorization: Bearer <key>"


class Kind(Enum):
    """Every way a request can fail, named by what the asker should understand, and how it is told.

    Source of every row: docs/errors.md.

    Args:
        code: of JSON-RPC.
        modern, legacy, rest: HTTP status for agents of each era and of plain HTTP; the last is also the `statusCode` of
            usage events.
        outcome: in usage events.
        message: plain words.
    """

    def __new__(cls, *_: int | str) -> Kind:
        """One row; numbered, for two equal rows would be one kind."""
        kind = object.__new__(cls)
        kind._value_ = len(cls.__members__)
        return kind

    def __init__(self, code: int, modern: int, legacy: int, rest: int, outcome: str, message: str) -> None:  # noqa: PLR0913
        self.code = code
        self.modern, self.legacy, self.rest = modern, legacy, rest
        self.outcome = outcome
        self.message = message

    UNAUTHENTICATED = -32600, 401, 401, 401, "denied", CREDENTIAL_WANTED
    WRONG_CREDENTIAL = -32600, 401, 401, 401, "denied", CREDENTIAL_WANTED  # noqa: PIE796 - they are numbered
    INSUFFICIENT_SCOPE = -32600, 403, 403, 403, "denied", "The access token lacks a scope."
    SESSION_UNKNOWN = -32600, 404, 404, 404, "invalid", "Session not found; initialize again."
    BAD_ORIGIN = -32600, 403, 403, 403, "invalid", "This Origin is not allowed."
    BAD_HOST = -32600, 421, 421, 421, "invalid", "This Host is not served here."
    NO_ENDPOINT = -32600, 404, 404, 404, "invalid", "There is no endpoint at this path."
    BAD_VERB = -32600, 405, 405, 405, "invalid", "This HTTP method is not allowed here."
    NOT_ACCEPTABLE = -32600, 406, 406, 406, "invalid", "Accept must list application/json and text/event-stream."
    BAD_MEDIA_TYPE = -32600, 415, 415, 415, "invalid", "Content-Type must be application/json."
    BODY_TOO_SLOW = -32600, 408, 408, 408, "invalid", "The body did not arrive in time."
    BODY_TOO_LARGE = -32600, 413, 413, 413, "invalid", "The body is too large."
    NOT_JSON = -32700, 400, 400, 400, "invalid", "Parse error"
    NOT_ONE_MESSAGE = -32600, 400, 400, 400, "invalid", "The body must be one JSON-RPC message."
    INVALID_REQUEST = -32600, 400, 200, 400, "invalid", "Invalid request"
    HEADER_MISMATCH = -32020, 400, 200, 400, "invalid", "A header does not match the body."
    MISSING_CAPABILITY = -32021, 400, 200, 400, "invalid", "A client capability is missing."
    UNSUPPORTED_VERSION = -32022, 400, 200, 400, "invalid", "Unsupported protocol version"
    UNKNOWN_METHOD = -32601, 404, 200, 404, "invalid", "Method not found"
    UNKNOWN_NAME = -32602, 400, 200, 404, "unknown", "Unknown tool"
    UNKNOWN_RESOURCE = -32602, 400, 200, 404, "unknown", "Resource not found"
    BAD_PARAMS = -32602, 400, 200, 400, "invalid", "Invalid params"
    INTERNAL = -32603, 200, 200, 500, "server_error", "Internal error"
    NO_SERVER = -31001, 503, 200, 503, "unavailable", "All MCP backends unavailable"
    TIMEOUT = -31002, 200, 200, 504, "timeout", "No answer in time"
    LOST = -31003, 200, 200, 502, "server_error", "The call was sent, but its answer was lost"
    FULL = -31004, 503, 200, 503, "overloaded", "The gateway is full or stopping"
    RATE_LIMITED = -31029, 429, 200, 429, "rate_limited", "Too many calls"
    OVER_QUOTA = -31030, 429, 200, 429, "over_quota", "A quota is used up"
    ARGUMENTS_DENIED = -31040, 200, 200, 403, "denied", "These arguments are not allowed for this agent"
    ABANDONED = -32600, 400, 400, 499, "cancelled", "The body broke off."


ERROR_OUTCOMES = ("tool_error", "server_error", "unavailable", "timeout", "overloaded")
"""Outcomes that are errors: the agent was in order and got no good answer. Refused calls, calls that were wrong
(invalid, unknown) or given up by the agent (cancelled) are none.
"""
REFUSED_OUTCOMES = ("denied", "rate_limited", "over_quota")


@dataclass(eq=False, repr=False)
class Fault(Exception):
    """One failure on its way to whoever asked.

    Args:
        message: plain words for the agent, in place of the kind's; names no server, address or other agent.
        detail: what the operator reads in the log; never told to an agent.
        data: further members of the JSON-RPC error's `data`, already fit for JSON.
        sent: whether any byte of the call had left for a server (so it may have run).
        failure: how the server failed, a word of docs/metrics.md; empty where it did not.
        retry_after: seconds after which a repeat makes sense, None where waiting does not help.
        headers: HTTP headers that the answer must carry, for example `WWW-Authenticate`.
    """

    kind: Kind
    message: str = ""
    _: KW_ONLY
    detail: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    sent: bool = False
    failure: str = ""
    repeatable: bool = False
    retry_after: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __post_init__(self) -> None:
        self.message = self.message or self.kind.message

    @property
    def may_have_run(self) -> bool:
        """`data.mayHaveRun`: true where a server may have carried the call out."""
        return self.sent and self.kind in (Kind.TIMEOUT, Kind.LOST, Kind.NO_SERVER, Kind.INTERNAL)

    def __str__(self) -> str:
        return f"{self.kind.name.lower()}: {self.detail or self.message}"
