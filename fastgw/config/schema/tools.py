"""The part of the settings about single tools: where they lead, how long, how often, at what price."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from fastgw.config.schema.rules import MatchSettings
from fastgw.config.schema.units import STRICT, Count, Duration, Flag, Many, Money
from fastgw.policy.bucket import MOST_BURST


class _Pointer:
    """A target that may be written `server/tool`: split at the first slash, since server names have none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._expanded, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "pattern": "^[^/]+/.+$"}, handler(schema)]}

    @staticmethod
    def _expanded(value: object) -> object:
        if not isinstance(value, str):
            return value
        server, slash, tool = value.partition("/")
        if not (server and slash and tool):
            raise ValueError("must be server/tool")
        return {"server": server, "tool": tool}


class TargetSettings(BaseModel):
    """One tool of one server."""

    model_config = STRICT

    server: str = Field(min_length=1)
    tool: str = Field(min_length=1)
    arguments: dict[str, str] = {}
    """Our argument name to theirs."""

    @field_validator("arguments")
    @classmethod
    def _distinct(cls, value: dict[str, str]) -> dict[str, str]:
        if len(set(value.values())) < len(value):
            raise ValueError("two arguments get the same name")
        return value


Targets = Many[Annotated[TargetSettings, _Pointer()]]


class ArmSettings(BaseModel):
    """One case of a route: whose calls, and where they go."""

    model_config = STRICT

    match: MatchSettings | None = None
    except_: MatchSettings | None = Field(default=None, alias="except")
    to: Targets

    @field_validator("to")
    @classmethod
    def _some(cls, value: tuple[TargetSettings, ...]) -> tuple[TargetSettings, ...]:
        if not value:
            raise ValueError("names no target")
        return value


class Tokens(BaseModel):
    """Where in the result the numbers of tokens stand."""

    model_config = STRICT

    in_: str | None = Field(default=None, alias="in")
    out: str | None = None


class PriceSettings(BaseModel):
    """What a call costs, in `usage.currency`."""

    model_config = STRICT

    per_call: Money | None = None
    per_million_tokens_in: Money | None = None
    per_million_tokens_out: Money | None = None


class Reserve(BaseModel):
    """What a call reserves in quotas before it, in place of the largest recent one."""

    model_config = STRICT

    tokens: Count | None = None
    tokens_in: Count | None = None
    tokens_out: Count | None = None
    cost: Money | None = None


Failure = Literal["unavailable", "timeout", "throttled", "tool_error"]


class ToolSettings(BaseModel):
    """What differs from the default for one tool, for the tools of a pattern, or for a server's own tool."""

    model_config = STRICT

    to: Targets = ()
    route: tuple[ArmSettings, ...] = ()
    description: str | None = None
    title: str | None = None
    annotations: dict[str, bool | str] | None = None
    fixed: dict[str, Any] | None = Field(default=None, repr=False)
    """Arguments that are always sent, by our names: agents neither see nor send them. Any JSON value."""
    defaults: dict[str, Any] | None = None
    """Arguments that are sent where the agent leaves them out, by our names. Agents see them."""
    hidden: Flag | None = None
    scopes: Many[str] = ()
    timeout: Duration | None = None
    max_timeout: Duration | None = None
    attempt_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    failover_on: Many[Failure] = ("unavailable",)
    tool_error: str | None = None
    repeatable: Flag | None = None
    cache: Duration | None = None
    tokens: Tokens | None = None
    price: PriceSettings | None = None
    reserve: Reserve | None = None
    validate_: Many[Literal["arguments", "results"]] = Field(default=(), alias="validate")
    weight: Annotated[int, Field(ge=0, le=MOST_BURST)] = 1

    @field_validator("to", "route")
    @classmethod
    def _some(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("names no target")
        return value

    @field_validator("tool_error")
    @classmethod
    def _regular(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except (re.error, RecursionError, OverflowError):
            raise ValueError("is not a regular expression") from None
        return value

    @model_validator(mode="after")
    def _one_way(self) -> ToolSettings:
        if self.to and self.route:
            raise ValueError("to and route exclude each other")
        return self
