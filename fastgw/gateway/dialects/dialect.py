"""How agents are spoken to: what the pipeline needs of a dialect, and how all of them read messages."""

from __future__ import annotations

import json
from enum import Enum, auto
from typing import Any

import msgspec
import orjson

from fastgw.errors import Fault, Kind
from fastgw.protocol import envelope, names
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import Message, NotAMessage, NotJson
from fastgw.protocol.quick import QuickResult
from fastgw.protocol.results import Result

MOST_IN_BATCH = 1000
"""Messages of one batch; each is worked on as if it had come alone, and 4 MiB hold 80,000 pings."""

_LONGEST_WAIT = 3600
"""Seconds beyond which `Retry-After` is left out: callers obey it to the letter."""
_PARAMS = frozenset(
    ("name", "arguments", "_meta", "cursor", "protocolVersion", "capabilities", "clientInfo", "requestId",
     "uri", "ref", "argument", "requestState", "inputResponses")
)  # fmt: skip
META = frozenset(
    (names.META_VERSION, names.META_CAPABILITIES, names.META_CLIENT, names.META_LOG_LEVEL, "progressToken")
)
_NOT_RELAYED = frozenset(("name", "_meta", "task", "requestState", "inputResponses"))
"""Members of `params` that are written anew or not handed on as they are: servers see one credential for many agents,
so state that a server gave to one of them must not reach it from another."""
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode


class RequestKind(Enum):
    """What a message wants of the pipeline."""

    CALL = auto()
    LIST = auto()
    DESCRIBE = auto()
    DISCOVER = auto()
    INITIALIZE = auto()
    PING = auto()
    LEVEL = auto()
    CANCEL = auto()
    NOTHING = auto()
    REFUSED = auto()


KINDS = {
    **dict.fromkeys(names.LISTS, RequestKind.LIST),
    **dict.fromkeys((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE), RequestKind.CALL),
}
"""What every revision knows, by method."""


class Dialect:
    """How one kind of agent is spoken to: by JSON-RPC, where a dialect says nothing else.

    `streams`: an answer may be an event stream.
    `leaving_cancels`: a closed connection withdraws the call (2026-07-28, Cancellation; before it, never).
    `mirrors`: headers repeat parts of the body and must agree with it.
    `rounds`: a result may ask it for input; it then asks again, with the answers (2026-07-28, MRTR).
    `list_form`: which encoding of the prepared lists it reads.
    `version`: the protocol revision.
    `abolished_codes`: error codes of servers that its revision does not know any more.
    """

    streams = True
    leaving_cancels = False
    mirrors = False
    rounds = False
    list_form: str
    version: str
    abolished_codes: frozenset[int] = frozenset()

    def result(self, result: Result, server_info: bytes) -> bytes:
        """A server's result as this agent's revision has it, as JSON text."""
        raise NotImplementedError

    def quick_reply(self, reply_to: bytes, result: QuickResult, server_info: bytes) -> bytes | None:
        """The whole body around a result that the quick reader took; None where that is to be read with care.

        Joined, not formatted: `%` grows its text as it goes along, which for a megabyte takes thirty times as long.
        """
        return None

    def list_tail(self, ttl_ms: int, server_info: bytes) -> bytes:
        """What stands behind items and cursor in the result of a list that stays fresh for so many milliseconds."""
        return b""

    def status(self, fault: Fault) -> int:
        """The HTTP status of a refusal."""
        raise NotImplementedError

    def code(self, fault: Fault) -> int:
        """The error code of a refusal."""
        return fault.kind.code

    def refusal(self, fault: Fault, reply_to: bytes, request_id: str) -> bytes:
        """The whole body of a refusal; `reply_to` is the JSON-RPC id it answers, as JSON text."""
        error = {"code": self.code(fault), "message": fault.message, "data": error_data(fault, request_id)}
        return self.server_error(reply_to, orjson.dumps(error), request_id)

    def reply(self, reply_to: bytes, result: bytes | tuple[bytes, ...]) -> bytes:
        """The whole body around a result (JSON text, or the pieces of it)."""
        pieces = result if isinstance(result, tuple) else (result,)
        return b"".join((b'{"jsonrpc":"2.0","id":', reply_to, b',"result":', *pieces, b"}"))

    def server_error(self, reply_to: bytes, error: bytes, request_id: str) -> bytes:
        """The whole body around a server's own error: the JSON text of an object that has a code and a message."""
        return b"".join((b'{"jsonrpc":"2.0","id":', reply_to, b',"error":', error, b"}"))

    def error_status(self, code: int) -> int:
        """The HTTP status of a server's own error with this code."""
        return 200


def error_data(fault: Fault, request_id: str) -> dict[str, Any]:
    """What agents are shown of a fault beside code and message."""
    data: dict[str, Any] = {"requestId": request_id, "mayHaveRun": fault.may_have_run}
    if fault.retry_after is not None:
        data["retryAfter"] = max(1, fault.retry_after)
    data.update(fault.data)
    return data


def refusal_headers(fault: Fault, http_status: int) -> list[tuple[bytes, bytes]]:
    """The headers a refusal carries beside those of every answer."""
    found = list(fault.headers)
    if http_status in (429, 503) and fault.retry_after is not None and fault.retry_after <= _LONGEST_WAIT:
        found.append((b"retry-after", b"%d" % max(1, fault.retry_after)))
    return found


