"""What a server's HTTP answer to a call means: hand it on, mend something and ask again, or give up.

| answer | legacy server | modern server |
|---|---|---|
| 200, event stream | relay | relay |
| JSON-RPC response to our id, code outside those below, any status but 401, 403, 429, 503 | relay | relay |
| -32020 | era in doubt | header mismatch: the tool's definition has changed |
| -32021 | relay where the agent lacks the capability, else INTERNAL | the same |
| -32022 | era in doubt | era in doubt |
| a refusal of the session (below) | session dead, refused or suspect | - |
| 400 that speaks of a session | - | era in doubt |
| 400, 404, 405, 406 otherwise | era in doubt | era in doubt |
| 401, 403 | NO_SERVER, credential | the same |
| 429; 503 with Retry-After | NO_SERVER, busy, not sent | the same |
| 503 | NO_SERVER, busy, sent | the same |
| all else: 2xx without a response, 3xx, 4xx, 5xx, HTML | LOST | the same |

What a legacy server says when it has lost a session, after a restart say, has no form (seen: 401, 404, 422, an error
with a null id inside 200). So every refusal that was made before the call could run is one:

    404; any 4xx, or an error under a null id, that speaks of a session or of `initialize`      dead
    4xx otherwise                                       refused: it may be, unless the session was just opened
    such an error under our id, anything else that is no response       suspect: the agent hears it, for the call may
                                                                        have run; the next call asks the session first
    429, 408, 425; errors about the call (-32602, -32601, -32002)       none of these

Dead or refused, another session is tried. One that is refused in the same way shows that this was about the call, and
the old one stays.

An answer that was meant for another request, late or twice, is LOST and its connection distrusted: what comes next on
it is another's, too.

Why "not sent": 429 says by its definition that the request was turned away (RFC 6585, section 4), and a 503 that names
a time to come back was made by something that sheds load before it works. A bare 503 may come from anything, also from
a proxy whose server broke while it ran the call. Either with a response to our id in it is the server's own work: sent.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from functools import cache
from itertools import count
from math import ceil
from typing import Any

import orjson

from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.envelope import Message, NotAMessage, NotJson, read_reply
from fastgw.protocol.names import Era
from fastgw.upstream.transports import lost
from fastgw.upstream.transports.http_exchange import HttpAnswer


class ReplyKind(Enum):
    """What to do with an answer."""

    RELAY = auto()
    SESSION_DEAD = auto()
    SESSION_REFUSED = auto()
    SESSION_SUSPECT = auto()
    ERA_DOUBT = auto()
    HEADER_MISMATCH = auto()


@dataclass(frozen=True, slots=True)
class Classified:
    """What an answer means.

    Args:
        message: the response, where the answer holds one to our request.
        fault: what the call ends with where `kind` cannot be mended; None where `message` is to be relayed.
        fallback: what is to be done where it turns out not to be about the session.
    """

    kind: ReplyKind
    message: Message | None = None
    fault: Fault | None = None
    fallback: ReplyKind = ReplyKind.RELAY


RELAYED = Classified(ReplyKind.RELAY)
_UNCLEAR = (400, 404, 405, 406)
_TURNED_AWAY = (401, 403, 429, 503)
_LONGEST_WAIT = 3600
_NOT_OFFERED = "The server needs a capability of the client that cannot be offered to it here."
_ABOUT_US = (names.HEADER_MISMATCH, names.UNSUPPORTED_VERSION)
_ABOUT_THE_CALL = (names.INVALID_PARAMS, names.METHOD_NOT_FOUND, names.RESOURCE_NOT_FOUND, *_ABOUT_US,
                   names.MISSING_CAPABILITY)  # fmt: skip
"""These are about the call or the gateway, whatever words they use."""
_ABOUT_TRANSPORT = (names.INVALID_REQUEST, -32000, -32001)
"""Codes under which SDKs tell of sessions; a tool's own errors have others."""
_PASSING = (408, 425, 429)  # statuses that say: not now

_COUNTED = 32  # bits that count
_LONGEST_ID = 64  # bytes of an id that is looked at


