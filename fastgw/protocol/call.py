"""One request in the form everything inside works on: self-contained, as the modern revision has it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import NamedTuple

import msgspec

from fastgw.protocol.trace_context import TraceContext


class SubjectToken:
    """The verified access token by which an agent's user has come, for a server's own to be had in exchange (RFC 8693).
    It is never logged, and goes to no one but the token endpoint that the operator has named.

    Args:
        token: as it stood in the request.
        user: whose it is, over all tokens of that user: issuer and subject.
    """

    __slots__ = ("digest", "token", "user")

    def __init__(self, token: str, user: str) -> None:
        self.token = token
        self.digest = sha256(token.encode()).digest()
        self.user = blake2b(user.encode(), digest_size=8).hexdigest()

    def __repr__(self) -> str:
        return "SubjectToken(...)"


class SentAs(NamedTuple):
    """What one server is shown of who asks.

    Args:
        lines: headers of the agent that are handed on, each ended by CRLF.
        alike: whatever of it a result could depend on; of two calls for which it is the same, one may answer both.
        credential: tag of the server's credential for this agent; empty where all have the same, None where the server
            has none for it. Where it stands for a user, that user's stands behind it: `TAG.USER`.
        subject: what the server's token is had in exchange for.
    """

    lines: bytes = b""
    alike: bytes = b""
    credential: str | None = ""
    subject: SubjectToken | None = None


class Call(msgspec.Struct):
    """A request of an agent.

    Args:
        id: the JSON-RPC id as JSON text, type kept (`1` is not `"1"`).
        name: `params.name` where the method has one; `params.uri` of `resources/read`.
        params: members of `params` other than that and `_meta`: member name to JSON text.
        meta: members of `_meta` the gateway does not own: neither reserved ones nor `progressToken`.
        token: `progressToken` as JSON text; None where the agent wants no progress.
        log_level: lowest level of log messages the agent wants on this call; None for none.
        capabilities: the agent's `ClientCapabilities` as JSON text.
        client: the agent's `clientInfo` as JSON text; None if it gave none.
        passed: `Mcp-Param-*` headers as they came; those that a server's tool does not name are handed on unread.
        log_level_set: how often the agent has named another level than before, as far as this worker knows; 1 where
            the call itself names it. 0: the level is only assumed, and such a one is never sent to a server's session.
        offered: the part of `capabilities` that may be offered to a server on this call, as JSON text.
        request_state: `params.requestState` as the agent sent it (JSON text), sealed by us; None where there is none.
        instance: key of the instance that gave that state; None where any will do.
        session: id inside the gateway of the agent's session, None for an agent without one.
        sent_as: by server, where requests differ by who asks; None where they do at none of those it may go to.
        trace: what it is part of; then `meta` has neither `traceparent` nor `tracestate`.
    """

    id: bytes
    method: str
    version: str
    name: str | None = None
    params: dict[str, bytes] = {}
    meta: dict[str, bytes] = {}
    token: bytes | None = None
    log_level: str | None = None
    capabilities: bytes = b"{}"
    client: bytes | None = None
    session: str | None = None
    passed: tuple[tuple[bytes, bytes], ...] = ()
    log_level_set: int = 0
    offered: bytes = b"{}"
    request_state: bytes | None = None
    instance: str | None = None
    sent_as: Mapping[str, SentAs] | None = None
    trace: TraceContext | None = None
