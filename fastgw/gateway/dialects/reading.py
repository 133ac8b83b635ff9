"""What both eras read alike: `params`, `_meta`, the name of a tool, the id."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import msgspec

from fastgw.errors import Fault, Kind
from fastgw.gateway.dialects.dialect import RequestKind
from fastgw.protocol import envelope, names
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import Message, NotAMessage, NotJson

KINDS = {
    **dict.fromkeys(names.LISTS, RequestKind.LIST),
    **dict.fromkeys((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE), RequestKind.CALL),
}
"""What every revision knows."""

_PARAMS = frozenset(
    ("name", "arguments", "_meta", "cursor", "protocolVersion", "capabilities", "clientInfo", "requestId",
     "uri", "ref", "argument", "requestState", "inputResponses")
)  # fmt: skip
_META = frozenset(
    (names.META_VERSION, names.META_CAPABILITIES, names.META_CLIENT, names.META_LOG_LEVEL, "progressToken")
)


MOST_IN_BATCH = 1000
"""Messages of one batch; each is worked on as if it had come alone, and 4 MiB hold 80,000 pings."""


_NOT_RELAYED = frozenset(("name", "_meta", "task", "requestState", "inputResponses"))
"""Members of `params` that are written anew or not handed on as they are: servers see one credential for many agents,
so state that a server gave to one of them must not reach it from another."""


@dataclass(slots=True)
class OpenedParams:
    """A message with `params` and `_meta` taken apart: member name to JSON text."""

    message: Message
    params: dict[str, bytes] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)


def message(body: bytes) -> Message:
    """The one message that is the body.

    Raises:
        Fault: NOT_JSON, NOT_ONE_MESSAGE.
    """
    try:
        return envelope.read(body)
    except NotJson as wrong:
        raise Fault(Kind.NOT_JSON, f"Parse error: {wrong}") from None
    except NotAMessage as wrong:
        raise Fault(Kind.NOT_ONE_MESSAGE, f"Invalid request: {wrong}") from None


def opened(message: Message) -> OpenedParams:
    """The message with `params` and `_meta` taken apart. Nobody is told of a bad notification: it then says nothing.

    Raises:
        Fault: BAD_PARAMS where one of them is no object, or holds a member twice.
    """
    if message.params is None:
        return OpenedParams(message)
    try:
        params = envelope.members(message.params, _PARAMS)
        meta = params.get("_meta")
        return OpenedParams(message, params, envelope.members(meta, _META) if meta is not None else {})
    except (NotAMessage, NotJson) as wrong:
        if message.id is None:
            return OpenedParams(message)
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {wrong}") from None


def is_batch(body: bytes) -> bool:
    """Whether the body is a JSON array."""
    return body.lstrip(b" \t\r\n")[:1] == b"["


def elements(body: bytes) -> list[bytes]:
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


def text(value: bytes | None, what: str) -> str:
    """A member that must be a string.

    Raises:
        Fault: BAD_PARAMS where it is missing or something else.
    """
    try:
        return envelope.string(value or b"null", what)
    except NotAMessage as wrong:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {wrong}") from None


def an_object(value: bytes | None, what: str) -> bytes:
    """A member that must be an object, as JSON text.

    Raises:
        Fault: BAD_PARAMS.
    """
    if value is None or not value.startswith(b"{"):
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {what} must be an object")
    return value


def log_level(value: bytes | None, what: str) -> str:
    """A member that must be a log level.

    Raises:
        Fault: BAD_PARAMS where it is missing or something else.
    """
    level = text(value, what)
    if level not in names.LOG_LEVELS:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: unknown log level {level[:32]!r}")
    return level


def fill(call: Call, opened: OpenedParams) -> Call:
    """What every era's request carries: name, payload, progress token, the agent's own `_meta`.

    Raises:
        Fault: BAD_PARAMS.
    """
    params = opened.params
    call.params = {name: value for name, value in params.items() if name not in _NOT_RELAYED}
    if call.method == names.TOOLS_CALL or call.method == names.PROMPTS_GET:
        call.name = text(params.get("name"), "name")
        if "arguments" in params:
            an_object(params["arguments"], "arguments")
    elif call.method == names.RESOURCES_READ:
        call.name = text(params.get("uri"), "uri")
        del call.params["uri"]
    elif call.method == names.COMPLETE:
        an_object(params.get("ref"), "ref")
        an_object(params.get("argument"), "argument")
    call.token = opened.meta.get("progressToken")
    if call.token is not None and not envelope.is_id(call.token) and not _is_number(call.token):
        raise Fault(Kind.BAD_PARAMS, "Invalid params: progressToken must be a string or a number")
    call.meta = {
        name: value for name, value in opened.meta.items() if name not in _META and not name.startswith(names.RESERVED)
    }
    return call


def _is_number(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value), int | float)
    except ValueError:
        return False


_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
