"""How one agent is spoken to: the part of an era that the path needs, behind one shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from fastgw.errors import Fault
from fastgw.gateway.dialects import messages
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.results import Result


class RequestKind(Enum):
    """What a recognised message wants of the path."""

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


class Dialect(Protocol):
    """The manners towards one kind of agent.

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

    def page(self, shown: messages.ShownPage, server_info: bytes) -> tuple[bytes, ...]:
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


class JsonRpc:
    """What faces have in common whose agents exchange JSON-RPC messages."""

    streams = True

    def code(self, fault: Fault) -> int:
        return fault.told.code

    def refusal(self, fault: Fault, reply_to: bytes, request_id: str) -> bytes:
        return messages.message(reply_to, messages.error(fault, self.code(fault), request_id), b"error")

    def reply(self, reply_to: bytes, result: bytes | tuple[bytes, ...]) -> bytes:
        return messages.message(reply_to, result)

    def failure(self, reply_to: bytes, error: bytes, request_id: str) -> bytes:
        """See `Dialect.failure`: passed on, nothing added."""
        return messages.message(reply_to, error, b"error")

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
        wish: what to do with it.
        call: the lifted request; its id is empty for notifications.
        face: how its sender is spoken to.
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
