"""Who calls, and whose call a policy, route or limit is about: agent, claims, endpoint, arguments.

Keys are joined by and, the values of one key by or. A judgement has three values: True, False, and None for *cannot be
told*: arguments that are no object, a member that stands twice or imitates a looked-at one in case, a list where a
single value was asked for. Who allows takes None for no, who denies takes it for yes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation

from fastgw.policy.patterns import NO_PATTERNS, Patterns, is_wild
from fastgw.protocol.envelope import NotAMessage, NotJson, members, string

Claim = str | tuple[str, ...]
"""A claim's value: text, or several texts. Numbers and booleans are compared as text and kept as text."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls; `credential` is `key:` and the first 8 hex digits of the key's SHA-256, or the issuer's name, None if
    anonymous. `scopes` are those of an access token; None of whoever needs none.
    """

    agent: str
    claims: dict[str, Claim] = field(default_factory=dict, hash=False)
    credential: str | None = None
    user: str | None = None
    scopes: frozenset[str] | None = None


ANONYMOUS = Principal("anonymous")

_TAKEN_OUT = "except takes it out"
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
class ArgumentTest:
    """What one argument must be: one of some values or patterns, or inside a range without its ends.

    Numbers and booleans compare as text; two spellings of one number (`3`, `3.0`, `30e-1`) are the same value, compared
    exactly, whatever their length.
    """

    values: Patterns = NO_PATTERNS
    less_than: Decimal | None = None
    more_than: Decimal | None = None

    def judge(self, value: bytes) -> bool | None:
        """The judgement on one argument's JSON text. `null` counts as missing; a list or object cannot be told."""
        if value == b"null":
            return False
        if value[:1] in (b"[", b"{"):
            return None
        quoted = value[:1] == b'"'
        text = string(value, "argument") if quoted else value.decode()
        if self.values.fits(text):
            return True
        ranged = self.less_than is not None or self.more_than is not None
        if quoted and not ranged:
            return False
        exact = number(text)
        if not quoted and exact is not None and any(number(other) == exact for other in self.values.texts):
            return True
        if not ranged:
            return False
        if exact is None:
            return None
        return (self.less_than is None or exact < self.less_than) and (self.more_than is None or exact > self.more_than)


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions on a call; all that are given must hold, and `unless` must not.

    Args:
        claims: claim name to patterns; a missing claim never matches, a list matches by any element.
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
        """Whether only the call itself can decide it."""
        return bool(self.arguments) or (self.unless is not None and self.unless.looks_at_arguments)

    def for_class(self, principal: Principal, endpoint: str, trace: list[str] | None = None) -> Match | None:
        """What is left to ask of the arguments once it is known who calls; None where it cannot match any more.

        `trace` takes the conditions that fail.
        """
        failing = self._failing(principal, endpoint)
        if (first := next(failing, None)) is not None:
            if trace is not None:
                trace.extend((first, *failing))
            return None
        out = self.unless.for_class(principal, endpoint) if self.unless else None
        if out is not None and not out.looks_at_arguments:
            if trace is not None:
                trace.append(_TAKEN_OUT)
            return None
        return replace(self, agent=None, claims=(), endpoint=None, unless=out)

    def judge(self, arguments: bytes, trace: list[str] | None = None) -> bool | None:
        """The judgement on the arguments alone; of a match that `for_class` gave, the whole judgement."""
        why = [] if trace is None else trace
        found = self._judge_own(arguments, why)
        out = False if found is False or self.unless is None else self.unless.judge(arguments)
        if out is False:
            return found
        why.append(_TAKEN_OUT if out else "except cannot be judged by these arguments")
        return False if out else None

    def _failing(self, principal: Principal, endpoint: str) -> Iterator[str]:
        """The conditions on agent, claims and endpoint that do not hold, in words."""
        if self.agent is not None and not self.agent.fits(principal.agent):
            yield f"agent: {principal.agent} is not {_or(self.agent)}"
        for claim, patterns in self.claims:
            value = principal.claims.get(claim)
            if value is None:
                yield f"claims.{claim}: it has no such claim"
            elif not patterns.fit_any((value,) if isinstance(value, str) else value):
                yield f"claims.{claim}: {value if isinstance(value, str) else ', '.join(value)} is not {_or(patterns)}"
        if self.endpoint is not None and not self.endpoint.fits(endpoint):
            yield f"endpoint: {endpoint} is not {_or(self.endpoint)}"

    def _judge_own(self, arguments: bytes, why: list[str]) -> bool | None:
        found: bool | None = True
        if not self.arguments:
            return found
        try:
            given = members(arguments or b"{}", frozenset(name for name, _ in self.arguments))
            for name, test in self.arguments:
                judgement = test.judge(given.get(name, b"null"))
                if judgement is False:
                    why.append(f"arguments.{name}: does not match, or is missing")
                    return False
                if judgement is None:
                    why.append(f"arguments.{name}: cannot be judged")
                    found = None
        except (NotJson, NotAMessage, UnicodeDecodeError):
            why.append("arguments: cannot be judged")
            return None
        return found


ANY_AGENT = Match()


def _or(patterns: Patterns) -> str:
    return " or ".join(patterns.texts)


AgentTraits = tuple[tuple[bool, ...], tuple[object, ...]]


class Traits:
    """What the given matches can see of an agent: those with equal traits get equal answers from every match, so that
    one of ten thousand is asked for all.

    Of a claim that is the values that some match names, and which of its patterns with `*` or `?` fit: a claim with a
    value of its own for each person does not make a class of each. None of these is as good as no such claim.
    """

    def __init__(self, matches: Iterable[Match]) -> None:
        every = [one for match in matches for one in (match, match.unless) if one is not None]
        self._agents: tuple[Patterns, ...] = tuple(dict.fromkeys(match.agent for match in every if match.agent))
        texts: dict[str, dict[str, None]] = {}
        for claim, patterns in (pair for match in every for pair in match.claims):
            texts.setdefault(claim, {}).update(dict.fromkeys(patterns.texts))
        self._claims = tuple(
            (claim, frozenset(some), tuple(Patterns([text]) for text in some if is_wild(text)))
            for claim, some in texts.items()
        )

    def of(self, principal: Principal) -> AgentTraits:
        """The agent's traits; agents with equal ones are equal to every match."""
        fits = tuple([patterns.fits(principal.agent) for patterns in self._agents])
        return fits, tuple([_seen(principal.claims.get(claim), named, wild) for claim, named, wild in self._claims])


def _seen(value: Claim | None, named: frozenset[str], wild: tuple[Patterns, ...]) -> object:
    if value is None:
        return None
    texts = (value,) if isinstance(value, str) else value
    exact = frozenset(text for text in texts if text in named)
    fitting = tuple([at for at, pattern in enumerate(wild) if pattern.fit_any(texts)])
    return (exact, fitting) if exact or fitting else None
