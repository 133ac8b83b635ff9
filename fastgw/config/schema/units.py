"""Values as people write them: times, sizes, shares, rates, one value or a list."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
BYTES = {"": 1, "B": 1, "KB": 1000}
BYTES |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)}
BYTES |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

LONGEST = 100 * 366 * 86400
"""Seconds; a longer time is a slip of the pen and overflows clocks further on."""


class StrictModel(BaseModel):
    """A map of the configuration: unknown keys refused, never changed, values (secrets) not in errors.

    Its validator is built when a file is read, not when it is imported.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True, defer_build=True
    )


def needs(message: str, *keys: str, most: int | None = None) -> Any:
    """A validator of a model: one of the keys has a value, and `most` of them at most; ValueError with `message`."""

    def check(model: T) -> T:
        if not 1 <= sum(getattr(model, key) not in (None, ()) for key in keys) <= (most or len(keys)):
            raise ValueError(message)
        return model

    return model_validator(mode="after")(check)


def _parts(pattern: str, value: object, otherwise: str) -> re.Match[str]:
    if isinstance(value, str) and (found := re.fullmatch(pattern, value)):
        return found
    raise ValueError(otherwise)


def seconds(value: object) -> float:
    """`500ms`, `10s`, `5m`, `1h`, `30d` as seconds, 0 or more; ValueError otherwise: a bare number has no unit."""
    otherwise = "must be a time with its unit: 500ms, 10s, 5m, 1h, 30d"
    found = _parts(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", value, otherwise)
    if (amount := Decimal(found[1]) * SECONDS[found[2]]) > LONGEST:
        raise ValueError("must be shorter than 100 years")
    return float(amount)


def positive_seconds(value: object) -> float:
    """`seconds`, but 0 is refused."""
    if (amount := seconds(value)) > 0:
        return amount
    raise ValueError("must be longer than 0")


def size(value: object) -> int:
    """`4MiB`, `1GB` or a plain number of bytes, as bytes above 0; ValueError otherwise."""
    text = str(value) if isinstance(value, int) else value
    otherwise = "must be a size above 0: 4MiB, 64KiB, 1GB or a number of bytes"
    found = _parts(rf"0*([1-9][0-9]{{0,14}})({'|'.join(BYTES)})", text, otherwise)
    return int(found[1]) * BYTES[found[2]]


def share(value: object) -> Decimal:
    """`80%` as 0.8; above 0, at most 1, ValueError otherwise."""
    otherwise = "must be a share between 0% and 100%, such as 80%"
    amount = Decimal(_parts(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", value, otherwise)[1])
    if 0 < amount <= 100:
        return amount / 100
    raise ValueError(otherwise)


def money(value: object) -> Decimal:
    """An amount without its currency: 0 or more, at most 9 places after the point; ValueError otherwise."""
    text = "" if isinstance(value, bool) else str(value)
    if isinstance(value, float) and "e" in text:
        text = format(Decimal(text), "f")
    otherwise = "must be an amount such as 0.001, with at most 9 places after the point"
    return Decimal(_parts(r"[0-9]{1,15}(\.[0-9]{1,9})?", text, otherwise)[0])


def text_of(value: object) -> str:
    """A claim's or an argument's value as the text it is compared as; ValueError for lists and maps."""
    if isinstance(value, str | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    raise ValueError("must be text, a number, true or false")


def flag(value: object) -> bool:
    """True or False; also the texts, because a filled-in reference is always text; ValueError otherwise."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


@dataclass(frozen=True, slots=True)
class RateSetting:
    """So many calls in so many seconds, `100/minute`."""

    calls: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.calls}/{next(name for name, seconds in PERIODS.items() if seconds == self.seconds)}"


def rate(value: object) -> RateSetting:
    """`100/minute` as a `RateSetting`; ValueError otherwise."""
    if isinstance(value, RateSetting):
        return value
    otherwise = "must be a rate: 100/minute; in whole calls, at least 1, per second, minute, hour or day"
    found = _parts(rf"0*([1-9][0-9]{{0,17}})/({'|'.join(PERIODS)})", value, otherwise)
    return RateSetting(int(found[1]), PERIODS[found[2]])


@dataclass(frozen=True, slots=True)
class Shorthand:
    """A shorter way to write a value.

    Args:
        expand: the full form of what is written; what is full already it leaves as it is.
        form: the JSON Schema of the short form, from that of the full one.
    """

    expand: Callable[[object], object]
    form: Callable[[JsonSchemaValue], JsonSchemaValue]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        full = handler(schema)
        return {"anyOf": [self.form(full), full]}


def short(key: str) -> Shorthand:
    """Of a model that may be written as the text of one of its keys."""
    return Shorthand(lambda value: {key: value} if isinstance(value, str) else value, lambda _: {"type": "string"})


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def some(value: tuple[T, ...]) -> tuple[T, ...]:
    """A tuple that has something; ValueError for an empty one."""
    if not value:
        raise ValueError("must not be empty")
    return value


Many = Annotated[tuple[T, ...], Shorthand(_listed, itemgetter("items"))]
"""A tuple that may be written as one value."""
Duration = Annotated[float, BeforeValidator(positive_seconds, json_schema_input_type=str)]
DurationOrOff = Annotated[
    float | None,
    BeforeValidator(lambda value: None if value == "off" else positive_seconds(value), json_schema_input_type=str),
]
Pause = Annotated[float, BeforeValidator(seconds, json_schema_input_type=str)]
Size = Annotated[int, BeforeValidator(size, json_schema_input_type=int | str)]
Share = Annotated[Decimal, BeforeValidator(share, json_schema_input_type=str)]
Money = Annotated[Decimal, BeforeValidator(money, json_schema_input_type=float | int | str)]
Text = Annotated[str, BeforeValidator(text_of, json_schema_input_type=str | int | float | bool)]
Flag = Annotated[bool, BeforeValidator(flag, json_schema_input_type=bool)]
PerTime = Annotated[RateSetting, BeforeValidator(rate, json_schema_input_type=str)]
PerTimeOrOff = Annotated[
    RateSetting | None,
    BeforeValidator(lambda value: None if value in (None, "off") else rate(value), json_schema_input_type=str),
]
Count = Annotated[int, Field(ge=1, le=2**53)]
Secret = Annotated[str, Field(min_length=1)]
"""A secret's value. A field of it says `repr=False`; where one may stand is `references.SECRETS`."""
