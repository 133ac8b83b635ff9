"""What policies in shadow would change: the verdict of the enforced ones beside that of all of them.

All of them are judged together, as they would be if each `mode: shadow` were taken out of the file. Where no policy is
enforced everything is allowed; then an allow in shadow would refuse whatever none allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastgw.policy.authorise import ApplyingPolicies, Decision, Rules, ToolPolicies, refused_by
from fastgw.policy.uris import UriRules

NONE_ALLOWS = "(none allows)"
"""Stands for a policy where a call would be refused because none of them allows it."""


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What all policies say of a tool or prompt of which the enforced ones say something else.

    Args:
        decision: None: it would not exist.
        policy: the one in shadow that makes it so, whatever the arguments.
    """

    decision: Decision | None
    policy: str

    def otherwise(self, arguments: bytes, *, allowed: bool) -> str | None:
        """The policy in shadow by which a call would be refused that is `allowed`, or allowed that is not; None where
        it would be decided as it is.
        """
        refusing = self.policy if self.decision is None else refused_by(self.decision, arguments)
        if allowed or refusing is not None:
            return refusing if allowed else None
        conditions = self.decision.conditions if self.decision is not None and not self.decision.allowed else ()
        return next((one.policy for one in conditions if one.allow and one.match.judge(arguments)), self.policy)


@dataclass(frozen=True, slots=True)
class ShadowUris:
    """What all policies say of URIs where the enforced ones say something else.

    Args:
        one_by_one: by name of a policy in shadow: what the enforced ones and this one say.
    """

    rules: UriRules
    one_by_one: tuple[tuple[str, UriRules], ...]

    def otherwise(self, permits: Callable[[UriRules], bool], *, allowed: bool) -> str | None:
        """As of a tool. `permits`: whether rules permit the URI."""
        if permits(self.rules) == allowed:
            return None
        return next((name for name, rules in self.one_by_one if permits(rules) != allowed), NONE_ALLOWS)


@dataclass(frozen=True, slots=True)
class ShadowRules:
    """What would be otherwise for one class of agents: tools and prompts by exposed name, URIs."""

    tools: dict[str, ShadowVerdict] = field(default_factory=dict)
    prompts: dict[str, ShadowVerdict] = field(default_factory=dict)
    uris: ShadowUris | None = None


def judge_shadow(
    rules: Rules, speaking: ToolPolicies, sources: Sequence[str], enforced: ApplyingPolicies, all_: ApplyingPolicies
) -> ShadowVerdict | None:
    """What all policies say of a tool; None where that is what the enforced ones say."""
    decision = rules.judge(speaking, sources, all_)
    if decision == rules.judge(speaking, sources, enforced):
        return None
    bits = speaking.deny
    if decision is not None:
        bits = speaking.by_name
        for source in sources:
            bits |= speaking.by_source.get(source, 0)
    return ShadowVerdict(decision, rules.speaking_in_shadow(bits & all_.outright) or NONE_ALLOWS)


def shadow_uris(rules: Rules, enforced: ApplyingPolicies, all_: ApplyingPolicies) -> ShadowUris | None:
    """What all policies say of URIs; None where that is what the enforced ones say."""
    found = rules.uri_rules(all_)
    return None if found == rules.uri_rules(enforced) else ShadowUris(found, rules.uri_rules_beside(enforced, all_))
