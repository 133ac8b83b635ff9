"""Which tools an agent may use: every policy that matches applies, one deny beats every allow, the rest does not exist.

Prompts are judged as tools are, by their own patterns (`prompt:`); what `resource:` patterns say becomes `UriRules`.

An allow is tried on the name agents see; with a `/` in the pattern on `server/tool` of *every* target the agent could
reach, so that allowing one server's tool opens no other. A deny is tried on every name the tool has anywhere, so that
no rename and no collision opens a door. Without policies everything is allowed, with an empty list nothing. Policies in
shadow count as not written; what they would change is judged beside (`policy/shadow.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

from fastgw.policy.match import ANY_AGENT, Match, Principal
from fastgw.policy.patterns import RESOURCE, Masks, Patterns, of_kind
from fastgw.policy.uris import ANY_URI, UriRules


@dataclass(frozen=True, slots=True)
class Policy:
    """One entry of `policies`, patterns as written; one in shadow is counted, never enforced."""

    name: str
    match: Match | None
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One policy that looks at arguments, applied when the call comes. `allow` False is a deny."""

    policy: str
    allow: bool
    match: Match


@dataclass(frozen=True, slots=True)
class ToolPolicies:
    """The policies that speak of one tool, a bit for each by its place in the list.

    Args:
        by_name: those with an allow that fits the exposed name.
        by_source: for each target (`server/tool`), those with an allow that fits it; empty where no target has any.
        deny: those with a deny that fits any of its names.
    """

    by_name: int
    by_source: dict[str, int]
    deny: int


@dataclass(frozen=True, slots=True)
class ApplyingPolicies:
    """The policies that apply to one class of agents on one endpoint: a bit for each that holds whatever the arguments;
    and of those that still look at them, place in the list of policies and what is left to ask.
    """

    outright: int
    left: tuple[tuple[int, Match], ...] = ()
    free: bool = False
    """There are no policies at all: everything is allowed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policies say of one tool, before the arguments are known; the conditions that deny come first."""

    allowed: bool
    conditions: tuple[Condition, ...]


FREE = Decision(True, ())
ALL_FREE = ApplyingPolicies(0, free=True)


