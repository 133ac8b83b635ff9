"""What the operator settles about a tool's arguments and answers: fixed and default arguments, and what is
validated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Checks
from fastgw.catalog.tools import ToolDefinition
from fastgw.catalog.validation import UnusableSchema, objection
from fastgw.config.tree import Digits, Number
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote

Pairs = tuple[tuple[str, bytes], ...]
"""Arguments by our name, each with its JSON text."""

_TEXTS = msgspec.json.Decoder(list[str]).decode
_POINT = re.compile(r"([+-]?)(\d*)(?:(\.)(\d*))?([eE][+-]?\d+)?")


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
    """What the settings say, each key found by itself.

    Args:
        chain: the settings that speak of the tool, nearest first.
    """
    fixed: Mapping[str, Any] | None = first(chain, "fixed", None)
    defaults: Mapping[str, Any] | None = first(chain, "defaults", None)
    if not fixed and not defaults:
        return UNTOUCHED
    left = {name: value for name, value in (defaults or {}).items() if name not in (fixed or {})}
    return Curation(_texts(fixed or {}), _texts(left))


def curated(arm: Arm, chain: Sequence[Given], definition: ToolDefinition, shown: bytes) -> tuple[Arm, tuple[str, ...]]:
    """The arm with what its calls send and must fit, and what the operator should hear about it.

    Args:
        arm: as it is otherwise.
        chain: the settings that speak of its first target, nearest first.
        definition: of the target whose definition agents are shown.
        shown: that tool's input schema as agents see it, `Face.schema`.

    Raises:
        Unusable: the tool must be left out: something is asked for that cannot be done for it. The text says why.
    """
    curation = curation_of(chain)
    checks, remarks = _checks(chain, definition, shown)
    if curation is UNTOUCHED and checks is None:
        return arm, remarks
    _refuse_their_names(curation, arm)
    arm = replace(arm, fixed=curation.fixed, defaults=curation.defaults, checks=checks)
    return arm, (*_strangers(curation, arm, definition), *remarks)


def shown_schema(schema: bytes, curation: Curation) -> bytes:
    """An input schema, already under our names, as agents see it.

    A fixed argument is taken out of `properties` and `required`; a default one is not required, and shows its value.

    Raises:
        Unusable: the schema has a member twice, or members of wrong types, so that nothing can be taken out surely.
    """
    if curation is UNTOUCHED:
        return schema
    fixed, defaults = dict(curation.fixed), dict(curation.defaults)
    try:
        found = members(schema)
        if "properties" in found:
            found["properties"] = _properties(members(found["properties"]), fixed, defaults)
        if "required" in found:
            needed = [name for name in _TEXTS(found["required"]) if name not in fixed and name not in defaults]
            found["required"] = msgspec.json.encode(needed)
    except (NotJson, NotAMessage, msgspec.MsgspecError) as wrong:
        raise UnusableSchema(f"fixed and default arguments cannot be told from its inputSchema: {wrong}") from None
    return emit(found)


def _properties(properties: Mapping[str, bytes], fixed: Mapping[str, bytes], defaults: Mapping[str, bytes]) -> bytes:
    return emit(
        {
            name: _with_default(schema, defaults[name]) if name in defaults else schema
            for name, schema in properties.items()
            if name not in fixed
        }
    )


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
    renames = dict(arm.targets[0].renamed) if arm.targets else {}
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
    if isinstance(value, Number | Digits):
        return _number(str(value))
    return quote(value) if isinstance(value, str) else msgspec.json.encode(value)


def _number(written: str) -> bytes:
    """A YAML number as JSON writes it (RFC 8259, section 6): no plus sign, digits on both sides of the point."""
    found = _POINT.fullmatch(written)
    assert found is not None
    sign, whole, point, rest, exponent = found.groups("")
    return f"{sign.strip('+')}{whole or '0'}{point and '.' + (rest or '0')}{exponent}".encode()
