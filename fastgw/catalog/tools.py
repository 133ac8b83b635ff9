"""A server's tools as it listed them: kept word for word, checked just enough to be safe in a list.

Knows: the members of a tool that the gateway reads, and what older revisions do not know. Refuses to know: names agents
see, policies, and how a catalogue was fetched.

One bad definition must not spoil a list: SDK clients refuse a whole `tools/list` for one tool without `inputSchema`. So
a tool that breaks a rule is left out alone, with a notice. All else travels as its server wrote it, member by member.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from fastgw.catalog.definitions import Definition
from fastgw.catalog.notice import Notice
from fastgw.catalog.param_headers import BadAnnotation, param_headers
from fastgw.catalog.route import ParamHeader
from fastgw.mcp.envelope import NotAMessage, NotJson, check_utf8, emit, members, quote, string

MODERN: Final = "modern"
DIALECTS: Final = (MODERN, "2025-11-25", "2025-06-18", "2025-03-26")
"""What lists are encoded for: modern agents, and each legacy revision."""

_KNOWN: Final = frozenset(
    ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons", "_meta")
)
_OPENS: Final = {
    "title": b'"', "description": b'"', "inputSchema": b"{", "outputSchema": b"{", "annotations": b"{",
    "icons": b"[", "_meta": b"{", "execution": b"{",
}  # fmt: skip
_HINTS: Final = ("readOnlyHint", "idempotentHint")
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
"""One escape of a JSON text, a surrogate pair at once; the group is half a pair alone."""
_FORMAT: Final = 1


class InvalidTool(ValueError):
    """A tool that cannot stand in a list: its name (empty where it has none) and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """One tool as its server describes it.

    Args:
        server: the server's name in the configuration.
        name: the tool's own name.
        members: every member but `name`: member name to JSON text, in the server's order.
        param_headers: arguments that travel in headers as well.
        read_only, idempotent: what the tool says of itself in `annotations`; a claim, no proof.
        size: bytes of the definition.
        tails: all that follows the name in a list, for each of `DIALECTS`.
    """

    server: str
    name: str
    members: dict[str, bytes]
    param_headers: tuple[ParamHeader, ...]
    read_only: bool
    idempotent: bool
    size: int
    tails: tuple[bytes, ...]

    @property
    def description(self) -> str:
        """The description; empty where there is none."""
        text = self.members.get("description")
        return string(text, "description") if text else ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that one server offers.

    Args:
        tools: in the server's order.
        fresh_until: CLOCK_MONOTONIC seconds until which the server vouches for it; 0.0 where it gave no hint.
        fetched_at: Unix seconds.
        notices: what was left out.
        prompts, resources, templates: in the server's order.
        capabilities: names of the capabilities the server declares: `tools`, `prompts`, `completions`, `logging`...
    """

    server: str
    tools: tuple[ToolDefinition, ...]
    fresh_until: float = 0.0
    fetched_at: float = 0.0
    notices: tuple[Notice, ...] = ()
    prompts: tuple[Definition, ...] = ()
    resources: tuple[Definition, ...] = ()
    templates: tuple[Definition, ...] = ()
    capabilities: frozenset[str] = frozenset()


def parse_tools(server: str, array: bytes) -> tuple[tuple[ToolDefinition, ...], tuple[Notice, ...]]:
    """The tools of one page.

    Args:
        server: the server's name.
        array: JSON text of `result.tools`.

    Raises:
        ValueError: not a JSON array.
    """
    try:
        texts = _ARRAY(array)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise ValueError(f"tools is no JSON array: {wrong}") from None
    tools: list[ToolDefinition] = []
    notices: list[Notice] = []
    for text in texts:
        try:
            tools.append(parse_tool(server, bytes(text)))
        except InvalidTool as wrong:
            notices.append(Notice(f"{server}/{wrong.name}", f"left out: {wrong.reason}"))
    return tuple(tools), tuple(notices)


def parse_tool(server: str, text: bytes) -> ToolDefinition:
    """One element of `result.tools`.

    Raises:
        InvalidTool: it has no name, no object as input schema, a member of a wrong type or twice, text that is no
            UTF-8, or a bad `x-mcp-header` annotation.
    """
    name = ""
    try:
        found = _members(text)
        name = string(found.pop("name", b""), "name")
        for member, opens in _OPENS.items():
            if found.get(member, opens)[:1] != opens:
                raise InvalidTool(name, f"{member} has a wrong type")
        if "inputSchema" not in found or members(found["inputSchema"]).get("type") != b'"object"':
            raise InvalidTool(name, "inputSchema must be of type object")
        hints = members(found.get("annotations", b"{}"), frozenset(_HINTS))
        headers = param_headers(found["inputSchema"])
    except (NotJson, NotAMessage, BadAnnotation) as wrong:
        raise InvalidTool(name, str(wrong)) from None
    told = [hints.get(hint) == b"true" for hint in _HINTS]
    return ToolDefinition(server, name, found, headers, told[0], told[1], len(text), tails(found))


def placeholder(server: str, name: str) -> ToolDefinition:
    """What stands for a configured tool while its server has never answered."""
    found = {"inputSchema": b'{"type":"object"}'}
    return ToolDefinition(server, name, found, (), False, False, 0, tails(found))


def tails(found: dict[str, bytes]) -> tuple[bytes, ...]:
    """The members other than `name` as they follow it in a list, for each of `DIALECTS`.

    Up to 2025-11-25 an output schema must describe an object, and 2025-03-26 knows neither output schemas nor titles.
    Equal texts are one object.
    """
    modern = _tail(found)
    legacy = oldest = modern
    if "outputSchema" in found and not _describes_object(found["outputSchema"]):
        legacy = _tail({name: value for name, value in found.items() if name != "outputSchema"})
    if "outputSchema" in found or "title" in found:
        oldest = _tail({name: value for name, value in found.items() if name not in ("outputSchema", "title")})
    return modern, legacy, legacy, oldest


def dump(catalogue: Catalogue) -> bytes:
    """The catalogue as JSON text, to be kept over a restart."""
    tools = [b'{"name":' + quote(tool.name) + tool.tails[0] for tool in catalogue.tools]
    return emit(
        {
            "format": b"%d" % _FORMAT,
            "server": quote(catalogue.server),
            "fetchedAt": b"%.3f" % catalogue.fetched_at,
            "tools": b"[" + b",\n".join(tools) + b"]",
        }
    )


def load(text: bytes) -> Catalogue:
    """What `dump` wrote. Its freshness ended with the process that fetched it.

    Raises:
        ValueError: damaged, or written by another version.
    """
    try:
        check_utf8(text)
        found = members(text)
        if found["format"] != b"%d" % _FORMAT:
            raise ValueError("written by another version")
        server = string(found["server"], "server")
        tools, notices = parse_tools(server, found["tools"])
        return Catalogue(server, tools, 0.0, float(found["fetchedAt"]), notices)
    except KeyError as missing:
        raise ValueError(f"kept catalogue is damaged: {missing} is missing") from None
    except ValueError as wrong:
        raise ValueError(f"kept catalogue is damaged: {wrong}") from None


def _members(text: bytes) -> dict[str, bytes]:
    if not text.isascii():
        check_utf8(text)
    # Half a surrogate pair anywhere inside would make strict clients refuse the whole list.
    if b"\\u" in text and any(found[1] for found in _ESCAPE.finditer(text)):
        raise NotJson("half a surrogate pair")
    return members(text, _KNOWN)


def _tail(found: dict[str, bytes]) -> bytes:
    rest = emit(found)
    return b"," + rest[1:] if found else b"}"


def _describes_object(schema: bytes) -> bool:
    try:
        return members(schema).get("type") == b'"object"'
    except (NotJson, NotAMessage):
        return False
