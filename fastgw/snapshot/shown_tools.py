"""What agents are shown of a tool: its server's definition, under the exposed name and with the operator's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from fastgw.catalog.listing import ListEntry, entry
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Target
from fastgw.catalog.tools import ToolDefinition, tails
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote
from fastgw.protocol.params import ParamHeader
from fastgw.snapshot.curation import curation_of, shown_schema

_TEXTS = msgspec.json.Decoder(list[str]).decode


@dataclass(frozen=True, slots=True)
class ShownTool:
    """A tool as agents see it.

    Args:
        entry: as it is listed.
        param_headers: the headers its callers must mirror, by the schema they see.
        schema: the input schema they see, JSON text; empty for what has none.
    """

    entry: ListEntry
    param_headers: tuple[ParamHeader, ...]
    schema: bytes = b""


def shown_tool_of(name: str, definition: ToolDefinition, chain: Sequence[Given], target: Target) -> ShownTool:
    """The tool as agents see it.

    Args:
        name: the exposed name.
        definition: of the first target, as its server wrote it.
        chain: the settings that speak of it, nearest first.
        target: the first target; the shown schema has our names of its renamed arguments.

    Raises:
        Unusable: fixed or default arguments cannot be told from its input schema: it must be left out.
    """
    changed = _overrides(definition.members, chain)
    headers = definition.param_headers
    schema = own = definition.members["inputSchema"]
    if target.renamed:
        ours = {theirs: our for our, theirs in target.renamed}
        covered = set(ours.values()) - set(ours)
        schema = _renamed(schema, ours, covered)
        headers = tuple(_moved(header, ours) for header in headers if header.path[0] not in covered)
    curation = curation_of(chain)
    if curation.fixed or curation.defaults:
        schema = shown_schema(schema, curation)
        fixed = dict(curation.fixed)
        headers = tuple(header for header in headers if header.path[0] not in fixed)
    if schema is not own:
        changed["inputSchema"] = schema
    ends = tails({**definition.members, **changed}) if changed else definition.tails
    return ShownTool(entry(quote(name), ends), headers, schema)


def _overrides(members_: Mapping[str, bytes], chain: Sequence[Given]) -> dict[str, bytes]:
    """Members that the configuration replaces; of `annotations` only the hints it names."""
    changed: dict[str, bytes] = {}
    for member in ("title", "description"):
        text = first(chain, member, None)
        if text is not None:
            changed[member] = quote(text)
    hints: Mapping[str, Any] | None = first(chain, "annotations", None)
    if hints is not None:
        theirs = members(members_.get("annotations", b"{}"))
        changed["annotations"] = emit({**theirs, **{hint: msgspec.json.encode(value) for hint, value in hints.items()}})
    return changed


def _renamed(schema: bytes, ours: Mapping[str, str], covered: Set[str]) -> bytes:
    """An input schema whose top-level properties have our names; left as it is where it cannot be read.

    Args:
        ours: server's name to our name.
        covered: the server's own arguments whose names are now ours for others: nothing reaches them any more.
    """
    try:
        found = members(schema)
        if "properties" in found:
            properties = members(found["properties"])
            found["properties"] = emit(
                {ours.get(one, one): properties[one] for one in properties if one not in covered}
            )
        if "required" in found:
            needed = [ours.get(one, one) for one in _TEXTS(found["required"]) if one not in covered]
            found["required"] = msgspec.json.encode(needed)
    except (NotJson, NotAMessage, msgspec.MsgspecError):
        return schema
    return emit(found)


def _moved(header: ParamHeader, ours: Mapping[str, str]) -> ParamHeader:
    outermost, *rest = header.path
    return replace(header, path=(ours.get(outermost, outermost), *rest))
