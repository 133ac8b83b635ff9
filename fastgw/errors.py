"""What went wrong, and how each kind of asker is told.

Foreign exceptions become a `Fault` where they enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """Every way a request can fail, named by what the asker should understand."""

    UNAUTHENTICATED = "unauthenticated"
    WRONG_CREDENTIAL = "wrong_credential"
    SESSION_UNKNOWN = "session_unknown"
    BAD_ORIGIN = "bad_origin"
    BAD_HOST = "bad_host"
    NO_ENDPOINT = "no_endpoint"
    BAD_VERB = "bad_verb"
    NOT_ACCEPTABLE = "not_acceptable"
    BAD_MEDIA_TYPE = "bad_media_type"
    BODY_TOO_SLOW = "body_too_slow"
    BODY_TOO_LARGE = "body_too_large"
    NOT_JSON = "not_json"
    NOT_ONE_MESSAGE = "not_one_message"
    INVALID_REQUEST = "invalid_request"
    HEADER_MISMATCH = "header_mismatch"
    MISSING_CAPABILITY = "missing_capability"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_METHOD = "unknown_method"
    UNKNOWN_NAME = "unknown_name"
    UNKNOWN_RESOURCE = "unknown_resource"
    BAD_PARAMS = "bad_params"
    INTERNAL = "internal"
    NO_SERVER = "no_server"
    TIMEOUT = "timeout"
    LOST = "lost"
    FULL = "full"
    RATE_LIMITED = "rate_limited"
    ARGUMENTS_DENIED = "arguments_denied"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class FaultRow:
    """How a kind is told: JSON-RPC code, HTTP status per asker, outcome in the usage event, plain words.

    `legacy` and `modern` name the agent's protocol era; `rest` is also the `statusCode` of usage events.
    Source of every row: docs/errors.md.
    """

    code: int
    modern: int
    legacy: int
    rest: int
    outcome: str
    message: str


CREDENTIAL_WANTED = "A valid credential is needed: Authorization: Bearer <key>"

FAULTS: dict[Kind, FaultRow] = {
    Kind.UNAUTHENTICATED: FaultRow(-32600, 401, 401, 401, "denied", CREDENTIAL_WANTED),
    Kind.WRONG_CREDENTIAL: FaultRow(-32600, 401, 401, 401, "denied", CREDENTIAL_WANTED),
    Kind.SESSION_UNKNOWN: FaultRow(-32600, 404, 404, 404, "invalid", "Session not found; initialize again."),
    Kind.BAD_ORIGIN: FaultRow(-32600, 403, 403, 403, "invalid", "This Origin is not allowed."),
    Kind.BAD_HOST: FaultRow(-32600, 421, 421, 421, "invalid", "This Host is not served here."),
    Kind.NO_ENDPOINT: FaultRow(-32600, 404, 404, 404, "invalid", "There is no endpoint at this path."),
    Kind.BAD_VERB: FaultRow(-32600, 405, 405, 405, "invalid", "This HTTP method is not allowed here."),
    Kind.NOT_ACCEPTABLE: FaultRow(
        -32600, 406, 406, 406, "invalid", "Accept must list application/json and text/event-stream."
    ),
    Kind.BAD_MEDIA_TYPE: FaultRow(-32600, 415, 415, 415, "invalid", "Content-Type must be application/json."),
    Kind.BODY_TOO_SLOW: FaultRow(-32600, 408, 408, 408, "invalid", "The body did not arrive in time."),
    Kind.BODY_TOO_LARGE: FaultRow(-32600, 413, 413, 413, "invalid", "The body is too large."),
    Kind.NOT_JSON: FaultRow(-32700, 400, 400, 400, "invalid", "Parse error"),
    Kind.NOT_ONE_MESSAGE: FaultRow(-32600, 400, 400, 400, "invalid", "The body must be one JSON-RPC message."),
    Kind.INVALID_REQUEST: FaultRow(-32600, 400, 200, 400, "invalid", "Invalid request"),
    Kind.HEADER_MISMATCH: FaultRow(-32020, 400, 200, 400, "invalid", "A header does not match the body."),
    Kind.MISSING_CAPABILITY: FaultRow(-32021, 400, 200, 400, "invalid", "A client capability is missing."),
    Kind.UNSUPPORTED_VERSION: FaultRow(-32022, 400, 200, 400, "invalid", "Unsupported protocol version"),
    Kind.UNKNOWN_METHOD: FaultRow(-32601, 404, 200, 404, "invalid", "Method not found"),
    Kind.UNKNOWN_NAME: FaultRow(-32602, 400, 200, 404, "unknown", "Unknown tool"),
    Kind.UNKNOWN_RESOURCE: FaultRow(-32602, 400, 200, 404, "unknown", "Resource not found"),
    Kind.BAD_PARAMS: FaultRow(-32602, 400, 200, 400, "invalid", "Invalid params"),
    Kind.INTERNAL: FaultRow(-32603, 200, 200, 500, "server_error", "Internal error"),
    Kind.NO_SERVER: FaultRow(-31001, 503, 200, 503, "unavailable", "All MCP backends unavailable"),
    Kind.TIMEOUT: FaultRow(-31002, 200, 200, 504, "timeout", "No answer in time"),
    Kind.LOST: FaultRow(-31003, 200, 200, 502, "server_error", "The call was sent, but its answer was lost"),
    Kind.FULL: FaultRow(-31004, 503, 200, 503, "overloaded", "The gateway is full or stopping"),
    Kind.RATE_LIMITED: FaultRow(-31029, 429, 200, 429, "rate_limited", "Too many calls"),
    Kind.ARGUMENTS_DENIED: FaultRow(-31040, 200, 200, 403, "denied", "These arguments are not allowed for this agent"),
    Kind.ABANDONED: FaultRow(-32600, 400, 400, 499, "cancelled", "The body broke off."),
}


class Fault(Exception):
    """One failure on its way to whoever asked.

    Args:
        kind: what happened; picks the row of `FAULTS`.
        message: plain words for the agent, in place of the row's; names no server, address or other agent.
        detail: what the operator reads in the log; never told to an agent.
        data: further members of the JSON-RPC error's `data`, already fit for JSON.
        sent: whether any byte of the call had left for a server (so it may have run).
        repeatable: whether the very same call may be sent again without harm.
        retry_after: seconds after which a repeat makes sense, None where waiting does not help.
        headers: HTTP headers that the answer must carry, for example `WWW-Authenticate`.
    """

    __slots__ = ("kind", "message", "detail", "data", "sent", "repeatable", "retry_after", "headers")

    def __init__(  # noqa: PLR0913 - one fault says all of it
        self,
        kind: Kind,
        message: str | None = None,
        *,
        detail: str = "",
        data: dict[str, Any] | None = None,
        sent: bool = False,
        repeatable: bool = False,
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(kind, message, detail)
        self.kind = kind
        self.message = message or FAULTS[kind].message
        self.detail = detail
        self.data = data or {}
        self.sent = sent
        self.repeatable = repeatable
        self.retry_after = retry_after
        self.headers = headers

    @property
    def told(self) -> FaultRow:
        """The row of `FAULTS` for this kind."""
        return FAULTS[self.kind]

    @property
    def may_have_run(self) -> bool:
        """`data.mayHaveRun`: true where a server may have carried the call out."""
        if self.kind in (Kind.TIMEOUT, Kind.LOST):
            return self.sent
        return self.sent and self.kind in (Kind.NO_SERVER, Kind.INTERNAL)

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail or self.message}"