def classify(answer: HttpAnswer, era: Era, upstream_id: bytes, capabilities: bytes) -> Classified:
    """The row of the table, for an answer to our id `upstream_id` by an agent that declared `capabilities` (JSON
    texts). Raises Fault for the rows that end the call.
    """
    body = answer.body
    if body is None:
        if answer.status == 200:
            return RELAYED
        answer.close()
        raise lost(f"an event stream with status {answer.status}")
    if answer.status == 200 and body.lstrip()[:1] == b"[":
        return RELAYED
    message, wrong = _response(answer, body, upstream_id)
    if message is not None and message.result is not None and answer.status not in _TURNED_AWAY:
        return Classified(ReplyKind.RELAY, message)
    session = about_session(answer.status, message, body) if era is Era.LEGACY else None
    try:
        found = _judge(answer, message, wrong, era, capabilities)
    except Fault as fault:
        if session is None:
            raise
        return Classified(session, fault=fault)
    return found if session is None else Classified(session, found.message, found.fault, found.kind)


def _response(answer: HttpAnswer, body: bytes, upstream_id: bytes) -> tuple[Message | None, str]:
    """The response in the body, if it is one to us; else what is wrong with it."""
    try:
        message = read_reply(body)
    except (NotJson, NotAMessage) as strange:
        return None, str(strange)
    if message.method is None:
        if same_id(message.id, upstream_id):
            return message, ""
        if is_out_of_step(answer.status, message.id, upstream_id):
            answer.poison()
    return None, "a message with another id"


def answers(body: bytes, upstream_id: bytes) -> bool:
    """Whether a body is a response to our request, so that the server has read it."""
    try:
        message = read_reply(body)
    except (NotJson, NotAMessage):
        return False
    return message.method is None and same_id(message.id, upstream_id)


def about_session(status: int, message: Message | None, body: bytes) -> ReplyKind | None:
    """What a legacy server's answer in a session says of the session; None for nothing. `message` is its response to
    our request, `body` counts where there is none.
    """
    if message is not None and message.result is not None:
        return None
    code = _code(message.error or b"")[0] if message is not None else _foreign_code(body)
    words = ((message.error if message is not None else body) or b"")[:4096].lower()
    named = b"session" in words or b"initializ" in words
    if 400 <= status < 500:
        if status in _PASSING or code in (_ABOUT_US if message is None else _ABOUT_THE_CALL):
            return None
        if message is not None and code not in _ABOUT_TRANSPORT and not named:
            return None  # an answer to the call itself, by a server that puts a status to it: it may have run
        return ReplyKind.SESSION_DEAD if status == 404 or named else ReplyKind.SESSION_REFUSED
    if message is not None:
        return ReplyKind.SESSION_SUSPECT if named and code in _ABOUT_TRANSPORT else None
    if code in _ABOUT_US:
        return None
    return ReplyKind.SESSION_DEAD if named and code in _ABOUT_TRANSPORT else ReplyKind.SESSION_SUSPECT


def _judge(answer: HttpAnswer, message: Message | None, wrong: str, era: Era, capabilities: bytes) -> Classified:
    """The rows of the table that are not about sessions; without a message, `wrong` says why there is none."""
    if answer.status in _TURNED_AWAY:
        raise _turned_away(answer, message)
    if message is None:
        return _no_response(answer, wrong, era)
    error = message.error or b""
    code, data = _code(error)
    if code == names.HEADER_MISMATCH and era is Era.MODERN:
        return Classified(ReplyKind.HEADER_MISMATCH)
    if code in _ABOUT_US:
        detail = f"no common revision: {code} from a {era.value} server"
        return Classified(ReplyKind.ERA_DOUBT, fault=Fault(Kind.INTERNAL, detail=detail, sent=True))
    if code == names.MISSING_CAPABILITY and not agent_lacks(error, capabilities):
        raise not_offered(f"the server wants capabilities that are not offered: {str(data)[:200]}")
    speaks_of_session = b"session" in (answer.body or b"")[:4096].lower()
    if era is Era.MODERN and code not in _ABOUT_THE_CALL and answer.status == 400 and speaks_of_session:
        return Classified(ReplyKind.ERA_DOUBT, message)
    return Classified(ReplyKind.RELAY, message)


def _no_response(answer: HttpAnswer, wrong: str, era: Era) -> Classified:
    """A fault of the server's, or it does not speak as we thought."""
    if answer.status in _UNCLEAR:
        if era is Era.MODERN and _foreign_code(answer.body or b"") == names.HEADER_MISMATCH:
            return Classified(ReplyKind.HEADER_MISMATCH)
        return Classified(ReplyKind.ERA_DOUBT, fault=lost(f"status {answer.status} without a response"))
    if 200 < answer.status < 300:
        # No server answers a call so; it may be what a notification before it was answered.
        answer.poison()
    found = lost(f"status {answer.status} without a response: {wrong}")
    if answer.status >= 500:
        found.failure = "server_error"
    raise found


