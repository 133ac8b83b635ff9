"""Tools, prompts, resources and resource templates as their server listed them: kept word for word.

Checked is what would make a client refuse the whole list (2026-07-28, Schema: Tool, Prompt, Resource,
ResourceTemplate), and that a URI is one. What breaks a rule is left out alone, with a notice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final

import msgspec

from fastgw.catalog.elements import LARGEST, Notice, UnfitElement, misfit, parse_each, read, tail
from fastgw.catalog.spoofing import invisible
from fastgw.policy.match import number
from fastgw.policy.uris import LONGEST
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, members, string
from fastgw.protocol.headers import ParamHeader

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_TEXTS: Final = {"title": b'"', "description": b'"', "icons": b"[", "_meta": b"{"}
_ARGUMENT: Final = {"title": b'"', "description": b'"'}
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw]).decode


ANNOTATION = "x-mcp-header"
PREFIX = "mcp-param-"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_KINDS = ("string", "integer", "boolean")
# Keywords whose values are schemas (JSON Schema 2020-12 and what older drafts called them). Data (`default`, `enum`,
# `const`, `examples`) is not entered, `$ref` not followed.
_ONE_OR_MANY = frozenset(("items", "contains", "unevaluatedItems", "additionalItems", "additionalProperties"))
_ONE_OR_MANY |= {"unevaluatedProperties", "propertyNames", "not", "if", "then", "else", "contentSchema"}
_ONE_OR_MANY |= {"allOf", "anyOf", "oneOf", "prefixItems"}
_NAMED = frozenset(("patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"))

Path = tuple[str, ...] | None


class DefinitionKind(Enum):
    """What a definition defines: the method that lists it, the member that names it, its field of a `Catalogue`, the
    capability that announces it, and how many of one server are used.
    """

    TOOL = (names.TOOLS_LIST, "name", "tools", "tools", 10_000)
    PROMPT = (names.PROMPTS_LIST, "name", "prompts", "prompts", 2_000)
    RESOURCE = (names.RESOURCES_LIST, "uri", "resources", "resources", 10_000)
    TEMPLATE = (names.TEMPLATES_LIST, "uriTemplate", "templates", "resources", 1_000)

    def __init__(self, method: str, key: str, field: str, capability: str, most: int) -> None:
        self.method = method
        self.key = key
        self.field = field
        self.capability = capability
        self.most = most

    def is_declared(self, capabilities: frozenset[str] | None) -> bool:
        """Whether a server of these capabilities has it; one that says nothing of them may have everything."""
        return capabilities is None or self.capability in capabilities


_SCHEMAS: Final = {"inputSchema": b"{", "outputSchema": b"{", "annotations": b"{"}
_OPENS: Final = {
    DefinitionKind.TOOL: {**_TEXTS, **_SCHEMAS, "execution": b"{"},
    DefinitionKind.PROMPT: {**_TEXTS, "arguments": b"["},
    DefinitionKind.RESOURCE: {"name": b'"', **_TEXTS, "mimeType": b'"', "annotations": b"{"},
    DefinitionKind.TEMPLATE: {"name": b'"', **_TEXTS, "mimeType": b'"', "annotations": b"{"},
}
_KNOWN: Final = {
    **{kind: frozenset((kind.key, "size", *opens)) for kind, opens in _OPENS.items()},
    DefinitionKind.TOOL: frozenset(("name", *_TEXTS, *_SCHEMAS)),
}
REPEATABLE: Final = ("readOnlyHint", "idempotentHint")
"""Either says that a second run does no harm (2025-11-25, Schema: ToolAnnotations)."""
_HINTS: Final = frozenset(REPEATABLE)
_AUDIENCES: Final = frozenset((b'"user"', b'"assistant"'))


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool, a prompt, a resource or a template as its server describes it.

    Args:
        key: the tool's or prompt's own name, the resource's URI, the template's text.
        members: every member but that one: member name to JSON text, in the server's order.
        size: bytes of the definition; 0 of a `placeholder`.
        tails: all that follows the key in a list, for each of `elements.DIALECTS`.
        param_headers: arguments of a tool that travel in headers as well.
        present: of a tool that is shown as it is pinned: what its server lists now.
        digest: see `pins.digest`.
    """

    server: str
    key: str
    members: dict[str, bytes]
    size: int
    tails: tuple[bytes, ...]
    param_headers: tuple[ParamHeader, ...] = ()
    present: Definition | None = None
    digest: bytes = field(default=b"", init=False, compare=False, repr=False)

    @property
    def wanted_headers(self) -> tuple[ParamHeader, ...]:
        """The headers that its server asks for now."""
        return (self.present or self).param_headers


