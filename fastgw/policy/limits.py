"""Which limits a call counts in, and in which bucket of each.

A bucket belongs to what is *known* of an agent: its name, its claims, the endpoint, the tool. Never to a session, a
connection or an argument, of which an agent has as many as it likes. A URI is one of those: reads share a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, NamedTuple

from fastgw.policy.bucket import BucketRate
from fastgw.policy.match import Claim, Match, Principal
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import ANY_URI, NONE, UriRules

Part = str | None
Subject = Part | tuple[Part, ...]
"""Which bucket of a limit: the value of its `by`, or the values where it has several."""
SubjectReader = Callable[[Principal], Subject]
StoreFailure = Literal["local", "allow", "deny"]

LONGEST = 256
"""Characters of a value that a bucket is known by; what is longer is cut, and told apart by its hash."""
CLAIMS = "claims."


class CallSubject(NamedTuple):
    """What a call is about.

    Args:
        kind: `tool`, `prompt` or `resource`.
        name: as agents see it; a resource's URI as this one wrote it.
        server, own: who is asked, and by which name.
        known_as: what else the URI is called, or could be.
    """

    kind: str
    name: str
    server: str
    own: str
    known_as: tuple[str, ...] = ()

    @property
    def counted_as(self) -> Part:
        """What `tool` of a `by` means here; None for resources, of which an agent can invent names."""
        if self.kind == "tool":
            return self.name
        return f"prompt:{self.name}" if self.kind == "prompt" else None


@dataclass(frozen=True, slots=True)
class ToolPatterns:
    """The key `tools` of a limit.

    Args:
        names, sources: patterns over names of tools, those agents see and the servers' own, and over `server/tool`.
        prompts, prompt_sources: likewise, of prompts.
        uris: refuses what the patterns of resources fit: a limit must be as hard to walk round as a deny.
    """

    names: Patterns
    sources: Patterns
    prompts: Patterns = NONE
    prompt_sources: Patterns = NONE
    uris: UriRules = ANY_URI

    def take(self, matter: CallSubject) -> bool:
        """Whether the limit speaks of this call."""
        if matter.kind == "resource":
            return not self.uris.permit_listed(matter.name, matter.server, matter.own, matter.known_as)
        tools = matter.kind == "tool"
        names, sources = (self.names, self.sources) if tools else (self.prompts, self.prompt_sources)
        # The own name too: a server that lists another's tool renames both, and must not lift a limit by it.
        return names.fit_any((matter.name, matter.own)) or sources.fits(f"{matter.server}/{matter.own}")


@dataclass(frozen=True, slots=True)
class Override:
    """Other figures for some of a limit's agents.

    Args:
        key: tells it from the limit's others, wherever it stands among them: its buckets are known by it.
    """

    match: Match
    figures: BucketRate
    key: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """One entry of `limits`.

    Args:
        by: what its buckets are told apart by; empty: one for all.
        match: whose calls; None for everybody's.
        tools: which calls; None for all.
        figures: of its rate; None where it has none.
        in_flight: calls at the same time; None where that is not limited.
        overrides: the first whose match holds replaces `figures`.
        exact: never served from what was taken in advance.
        on_failure: what becomes of a call while the store is away.
        shadow: counted, never enforced.
    """

    name: str
    by: tuple[str, ...] = ()
    match: Match | None = None
    tools: ToolPatterns | None = None
    figures: BucketRate | None = None
    in_flight: int | None = None
    overrides: tuple[Override, ...] = ()
    exact: bool = False
    on_failure: StoreFailure = "local"
    shadow: bool = False

    def subject(self, principal: Principal, endpoint: str, matter: CallSubject) -> Subject:
        """Which bucket a call counts in."""
        return self.subject_reader(endpoint, matter)(principal)

    def subject_reader(self, endpoint: str, matter: CallSubject) -> SubjectReader:
        """Which bucket a call counts in, once it is known where it came in and what it is about."""
        readers = [_part_reader(key, endpoint, matter) for key in self.by]
        if len(readers) == 1:
            return readers[0]
        if len(readers) == 2:  # written out: a loop costs half a microsecond more
            first, second = readers
            return lambda principal: (first(principal), second(principal))
        return lambda principal: tuple([read(principal) for read in readers])


class RateTable(NamedTuple):
    """At what rate a call counts, and among which buckets.

    Args:
        table: the limit's name; for an override also its place, since whoever it speaks of has buckets of their own.
        figures: None where only calls at the same time are counted.
    """

    table: str
    figures: BucketRate | None


class ApplyingLimits(NamedTuple):
    """A limit that may count the calls of one class of agents.

    Args:
        match: what is left to ask of the arguments; None: nothing.
        tariff: where no override holds.
        overrides: those that still look at the arguments, in order; they stand before `tariff`.
    """

    limit: Limit
    match: Match | None
    tariff: RateTable
    overrides: tuple[tuple[Match, RateTable], ...] = ()

    def counts(self, arguments: bytes) -> bool:
        """Whether a call with these arguments counts. What cannot be judged does: a limit restricts."""
        return self.match is None or self.match.judge(arguments) is not False

    def tariff_for(self, arguments: bytes) -> RateTable:
        """At what rate a call with these arguments counts.

        Where it cannot be judged whether an override holds, the slowest of all that may: nobody gets a faster rate, or
        away from a slower one, by arguments that each reads otherwise.
        """
        may = []
        for match, tariff in self.overrides:
            judgement = match.judge(arguments)
            if judgement is not False:
                may.append(tariff)
            if judgement:
                break
        else:
            may.append(self.tariff)
        return min(may, key=_speed)


def applying(limits: Sequence[Limit], principal: Principal, endpoint: str) -> tuple[ApplyingLimits, ...]:
    """The limits that may count this agent's calls on this endpoint."""
    found = []
    for limit in limits:
        match = limit.match.for_class(principal, endpoint) if limit.match else None
        if limit.match is not None and match is None:
            continue
        asks = match if match is not None and match.looks_at_arguments else None
        found.append(_with_overrides(limit, asks, principal, endpoint))
    return tuple(found)


