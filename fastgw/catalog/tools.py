"""A server's tools as it listed them: kept word for word, checked just enough to be safe in a list.

One bad definition must not spoil a list: SDK clients refuse a whole `tools/list` for one tool without `inputSchema`. So
a tool that breaks a rule is left out alone, with a notice. All else travels as its server wrote it, member by member.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.elements import UnfitElement, misfit, parse_each, read, tail
from fastgw.catalog.notice import Notice
from fastgw.catalog.param_headers import BadAnnotation, param_headers
from fastgw.catalog.route import ParamHeader
from fastgw.protocol.envelope import NotAMessage, NotJson, check_utf8, emit, members, quote, string

_KNOWN: Final = frozenset(
    ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons", "_meta")
)
_OPENS: Final = {
    "title": b'"', "description": b'"', "inputSchema": b"{", "outputSchema": b"{", "annotations": b"{",
    "icons": b"[", "_meta": b"{", "execution": b"{",
}  # fmt: skip
_HINTS: Final = ("readOnlyHint", "idempotentHint")
_FORMAT: Final = 2
"""Of kept catalogues. Format 1 knew tools only; it is read still, so that names outlive an upgrade."""
_KEPT: Final = {
    "prompts": DefinitionKind.PROMPT,
    "resources": DefinitionKind.RESOURCE,
    "templates": DefinitionKind.TEMPLATE,
}
_NAMES = msgspec.json.Decoder(list[str]).decode


class InvalidTool(UnfitElement):
    """A tool that cannot stand in a list: its name (empty where it has none) and why."""


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
        tails: all that follows the name in a list, for each of `elements.DIALECTS`.
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
        instructions: what it tells those who use it; empty for nothing.
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
    instructions: str = ""


def parse_tools(server: str, array: bytes) -> tuple[tuple[ToolDefinition, ...], tuple[Notice, ...]]:
    """The tools of one page.

    Args:
        server: the server's name.
        array: JSON text of `result.tools`.

    Raises:
        ValueError: not a JSON array.
    """
    return parse_each(server, array, "tools", parse_tool)


def parse_tool(server: str, text: bytes) -> ToolDefinition:
    """One element of `result.tools`.

    Raises:
        InvalidTool: it has no name, no object as input schema, a member of a wrong type or twice, text that is no
            UTF-8, or a bad `x-mcp-header` annotation; or it can only be called as a task (2025-11-25, Tasks).
    """
    name = ""
    try:
        found = read(text, _KNOWN)
        name = string(found.pop("name", b""), "name")
        member = misfit(found, _OPENS)
        if member:
            raise InvalidTool(name, f"{member} has a wrong type")
        if "inputSchema" not in found or members(found["inputSchema"]).get("type") != b'"object"':
            raise InvalidTool(name, "inputSchema must be of type object")
        if members(found.get("execution", b"{}")).get("taskSupport") == b'"required"':
            raise InvalidTool(name, "needs tasks, which are not supported")
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
    """The members other than `name` as they follow it in a list, for each of `elements.DIALECTS`.

    Up to 2025-11-25 an output schema must describe an object, and 2025-03-26 knows neither output schemas nor titles.
    Equal texts are one object.
    """
    modern = tail(found)
    legacy = oldest = modern
    if "outputSchema" in found and not _describes_object(found["outputSchema"]):
        legacy = tail({name: value for name, value in found.items() if name != "outputSchema"})
    if "outputSchema" in found or "title" in found:
        oldest = tail({name: value for name, value in found.items() if name not in ("outputSchema", "title")})
    return modern, legacy, legacy, oldest


def dump(catalogue: Catalogue) -> bytes:
    """The catalogue as JSON text, to be kept over a restart."""
    tools = [b'{"name":' + quote(tool.name) + tool.tails[0] for tool in catalogue.tools]
    parts = {
        "format": b"%d" % _FORMAT,
        "server": quote(catalogue.server),
        "fetchedAt": b"%.3f" % catalogue.fetched_at,
        "capabilities": _array([quote(name) for name in sorted(catalogue.capabilities)]),
        "instructions": quote(catalogue.instructions),
        "tools": _array(tools),
    }
    for member, sort in _KEPT.items():
        head = b"{" + quote(sort.key) + b":"
        found: tuple[Definition, ...] = getattr(catalogue, member)
        parts[member] = _array([head + quote(one.key) + one.tails[0] for one in found])
    return emit(parts)


def load(text: bytes) -> Catalogue:
    """What `dump` wrote. Its freshness ended with the process that fetched it.

    Raises:
        ValueError: damaged, or written by a later version.
    """
    try:
        check_utf8(text)
        found = members(text)
        if found["format"] not in (b"1", b"%d" % _FORMAT):
            raise ValueError("written by another version")
        server = string(found["server"], "server")
        tools, notices = parse_tools(server, found["tools"])
        kept = Catalogue(server, tools, 0.0, float(found["fetchedAt"]), notices, capabilities=frozenset(("tools",)))
        return kept if found["format"] == b"1" else _rest(kept, found)
    except KeyError as missing:
        raise ValueError(f"kept catalogue is damaged: {missing} is missing") from None
    except (ValueError, msgspec.MsgspecError) as wrong:
        raise ValueError(f"kept catalogue is damaged: {wrong}") from None


def _rest(kept: Catalogue, found: dict[str, bytes]) -> Catalogue:
    """What format 1 did not know."""
    lists: dict[str, Any] = {}
    notices = kept.notices
    for member, sort in _KEPT.items():
        lists[member], wrong = parse_definitions(sort, kept.server, found[member])
        notices += wrong
    capabilities = frozenset(_NAMES(found["capabilities"]))
    instructions = string(found.get("instructions", b'""'), "instructions")
    return replace(kept, notices=notices, capabilities=capabilities, instructions=instructions, **lists)


def _array(texts: list[bytes]) -> bytes:
    return b"[" + b",\n".join(texts) + b"]"


def _describes_object(schema: bytes) -> bool:
    try:
        return members(schema).get("type") == b'"object"'
    except (NotJson, NotAMessage):
        return False
