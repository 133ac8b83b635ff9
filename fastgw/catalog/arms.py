"""Which arm of a route a call takes: the first whose match holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastgw.catalog.arguments import filled
from fastgw.catalog.route import Arm
from fastgw.policy.match import Match
from fastgw.policy.principal import Principal
from fastgw.protocol.envelope import NotAMessage, NotJson


def arms_for(arms: Sequence[Arm], principal: Principal, endpoint: str) -> tuple[Arm, ...]:
    """The arms an agent's calls can take, each with what is left to ask of the arguments.

    Empty where none can be: then the tool does not exist for that agent. Nothing follows an arm that takes every call,
    nor one without a target here: whoever it was written for must not fall through to what was written for others.
    """
    left: list[Arm] = []
    for arm in arms:
        match = arm.match.for_class(principal, endpoint) if arm.match else None
        if match is None and arm.match is not None:
            continue
        if not arm.targets:
            break
        if match is None:
            return (*left, arm)
        if not match.looks_at_arguments:
            return (*left, replace(arm, match=None))
        left.append(replace(arm, match=match))
    return tuple(left)


def arm_for(arms: Sequence[Arm], arguments: bytes) -> Arm | None:
    """The arm that a call takes; None where none does, and the tool does not exist for this call.

    Arguments that cannot be judged take no arm, not even a later one: whoever splits calls by their arguments must not
    be deceived by a member that stands twice. An arm looks at what it would send: its fixed and default arguments too.

    Args:
        arms: of the grant, from `arms_for`.
        arguments: JSON text of `params.arguments`; empty where the call has none.
    """
    for arm in arms:
        judgement = True if arm.match is None else _judged(arm, arm.match, arguments)
        if judgement is None:
            return None
        if judgement:
            return arm
    return None


def _judged(arm: Arm, match: Match, arguments: bytes) -> bool | None:
    if not (arm.fixed or arm.defaults):
        return match.judge(arguments)
    try:
        return match.judge(filled(arguments, arm.fixed, arm.defaults))
    except (NotAMessage, NotJson):
        return None
