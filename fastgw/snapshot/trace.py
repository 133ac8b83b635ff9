"""Why a rule speaks of a call or does not, in words: beside what the gateway decides, never in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fastgw.config.conditions import match_of
from fastgw.config.limits import limits_of
from fastgw.config.schema import rules
from fastgw.config.schema.settings import Settings
from fastgw.policy.authorise import Policy
from fastgw.policy.limits import ApplyingLimits, CallSubject, applying, override_table
from fastgw.policy.match import Match
from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns
from fastgw.policy.principal import Principal
from fastgw.policy.uris import UriRules


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose call it is.

    Args:
        arguments: JSON text; empty where the call has none.
    """

    principal: Principal
    endpoint: str
    arguments: bytes = b""


@dataclass(frozen=True, slots=True)
class Names:
    """What patterns are tried on.

    Args:
        kind: `tool`, `prompt` or `resource`.
        name: as agents see it; of a resource the URI.
        sources: `server/name` of every target that could be reached.
        known_as: every name a deny is tried on; of a resource its server, own URI, and what else it is called.
    """

    kind: str
    name: str
    sources: tuple[str, ...]
    known_as: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Considered:
    """One policy, as it was considered.

    Args:
        applies: whether it speaks of this call; None where the arguments cannot be judged.
        why: which conditions fail, or cannot be judged.
        allows: patterns of `allow` that fit.
        allowed: which of the sources those with a `/` fit; all of them where another pattern fits.
        denies: patterns of `deny` that fit.
        effect: `allows`, `allows in part`, `denies` or `none`: what follows from it alone.
    """

    policy: str
    applies: bool | None
    why: tuple[str, ...]
    shadow: bool
    allows: tuple[str, ...]
    allowed: tuple[str, ...]
    denies: tuple[str, ...]
    effect: str


