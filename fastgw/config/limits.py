"""The keys `limits` and `failed_credentials`, made ready to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from fastgw.config.conditions import match_of
from fastgw.config.schema import rules
from fastgw.config.schema.settings import Settings
from fastgw.config.schema.units import RateSetting
from fastgw.policy.bucket import BucketRate, figures_of
from fastgw.policy.limits import Limit, Override, ToolPatterns
from fastgw.policy.match import Match
from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns
from fastgw.policy.uris import UriRules


def limits_of(settings: Settings) -> tuple[Limit, ...]:
    """The key `limits`, in its order.

    Raises:
        ValueError: figures beyond what a bucket counts; `limitchecks` refuses them with their place.
    """
    return tuple(_limit(one) for one in settings.limits)


def failed_credentials_of(settings: Settings) -> BucketRate | None:
    """How many wrong credentials an address may show; None where that is not limited."""
    rate = settings.failed_credentials
    return None if rate is None else figures(rate, None)


def figures(rate: RateSetting, burst: int | None) -> BucketRate:
    """The figures of a rate.

    Args:
        burst: calls at once; None: as many as the rate names.

    Raises:
        ValueError: they limit nothing.
    """
    return figures_of(rate.calls, rate.seconds, rate.calls if burst is None else burst)


def override_figures(rate: RateSetting, override: rules.OverrideSettings) -> BucketRate:
    """The figures of an override: a rate of its own brings its own burst, a burst alone stands beside the limit's rate.

    Args:
        rate: of the limit.

    Raises:
        ValueError: they limit nothing.
    """
    return figures(override.rate or rate, override.burst)


def tools_of(texts: Sequence[str] | None) -> ToolPatterns | None:
    """The key `tools` of a limit; None where it is not written: all calls."""
    if texts is None:
        return None
    tools = [text for text in texts if not text.startswith((PROMPT, RESOURCE))]
    prompts = [text.removeprefix(PROMPT) for text in texts if text.startswith(PROMPT)]
    uris = [text.removeprefix(RESOURCE) for text in texts if text.startswith(RESOURCE)]
    return ToolPatterns(*_split(tools), *_split(prompts), uris=UriRules(None, Patterns(uris)))


def _split(texts: Sequence[str]) -> tuple[Patterns, Patterns]:
    """Patterns over names, and those with a slash, over `server/name`."""
    names = Patterns(text for text in texts if "/" not in text)
    return names, Patterns(text for text in texts if "/" in text)


def _limit(one: rules.LimitSettings) -> Limit:
    return Limit(
        name=one.name,
        by=one.by,
        match=match_of(one.match, one.except_),
        tools=tools_of(one.tools),
        figures=None if one.rate is None else figures(one.rate, one.burst),
        in_flight=one.in_flight,
        overrides=() if one.rate is None else tuple(_override(one.rate, each) for each in one.overrides),
        exact=one.exact,
        on_failure=one.on_store_failure,
        shadow=one.mode == "shadow",
    )


def _override(rate: RateSetting, override: rules.OverrideSettings) -> Override:
    key = sha256(override.match.model_dump_json().encode()).hexdigest()[:12]
    return Override(match_of(override.match, None) or Match(), override_figures(rate, override), key)
