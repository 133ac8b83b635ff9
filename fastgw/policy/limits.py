"""Which limits a call counts in, and in which bucket of each.

A bucket belongs to what is *known* of an agent: its name, its claims, the endpoint, the tool. Never to a session, a
connection or an argument, of which an agent has as many as it likes. A URI is one of those: reads share a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, NamedTuple, TypeVar

import msgspec

from fastgw.policy.bucket import BucketRate
from fastgw.policy.match import Claim, Match, Principal
from fastgw.policy.patterns import NO_PATTERNS, Patterns
from fastgw.policy.uris import ANY_URI, UriRules

Part = str | None
Subject = Part | tuple[Part, ...]
"""Which bucket of a limit: the value of its `by`, or the values where it has several."""
SubjectReader = Callable[[Principal], Subject]
Rule = TypeVar("Rule", bound="LimitRule")
StoreFailure = Literal["local", "allow", "deny"]

LONGEST = 256
"""Characters of a value that a bucket is known by; what is longer is cut, and told apart by its hash."""
CLAIMS = "claims."


class CallSubject(NamedTuple):
    """What a call is about: a `tool`, `prompt` or `resource`, its name as agents see it (a URI as this one wrote it),
    who is asked by which own name, and what else a URI is called, or could be.
    """

    kind: str
    name: str
    server: str
    own: str
    known_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolPatterns:
    """The key `tools` of a limit.

    Args:
        tools, prompts: patterns over names, those agents see and the servers' own, and over `server/name`.
        uris: refuses what the patterns of resources fit: a limit must be as hard to walk round as a deny.
    """

    tools: tuple[Patterns, Patterns]
    prompts: tuple[Patterns, Patterns] = (NO_PATTERNS, NO_PATTERNS)
    uris: UriRules = ANY_URI

    def take(self, subject: CallSubject) -> bool:
        """Whether the limit speaks of this call."""
        if subject.kind == "resource":
            return not self.uris.permit_listed(subject.name, subject.server, subject.own, subject.known_as)
        names, sources = self.tools if subject.kind == "tool" else self.prompts
        # The own name too: a server that lists another's tool renames both, and must not lift a limit by it.
        return names.fit_any((subject.name, subject.own)) or sources.fits(f"{subject.server}/{subject.own}")


@dataclass(frozen=True, slots=True)
class Override:
    """Another rate for some of a limit's agents. Its buckets are known by `key`, wherever it is among the others."""

    match: Match
    rate: BucketRate
    key: str = ""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """What limits and quotas have in common: `match` says whose calls one counts, `tools` which; None: all.

    Args:
        by: what is counted apart; empty: one count for all.
        on_failure: what becomes of a call while the store is away.
        shadow: counted, never enforced.
    """

    name: str
    by: tuple[str, ...] = ()
    match: Match | None = None
    tools: ToolPatterns | None = None
    on_failure: StoreFailure = "local"
    shadow: bool = False

    def subject_reader(self, endpoint: str, subject: CallSubject) -> SubjectReader:
        """Which bucket or account a call counts in, once it is known where it came in and what it is about."""
        readers = [_part_reader(key, endpoint, subject) for key in self.by]
        if len(readers) == 1:
            return readers[0]
        if len(readers) == 2:  # written out: a loop costs half a microsecond more
            first, second = readers
            return lambda principal: (first(principal), second(principal))
        return lambda principal: tuple([read(principal) for read in readers])


@dataclass(frozen=True, slots=True)
class Limit(LimitRule):
    """One entry of `limits`.

    Args:
        in_flight: calls at the same time; None where that is not limited.
        overrides: the first whose match holds replaces `rate`.
        exact: never served from what was taken in advance.
    """

    rate: BucketRate | None = None
    in_flight: int | None = None
    overrides: tuple[Override, ...] = ()
    exact: bool = False


class RateTable(NamedTuple):
    """At what rate a call counts (None: only calls at the same time are counted), and among which buckets: the limit's,
    by its name, or those of an override, as `override_table` calls them.
    """

    table: str
    rate: BucketRate | None


class ApplyingLimits(NamedTuple):
    """A limit that may count the calls of one class of agents, and what is left to ask of the arguments: by `match`
    (None: nothing), and by the overrides in their order; `table` is where none of them holds.
    """

    limit: Limit
    match: Match | None
    table: RateTable
    overrides: tuple[tuple[Match, RateTable], ...] = ()

    def counts(self, arguments: bytes) -> bool:
        """Whether a call with these arguments counts. What cannot be judged does: a limit restricts."""
        return self.match is None or self.match.judge(arguments) is not False

    def table_for(self, arguments: bytes) -> RateTable:
        """At what rate a call with these arguments counts.

        Where it cannot be judged whether an override holds, the slowest of all that may: nobody gets a faster rate, or
        away from a slower one, by arguments that each reads otherwise.
        """
        may = []
        for match, table in self.overrides:
            judgement = match.judge(arguments)
            if judgement is not False:
                may.append(table)
            if judgement:
                break
        else:
            may.append(self.table)
        return min(may, key=_speed)


