"""What is wrong with limits beyond the form of single values: claims nobody has, figures that limit nothing or let
nothing through.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastgw.config.complaint import KEY, Finding, nearest
from fastgw.config.limits import figures, tools_of
from fastgw.config.schema.rules import BY_CLAIM, LimitSettings, MatchSettings, PolicySettings
from fastgw.config.schema.settings import Settings
from fastgw.config.schema.tools import ArmSettings
from fastgw.config.schema.units import RateSetting
from fastgw.config.tree import Path
from fastgw.policy.bucket import MOST_BURST
from fastgw.policy.patterns import PROMPT, RESOURCE

FAILED_CREDENTIALS = "failed-credentials"
"""By this name the limit of wrong credentials is counted and logged."""
MOST_IN_FLIGHT = MOST_BURST
MOST_SHADOWS = 25
"""A call counts in two buckets of each at most, and a store tells of 53 of those in shadow."""
ANY_RATE = RateSetting(1, 1)
"""Stands in for the limit's own beside a burst."""


def limits(settings: Settings) -> Iterator[Finding]:
    """Everything that is wrong with `limits` and `failed_credentials`."""
    known = _claims(settings)
    for place, limit in enumerate(settings.limits):
        path: Path = ("limits", place)
        if limit.name == FAILED_CREDENTIALS:
            yield (*path, "name"), f"the name {FAILED_CREDENTIALS} is taken: wrong credentials are counted by it", None
        yield from _figures(path, limit)
        yield from _patterns(path, limit)
        yield from _unknown_claims(path, limit, known)
    shadows = [place for place, limit in enumerate(settings.limits) if limit.mode == "shadow"]
    if len(shadows) > MOST_SHADOWS:
        where: Path = ("limits", shadows[MOST_SHADOWS], "mode")
        yield where, f"more than {MOST_SHADOWS} limits in shadow cannot be told apart", None
    yield from _too_heavy(settings)
    if (rate := settings.failed_credentials) is not None:
        try:
            figures(rate, None)
        except ValueError as wrong:
            yield ("failed_credentials",), str(wrong), None


def matches(path: Path, rule: PolicySettings | ArmSettings | LimitSettings) -> Iterator[tuple[Path, MatchSettings]]:
    """Every `match` and `except` of a rule, with its place."""
    if rule.match is not None:
        yield (*path, "match"), rule.match
    if rule.except_ is not None:
        yield (*path, "except"), rule.except_
    for place, override in enumerate(rule.overrides if isinstance(rule, LimitSettings) else ()):
        yield (*path, "overrides", place, "match"), override.match


def _claims(settings: Settings) -> set[str]:
    """The claims that any agent can have."""
    known = {claim for agent in settings.agents.values() for claim in agent.claims}
    for issuer in settings.identity.values():
        known.update(issuer.claims, issuer.set)
    return known


def _unknown_claims(path: Path, limit: LimitSettings, known: set[str]) -> Iterator[Finding]:
    named: list[tuple[Path, str]] = [
        ((*path, "by", at), key.removeprefix(BY_CLAIM)) for at, key in enumerate(limit.by) if key.startswith(BY_CLAIM)
    ]
    for where, match in matches(path, limit):
        named.extend(((*where, "claims", claim, KEY), claim) for claim in match.claims)
    for where, claim in named:
        if claim not in known:
            yield where, f'no agent and no issuer has a claim "{claim}"', nearest(claim, known)


def _figures(path: Path, limit: LimitSettings) -> Iterator[Finding]:
    if limit.in_flight is not None and limit.in_flight > MOST_IN_FLIGHT:
        yield (*path, "in_flight"), f"is more than {MOST_IN_FLIGHT:,} at the same time, which limits nothing", None
    if limit.rate is None:
        return
    yield from _beyond(path, limit.rate, limit.burst)
    for place, one in enumerate(limit.overrides):
        yield from _beyond((*path, "overrides", place), one.rate or ANY_RATE, one.burst)


def _beyond(path: Path, rate: RateSetting, burst: int | None) -> Iterator[Finding]:
    """What of a rate and its burst limits nothing."""
    for key, size in (("rate", 1), ("rate" if burst is None else "burst", burst)):
        try:
            figures(rate, size)
        except ValueError as wrong:
            yield (*path, key), str(wrong), None
            return


def _patterns(path: Path, limit: LimitSettings) -> Iterator[Finding]:
    if limit.tools == ():
        yield (*path, "tools"), "names nothing and would limit no call: leave it out to limit all", None
    for place, text in enumerate(limit.tools or ()):
        if text in ("", PROMPT, RESOURCE):
            yield (*path, "tools", place), "a pattern is empty", None


def _too_heavy(settings: Settings) -> Iterator[Finding]:
    """Tools that cost more than a full bucket holds: no call of theirs would ever pass."""
    full = []
    for limit in settings.limits:
        if limit.rate is not None and limit.mode == "enforce":
            others = [one.burst or (one.rate or limit.rate).calls for one in limit.overrides]
            full.append((limit.name, min([limit.burst or limit.rate.calls, *others]), tools_of(limit.tools)))
    for key, tool in settings.tools.items():
        for name, burst, tools in full:
            if tool.weight > burst and (tools is None or tools.names.fits(key) or tools.sources.fits(key)):
                message = f'the limit "{name}" has {burst:,} at once, so that no call of this weight ever passes'
                yield ("tools", key, "weight"), message, None
                break
