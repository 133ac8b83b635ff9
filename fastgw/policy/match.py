"""Whose call a policy, route or limit is about: agent, claims, endpoint, arguments.

A judgement has three values: True, False, and None for *cannot be told*: arguments that are no object, a member that
stands twice or imitates a looked-at one in case, a list where a single value was asked for. Who allows takes None for
no, who denies takes it for yes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from fastgw.policy.patterns import Patterns
from fastgw.policy.principal import Principal
from fastgw.protocol.envelope import NotAMessage, NotJson, members, string

NOTHING = Patterns(())
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def number(text: str) -> Decimal | None:
    """The exact value of a JSON number (RFC 8259, section 6), None for any other text."""
    if _NUMBER.fullmatch(text) is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


@dataclass(frozen=True, slots=True)
class Bound:
    """A range for numbers; both ends exclusive, None for an open end."""

    less_than: Decimal | None = None
    more_than: Decimal | None = None

    def judge(self, text: str) -> bool | None:
        """Whether the number lies inside; None where `text` is no number."""
        value = number(text)
        if value is None:
            return None
        return (self.less_than is None or value < self.less_than) and (self.more_than is None or value > self.more_than)


@dataclass(frozen=True, slots=True)
class ArgumentTest:
    """What one argument must be: one of some values or patterns, or inside one of some ranges.

    Numbers and booleans compare as text; two spellings of one number (`3`, `3.0`, `30e-1`) are the same value, compared
    exactly, whatever their length.
    """

    values: Patterns = NOTHING
    bounds: tuple[Bound, ...] = ()

    def judge(self, value: bytes) -> bool | None:
        """The judgement on one argument's JSON text. `null` counts as missing; a list or object cannot be told."""
        if value == b"null":
            return False
        if value[:1] in (b"[", b"{"):
            return None
        text = string(value, "argument") if value[:1] == b'"' else value.decode()
        if self.values.fits(text) or (value[:1] != b'"' and self._same_number(text)):
            return True
        return _any(bound.judge(text) for bound in self.bounds)

    def _same_number(self, text: str) -> bool:
        value = number(text)
        return value is not None and any(number(other) == value for other in self.values.texts)


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions on a call; all that are given must hold, and `unless` must not.

    Args:
        agent: patterns over the agent's name; None for any agent.
        claims: claim name to patterns; a missing claim never matches, a list matches by any element.
        endpoint: patterns over the endpoint's path; None for any.
        arguments: argument name to its test; a missing argument never matches.
        unless: `except` of the configuration: what is taken out again.
    """

    agent: Patterns | None = None
    claims: tuple[tuple[str, Patterns], ...] = ()
    endpoint: Patterns | None = None
    arguments: tuple[tuple[str, ArgumentTest], ...] = ()
    unless: Match | None = None

    @property
    def looks_at_arguments(self) -> bool:
        """Whether only the call itself can settle it."""
        return bool(self.arguments) or (self.unless is not None and self.unless.looks_at_arguments)

    def static_holds(self, principal: Principal, endpoint: str) -> bool:
        """Whether the call may match, as far as agent, claims and endpoint tell."""
        if not self._about(principal, endpoint):
            return False
        out = self.unless
        return out is None or out.looks_at_arguments or not out.static_holds(principal, endpoint)

    def for_class(self, principal: Principal, endpoint: str) -> Match | None:
        """What is left to ask of the arguments once it is known who calls; None where it cannot match any more."""
        if not self.static_holds(principal, endpoint):
            return None
        out = self.unless.for_class(principal, endpoint) if self.unless else None
        return replace(self, agent=None, claims=(), endpoint=None, unless=out)

    def judge(self, arguments: bytes) -> bool | None:
        """The judgement on the arguments alone; of a match that `for_class` gave, the whole judgement.

        Args:
            arguments: JSON text of `params.arguments`; empty where the call has none.
        """
        found = self._judge_own(arguments)
        if found is False or self.unless is None:
            return found
        out = self.unless.judge(arguments)
        if out is True:
            return False
        return None if out is None else found

    def arguments_hold(self, arguments: bytes) -> bool:
        """Whether the arguments surely match. A deny must ask `arguments_may_hold`."""
        return self.judge(arguments) is True

    def arguments_may_hold(self, arguments: bytes) -> bool:
        """Whether the arguments match or cannot be judged: the question of whoever denies."""
        return self.judge(arguments) is not False

    def _about(self, principal: Principal, endpoint: str) -> bool:
        if self.agent is not None and not self.agent.fits(principal.agent):
            return False
        if self.endpoint is not None and not self.endpoint.fits(endpoint):
            return False
        return all(_claim_fits(principal, claim, patterns) for claim, patterns in self.claims)

    def _judge_own(self, arguments: bytes) -> bool | None:
        if not self.arguments:
            return True
        try:
            given = members(arguments or b"{}", frozenset(name for name, _ in self.arguments))
            return _all(test.judge(given.get(name, b"null")) for name, test in self.arguments)
        except (NotJson, NotAMessage, UnicodeDecodeError):
            return None


def _claim_fits(principal: Principal, claim: str, patterns: Patterns) -> bool:
    value = principal.claims.get(claim)
    if value is None:
        return False
    return patterns.fits(value) if isinstance(value, str) else patterns.fit_any(value)


def _all(judgements: Iterable[bool | None]) -> bool | None:
    """And: one False settles it, else one None leaves it open."""
    found: bool | None = True
    for judgement in judgements:
        if judgement is False:
            return False
        if judgement is None:
            found = None
    return found


def _any(judgements: Iterable[bool | None]) -> bool | None:
    """Or: one True settles it, else one None leaves it open."""
    found: bool | None = False
    for judgement in judgements:
        if judgement is True:
            return True
        if judgement is None:
            found = None
    return found
