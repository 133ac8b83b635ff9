"""The request headers of the protocol: what a repeated one means, and those that repeat parts of the body.

Values are taken from the JSON text, so an integer of any length keeps all its digits.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from fastgw.protocol.envelope import NotAMessage, NotJson, members, string

VERSION = b"mcp-protocol-version"
METHOD = b"mcp-method"
NAME = b"mcp-name"
SESSION = b"mcp-session-id"

_LISTS = frozenset((b"accept", b"x-forwarded-for"))
_OPEN, _CLOSE = "=?base64?", "?="
_PLAIN = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_PREFIX = b"mcp-param-"
_MOST_PASSED = 16
_MOST_BYTES = 4096
_MOST_FORWARDED = 8192
_LINE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_VISIBLE = re.compile(rb"[\t -~]*")
_DIGITS = re.compile(r"-?[0-9]{1,400}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?")


Fields = tuple[dict[bytes, bytes], frozenset[bytes]]
"""Headers by lower-case name, and the names that came more than once."""


def index(fields: list[tuple[bytes, bytes]], lists: Set[bytes] = frozenset()) -> Fields:
    """Headers by lower-case name, and the names that came more than once (the dictionary keeps the last of these).

    Given twice, a list is one list (RFC 9110, section 5.3), so the values of `accept` and `x-forwarded-for` are joined;
    likewise those of `lists`.
    """
    found = dict(fields)
    if len(found) == len(fields):
        return found, frozenset()
    twice = frozenset(name for name, count in Counter(name for name, _ in fields).items() if count > 1)
    for name in twice & (lists | _LISTS):
        found[name] = b", ".join(value for other, value in fields if other == name)
    return found, twice


class Unforwardable(ValueError):
    """A header that is to be handed on and cannot be; its text names it, and holds nothing of its value."""


def forwarded(found: Mapping[bytes, bytes], wanted: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines, each ended by CRLF, of those headers in `wanted` (lower-case name, and how the line begins) that a
    request has. Never less than all of them: without its tenant a call might be anyone's.

    Raises:
        Unforwardable: one holds control characters (RFC 9110, section 5.5); all together are too long for servers.
    """
    lines = [start + found[name] + b"\r\n" for name, start in wanted if name in found]
    for line in lines:
        if _LINE.fullmatch(line) is None:
            raise Unforwardable(f"the header {line.partition(b':')[0].decode()} holds characters that it must not hold")
    if sum(map(len, lines)) > _MOST_FORWARDED:
        raise Unforwardable(f"the headers that are handed on have more than {_MOST_FORWARDED} bytes")
    return b"".join(lines)


def media_type(value: bytes) -> bytes:
    """`type/subtype` of a Content-Type in lower case, parameters dropped."""
    return value.partition(b";")[0].strip().lower()


@lru_cache(maxsize=256)
def accepts(accept: bytes | None, wanted: bytes) -> bool:
    """Whether an Accept header admits a media type; no header admits everything (RFC 9110, section 12.5.1).

    A weight of zero refuses; other weights do not matter, since one form is all there is of each answer.
    """
    if accept is None:
        return True
    family = wanted.partition(b"/")[0] + b"/*"
    best, admits = -1, False
    for part in accept.lower().split(b","):
        name, _, rest = part.partition(b";")
        name = name.strip()
        rank = 2 if name == wanted else 1 if name == family else 0 if name == b"*/*" else -1
        if rank > best:
            weight = rest.replace(b" ", b"").partition(b"q=")[2].partition(b";")[0]
            best, admits = rank, weight not in (b"0", b"0.0", b"0.00", b"0.000")
    return admits


@dataclass(frozen=True, slots=True)
class ParamHeader:
    """One argument that travels in a header as well (2026-07-28, Transports, Custom Headers).

    Args:
        header: lower-case header name, `mcp-param-region`.
        path: where the value stands in the arguments, outermost member first.
        kind: the property's JSON Schema type: string, integer, number or boolean.
    """

    header: str
    path: tuple[str, ...]
    kind: str


def encode_name(value: str) -> bytes:
    """A header value that carries any text: plain where it is safe, else in the Base64 sentinel."""
    if _PLAIN.fullmatch(value) is not None and not _is_sentinel(value):
        return value.encode("ascii")
    return (_OPEN + b64encode(value.encode()).decode("ascii") + _CLOSE).encode("ascii")


