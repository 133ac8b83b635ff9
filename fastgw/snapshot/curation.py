"""What agents are shown of a tool (its server's definition, under the exposed name and with the operator's words), and
what the operator settles about its arguments and answers: fixed and default arguments, and what is validated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from fastgw.catalog.listing import ListEntry, entry
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Checks
from fastgw.catalog.tools import ToolDefinition, tails
from fastgw.catalog.validation import UnusableSchema, objection
from fastgw.config.tree import Number
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote
from fastgw.protocol.headers import ParamHeader

Pairs = tuple[tuple[str, bytes], ...]
"""Arguments by our name, each with its JSON text."""

_TEXTS = msgspec.json.Decoder(list[str]).decode
_POINT = re.compile(r"([+-]?)(\d*)(?:(\.)(\d*))?([eE][+-]?\d+)?")


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


@dataclass(frozen=True, slots=True)
class SettledArm:
    """An arm as the settings of its first target say, what those are shown who take it (None: it has no target here),
    and remarks.
    """

    arm: Arm
    shown: ShownTool | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curation:
    """What is settled about the arguments of one tool.

    Args:
        fixed: sent whatever the agent says; agents neither see nor send them.
        defaults: sent where the agent leaves them out; agents see them.
    """

    fixed: Pairs = field(default=(), repr=False)
    defaults: Pairs = ()


UNTOUCHED = Curation()
"""Of a tool about which nothing is said."""


def curation_of(chain: Sequence[Given]) -> Curation:
    """What the settings that speak of a tool, nearest first, say of its arguments: each key is found by itself."""
    fixed: Mapping[str, Any] = first(chain, "fixed", {})
    defaults: Mapping[str, Any] = first(chain, "defaults", {})
    if not fixed and not defaults:
        return UNTOUCHED
    return Curation(_texts(fixed), _texts({name: value for name, value in defaults.items() if name not in fixed}))


def curated(
    name: str, arm: Arm, chain: Sequence[Given], definition: ToolDefinition, renamed: Sequence[tuple[str, str]]
) -> SettledArm:
    """The arm with what its calls send and must fit, and the tool as agents see it.

    Args:
        name: the exposed name.
        arm: as it is otherwise.
        chain: the settings that speak of its first target, nearest first.
        definition: of the target whose definition agents are shown.
        renamed: that target's arguments, ours and theirs: agents are shown ours.

    Raises:
        UnusableSchema: the tool must be left out: something is asked for that cannot be done for it. The text says why.
    """
    curation = curation_of(chain)
    shown = _shown_tool(name, definition, chain, curation, {theirs: our for our, theirs in renamed})
    checks, remarks = _checks(chain, definition, shown.schema)
    if curation is UNTOUCHED and checks is None:
        return SettledArm(arm, shown, remarks)
    _refuse_their_names(curation, arm)
    arm = replace(arm, fixed=curation.fixed, defaults=curation.defaults, checks=checks)
    return SettledArm(arm, shown, (*_strangers(curation, arm, definition), *remarks))


def _shown_tool(
    name: str, definition: ToolDefinition, chain: Sequence[Given], curation: Curation, ours: Mapping[str, str]
) -> ShownTool:
    changed = _overrides(definition.members, chain)
    schema, headers = definition.members["inputSchema"], definition.param_headers
    if ours or curation is not UNTOUCHED:
        # The server's own arguments whose names are ours for others: nothing reaches them any more.
        covered = set(ours.values()) - set(ours)
        fixed = dict(curation.fixed)

        def shown(own: str) -> str | None:
            name = ours.get(own, own)
            return None if own in covered or name in fixed else name

        try:
            schema = changed["inputSchema"] = _shown_schema(schema, shown, dict(curation.defaults))
        except (NotJson, NotAMessage, msgspec.MsgspecError) as wrong:
            if curation is not UNTOUCHED:
                text = f"fixed and default arguments cannot be told from its inputSchema: {wrong}"
                raise UnusableSchema(text) from None
        moved = [(header, shown(header.path[0])) for header in headers]
        headers = tuple(replace(one, path=(name, *one.path[1:])) for one, name in moved if name is not None)
    ends = tails({**definition.members, **changed}) if changed else definition.tails
    return ShownTool(entry(quote(name), ends), headers, schema)


def _overrides(written: Mapping[str, bytes], chain: Sequence[Given]) -> dict[str, bytes]:
    """Members that the configuration replaces; of `annotations` only the hints it names."""
    texts = {member: first(chain, member, None) for member in ("title", "description")}
    changed = {member: quote(text) for member, text in texts.items() if text is not None}
    hints: Mapping[str, Any] | None = first(chain, "annotations", None)
    if hints is not None:
        theirs = members(written.get("annotations", b"{}"))
        changed["annotations"] = emit({**theirs, **{hint: msgspec.json.encode(value) for hint, value in hints.items()}})
    return changed


def _shown_schema(schema: bytes, shown: Callable[[str], str | None], defaults: Mapping[str, bytes]) -> bytes:
    """An input schema as agents see it: a default argument is not required, and shows its value.

    Args:
        shown: the server's name of an argument to ours; None for one that agents do not see.

    Raises:
        NotJson, NotAMessage, MsgspecError: it has a member twice, or members of wrong types, so that nothing can be
            taken out surely.
    """
    found = members(schema)
    if "properties" in found:
        properties = members(found["properties"])
        found["properties"] = emit(
            {
                name: _with_default(value, defaults[name]) if name in defaults else value
                for own, value in properties.items()
                if (name := shown(own)) is not None
            }
        )
    if "required" in found:
        needed = [shown(own) for own in _TEXTS(found["required"])]
        left = [name for name in needed if name is not None and name not in defaults]
        found["required"] = msgspec.json.encode(left)
    return emit(found)


def _with_default(schema: bytes, value: bytes) -> bytes:
    """A property's schema with our default in place of its own; the schema `false` allows no value and stays."""
    if schema == b"true":
        return emit({"default": value})
    return emit({**members(schema), "default": value}) if schema.startswith(b"{") else schema


