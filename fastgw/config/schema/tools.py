"""The part of the settings about single tools: where they lead, how long, how often, at what price."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fastgw.config.schema.rules import MatchSettings
from fastgw.config.schema.units import (
    Count,
    Duration,
    Flag,
    Many,
    Money,
    Pause,
    Shorthand,
    Size,
    StrictModel,
    needs,
    some,
)
from fastgw.policy.bucket import MOST_BURST


def _target(value: object) -> object:
    """`server/tool` as the map it stands for, split at the first slash, since server names have none."""
    if not isinstance(value, str):
        return value
    server, slash, tool = value.partition("/")
    if not (server and slash and tool):
        raise ValueError("must be server/tool")
    return {"server": server, "tool": tool}


class TargetSettings(StrictModel):
    """One tool of one server."""

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


Targets = Many[Annotated[TargetSettings, Shorthand(_target, lambda _: {"type": "string", "pattern": "^[^/]+/.+$"})]]


class ArmSettings(StrictModel):
    """One case of a route: whose calls, and where they go."""

    match: MatchSettings | None = None
    except_: MatchSettings | None = Field(default=None, alias="except")
    to: Annotated[Targets, AfterValidator(some)]


MemberPath = Annotated[str, Field(max_length=200, pattern=r"^[^.\"\\\x00-\x1f]+(\.[^.\"\\\x00-\x1f]+)*$")]
"""Names of members with points between, from the outside in."""


class Tokens(StrictModel):
    """Where in the result the numbers of tokens stand."""

    in_: MemberPath | None = Field(default=None, alias="in")
    out: MemberPath | None = None
    up_to: Size = 2**20
    """Bytes of the member of the result that is opened to look; of a larger one nothing is known."""

    _needs = needs("tokens needs in or out", "in_", "out")


class PriceSettings(StrictModel):
    """What a call costs, in `usage.currency`."""

    per_call: Annotated[Money, Field(le=999_999_999)] | None = None  # an event's cost has nine digits before the point
    per_million_tokens_in: Money | None = None
    per_million_tokens_out: Money | None = None

    _needs = needs(
        "a price needs per_call, per_million_tokens_in or per_million_tokens_out",
        *("per_call", "per_million_tokens_in", "per_million_tokens_out"),
    )


class Reserve(StrictModel):
    """What a call reserves in quotas before it, in place of the largest recent one."""

    tokens: Count | None = None
    tokens_in: Count | None = None
    tokens_out: Count | None = None
    cost: Money | None = None


Failure = Literal["unavailable", "timeout", "throttled", "tool_error"]


class ToolSettings(StrictModel):
    """What differs from the default for one tool, for the tools of a pattern, or for a server's own tool."""

    to: Annotated[Targets, AfterValidator(some)] = ()
    route: Annotated[tuple[ArmSettings, ...], AfterValidator(some)] = ()
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
    cache: Pause | None = None
    tokens: Tokens | None = None
    price: PriceSettings | None = None
    reserve: Reserve | None = None
    validate_: Many[Literal["arguments", "results"]] = Field(default=(), alias="validate")
    weight: Annotated[int, Field(ge=0, le=MOST_BURST)] = 1

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