def decode_name(value: bytes) -> str:
    """The text that a header value carries.

    Raises:
        ValueError: characters no header may hold, a sentinel whose content is not Base64 or not UTF-8.
    """
    value = value.strip(b" \t")
    if _VISIBLE.fullmatch(value) is None:
        raise ValueError("holds characters that a header must not hold")
    text = value.decode("ascii")
    if not _is_sentinel(text):
        return text
    try:
        return b64decode(text[len(_OPEN) : -len(_CLOSE)], validate=True).decode()
    except ValueError:
        raise ValueError("is not Base64 of UTF-8 text") from None


def _value_at(arguments: bytes, path: tuple[str, ...]) -> bytes | None:
    """JSON text of the value at this exact path of the arguments; None where it is absent, null or no single value."""
    text = arguments
    for name in path:
        if text[:1] != b"{":
            return None
        text = members(text).get(name, b"null")
    return None if text == b"null" or text[:1] in b"{[" else text


def lines(wanted: Iterable[ParamHeader], arguments: bytes) -> bytes:
    """The `Mcp-Param-*` header lines of a call, each ended by CRLF.

    Raises:
        NotAMessage, NotJson: a member of the arguments on the way to a value stands twice; they are no JSON.
    """
    values = [(item, _value_at(arguments, item.path)) for item in wanted]
    return b"".join(
        b"%s: %s\r\n" % (item.header.encode(), encode_name(_plain(value, item.kind)))
        for item, value in values
        if value is not None
    )


def passable(headers: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The `Mcp-Param-*` headers of a request that may travel on: intermediaries MUST forward those they do not know
    (2026-07-28, Custom Headers from Tool Parameters). Bounded, since nothing has compared them with the body.
    """
    found = [(name, value) for name, value in headers.items() if name.startswith(_PREFIX)]
    if not found:
        return ()
    fit = [(name, value) for name, value in found if _VISIBLE.fullmatch(value) is not None]
    return tuple(fit[:_MOST_PASSED]) if sum(len(name) + len(value) for name, value in fit) <= _MOST_BYTES else ()


def others(passed: Iterable[tuple[bytes, bytes]], wanted: Iterable[ParamHeader]) -> bytes:
    """The header lines of those in `passed` that `wanted` does not name, each ended by CRLF."""
    known = {item.header.encode("ascii") for item in wanted}
    return b"".join(b"%s: %s\r\n" % (name, value) for name, value in passed if name not in known)


def check(
    wanted: Iterable[ParamHeader], arguments: bytes, headers: Mapping[bytes, bytes], twice: Set[bytes] = frozenset()
) -> str | None:
    """What is wrong with the `Mcp-Param-*` headers of a request; None if they agree with its body.

    `wanted` goes by the definition that the agent was shown; `twice` are the names that came more than once.
    """
    for item in wanted:
        try:
            wrong = _compare(_value_at(arguments, item.path), headers.get(item.header.encode("ascii")), item.kind)
        except (NotAMessage, NotJson) as strange:
            return f"The arguments cannot be compared with {item.header}: {strange}"
        if wrong is not None:
            return f"{item.header} {wrong}"
        if item.header.encode("ascii") in twice:
            return "An Mcp-Param header came twice."
    return None


def _compare(value: bytes | None, header: bytes | None, kind: str) -> str | None:
    if value is None:
        return None if header is None else "must be left out, for the argument has no value"
    if header is None:
        return "is missing"
    try:
        text = decode_name(header)
    except ValueError as wrong:
        return str(wrong)
    same = text == _plain(value, kind) or (value[:1] != b'"' and _same_number(text, value.decode("utf-8", "replace")))
    return None if same else "does not match the argument"


def _plain(value: bytes, kind: str) -> str:
    """The value as text, before encoding: strings as they are, `42.0` as `42` where the schema says integer."""
    if value[:1] == b'"':
        return string(value, "argument")
    text = value.decode("ascii")
    if kind == "integer" and _DIGITS.fullmatch(text) is None and _NUMBER.fullmatch(text) is not None:
        number = Decimal(text)
        if number == number.to_integral_value():
            return str(int(number))
    return text


def _same_number(left: str, right: str) -> bool:
    """Numeric equality without rounding (2026-07-28, Streamable HTTP, Server Validation)."""
    if _NUMBER.fullmatch(left) is None or _NUMBER.fullmatch(right) is None:
        return False
    try:
        return Decimal(left) == Decimal(right)
    except InvalidOperation:
        return False


def _is_sentinel(text: str) -> bool:
    return text.startswith(_OPEN) and text.endswith(_CLOSE) and len(text) >= len(_OPEN) + len(_CLOSE)