class Rules:
    """The policies, their patterns compiled; tells tools (or prompts) apart by bits.

    Args:
        policies: in the order of the configuration; None where there is no `policies` key.
        kind: which patterns are asked, what they begin with: nothing for tools, `prompt:` for prompts.
    """

    def __init__(self, policies: Sequence[Policy] | None, kind: str = "") -> None:
        self.policies = policies
        rows = [(1 << at, policy) for at, policy in enumerate(policies or ())]
        allows = [(text, bit) for bit, policy in rows for text in of_kind(kind, policy.allow)]
        self._names = Masks(row for row in allows if "/" not in row[0])
        self._sources = Masks(row for row in allows if "/" in row[0])
        self._denies = Masks((text, bit) for bit, policy in rows for text in of_kind(kind, policy.deny))
        about = ((bit, of_kind(RESOURCE, policy.allow), of_kind(RESOURCE, policy.deny)) for bit, policy in rows)
        self._about_uris = [(bit, allow, deny) for bit, allow, deny in about if allow or deny]
        self._enforced = [(at, policy) for at, policy in enumerate(policies or ()) if not policy.shadow]
        self.shadow = sum([bit for bit, policy in rows if policy.shadow])
        """A bit for each policy in shadow."""

    def about(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> ToolPolicies:
        """The policies that speak of a tool with these targets (`server/tool`), denies by every name it is known as."""
        by_source = {source: self._sources.of(source) for source in sources}
        return ToolPolicies(
            self._names.of(name), by_source if any(by_source.values()) else {}, self._denies.of_any(known_as)
        )

    def applying(self, principal: Principal, endpoint: str, trace: list[str] | None = None) -> ApplyingPolicies:
        """Those that are enforced and apply to this agent on this endpoint; `trace` takes the conditions that fail."""
        if not self._enforced and (self.policies is None or self.policies):
            return ALL_FREE
        return self._applying(self._enforced, principal, endpoint, trace)

    def applying_with_shadow(self, principal: Principal, endpoint: str) -> ApplyingPolicies:
        """The same as if those in shadow were enforced."""
        return self._applying(enumerate(self.policies or ()), principal, endpoint, None)

    def _applying(
        self, policies: Iterable[tuple[int, Policy]], principal: Principal, endpoint: str, trace: list[str] | None
    ) -> ApplyingPolicies:
        outright = 0
        left: list[tuple[int, Match]] = []
        for at, policy in policies:
            match = policy.match.for_class(principal, endpoint, trace) if policy.match else ANY_AGENT
            if match is not None and match.looks_at_arguments:
                left.append((at, match))
            elif match is not None:
                outright |= 1 << at
        return ApplyingPolicies(outright, tuple(left))

    def judge(self, speaking: ToolPolicies, sources: Sequence[str], applying: ApplyingPolicies) -> Decision | None:
        """What the policies say of a tool; None where it does not exist for this class, which can reach `sources`."""
        if applying.free:
            return FREE
        outright = applying.outright
        if speaking.deny & outright:
            return None
        allowed = bool(speaking.by_name & outright)
        if speaking.by_source and sources and not allowed:
            allowed = all(speaking.by_source[source] & outright for source in sources)
        if not applying.left:
            return FREE if allowed else None
        denying = [Condition(name, False, match) for name, match in self._asking(speaking.deny, applying)]
        if allowed:
            return Decision(True, tuple(denying)) if denying else FREE
        allow = speaking.by_name
        if speaking.by_source and sources:
            allow |= reduce(and_, map(speaking.by_source.__getitem__, sources))
        allowing = [Condition(name, True, match) for name, match in self._asking(allow, applying)]
        return Decision(False, (*denying, *allowing)) if allowing else None

    def _asking(self, bits: int, applying: ApplyingPolicies) -> list[tuple[str, Match]]:
        """Of the policies with these bits those that still look at the arguments, and for what."""
        policies = self.policies or ()
        return [(policies[at].name, match) for at, match in applying.left if bits >> at & 1]

    def speaking_in_shadow(self, bits: int) -> str | None:
        """The first of the policies with these bits that is in shadow, by name."""
        bits &= self.shadow
        return (self.policies or ())[(bits & -bits).bit_length() - 1].name if bits else None

    def uri_rules(self, applying: ApplyingPolicies) -> UriRules:
        """What one class may read.

        A policy that looks at arguments says nothing of resources: a read has none.
        """
        if applying.free:
            return ANY_URI
        rows = [(allow, deny) for bit, allow, deny in self._about_uris if bit & applying.outright]
        allowed = Patterns(dict.fromkeys(text for allow, _ in rows for text in allow))
        denied = Patterns(dict.fromkeys(text for _, deny in rows for text in deny))
        return UriRules(allowed, denied)

    def uri_rules_beside(
        self, enforced: ApplyingPolicies, applying: ApplyingPolicies
    ) -> tuple[tuple[str, UriRules], ...]:
        """What one class may read by those enforced and one in shadow, for each of these that speaks of URIs."""
        found = []
        for bit, _, deny in self._about_uris:
            if bit & self.shadow & applying.outright:
                both = self.uri_rules(ApplyingPolicies(enforced.outright | bit))
                # Where nothing is enforced, a deny takes away from all there is.
                rules = UriRules(None, Patterns(deny)) if enforced.free else both
                found.append((self.speaking_in_shadow(bit) or "", rules))
        return tuple(found)


def refused_by(grant: Decision, arguments: bytes) -> str | None:
    """Which policy refuses these arguments, None where none does.

    Where only an allow is missing it is the first policy that would have allowed other arguments. Arguments that cannot
    be judged (no object, a member twice) satisfy no allow and every deny.
    """
    allowed, missing = grant.allowed, ""
    for condition in grant.conditions:
        if not condition.allow and condition.match.judge(arguments) is not False:
            return condition.policy
        if condition.allow:
            allowed = allowed or condition.match.judge(arguments) is True
            missing = missing or condition.policy
    return None if allowed else missing
