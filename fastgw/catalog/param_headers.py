"""`x-mcp-header` in a tool's input schema: which arguments travel in a header as well.

Source: 2026-07-28, Transports, Streamable HTTP, Custom Headers from Tool Parameters. A definition that breaks one of
its rules is invalid as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fastgw.protocol.headers import ParamHeader

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


class BadAnnotation(ValueError):
    """An annotation breaks a rule; the message says which."""


def param_headers(schema: bytes) -> tuple[ParamHeader, ...]:
    """The headers that this input schema asks for, in the order of their paths.

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
