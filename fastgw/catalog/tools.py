"""A server's tools as it listed them: kept word for word, checked just enough to be safe in a list.

One bad definition must not spoil a list: SDK clients refuse a whole `tools/list` for one tool without `inputSchema`. So
a tool that breaks a rule is left out alone, with a notice. All else travels as its server wrote it, member by member.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.elements import Notice, UnfitElement, misfit, parse_each, read, tail
from fastgw.catalog.param_headers import BadAnnotation, param_headers
from fastgw.protocol.envelope import NotAMessage, NotJson, check_utf8, emit, members, quote, string
from fastgw.protocol.headers import ParamHeader

_KNOWN: Final = frozenset(
    ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons", "_meta")
)
_OPENS: Final = {
    "title": b'"', "description": b'"', "inputSchema": b"{", "outputSchema": b"{", "annotations": b"{",
    "icons": b"[", "_meta": b"{", "execution": b"{",
}  # fmt: skip
_HINTS: Final = frozenset(("readOnlyHint", "idempotentHint"))
_FORMAT: Final = 2
"""Of kept catalogues."""
_KEPT: Final = {
    "prompts": DefinitionKind.PROMPT,
    "resources": DefinitionKind.RESOURCE,
    "templates": DefinitionKind.TEMPLATE,
}
_NAMES = msgspec.json.Decoder(list[str]).decode
MOST_INSTRUCTIONS = 8 * 1024
"""Bytes of the whole: it takes room in every conversation."""
_CUT = " […]"


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """One tool as its server describes it.

    Args:
        server: the server's name in the configuration.
        name: the tool's own name.
        members: every member but `name`: member name to JSON text, in the server's order.
        param_headers: arguments that travel in headers as well.
        size: bytes of the definition.
        tails: all that follows the name in a list, for each of `elements.DIALECTS`.
    """

    server: str
    name: str
    members: dict[str, bytes]
    param_headers: tuple[ParamHeader, ...]
    size: int
    tails: tuple[bytes, ...]


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
        instructions: for those who use it; empty for none.
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
    """The tools of one page, given the JSON text of `result.tools`. Raises ValueError: not a JSON array."""
    return parse_each(server, array, "tools", parse_tool)


def parse_tool(server: str, text: bytes) -> ToolDefinition:
    """One element of `result.tools`.

    Raises:
        UnfitElement: it has no name, no object as input schema, a member of a wrong type or twice, text that is no
            UTF-8, or a bad `x-mcp-header` annotation; or it can only be called as a task (2025-11-25, Tasks).
    """
    name = ""
    try:
        found = read(text, _KNOWN)
        name = string(found.pop("name", b""), "name")
        member = misfit(found, _OPENS)
        if member:
            raise UnfitElement(name, f"{member} has a wrong type")
        if "inputSchema" not in found or members(found["inputSchema"]).get("type") != b'"object"':
            raise UnfitElement(name, "inputSchema must be of type object")
        if members(found.get("execution", b"{}")).get("taskSupport") == b'"required"':
            raise UnfitElement(name, "needs tasks, which are not supported")
        members(found.get("annotations", b"{}"), _HINTS)
        headers = param_headers(found["inputSchema"])
    except (NotJson, NotAMessage, BadAnnotation) as wrong:
        raise UnfitElement(name, str(wrong)) from None
    return ToolDefinition(server, name, found, headers, len(text), tails(found))


def placeholder(server: str, name: str) -> ToolDefinition:
    """What stands for a configured tool while its server has never answered."""
    found = {"inputSchema": b'{"type":"object"}'}
    return ToolDefinition(server, name, found, (), 0, tails(found))


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
        ValueError: damaged, or written by another version.
    """
    try:
        check_utf8(text)
        found = members(text)
        if found["format"] != b"%d" % _FORMAT:
            raise ValueError("written by another version")
        server = string(found["server"], "server")
        tools, notices = parse_tools(server, found["tools"])
        lists: dict[str, Any] = {}
        for member, sort in _KEPT.items():
            lists[member], wrong = parse_definitions(sort, server, found[member])
            notices += wrong
        return Catalogue(
            server,
            tools,
            fetched_at=float(found["fetchedAt"]),
            notices=notices,
            capabilities=frozenset(_NAMES(found["capabilities"])),
            instructions=string(found["instructions"], "instructions"),
            **lists,
        )
    except KeyError as missing:
        raise ValueError(f"kept catalogue is damaged: {missing} is missing") from None
    except (ValueError, msgspec.MsgspecError) as damage:
        raise ValueError(f"kept catalogue is damaged: {damage}") from None


def _array(texts: list[bytes]) -> bytes:
    return b"[" + b",\n".join(texts) + b"]"


def _describes_object(schema: bytes) -> bool:
    try:
        return members(schema).get("type") == b'"object"'
    except (NotJson, NotAMessage):
        return False


def joined_instructions(own: str, servers: Iterable[tuple[str, str]], *, named: bool) -> str:
    """One text of instructions for agents: the operator's, then the servers'; what is too long is cut, each server's to
    an even share.

    Args:
        own: the endpoint's own text; empty for none.
        servers: name and text of each, in order; empty texts are passed over.
        named: whether each stands under its server's name.
    """
    texts = [(f"{name}:\n{text.strip()}" if named else text.strip()) for name, text in servers if text.strip()]
    whole = "\n\n".join([*([own] if own else []), *texts])
    if len(whole.encode()) <= MOST_INSTRUCTIONS or not texts:
        return whole
    share = max(0, MOST_INSTRUCTIONS - len(own.encode()) - 2) // len(texts) - 2
    cut = "\n\n".join([*([own] if own else []), *(_shortened(text, share) for text in texts)])
    return _shortened(cut, MOST_INSTRUCTIONS) if len(own.encode()) + len(_CUT.encode()) < MOST_INSTRUCTIONS else own


def _shortened(text: str, size: int) -> str:
    data = text.encode()
    if len(data) <= size:
        return text
    return data[: max(0, size - len(_CUT.encode()))].decode(errors="ignore") + _CUT