def _with_overrides(limit: Limit, match: Match | None, principal: Principal, endpoint: str) -> ApplyingLimits:
    left: list[tuple[Match, RateTable]] = []
    for override in limit.overrides:
        asks = override.match.for_class(principal, endpoint)
        if asks is None:
            continue
        tariff = RateTable(override_table(limit, override), override.figures)
        if not asks.looks_at_arguments:
            return ApplyingLimits(limit, match, tariff, tuple(left))
        left.append((asks, tariff))
    return ApplyingLimits(limit, match, RateTable(limit.name, limit.figures), tuple(left))


def override_table(limit: Limit, override: Override) -> str:
    """What the buckets of an override are kept under; no limit's name holds a line break."""
    return f"{limit.name}\n{override.key}"


def is_of(table: str, limit: str) -> bool:
    """Whether a table of buckets is the limit's, or that of one of its overrides."""
    return table == limit or table.startswith(f"{limit}\n")


def _part_reader(key: str, endpoint: str, matter: CallSubject) -> Callable[[Principal], Part]:
    if key == "agent":
        return _agent
    if key == "user":
        return lambda principal: _bounded(principal.user)
    if key.startswith(CLAIMS):
        return _claim_reader(key.removeprefix(CLAIMS))
    part = {"tool": _bounded(matter.counted_as), "server": matter.server, "endpoint": endpoint}[key]
    return lambda _: part


def _agent(principal: Principal) -> Part:
    agent = principal.agent
    return agent if len(agent) <= LONGEST else _bounded(agent)


def _claim_reader(name: str) -> Callable[[Principal], Part]:
    def read(principal: Principal) -> Part:
        claim = principal.claims.get(name)
        return claim if isinstance(claim, str) and len(claim) <= LONGEST else _bounded(_text(claim))

    return read


def _text(claim: Claim | None) -> Part:
    """A list counts as its values joined with commas; a missing claim is a value of its own."""
    return ",".join(claim) if isinstance(claim, tuple) else claim


def _bounded(text: Part) -> Part:
    if text is None or len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}…{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _speed(tariff: RateTable) -> tuple[float, int]:
    figures = tariff.figures
    return (figures.gain / (figures.price * figures.tick), figures.burst) if figures is not None else (0.0, 0)


def shown(subject: Subject) -> str:
    """A subject as operators read it, on one line; `-` for a value that is missing."""
    parts = subject if isinstance(subject, tuple) else (subject,)
    return " ".join("-" if part is None else _printable(part) for part in parts)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