class ParsedRequest(msgspec.Struct):
    """A message, understood.

    Args:
        kind: what to do with it.
        call: the request; its id is empty for notifications.
        dialect: how its sender is spoken to.
        headers: further headers for the answer, for example a new session's id.
        size: bytes of the message, where it is one of a batch.
        fault: why it is refused, by itself, where it is one of a batch.
    """

    kind: RequestKind
    call: Call
    dialect: Dialect
    headers: list[tuple[bytes, bytes]] = []
    size: int = 0
    fault: Fault | None = None


# -- reading --------------------------------------------------------------------------------------------------------


class OpenedMessage(msgspec.Struct):
    """A message with `params` and `_meta` taken apart: member name to JSON text."""

    method: str | None
    id: bytes
    params: dict[str, bytes] = {}
    meta: dict[str, bytes] = {}


def read_message(body: bytes) -> Message:
    """The one message that is the body. Raises a Fault: NOT_JSON, NOT_ONE_MESSAGE."""
    try:
        return envelope.read(body)
    except NotJson as wrong:
        raise Fault(Kind.NOT_JSON, f"Parse error: {wrong}") from None
    except NotAMessage as wrong:
        raise Fault(Kind.NOT_ONE_MESSAGE, f"Invalid request: {wrong}") from None


def request_id(message: Message) -> bytes:
    """The request's id as JSON text, empty for a notification or a response.

    Raises:
        Fault: NOT_ONE_MESSAGE where it is neither a string nor an integer (null is forbidden too).
    """
    found = message.id
    if found is None or message.method is None:
        return b""
    if not envelope.is_id(found):
        raise Fault(Kind.NOT_ONE_MESSAGE, "id must be a string or an integer")
    return found


def open_message(message: Message, identity: bytes) -> OpenedMessage:
    """The message with `params` and `_meta` taken apart. A bad notification is not refused: it then says nothing.

    Args:
        identity: from `request_id`.

    Raises:
        Fault: BAD_PARAMS where one of them is no object, or holds a member twice.
    """
    opened = OpenedMessage(message.method, identity)
    if message.params is not None:
        try:
            params = envelope.members(message.params, _PARAMS)
            meta = params.get("_meta")
            opened.meta = envelope.members(meta, META) if meta is not None else {}
            opened.params = params
        except (NotAMessage, NotJson) as wrong:
            if message.id is not None:
                raise Fault(Kind.BAD_PARAMS, f"Invalid params: {wrong}") from None
    return opened


def batch_messages(body: bytes) -> list[bytes]:
    """The messages of a batch as JSON text.

    Raises:
        Fault: NOT_JSON; NOT_ONE_MESSAGE for an empty batch (JSON-RPC 2.0, section 6), or one that is too long.
    """
    try:
        envelope.check_utf8(body)
        items = [bytes(item) for item in _ARRAY(body)]
    except (NotJson, msgspec.DecodeError, RecursionError) as wrong:
        raise Fault(Kind.NOT_JSON, f"Parse error: {wrong}") from None
    if not items:
        raise Fault(Kind.NOT_ONE_MESSAGE, "A batch must not be empty.")
    if len(items) > MOST_IN_BATCH:
        raise Fault(Kind.NOT_ONE_MESSAGE, f"A batch holds at most {MOST_IN_BATCH} messages.")
    return items


def fill_call(call: Call, opened: OpenedMessage) -> Call:
    """What every era's request carries: name, payload, progress token, the agent's own `_meta`.

    Raises:
        Fault: BAD_PARAMS.
    """
    params, method = opened.params, call.method
    call.params = {name: value for name, value in params.items() if name not in _NOT_RELAYED}
    if method == names.TOOLS_CALL or method == names.PROMPTS_GET:
        call.name = require_string(params.get("name"), "name")
        if "arguments" in params:
            require_object(params["arguments"], "arguments")
    elif method == names.RESOURCES_READ:
        call.name = require_string(params.get("uri"), "uri")
        del call.params["uri"]
    elif method == names.COMPLETE:
        require_object(params.get("ref"), "ref")
        require_object(params.get("argument"), "argument")
    call.token = opened.meta.get("progressToken")
    if call.token is not None and not envelope.is_id(call.token) and not _is_number(call.token):
        raise Fault(Kind.BAD_PARAMS, "Invalid params: progressToken must be a string or a number")
    call.meta = {
        name: value for name, value in opened.meta.items() if name not in META and not name.startswith(names.RESERVED)
    }
    return call


def require_string(value: bytes | None, what: str) -> str:
    """A member that must be a string; raises a Fault, BAD_PARAMS, where it is missing or something else."""
    try:
        return envelope.string(value or b"null", what)
    except NotAMessage as wrong:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {wrong}") from None


def require_object(value: bytes | None, what: str) -> bytes:
    """A member that must be an object, as JSON text; raises a Fault, BAD_PARAMS, where it is missing or none."""
    if value is None or not value.startswith(b"{"):
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {what} must be an object")
    return value


def require_log_level(value: bytes | None, what: str) -> str:
    """A member that must be a log level; raises a Fault, BAD_PARAMS, where it is missing or none."""
    level = require_string(value, what)
    if level not in names.LOG_LEVELS:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: unknown log level {level[:32]!r}")
    return level


def _is_number(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value), int | float)
    except ValueError:
        return False
