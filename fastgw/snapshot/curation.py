"""What agents are shown of a tool (its server's definition, under the exposed name and with the operator's words), and
what the operator has said of its arguments and answers: fixed and default arguments, and what is validated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from fastgw.catalog.definitions import Definition, tails
from fastgw.catalog.effort import UnusableSchema
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Checks, Pairs
from fastgw.catalog.validation import NO_VALUE, objection
from fastgw.config.tree import Number
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote
from fastgw.protocol.headers import ParamHeader
from fastgw.snapshot.model import ListEntry, entry

_TEXTS = msgspec.json.Decoder(list[str]).decode
_POINT = re.compile(r"([+-]?)(\d*)(?:(\.)(\d*))?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class ShownTool:
    """A tool as agents see it."""

    entry: ListEntry
    param_headers: tuple[ParamHeader, ...]


ConfiguredArm = tuple[Arm, ShownTool | None, tuple[str, ...]]
"""An arm as the settings of its first target say, what those are shown who take it (None: it has no target here), and
remarks for the operator.
"""
Held = tuple[Definition, Sequence[tuple[str, str]]]
"""What a server lists now of a tool that is held, and the names of its arguments, ours and theirs."""
READ_ONLY = ("readOnlyHint",)
"""By which a tool says that equal calls may be answered alike."""


def curated(
    name: str, arm: Arm, chain: Sequence[Given], definition: Definition, renamed: Sequence[tuple[str, str]]
) -> ConfiguredArm:
    """The arm with what its calls send and must fit, and the tool as agents see it.

    Args:
        chain: the settings that speak of its first target, nearest first.
        definition: of the target whose definition agents are shown.
        renamed: that target's arguments, ours and theirs: agents are shown ours.

    Raises:
        UnusableSchema: the tool must be left out: something is asked for that cannot be done for it. The text says why.
    """
    fixed: Mapping[str, Any] = first(chain, "fixed", {})
    defaults: Mapping[str, Any] = first(chain, "defaults", {})
    if fixed or defaults:
        left = {name: value for name, value in defaults.items() if name not in fixed}
        arm = replace(arm, fixed=_texts(fixed), defaults=_texts(left))
    shown, schema = _shown_tool(name, arm, chain, definition, renamed)
    checks, remarks = _checks(chain, definition, schema)
    if checks is not None:
        arm = replace(arm, checks=checks)
    if arm.fixed or arm.defaults:
        _refuse_their_names(arm)
        remarks = (*_unknown_arguments(arm, definition), *remarks)
    return arm, shown, tuple(remarks)


def checked(name: str, arm: Arm, chain: Sequence[Given], held: Iterable[Held]) -> Arm:
    """The curated arm, with what its calls must fit at servers whose tools are held with other input schemas."""
    present = dict.fromkeys(_present_schema(name, arm, chain, *one) for one in held)
    return replace(arm, checks=replace(arm.checks or Checks(), present=tuple(present))) if present else arm


def trusted(
    key: str, exact: Sequence[Given], chain: Sequence[Given], definition: Definition, hints: Sequence[str]
) -> Any:
    """The nearest value of a setting by which a tool is trusted to do no harm; None where there is none. Entries that
    name the tool count, for that is the operator's word; patterns only where the tool says so itself.

    Args:
        exact: the settings that name it; chain: these and those of patterns, nearest first.
        definition: its server's own.
        hints: `annotations` of which one must be true in that.
    """
    value = first(exact, key, None)
    if value is None:
        value = first(chain, key, None)
        if value is not None and not _claims(definition, hints):
            return None
    return value


def _claims(definition: Definition, hints: Sequence[str]) -> bool:
    claimed = members(definition.members.get("annotations", b"{}"))
    return any(claimed.get(hint) == b"true" for hint in hints)


def _shown_tool(
    name: str, arm: Arm, chain: Sequence[Given], definition: Definition, renamed: Sequence[tuple[str, str]]
) -> tuple[ShownTool, bytes]:
    """The tool as agents see it, and its input schema."""
    ours = {theirs: our for our, theirs in renamed}
    changed = _overrides(definition.members, chain)
    schema, headers = definition.members["inputSchema"], definition.param_headers
    fixed, defaults = dict(arm.fixed), dict(arm.defaults)
    if ours or fixed or defaults:
        # The server's own arguments whose names are ours for others: nothing reaches them any more.
        covered = set(ours.values()) - set(ours)

        def shown(own: str) -> str | None:
            name = ours.get(own, own)
            return None if own in covered or name in fixed else name

        try:
            schema = changed["inputSchema"] = _shown_schema(schema, shown, defaults)
        except (NotJson, NotAMessage, msgspec.MsgspecError) as wrong:
            if fixed or defaults:
                text = f"fixed and default arguments cannot be told from its inputSchema: {wrong}"
                raise UnusableSchema(text) from None
        moved = [(header, shown(header.path[0])) for header in headers]
        headers = tuple(replace(one, path=(name, *one.path[1:])) for one, name in moved if name is not None)
    ends = tails({**definition.members, **changed}) if changed else definition.tails
    return ShownTool(entry(quote(name), ends), headers), schema


def _present_schema(
    name: str, arm: Arm, chain: Sequence[Given], now: Definition, renamed: Sequence[tuple[str, str]]
) -> bytes:
    """What the arguments of a held tool must fit at its server now, by the names agents know them by; nothing does
    where that cannot be told.
    """
    try:
        schema = _shown_tool(name, arm, chain, now, renamed)[1]
    except UnusableSchema:
        return NO_VALUE
    return schema if objection(schema) is None else NO_VALUE


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
    """An input schema as agents see it: a default argument is not required, and shows its value; of
    those for which `shown` gives None nothing is seen.

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


def _checks(chain: Sequence[Given], definition: Definition, shown: bytes) -> tuple[Checks | None, tuple[str, ...]]:
    wanted: Sequence[str] = first(chain, "validate_", ())
    if not wanted:
        return None, ()
    if not definition.size:
        return Checks(pending=True), ()
    arguments = _usable(shown, "inputSchema") if "arguments" in wanted else None
    own = definition.members.get("outputSchema") if "results" in wanted else None
    results = _usable(own, "outputSchema") if own else None
    remarks = () if own or "results" not in wanted else ("its results are not validated: it has no outputSchema",)
    return (Checks(arguments, results) if arguments or results else None), remarks


def _usable(schema: bytes, what: str) -> bytes:
    wrong = objection(schema)
    if wrong is not None:
        raise UnusableSchema(f"{what} cannot be validated against: {wrong}")
    return schema


def _refuse_their_names(arm: Arm) -> None:
    """Under a server's own name of a renamed argument nothing can be sent: policies look at ours."""
    for target in arm.targets:
        ours, theirs = {our for our, _ in target.renamed}, {their for _, their in target.renamed}
        for name, _ in (*arm.fixed, *arm.defaults):
            if name in theirs - ours:
                raise UnusableSchema(
                    f"{name} is the server's own name of a renamed argument: fixed and defaults take ours"
                )


def _unknown_arguments(arm: Arm, definition: Definition) -> Iterable[str]:
    """Remarks on arguments that the tool's server does not know; they are sent all the same."""
    try:
        known = members(members(definition.members["inputSchema"])["properties"])
    except (NotJson, NotAMessage, KeyError):
        return
    renames = dict(arm.target.renamed) if arm.targets else {}
    for name, _ in (*arm.fixed, *arm.defaults):
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
