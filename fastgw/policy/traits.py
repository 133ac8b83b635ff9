"""Telling agents apart only as far as the configuration does.

Ten thousand agents mostly differ in nothing a policy asks about. Those with equal traits get equal answers from every
match, so one of them is asked for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastgw.policy.match import Match
from fastgw.policy.patterns import Patterns
from fastgw.policy.principal import Claim, Principal

AgentClass = tuple[tuple[bool, ...], tuple[Claim | None, ...]]


class Traits:
    """What the given matches can see of an agent.

    Args:
        matches: every match that will be asked; their `unless` is found by itself.
    """

    __slots__ = ("_agents", "_claims")

    def __init__(self, matches: Iterable[Match]) -> None:
        every = [inner for match in matches for inner in _unfolded(match)]
        self._agents: tuple[Patterns, ...] = tuple(dict.fromkeys(match.agent for match in every if match.agent))
        self._claims = tuple(dict.fromkeys(claim for match in every for claim, _ in match.claims))

    def of(self, principal: Principal) -> AgentClass:
        """The agent's traits; agents with equal ones are equal to every match."""
        fits = tuple([patterns.fits(principal.agent) for patterns in self._agents])
        return fits, tuple([principal.claims.get(claim) for claim in self._claims])


def _unfolded(match: Match) -> Iterator[Match]:
    yield match
    if match.unless is not None:
        yield from _unfolded(match.unless)