def parse_definitions(
    kind: DefinitionKind, server: str, array: bytes
) -> tuple[tuple[Definition, ...], tuple[Notice, ...]]:
    """The definitions of one page, given the JSON text of the member of the result that holds them.

    Raises:
        ValueError: not a JSON array.
    """
    items, notices = parse_each(server, array, names.LISTS[kind.method], partial(parse_definition, kind))
    if kind is DefinitionKind.TOOL:
        marks = [(one.key, words) for one in items if (words := invisible(one.members))]
        notices += tuple([Notice(f"{server}/{key[:128]}", words) for key, words in marks])
    return items, notices


def parse_definition(kind: DefinitionKind, server: str, text: bytes) -> Definition:
    """One element of such a list.

    Raises:
        UnfitElement: it has no key, or one that is no URI; a member of a wrong type or twice; text that is no UTF-8.
            Of a tool: no object as input schema, or a bad `x-mcp-header`; or it can only be called as a task
            (2025-11-25, Tasks). Of a resource or template: no `name`.
    """
    key = ""
    headers: tuple[ParamHeader, ...] = ()
    try:
        found = read(text, _KNOWN[kind])
        key = string(found.pop(kind.key, b""), kind.key)
        reason = f"{len(text)} bytes, more than {LARGEST}" if len(text) > LARGEST else ""
        reason = reason or _key_trouble(kind, key) or _trouble(kind, found)
        if kind is DefinitionKind.TOOL and not reason:
            headers = param_headers(found["inputSchema"])
    except (NotJson, NotAMessage, BadAnnotation) as wrong:
        reason = str(wrong)
    if reason:
        raise UnfitElement(key, reason)
    return Definition(server, key, found, len(text), tails(found), headers)


def placeholder(server: str, name: str) -> Definition:
    """What stands for a configured tool while its server has never answered."""
    found = {"inputSchema": b'{"type":"object"}'}
    return Definition(server, name, found, 0, tails(found))


def tails(found: dict[str, bytes]) -> tuple[bytes, ...]:
    """The members other than the key as they follow it in a list, for each of `elements.DIALECTS`.

    Up to 2025-11-25 an output schema must describe an object, and 2025-03-26 knows neither output schemas nor titles;
    what else it does not know its clients pass over. Equal texts are one object.
    """
    modern = tail(found)
    legacy = oldest = modern
    if "outputSchema" in found and not _describes_object(found["outputSchema"]):
        legacy = tail({name: value for name, value in found.items() if name != "outputSchema"})
    if "outputSchema" in found or "title" in found:
        oldest = tail({name: value for name, value in found.items() if name not in ("outputSchema", "title")})
    return modern, legacy, legacy, oldest


def _describes_object(schema: bytes) -> bool:
    try:
        return members(schema).get("type") == b'"object"'
    except (NotJson, NotAMessage):
        return False


def _key_trouble(kind: DefinitionKind, key: str) -> str:
    """Why this cannot be a key; empty where it can. Of tools' names `naming` judges."""
    if kind is DefinitionKind.TOOL:
        return ""
    if kind is DefinitionKind.PROMPT:
        return "" if key else "it has no name"
    if not key or not key.isprintable() or " " in key:
        return f"{kind.key} is empty or holds spaces or control characters"
    if len(key) > LONGEST or len(key.encode()) > LONGEST:  # it travels in a header, too
        return f"{kind.key} is longer than {LONGEST} bytes"
    return "uri is not absolute" if kind is DefinitionKind.RESOURCE and _SCHEME.match(key) is None else ""


def _trouble(kind: DefinitionKind, found: dict[str, bytes]) -> str:
    """What a client could not take in the members other than the key; empty for nothing."""
    member = misfit(found, _OPENS[kind])
    if member:
        return f"{member} has a wrong type"
    if kind is DefinitionKind.TOOL:
        return _tool_trouble(found)
    if kind is DefinitionKind.PROMPT:
        return _arguments_trouble(found["arguments"]) if "arguments" in found else ""
    if "name" not in found:
        return "it has no name"
    if kind is DefinitionKind.RESOURCE and not found.get("size", b"0").lstrip(b"-").isdigit():
        return "size has a wrong type"
    return _annotations_trouble(found["annotations"]) if "annotations" in found else ""


