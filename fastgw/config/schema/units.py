"""Values as people write them: times, sizes, shares, rates, one value or a list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

LONGEST = 100 * 366 * 86400
"""Seconds; a longer time is a slip of the pen and overflows clocks further on."""

STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)
"""What every model of the configuration is: unknown keys refused, never changed, values (secrets) not in errors."""


def seconds(value: object) -> float:
    """`500ms`, `10s`, `5m`, `1h`, `30d` as seconds; 0 or more.

    Raises:
        ValueError: anything else; a bare number too, because it does not say its unit.
    """
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be a time with its unit: 500ms, 10s, 5m, 1h, 30d")
    if (amount := Decimal(found[1]) * SECONDS[found[2]]) > LONGEST:
        raise ValueError("must be shorter than 100 years")
    return float(amount)


def positive_seconds(value: object) -> float:
    """`seconds`, but 0 is refused."""
    if (amount := seconds(value)) > 0:
        return amount
    raise ValueError("must be longer than 0")


def size(value: object) -> int:
    """`4MiB`, `1GB` or a plain number of bytes, as bytes; above 0.

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"([0-9]{1,15})([kKMGT]i?B|B)?", str(value)) if isinstance(value, str | int) else None
    if not found or isinstance(value, bool) or (found[2] and found[2] not in BYTES):
        raise ValueError("must be a size: 4MiB, 64KiB, 1GB or a number of bytes")
    if (amount := int(found[1]) * BYTES[found[2] or "B"]) > 0:
        return amount
    raise ValueError("must be larger than 0")


def share(value: object) -> Decimal:
    """`80%` as 0.8; above 0, at most 1.

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", value) if isinstance(value, str) else None
    if found and 0 < Decimal(found[1]) <= 100:
        return Decimal(found[1]) / 100
    raise ValueError("must be a share between 0% and 100%, such as 80%")


def money(value: object) -> Decimal:
    """An amount without its currency: 0 or more, at most 9 places after the point.

    Raises:
        ValueError: anything else.
    """
    text = "" if isinstance(value, bool) else str(value)
    if isinstance(value, float) and "e" in text:
        text = format(Decimal(text), "f")
    if isinstance(value, str | int | float | Decimal) and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text):
        return Decimal(text)
    raise ValueError("must be an amount such as 0.001, with at most 9 places after the point")


def text_of(value: object) -> str:
    """A claim's or an argument's value as the text it is compared as: `true` for True, `5` for 5.

    Raises:
        ValueError: lists and maps.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("must be text, a number, true or false")


def flag(value: object) -> bool:
    """True or False; also the texts `true` and `false`, because a filled-in reference is always text.

    Raises:
        ValueError: anything else.
    """
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
    """`100/minute` as a `RateSetting`.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, RateSetting):
        return value
    found = re.fullmatch(r"(-?[0-9]{1,18})(\.[0-9]*)?/([A-Za-z]+)", value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be a rate: 100/minute; also per second, hour, day")
    if found[3] not in PERIODS:
        raise ValueError("must be a rate per second, minute, hour or day, in these words: 100/minute")
    if found[2] is not None:
        raise ValueError("must be a rate in whole calls: 90/minute, not 1.5/second")
    if (calls := int(found[1])) > 0:
        return RateSetting(calls, PERIODS[found[3]])
    raise ValueError("must be a rate of more than 0 calls, such as 1/day")


def rate_or_off(value: object) -> RateSetting | None:
    """`rate`, or None for `off`.

    Raises:
        ValueError: anything else.
    """
    return None if value is None or value == "off" else rate(value)


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """A tuple that may be written as one value."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._listed, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}

    @staticmethod
    def _listed(value: object) -> object:
        return tuple(value) if isinstance(value, list | tuple) else (value,)


@dataclass(frozen=True, slots=True)
class Short:
    """A model that may be written as the text of one of its keys."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._expanded, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(schema)]}

    def _expanded(self, value: object) -> object:
        return {self.key: value} if isinstance(value, str) else value


Many = Annotated[tuple[T, ...], OneOrMany()]
Duration = Annotated[float, BeforeValidator(positive_seconds, json_schema_input_type=str)]
Pause = Annotated[float, BeforeValidator(seconds, json_schema_input_type=str)]
Size = Annotated[int, BeforeValidator(size, json_schema_input_type=int | str)]
Share = Annotated[Decimal, BeforeValidator(share, json_schema_input_type=str)]
Money = Annotated[Decimal, BeforeValidator(money, json_schema_input_type=float | int | str)]
Text = Annotated[str, BeforeValidator(text_of, json_schema_input_type=str | int | float | bool)]
Flag = Annotated[bool, BeforeValidator(flag, json_schema_input_type=bool)]
PerTimeOrOff = Annotated[RateSetting | None, BeforeValidator(rate_or_off, json_schema_input_type=str)]
PerTime = Annotated[RateSetting, BeforeValidator(rate, json_schema_input_type=str)]
Count = Annotated[int, Field(ge=1, le=2**53)]
Secret = Annotated[str, Field(min_length=1)]
"""A secret's value. A field of it says `repr=False`; where one may stand is `secrecy.SECRETS`."""