def _turned_away(answer: HttpAnswer, message: Message | None) -> Fault:
    if answer.status in (401, 403):
        detail = f"the server refuses our credential: status {answer.status}"
        return Fault(Kind.NO_SERVER, detail=detail, data={"reason": "credential"}, sent=True, failure="refused")
    wait = _wait(answer.headers.get("retry-after", "").strip())
    refused = message is None and (answer.status == 429 or wait is not None)
    found = Fault(Kind.NO_SERVER, detail=f"status {answer.status}", data={"reason": "busy"}, retry_after=wait or 1)
    found.sent, found.failure = not refused, "throttled" if answer.status == 429 or wait else "server_error"
    return found


def _wait(hint: str) -> int | None:
    """Seconds that `Retry-After` says, from a second to an hour; None where it says none (RFC 9110, section 10.2.3)."""
    try:
        seconds = int(hint) if hint.isdecimal() else ceil(parsedate_to_datetime(hint).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
    return max(1, min(seconds, _LONGEST_WAIT))


def not_offered(detail: str) -> Fault:
    """A server requires (-32021) what its agent has and cannot be handed on: the agent is told that much."""
    return Fault(Kind.INTERNAL, _NOT_OFFERED, detail=detail, sent=True)


def agent_lacks(error: bytes, capabilities: bytes) -> bool:
    """Whether some capability that a -32021, `error`, requires is one that the agent did not declare; JSON texts."""
    data = _code(error)[1]
    required = data.get("requiredCapabilities") if isinstance(data, dict) else None
    return isinstance(required, dict) and _missing(required, json_object(capabilities))


def _missing(required: dict[str, Any], declared: Any) -> bool:
    if not isinstance(declared, dict):
        return bool(required)
    return any(
        name not in declared or (isinstance(inner, dict) and _missing(inner, declared[name]))
        for name, inner in required.items()
    )


def _foreign_code(body: bytes) -> int | None:
    """The code of an error that answers no id of ours: servers that refuse a request unread answer `null`."""
    try:
        message = read_reply(body)
    except (NotJson, NotAMessage):
        return None
    return _code(message.error)[0] if message.error is not None and message.id in (None, b"null") else None


def _code(error: bytes) -> tuple[int | None, Any]:
    """Code and data of a JSON-RPC error, its JSON text."""
    found = json_object(error)
    return (found["code"], found.get("data")) if isinstance(found.get("code"), int) else (None, None)


def json_object(text: bytes | None) -> dict[str, Any]:
    """A JSON object, decoded; empty for anything else."""
    try:
        found = orjson.loads(text or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def new_id() -> bytes:
    """An id of ours, as JSON text: an integer, because some servers take nothing else.

    It is unique in a session whichever of our processes asks in it: 21 random bits of the process, then a count,
    together below 2**53, where every reader of JSON still sees the same number (RFC 8259, section 6).
    """
    return b"%d" % next(id_numbers())


@cache
def id_numbers() -> count[int]:
    """What `new_id` counts with. Made by the first request, so after the fork: each process has its own."""
    return count((int.from_bytes(os.urandom(3), "big") >> 3 << _COUNTED) + 1)


def same_id(found: bytes | None, ours: bytes) -> bool:
    """Whether this JSON text is our id. As the SDK clients do, `"12"` and `12.0` are taken for `12`."""
    return found == ours or (found is not None and _number(found) == int(ours))


def is_out_of_step(status: int, found: bytes | None, ours: bytes) -> bool:
    """Whether a response with the id `found`, which is not `ours`, was meant for another request on its connection.

    Servers refuse requests they have not read under `null` or an id of their own making. Anything else that is not
    ours is an answer that came late or twice, most surely one that is made as all our ids are.
    """
    if found is None or found == b"null":
        return False
    number = _number(found)
    return status == 200 or (number is not None and number >> _COUNTED == int(ours) >> _COUNTED)


def _number(text: bytes) -> int | None:
    """The whole number that this JSON text is, or has in quotes; None for anything else."""
    if len(text) > _LONGEST_ID:
        return None
    try:
        value = orjson.loads(text)
        number = float(value) if isinstance(value, str) else value
        return int(value) if isinstance(number, int | float) and int(number) == number else None
    except (ValueError, OverflowError):
        return None