def applying_rules(rules: Sequence[Rule], principal: Principal, endpoint: str) -> list[tuple[Rule, Match | None]]:
    """Those that may count this agent's calls on this endpoint, each with what is left to ask of the arguments."""
    found = []
    for rule in rules:
        match = rule.match.for_class(principal, endpoint) if rule.match else None
        if rule.match is None or match is not None:
            found.append((rule, match if match is not None and match.looks_at_arguments else None))
    return found


def applying(limits: Sequence[Limit], principal: Principal, endpoint: str) -> tuple[ApplyingLimits, ...]:
    """The limits that may count this agent's calls on this endpoint."""
    found = []
    for limit, asks in applying_rules(limits, principal, endpoint):
        table, overrides = RateTable(limit.name, limit.rate), []
        for override in limit.overrides:
            holds = override.match.for_class(principal, endpoint)
            if holds is None:
                continue
            own = RateTable(override_table(limit, override), override.rate)
            if not holds.looks_at_arguments:
                table = own
                break
            overrides.append((holds, own))
        found.append(ApplyingLimits(limit, asks, table, tuple(overrides)))
    return tuple(found)


def override_table(limit: Limit, override: Override) -> str:
    """What the buckets of an override are kept under; no limit's name holds a line break."""
    return f"{limit.name}\n{override.key}"


def is_of(table: str, limit: str) -> bool:
    """Whether a table of buckets is the limit's, or that of one of its overrides."""
    return table == limit or table.startswith(f"{limit}\n")


def _part_reader(key: str, endpoint: str, subject: CallSubject) -> Callable[[Principal], Part]:
    if key == "agent":
        return lambda principal: agent if len(agent := principal.agent) <= LONGEST else _bounded(agent)
    if key == "user":
        return lambda principal: _bounded(principal.user)
    if key.startswith(CLAIMS):
        name = key.removeprefix(CLAIMS)
        return lambda principal: (
            claim if isinstance(claim := principal.claims.get(name), str) and len(claim) <= LONGEST else _bounded(claim)
        )
    # Not of resources, of which an agent can invent names.
    named = {"tool": subject.name, "prompt": f"prompt:{subject.name}"}.get(subject.kind)
    part = {"tool": _bounded(named), "server": subject.server, "endpoint": endpoint}[key]
    return lambda _: part


def _bounded(value: Claim | None) -> Part:
    """A list counts as its values joined with commas; a missing claim is a value of its own."""
    text = ",".join(value) if isinstance(value, tuple) else value
    if text is None or len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}…{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _speed(table: RateTable) -> tuple[float, int]:
    rate = table.rate
    return (rate.gain / (rate.price * rate.tick), rate.burst) if rate is not None else (0.0, 0)


def shown(subject: Subject) -> str:
    """A subject as operators read it, on one line; `-` for a value that is missing."""
    text = " ".join("-" if part is None else part for part in (subject if isinstance(subject, tuple) else (subject,)))
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


Bucket = tuple[str, Subject]
"""Which bucket: its limit (or the override of one) and its subject. Keeps its content over a reload."""


class BucketCharge(NamedTuple):
    """One bucket that a call counts in: `cost` tokens of a rate, at most a whole bucket; or, where `rate` is None, one
    of the `most` calls at the same time.
    """

    limit: Limit
    bucket: Bucket
    rate: BucketRate | None
    cost: int = 1
    most: int = 0


class LimitVerdict(msgspec.Struct):
    """Whether a call may go, and how the tightest of its buckets stands then.

    Args:
        refused: the charge that refuses it; of several the one that takes longest. None where it may go.
        wait: seconds until that one would let it through; 0.0 where nobody can tell.
        tightest: of the rates that counted the call the one with the fewest calls left; the refusing one of a refusal.
        left: tokens in that bucket, as far as this worker knows.
        lacking: units that bucket lacks.
        shadowed: limits in shadow mode that would have refused it.
        permits: the charges whose calls at the same time it takes part in: to be given back when it is over.
        how: who decided: `memory`, `lease`, `store`, or, while the store is away, `local`, `allow`, `deny`.
    """

    refused: BucketCharge | None = None
    wait: float = 0.0
    tightest: BucketCharge | None = None
    left: int = 0
    lacking: int = 0
    shadowed: tuple[Limit, ...] = ()
    permits: tuple[BucketCharge, ...] = ()
    how: str = "memory"


@dataclass(frozen=True, slots=True)
class BucketState:
    """How full one bucket is, for operators: `used` is the share that is gone, 0.0 to 1.0; `left` and `burst` are
    tokens or, where calls `at_once` are counted, those of this worker.
    """

    limit: str
    subject: str
    used: float
    left: int
    burst: int
    at_once: bool = False


def bucket_state(charge: BucketCharge, subject: Subject, used: int) -> BucketState:
    """How full a bucket of this charge is: `used` is the units that it lacks, or the calls that run."""
    limit, _, rate, _, most = charge
    if rate is None:
        return BucketState(limit.name, shown(subject), used / most, max(0, most - used), most, at_once=True)
    return BucketState(limit.name, shown(subject), used / rate.cap, (rate.cap - used) // rate.price, rate.burst)
