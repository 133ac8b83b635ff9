"""From the words of the configuration to conditions, policies and limits that can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.util import find_spec

from fastgw.config.schema.rules import LimitSettings, MatchSettings, OverrideSettings, PolicySettings, QuotaSettings
from fastgw.config.schema.settings import Settings
from fastgw.config.schema.units import RateSetting
from fastgw.policy.authorise import Policy
from fastgw.policy.bucket import BucketRate, bucket_rate
from fastgw.policy.limits import Limit, Override, ToolPatterns
from fastgw.policy.match import ArgumentTest, Match
from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns, by_slash, of_kind
from fastgw.policy.quotas import Period, Quota, money_units
from fastgw.policy.uris import UriRules

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
"""What spans are sent with: of OpenTelemetry's SDK, and no dependency of ours."""
FAILED_CREDENTIALS = "failed-credentials"
"""By this name the limit of wrong credentials is counted and logged."""


def match_of(match: MatchSettings | None, unless: MatchSettings | None) -> Match | None:
    """The keys `match` and `except` as one condition; None where neither is written: it holds for every call."""
    found = _plain(match) if match else None
    return found if unless is None else replace(found or Match(), unless=_plain(unless))


def _plain(match: MatchSettings) -> Match:
    return Match(
        agent=Patterns(match.agent) if match.agent else None,
        claims=tuple((claim, Patterns(values)) for claim, values in match.claims.items()),
        endpoint=Patterns(match.endpoint) if match.endpoint else None,
        arguments=tuple(
            (name, ArgumentTest(Patterns(test.values), test.less_than, test.more_than))
            for name, test in match.arguments.items()
        ),
    )


def policies_of(policies: Sequence[PolicySettings] | None) -> tuple[Policy, ...] | None:
    """The key `policies`; None where it is not written."""
    if policies is None:
        return None
    return tuple(
        Policy(one.name, match_of(one.match, one.except_), one.allow, one.deny, one.mode == "shadow")
        for one in policies
    )


def limits_of(settings: Settings) -> tuple[Limit, ...]:
    """The key `limits`, in its order.

    Raises:
        ValueError: numbers beyond what a bucket counts; `checks` refuses them with their place.
    """
    return tuple(_limit(one) for one in settings.limits)


def quotas_of(settings: Settings) -> tuple[Quota, ...]:
    """The key `quotas`, in its order."""
    return tuple(_quota(one) for one in settings.quotas)


def failed_credentials_of(settings: Settings) -> BucketRate | None:
    """How many wrong credentials an address may show; None where that is not limited."""
    rate = settings.failed_credentials
    return None if rate is None else rate_of(rate, None)


def sampling_of(settings: Settings) -> int | None:
    """Of 2**64 traces that begin here, how many are recorded; None where spans go nowhere, or cannot."""
    traces = settings.traces
    return None if traces is None or not can_export() else int(traces.sample * 2**64)


@cache
def can_export() -> bool:
    """Whether the packages for `traces` are installed."""
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:
        return False


def rate_of(rate: RateSetting, burst: int | None) -> BucketRate:
    """A rate as buckets count it.

    Args:
        burst: calls at once; None: as many as the rate names.

    Raises:
        ValueError: they limit nothing.
    """
    return bucket_rate(rate.calls, rate.seconds, rate.calls if burst is None else burst)


def tools_of(texts: Sequence[str] | None) -> ToolPatterns | None:
    """The key `tools` of a limit; None where it is not written: all calls."""
    if texts is None:
        return None
    tools, prompts = by_slash(of_kind("", texts)), by_slash(of_kind(PROMPT, texts))
    return ToolPatterns(tools, prompts, UriRules(None, Patterns(of_kind(RESOURCE, texts))))


def _limit(one: LimitSettings) -> Limit:
    return Limit(
        name=one.name,
        by=one.by,
        match=match_of(one.match, one.except_),
        tools=tools_of(one.tools),
        rate=None if one.rate is None else rate_of(one.rate, one.burst),
        in_flight=one.in_flight,
        overrides=() if one.rate is None else tuple(_override(one.rate, each) for each in one.overrides),
        exact=one.exact,
        on_failure=one.on_store_failure,
        shadow=one.mode == "shadow",
    )


def _quota(one: QuotaSettings) -> Quota:
    counts = [-1 if most is None else most for most in (one.calls, one.tokens, one.tokens_in, one.tokens_out)]
    calls, tokens, tokens_in, tokens_out = counts
    cost, unit = (-1, 1) if one.cost is None else money_units(one.cost)
    rolling = 0 if one.rolling is None else max(1, int(one.rolling * 1000))
    return Quota(
        name=one.name,
        by=one.by,
        match=match_of(one.match, one.except_),
        tools=tools_of(one.tools),
        on_failure=one.on_store_failure,
        shadow=one.mode == "shadow",
        period=Period(one.per or "", one.timezone, rolling),
        amounts=(calls, tokens, tokens_in, tokens_out, cost),
        unit=unit,
        warn_at=0 if one.warn_at is None else int(one.warn_at * 1000),
    )


def _override(rate: RateSetting, override: OverrideSettings) -> Override:
    """A rate of its own brings its own burst, a burst alone stands beside the limit's rate."""
    key = sha256(override.match.model_dump_json().encode()).hexdigest()[:12]
    found = rate_of(override.rate or rate, override.burst)
    return Override(match_of(override.match, None) or Match(), found, key)