def _checks(chain: Sequence[Given], definition: ToolDefinition, shown: bytes) -> tuple[Checks | None, tuple[str, ...]]:
    wanted: Sequence[str] = first(chain, "validate_", ())
    if not wanted:
        return None, ()
    if not definition.size:
        return Checks(pending=True), ()
    arguments = _usable(shown, "inputSchema") if "arguments" in wanted else None
    results: bytes | None = None
    remarks: tuple[str, ...] = ()
    if "results" in wanted and (own := definition.members.get("outputSchema")):
        results = _usable(own, "outputSchema")
    elif "results" in wanted:
        remarks = ("its results are not validated: it has no outputSchema",)
    return (Checks(arguments, results) if arguments or results else None), remarks


def _usable(schema: bytes, what: str) -> bytes:
    wrong = objection(schema)
    if wrong is not None:
        raise UnusableSchema(f"{what} cannot be validated against: {wrong}")
    return schema


def _refuse_their_names(curation: Curation, arm: Arm) -> None:
    """Under a server's own name of a renamed argument nothing can be sent: policies look at ours."""
    for target in arm.targets:
        ours, theirs = {our for our, _ in target.renamed}, {their for _, their in target.renamed}
        for name, _ in (*curation.fixed, *curation.defaults):
            if name in theirs and name not in ours:
                raise UnusableSchema(
                    f"{name} is the server's own name of a renamed argument: fixed and defaults take ours"
                )


def _strangers(curation: Curation, arm: Arm, definition: ToolDefinition) -> Iterable[str]:
    """Arguments that the tool's server does not know; they are sent all the same."""
    try:
        known = members(members(definition.members["inputSchema"])["properties"])
    except (NotJson, NotAMessage, KeyError):
        return
    renames = dict(arm.target.renamed) if arm.targets else {}
    for name, _ in (*curation.fixed, *curation.defaults):
        if renames.get(name, name) not in known:
            yield f"is sent the argument {name}, which its inputSchema does not have"


def _texts(values: Mapping[str, Any]) -> Pairs:
    return tuple((name, json_text(value)) for name, value in values.items())


def json_text(value: Any) -> bytes:
    """A value of the configuration as JSON text; numbers digit for digit as the file has them."""
    if isinstance(value, dict):
        return emit({name: json_text(below) for name, below in value.items()})
    if isinstance(value, list):
        return b"[" + b",".join([json_text(below) for below in value]) + b"]"
    if isinstance(value, Number):
        return _number(str(value))
    return quote(value) if isinstance(value, str) else msgspec.json.encode(value)


def _number(written: str) -> bytes:
    """A YAML number as JSON writes it (RFC 8259, section 6): no plus sign, digits on both sides of the point."""
    found = _POINT.fullmatch(written)
    assert found is not None
    sign, whole, point, rest, exponent = found.groups("")
    return f"{sign.strip('+')}{whole or '0'}{point and '.' + (rest or '0')}{exponent}".encode()
