"""From the words of the configuration to conditions and policies."""

from __future__ import annotations

from dataclasses import replace

from fastgw.config.schema.rules import MatchSettings, PolicySettings
from fastgw.policy.authorise import Policy
from fastgw.policy.match import ArgumentTest, Match
from fastgw.policy.patterns import Patterns


def match_of(match: MatchSettings | None, unless: MatchSettings | None) -> Match | None:
    """Both keys as one condition; None where neither is written: it holds for every call.

    Args:
        match: the key `match`.
        unless: the key `except`.
    """
    found = _plain(match) if match else None
    if unless is None:
        return found
    return replace(found or Match(), unless=_plain(unless))


def policies_of(policies: tuple[PolicySettings, ...] | None) -> tuple[Policy, ...] | None:
    """The key `policies`; None where it is not written."""
    if policies is None:
        return None
    return tuple(
        Policy(one.name, match_of(one.match, one.except_), one.allow, one.deny, one.mode == "shadow")
        for one in policies
    )


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