@dataclass(frozen=True, slots=True)
class CountingLimits:
    """A limit that counts the call.

    Args:
        by: what its buckets are told apart by.
        bucket: the values of these; None where one is missing.
        rate: as the file has it, `100/minute`; None where only `in_flight` is limited.
        burst: calls at once.
        override: which of the overrides gives the figures, and has buckets of its own, from 1; None: the limit itself.
        weight: how much of the bucket the call takes.
    """

    name: str
    by: tuple[str, ...]
    bucket: tuple[str | None, ...]
    rate: str | None
    burst: int | None
    override: int | None
    in_flight: int | None
    weight: int
    shadow: bool


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quota that speaks of the call. None is active in this release."""

    name: str
    by: tuple[str, ...]
    shadow: bool


def outcome(match: Match | None, asked: Asked) -> bool | None:
    """Whether a match holds, asked as the gateway asks it; None where the arguments cannot be judged."""
    if match is None:
        return True
    left = match.for_class(asked.principal, asked.endpoint)
    return False if left is None else left.judge(asked.arguments)


def _outright(match: Match | None, asked: Asked) -> bool:
    """Whether a match holds whatever the arguments: a read has none, so what looks at them says nothing of it."""
    left = match.for_class(asked.principal, asked.endpoint) if match is not None else Match()
    return left is not None and not left.looks_at_arguments


def reasons(match: Match | None, asked: Asked) -> tuple[str, ...]:
    """Which keys of a match do not hold; none where all do."""
    if match is None:
        return ()
    found = list(_reasons(match, asked))
    if match.unless is not None and (out := outcome(match.unless, asked)) is not False:
        found.append("except takes it out" if out else "except cannot be judged by these arguments")
    return tuple(found)


def considered(policy: Policy, names: Names, asked: Asked) -> Considered:
    """What one policy says of a call."""
    fitting = _uri_fitting if names.kind == "resource" else _fitting
    allows, allowed, denies = fitting(policy, names)
    applies = outcome(policy.match, asked) if names.kind != "resource" else _outright(policy.match, asked)
    effect = "none"
    if denies and applies is not False:
        effect = "denies"
    elif allowed and applies is True:
        effect = "allows" if len(allowed) == len(names.sources) else "allows in part"
    why = reasons(policy.match, asked) if applies is not True else ()
    if applies is False and not why:
        why = ("it looks at arguments, and a read has none",)
    as_written = [tuple(_PREFIX[names.kind] + text for text in texts) for texts in (allows, denies)]
    return Considered(policy.name, applies, why, policy.shadow, as_written[0], allowed, as_written[1], effect)


def counting(settings: Settings, matter: CallSubject, asked: Asked, weight: int) -> Iterator[CountingLimits]:
    """The limits that count the call, in order.

    Args:
        asked: with the arguments as they are sent.
        weight: of the call.
    """
    written = {limit.name: limit for limit in settings.limits}
    for one in applying(limits_of(settings), asked.principal, asked.endpoint):
        limit = one.limit
        if one.counts(asked.arguments) and (limit.tools is None or limit.tools.take(matter)):
            yield _counting(written[limit.name], one, matter, asked, weight)


def _counting(
    written: rules.LimitSettings, one: ApplyingLimits, matter: CallSubject, asked: Asked, weight: int
) -> CountingLimits:
    limit, tariff = one.limit, one.tariff_for(asked.arguments)
    subject = limit.subject(asked.principal, asked.endpoint, matter)
    tables = [override_table(limit, one) for one in limit.overrides]
    place = tables.index(tariff.table) if tariff.table in tables else None
    rate = written.overrides[place].rate if place is not None else None
    return CountingLimits(
        name=limit.name,
        by=limit.by,
        bucket=subject if isinstance(subject, tuple) else (subject,),
        rate=None if written.rate is None else str(rate or written.rate),
        burst=None if tariff.figures is None else tariff.figures.burst,
        override=None if place is None else place + 1,
        in_flight=limit.in_flight,
        weight=weight,
        shadow=limit.shadow,
    )


def quoted(settings: Settings, names: Names, asked: Asked) -> Iterator[Quoted]:
    """The quotas that speak of the call."""
    for one in settings.quotas:
        if outcome(match_of(one.match, one.except_), asked) is not False and _is_about(one.tools, names):
            yield Quoted(one.name, one.by, one.mode == "shadow")


_PREFIX = {"tool": "", "prompt": PROMPT, "resource": RESOURCE}
"""What stands before the patterns of each kind in the file."""


def about(texts: Iterable[str], kind: str) -> list[str]:
    """The patterns that speak of one kind of thing, less the word that says so."""
    if kind == "tool":
        return [text for text in texts if not text.startswith((PROMPT, RESOURCE))]
    prefix = _PREFIX[kind]
    return [text.removeprefix(prefix) for text in texts if text.startswith(prefix)]


# -- inside -------------------------------------------------------------------------------------------------------


def _reasons(match: Match, asked: Asked) -> Iterator[str]:
    principal = asked.principal
    if match.agent is not None and not match.agent.fits(principal.agent):
        yield f"agent: {principal.agent} is not {_or(match.agent)}"
    for claim, patterns in match.claims:
        value = principal.claims.get(claim)
        one = Match(claims=((claim, patterns),))
        if value is None:
            yield f"claims.{claim}: it has no such claim"
        elif not one.static_holds(principal, asked.endpoint):
            yield f"claims.{claim}: {value if isinstance(value, str) else ', '.join(value)} is not {_or(patterns)}"
    if match.endpoint is not None and not match.endpoint.fits(asked.endpoint):
        yield f"endpoint: {asked.endpoint} is not {_or(match.endpoint)}"
    for name, test in match.arguments:
        judged = Match(arguments=((name, test),)).judge(asked.arguments)
        if judged is not True:
            yield f"arguments.{name}: " + ("does not match, or is missing" if judged is False else "cannot be judged")


def _or(patterns: Patterns) -> str:
    return " or ".join(patterns.texts)


def _fitting(policy: Policy, names: Names) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The patterns of `allow` that fit, the sources they fit, the patterns of `deny` that fit."""
    by_name = _those(about(policy.allow, names.kind), lambda text: "/" not in text and _fits(text, names.name))
    by_source = _those(
        about(policy.allow, names.kind), lambda text: "/" in text and any(_fits(text, one) for one in names.sources)
    )
    sources = Patterns(by_source)
    allowed = names.sources if by_name else tuple(one for one in names.sources if sources.fits(one))
    denies = _those(about(policy.deny, names.kind), lambda text: any(_fits(text, one) for one in names.known_as))
    return (*by_name, *by_source), allowed, denies


def _uri_fitting(policy: Policy, names: Names) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The same of a URI, whose spellings the gateway's own rules know."""
    server, own, *known_as = names.known_as

    def permits(text: str) -> bool:
        return UriRules(Patterns([text])).permit(names.name, server, own, known_as)

    def refuses(text: str) -> bool:
        return not UriRules(None, Patterns([text])).permit(names.name, server, own, known_as)

    allow = about(policy.allow, names.kind)
    allowed = names.sources if allow and UriRules(Patterns(allow)).permit(names.name, server, own) else ()
    return _those(allow, permits), allowed, _those(about(policy.deny, names.kind), refuses)


def _those(texts: Sequence[str], fit: Callable[[str], bool]) -> tuple[str, ...]:
    return tuple(text for text in texts if fit(text))


def _fits(pattern: str, name: str) -> bool:
    return Patterns([pattern]).fits(name)


def _is_about(tools: Sequence[str] | None, names: Names) -> bool:
    if tools is None:
        return True
    patterns = Patterns(about(tools, names.kind))
    return patterns.fit_any((names.name, *names.sources))
