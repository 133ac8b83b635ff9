"""Arguments and results against JSON Schemas, where the operator asks for it: 2020-12, or the draft `$schema` names.

A schema that refers to anything outside itself is not used. What does not fit is named by its place, not its value.
Bounded: schemas by their size and by what work they make (`effort`), values by size, depth and the same measure.
Patterns run on a linear-time engine, so those with look-around or back-references cannot be used. `format` is an
annotation and is not checked (2020-12, Validation, section 7). Integers keep every digit; a number beyond a double's
range, `1e400`, fits no type.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn

import jsonschema_rs

from fastgw.catalog.effort import BUDGET, DEEPEST, UnusableSchema, effort
from fastgw.catalog.route import Arm, filled
from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import NotAMessage, NotJson

LARGEST_SCHEMA = 256 * 2**10
LARGEST_VALUE = 2**20
"""Bytes of JSON text."""
LARGEST_PLACED = 64 * 2**10
"""Bytes of a value in which what is wrong is looked for: under `anyOf` and its like, the validator writes down what is
wrong in each alternative at every level, which takes 25 times as long as to say that it does not fit.
"""
MOST_LONG = 100
"""Integers of 19 digits and more in one value: the validator compares them pair by pair."""
SMALL = 16 * 2**10
"""Bytes of the schemas of which many are kept; a large one may take some megabytes when it is compiled."""
KEPT, KEPT_LARGE = 1_000, 50
MOST_REMEMBERED = 16_000
"""Schemas of which it is remembered whether they can be used: servers may change theirs without end."""
LONGEST_WORDS = 200
HELD = "the tool has changed at its server, the change is not approved yet, and does not take these"
NO_VALUE = b"false"
"""The schema that nothing fits (2020-12, Core, section 4.3.2)."""

_REGEX = jsonschema_rs.RegexOptions(size_limit=256 * 2**10, dfa_size_limit=2**20)
_LONG = re.compile(rb"[0-9]{19,}")
_VALUE = "the value"


class InvalidValue(ValueError):
    """A value that cannot be looked at: no JSON, a member twice, too large, too deep."""


class Validator(NamedTuple):
    """One schema, ready to judge: the compiled rules, and the most work that they make (see `effort`)."""

    rules: jsonschema_rs.Validator
    values: list[float]
    texts: list[float]
    most: float


_objections: dict[bytes, str | None] = {}


def objection(schema: bytes) -> str | None:
    """Why nothing can be validated against this schema, in plain words; None where that can be done."""
    key = sha256(schema).digest()  # the schemas themselves would take gigabytes
    if key not in _objections:
        if len(_objections) >= MOST_REMEMBERED:
            _objections.clear()
        try:
            _built(schema)
            _objections[key] = None
        except UnusableSchema as wrong:
            _objections[key] = str(wrong)
    return _objections[key]


def validator(schema: bytes) -> Validator:
    """The validator of a schema, given as JSON text; the last ones are kept, fewer of the large ones.

    Raises:
        UnusableSchema: it is no schema, refers to anything outside itself, or goes beyond the bounds.
    """
    return _small(schema) if len(schema) <= SMALL else _large(schema)


def _built(schema: bytes) -> Validator:
    if len(schema) > LARGEST_SCHEMA:
        raise UnusableSchema(f"it is larger than {LARGEST_SCHEMA // 1024} KiB")
    try:
        values, texts = effort(_decoded(schema))
        if values[0] > BUDGET:
            raise UnusableSchema("it makes more work than any value is given")
        rules = jsonschema_rs.validator_for(schema.decode(), offline=True, pattern_options=_REGEX, mask=_VALUE)
    except UnusableSchema:
        raise
    except InvalidValue as wrong:
        raise UnusableSchema(str(wrong)) from None
    except jsonschema_rs.ValidationError as wrong:
        raise UnusableSchema(
            _words("it is no schema that can be used", _place(wrong.instance_path), wrong.message)
        ) from None
    except (jsonschema_rs.ReferencingError, ValueError, RecursionError) as wrong:
        raise UnusableSchema(_words("it is no schema that can be used", "", str(wrong))) from None
    return Validator(rules, values, texts, max(values) + max(texts))


_small, _large = lru_cache(maxsize=KEPT)(_built), lru_cache(maxsize=KEPT_LARGE)(_built)


def check_arguments(schema: bytes, arguments: bytes) -> str | None:
    """What is wrong with the arguments of a call (JSON text, empty for none), in at most 200 characters; None where
    they fit the schema.

    Raises:
        UnusableSchema: as `validator`.
    """
    return _wrong(validator(schema), arguments or b"{}", "arguments")


def prepare_arguments(arm: Arm, arguments: bytes) -> bytes:
    """The arguments as they are sent: checked as the agent wrote them, then filled in.

    Raises:
        Fault: BAD_PARAMS where they do not fit the schema that agents are shown, or that of a held tool at a server,
            or name what is not theirs to say; NO_SERVER while that schema is not known yet.
    """
    checks, wrong = arm.checks, None
    if checks is not None and checks.pending:
        raise Fault(Kind.NO_SERVER, detail="its schema is not known yet", data={"reason": "down"}, retry_after=1)
    if checks is not None and checks.arguments is not None:
        wrong = check_arguments(checks.arguments, arguments)
    if checks is not None and checks.present and wrong is None:
        unfit = next(filter(None, [check_arguments(schema, arguments) for schema in checks.present]), None)
        wrong = unfit and f"{HELD}: {unfit}"
    if wrong is None:
        try:
            return filled(arguments, arm.fixed, arm.defaults) if arm.fixed or arm.defaults else arguments
        except (NotAMessage, NotJson) as unfit:
            wrong = str(unfit)
    raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {wrong}")


def check_result(schema: bytes, structured: bytes | None) -> str | None:
    """What is wrong with the `structuredContent` of a result, in at most 200 characters; None where it fits. A tool
    with an output schema must not leave it out (2025-11-25, Tools, Output Schema).

    Raises:
        UnusableSchema: as `validator`.
    """
    if structured is None:
        return "structuredContent is missing"
    return _wrong(validator(schema), structured, "structuredContent")


def _wrong(by: Validator, text: bytes, what: str) -> str | None:
    try:
        value = _decoded(text)
        _check_effort(by, text, value)
        if not by.rules.is_valid(value):
            if len(text) > LARGEST_PLACED:
                return _words(what, "", f"{_VALUE} does not fit; where is told up to {LARGEST_PLACED // 1024} KiB only")
            by.rules.validate(value)
    except InvalidValue as unfit:
        return _words(what, "", str(unfit))
    except jsonschema_rs.ValidationError as wrong:
        return _words(what, _place(wrong.instance_path), wrong.message)
    except (ValueError, RecursionError):  # half a surrogate pair
        return _words(what, "", "cannot be read as JSON")
    return None


def _decoded(text: bytes) -> Any:
    """The value of a JSON text, integers exact.

    Raises:
        InvalidValue: no JSON, a member twice at any depth, or larger than values may be.
    """
    if len(text) > LARGEST_VALUE:
        raise InvalidValue(f"larger than {LARGEST_VALUE // 2**20} MiB, which is the most that is validated")
    try:
        return _DECODE(text.decode())
    except RecursionError:
        raise InvalidValue(f"nested more than {DEEPEST} levels deep") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InvalidValue("cannot be read as JSON") from None
    except InvalidValue:
        raise
    except ValueError:  # the interpreter's own bound, 4,300 digits
        raise InvalidValue("has an integer of too many digits") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidValue("a member stands twice")
    return found


def _no_number(_: str) -> NoReturn:
    raise InvalidValue("cannot be read as JSON")


_DECODE = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number).decode


def _check_effort(by: Validator, text: bytes, value: Any) -> None:
    """Refuse what would take too long. Short texts pass at once."""
    opened = text.count(b"[") + text.count(b"{")
    deep = _shape(value)[0] if opened > DEEPEST else opened
    if deep > DEEPEST:
        raise InvalidValue(f"nested more than {DEEPEST} levels deep")
    if len(text) > 19 * MOST_LONG and len(_LONG.findall(text)) > MOST_LONG:
        raise InvalidValue(f"has more than {MOST_LONG} integers of 19 digits and more")
    if len(text) * by.most <= BUDGET:
        return
    deep, values = _shape(value)
    if values * max(by.values[: deep + 1]) + len(text) * max(by.texts[: deep + 1]) > BUDGET:
        raise InvalidValue("too large to be validated against its schema")


def _shape(value: Any) -> tuple[int, int]:
    """How many lists and maps stand around the innermost value, and how many values and names of members there are;
    beyond DEEPEST levels nothing is counted.
    """
    deep, count, level = 0, 1, [value]
    while level and deep <= DEEPEST:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
                count += len(one)
            elif isinstance(one, list):
                inner.extend(one)
        level = inner
        count += len(level)
        deep += bool(level)
    return deep, count


def _place(path: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _words(what: str, place: str, message: str) -> str:
    where = place if len(place) <= LONGEST_WORDS // 2 else place[: LONGEST_WORDS // 2] + "..."
    words = f"{what}{where}: {message}".splitlines()[0]
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 3] + "..."