def _tool_trouble(found: dict[str, bytes]) -> str:
    if "inputSchema" not in found or members(found["inputSchema"]).get("type") != b'"object"':
        return "inputSchema must be of type object"
    if members(found.get("execution", b"{}")).get("taskSupport") == b'"required"':
        return "needs tasks, which are not supported"
    members(found.get("annotations", b"{}"), _HINTS)
    return ""


def _arguments_trouble(array: bytes) -> str:
    for text in _elements(array):
        one = members(text, frozenset(("name", "required", *_ARGUMENT)))
        string(one.get("name", b""), "the name of an argument")
        member = misfit(one, _ARGUMENT)
        if member or one.get("required", b"true") not in (b"true", b"false"):
            return f"{member or 'required'} of an argument has a wrong type"
    return ""


def _annotations_trouble(text: bytes) -> str:
    """2026-07-28, Schema, Annotations: clients refuse what is out of range."""
    found = members(text, frozenset(("audience", "priority", "lastModified")))
    if not _AUDIENCES.issuperset(_elements(found.get("audience", b"[]"))):
        return "audience in annotations is not known"
    priority = number(found.get("priority", b"0").decode())
    if priority is None or not 0 <= priority <= 1:
        return "priority in annotations is not from 0 to 1"
    return "" if found.get("lastModified", b'"')[:1] == b'"' else "lastModified in annotations has a wrong type"


def _elements(array: bytes) -> list[bytes]:
    try:
        return [bytes(text) for text in _ELEMENTS(array)]
    except msgspec.MsgspecError as wrong:
        raise NotAMessage(str(wrong)) from None


class BadAnnotation(ValueError):
    """An annotation breaks a rule; the message says which."""


def param_headers(schema: bytes) -> tuple[ParamHeader, ...]:
    """The headers that this input schema asks for by `x-mcp-header`, in the order of their paths (2026-07-28,
    Transports, Streamable HTTP, Custom Headers from Tool Parameters).

    Raises:
        BadAnnotation: an annotation is misplaced, misspelt, twice, or on a type that has no header form.
    """
    # A key may be written with escapes; such a schema is read to be sure.
    if ANNOTATION.encode() not in schema and b"\\u" not in schema:
        return ()
    try:  # no number can name a header, and huge ones cost time: their lengths will do
        root = json.loads(schema, object_pairs_hook=_once, parse_int=len, parse_float=len)
    except RecursionError:
        raise BadAnnotation("the schema is nested too deep") from None
    except ValueError as wrong:
        raise BadAnnotation(f"the schema cannot be read: {wrong}") from None
    found: dict[str, ParamHeader] = {}
    for path, node in _positions(root):
        if ANNOTATION in node:
            header = _header(path, node)
            if found.setdefault(header.header, header) is not header:
                raise BadAnnotation(f"{ANNOTATION} {node[ANNOTATION]!r} stands twice")
    return tuple(sorted(found.values(), key=lambda header: header.path))


def _header(path: Path, node: dict[str, Any]) -> ParamHeader:
    name, kind = node[ANNOTATION], node.get("type")
    if not path:
        raise BadAnnotation(f"{ANNOTATION} stands where no chain of `properties` leads")
    if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
        raise BadAnnotation(f"{ANNOTATION} of {'.'.join(path)!r} is no header name")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadAnnotation(f"{ANNOTATION} of {'.'.join(path)!r} needs the type string, integer or boolean")
    return ParamHeader(PREFIX + name.lower(), path, kind)


def _positions(root: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every schema inside `root`, with the chain of `properties` to it; None where another keyword was crossed."""
    stack: list[tuple[Path, Any]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, dict):
                stack.extend((None if path is None else (*path, name), below) for name, below in value.items())
            elif keyword in _NAMED and isinstance(value, dict):
                stack.extend((None, below) for below in value.values())
            elif keyword in _ONE_OR_MANY:
                stack.extend((None, below) for below in (value if isinstance(value, list) else [value]))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found
