"""How agents are spoken to: what the path needs of an era, and the answers as JSON text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

import orjson

from fastgw.errors import Fault
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.results import Result


class RequestKind(Enum):
    """What a message wants of the path."""

    CALL = auto()
    LIST = auto()
    DESCRIBE = auto()
    DISCOVER = auto()
    INITIALIZE = auto()
    PING = auto()
    LEVEL = auto()
    CANCEL = auto()
    NOTHING = auto()


def reaches(level: str, wanted: str | None) -> bool:
    """Whether a log message of `level` is at or above the level `wanted`; None wants none."""
    if wanted is None or level not in names.LOG_LEVELS:
        return False
    return names.LOG_LEVELS.index(level) >= names.LOG_LEVELS.index(wanted)


@dataclass(frozen=True, slots=True)
class ShownPage:
    """One page of a list as it is told.

    Args:
        member: what holds the items: `tools`, `prompts`, ...
        items: the JSON array.
        cursor: of the next page; None after the last.
        ttl_ms: milliseconds it stays fresh.
    """

    member: str
    items: bytes
    cursor: str | None
    ttl_ms: int


class Dialect(Protocol):
    """How one kind of agent is spoken to.

    `streams`: an answer may be an event stream.
    `leaving_cancels`: a closed connection withdraws the call (2026-07-28, Cancellation; before it, never).
    `mirrors`: headers repeat parts of the body and must agree with it.
    `rounds`: a result may ask it for input; it then asks again, with the answers (2026-07-28, MRTR).
    `list_form`: which encoding of the prepared lists it reads.
    `version`: the protocol revision.
    `unheard`: error codes of servers that its revision has abolished.
    """

    streams: bool
    leaving_cancels: bool
    mirrors: bool
    rounds: bool
    list_form: str
    version: str
    unheard: frozenset[int]

    def result(self, result: Result, server_info: bytes) -> bytes:
        """A server's result as this agent's revision has it, as JSON text."""
        ...

    def page(self, shown: ShownPage, server_info: bytes) -> tuple[bytes, ...]:
        """The result of a list, as JSON text in pieces: they can be large, and are joined by `reply`."""
        ...

    def status(self, fault: Fault) -> int:
        """The HTTP status of a refusal."""
        ...

    def code(self, fault: Fault) -> int:
        """The error code of a refusal."""
        ...

    def refusal(self, fault: Fault, reply_to: bytes, request_id: str) -> bytes:
        """The whole body of a refusal; `reply_to` is the JSON-RPC id it answers, as JSON text."""
        ...

    def reply(self, reply_to: bytes, result: bytes | tuple[bytes, ...]) -> bytes:
        """The whole body around a result (JSON text, or the pieces of it)."""
        ...

    def failure(self, reply_to: bytes, error: bytes, request_id: str) -> bytes:
        """The whole body around a server's own error: the JSON text of an object that has a code and a message."""
        ...

    def failed(self, code: int) -> int:
        """The HTTP status of a server's own error with this code."""
        ...


def error_data(fault: Fault, request_id: str) -> dict[str, Any]:
    """What is told of a fault beside code and message."""
    data: dict[str, Any] = {"requestId": request_id, "mayHaveRun": fault.may_have_run}
    if fault.retry_after is not None:
        data["retryAfter"] = max(1, fault.retry_after)
    data.update(fault.data)
    return data


def error_json(fault: Fault, code: int, request_id: str) -> bytes:
    """The JSON-RPC `error` object of a fault."""
    return orjson.dumps({"code": code, "message": fault.message, "data": error_data(fault, request_id)})


def response(reply_to: bytes, payload: bytes | tuple[bytes, ...], member: bytes = b"result") -> bytes:
    """A JSON-RPC answer: `member` is `result` or `error`, `payload` its JSON text, or the pieces of it.

    Joined, not formatted: `%` grows its text as it goes along, which for a megabyte takes thirty times as long.
    """
    pieces = payload if isinstance(payload, tuple) else (payload,)
    return b"".join((b'{"jsonrpc":"2.0","id":', reply_to, b',"', member, b'":', *pieces, b"}"))


def page_json(shown: ShownPage, rest: bytes = b"") -> tuple[bytes, ...]:
    """A page of a list as a JSON object in pieces, which are joined once; `rest` stands behind items and cursor."""
    following = b',"nextCursor":"%s"' % shown.cursor.encode() if shown.cursor else b""
    return b'{"', shown.member.encode(), b'":', shown.items, following, rest, b"}"


class JsonRpc:
    """What the dialects of JSON-RPC have in common."""

    streams = True

    def code(self, fault: Fault) -> int:
        return fault.kind.code

    def refusal(self, fault: Fault, reply_to: bytes, request_id: str) -> bytes:
        return response(reply_to, error_json(fault, self.code(fault), request_id), b"error")

    def reply(self, reply_to: bytes, result: bytes | tuple[bytes, ...]) -> bytes:
        return response(reply_to, result)

    def failure(self, reply_to: bytes, error: bytes, request_id: str) -> bytes:
        return response(reply_to, error, b"error")

    def failed(self, code: int) -> int:
        return 200


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message of a batch that is refused by itself.

    Args:
        id: what the refusal answers, as JSON text.
        method: what it asked for, as far as that could be read.
        size: bytes of the message.
    """

    id: bytes
    fault: Fault
    method: str = ""
    size: int = 0


@dataclass(slots=True)
class ParsedRequest:
    """A message, understood.

    Args:
        kind: what to do with it.
        call: the request; its id is empty for notifications.
        dialect: how its sender is spoken to.
        size: bytes of the message, where it is one of a batch.
        headers: further headers for the answer, for example a new session's id.
    """

    kind: RequestKind
    call: Call
    dialect: Dialect
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    size: int = 0

    @property
    def method(self) -> str:
        """What it asks for."""
        return self.call.method
