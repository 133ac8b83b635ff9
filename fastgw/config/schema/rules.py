"""The part of the settings that says whose call may do what: match, policies, limits, quotas."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fastgw.config.schema.units import Count, Duration, Flag, Many, Money, PerTime, Share, StrictModel, Text, needs

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Mode = Literal["enforce", "shadow"]
StoreFailure = Literal["local", "allow", "deny"]


class ArgumentTestSettings(StrictModel):
    """What one argument of a call must be: a value, a list of values, or a map of bounds.

    `values` are patterns, any of them; empty where bounds stand instead. Bounds are exclusive; both must hold.
    """

    values: Many[Text] = ()
    less_than: Decimal | None = None
    more_than: Decimal | None = None

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        return value if isinstance(value, dict | ArgumentTestSettings) else {"values": value}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one: JsonSchemaValue = {"type": ["string", "number", "boolean"]}
        bounds = {"less_than": {"type": "number"}, "more_than": {"type": "number"}}
        limits = {"type": "object", "properties": bounds, "additionalProperties": False}
        return {"anyOf": [one, {"type": "array", "items": one}, limits]}

    _needs = needs(
        "must be a value, a list of values, {less_than: ...} or {more_than: ...}", "values", "less_than", "more_than"
    )


class MatchSettings(StrictModel):
    """Whose call: all keys must hold, of a list one value. An empty map is refused."""

    agent: Many[Text] = ()
    """Names or patterns of agents."""
    claims: dict[str, Many[Text]] = {}
    """Claim to the values of which it must have one; a missing claim never matches."""
    endpoint: Many[str] = ()
    """Paths of endpoints."""
    arguments: dict[str, ArgumentTestSettings] = {}
    """Argument to its condition; a missing argument never matches."""

    @model_validator(mode="after")
    def _not_empty(self) -> MatchSettings:
        if not self.model_fields_set:
            raise ValueError("an empty match is refused: leave it out to match every call")
        for key in self.model_fields_set:
            if not getattr(self, key):
                raise ValueError(f"{key} is empty and would match no call")
        if any(not values for values in self.claims.values()):
            raise ValueError("a claim without a value would match no call")
        return self


class _RuleSettings(StrictModel):
    name: Name
    match: MatchSettings | None = None
    except_: MatchSettings | None = Field(default=None, alias="except")
    mode: Mode = "enforce"
    """`shadow` counts and logs what the rule would do and never enforces it."""


class PolicySettings(_RuleSettings):
    """One rule of what agents may use. Every policy that matches applies; one deny beats every allow."""

    allow: Many[str] = ()
    deny: Many[str] = ()

    @model_validator(mode="after")
    def _says_something(self) -> PolicySettings:
        if not {"allow", "deny"} & self.model_fields_set:
            raise ValueError("a policy needs allow or deny")
        if not {"", "prompt:", "resource:"}.isdisjoint((*self.allow, *self.deny)):
            raise ValueError("a pattern is empty")
        return self


BY = ("agent", "tool", "server", "endpoint", "user")
BY_CLAIM = "claims."


def _by_word(value: str) -> str:
    if value not in BY and not (value.startswith(BY_CLAIM) and value != BY_CLAIM):
        raise ValueError(f"by knows {', '.join(BY)} and claims.<name> alone")
    return value


def _by_once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("by names the same thing twice")
    return value


By = Annotated[Many[Annotated[str, AfterValidator(_by_word)]], AfterValidator(_by_once)]
"""What buckets are told apart by: never anything of which an agent has as many as it likes."""


class OverrideSettings(StrictModel):
    """Another rate for some of the agents of a limit."""

    match: MatchSettings
    rate: PerTime | None = None
    burst: Count | None = None

    _needs = needs("an override needs rate or burst", "rate", "burst")


class _CountedSettings(_RuleSettings):
    by: By = ()
    tools: Many[str] | None = None


class LimitSettings(_CountedSettings):
    """How fast, or how many at a time."""

    rate: PerTime | None = None
    burst: Count | None = None
    in_flight: Count | None = None
    exact: Flag = False
    on_store_failure: StoreFailure = "local"
    overrides: Many[OverrideSettings] = ()

    @field_validator("burst", "overrides")
    @classmethod
    def _of_a_rate(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("rate", True) is None:
            raise ValueError(f"{info.field_name} needs rate beside it")
        return value

    _needs = needs("a limit needs rate or in_flight", "rate", "in_flight")


class QuotaSettings(_CountedSettings):
    """How much in a period."""

    per: Literal["hour", "day", "week", "month"] | None = None
    rolling: Duration | None = None
    calls: Count | None = None
    tokens: Count | None = None
    tokens_in: Count | None = None
    tokens_out: Count | None = None
    cost: Money | None = None
    warn_at: Share | None = None
    timezone: str = "UTC"
    on_store_failure: StoreFailure = "deny"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, KeyError):
            raise ValueError("must be a time zone such as UTC or Europe/Berlin") from None
        return value

    _needs_period = needs("a quota needs either per or rolling", "per", "rolling", most=1)
    _needs_amount = needs(
        "a quota needs calls, tokens, tokens_in, tokens_out or cost",
        *("calls", "tokens", "tokens_in", "tokens_out", "cost"),
    )
