"""Who is busiest, of any number of names: rows of a counter that stay few, and the last minute and hour of agents."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from heapq import nlargest
from typing import Final, Literal

import msgspec

from fastgw.errors import ERROR_OUTCOMES, REFUSED_OUTCOMES

TURN = 60.0
"""Seconds after which rows may go to others."""
STAYS, LEAST = 0.9, 0.5
"""What a minute leaves of what was counted before: some ten minutes count. Below the second it is forgotten."""
TIMES_BUSIER, AND_MORE = 2, 10
"""How much busier whoever takes a row must be than whoever has it: rows that change hands cost Prometheus a series each
time.
"""
MOST_COUNTED = 65_536
"""Names that are told apart within a turn or a slice of time; beyond it new ones count as `other`."""
OTHER_NAME: Final = "other"

Name = tuple[str, ...]
"""Label values."""


class BusiestRows:
    """A counter by a name of `parts` labels, of which there may be any number: the `most` busiest have rows of their
    own, and one row, whose labels are all `other`, sums the rest. Each is split by an outcome, one of a few words.

    A row that is free is taken by whoever comes. Once a minute the idlest go to names that are much busier. A row that
    was let go ends; where its name comes back it starts at nought, as the counter of a process does that was started
    again. `other` never goes back.
    """

    def __init__(self, parts: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._others: Name = (OTHER_NAME,) * parts
        self._rows: dict[Name, defaultdict[str, float]] = {}
        self._other: defaultdict[str, float] = defaultdict(int)
        self._lately: dict[Name, float] = {}
        self._turned = clock()

    def add(self, name: Name, outcome: str, count: float) -> None:
        """Count so many of this name."""
        row = self._rows.get(name)
        if row is None and len(self._rows) < self._most and name != self._others:
            row = self._rows[name] = defaultdict(int)
        (self._other if row is None else row)[outcome] += count
        if name in self._lately or len(self._lately) < MOST_COUNTED:
            self._lately[name] = self._lately.get(name, 0) + count

    def turn(self) -> None:
        """Where a minute is over, let the busiest have the rows of the idlest."""
        if self._clock() < self._turned + TURN:
            return
        self._turned = self._clock()
        lately, rows = self._lately, self._rows
        idlest = sorted(rows, key=lambda name: lately.get(name, 0))
        others = (name for name in lately if name not in rows and name != self._others)
        busiest = nlargest(len(rows), others, key=lately.__getitem__)
        for leaver, newcomer in zip(idlest, busiest, strict=False):
            if lately[newcomer] <= TIMES_BUSIER * lately.get(leaver, 0) + AND_MORE:
                break
            del rows[leaver]
            rows[newcomer] = defaultdict(int)
        self._lately = {name: count * STAYS for name, count in lately.items() if count * STAYS >= LEAST}

    def __iter__(self) -> Iterator[tuple[Name, str, float]]:
        """Name, outcome, count."""
        for name, row in [*self._rows.items(), (self._others, self._other)]:
            yield from ((name, outcome, count) for outcome, count in row.items())


class AgentPace(msgspec.Struct, frozen=True):
    """What one agent has done within a while: calls; of them errors, and refused ones."""

    agent: str
    calls: int
    errors: int
    refused: int


Window = Literal["1m", "1h"]
_STEPS: Final[Mapping[Window, tuple[float, int]]] = {"1m": (10.0, 6), "1h": (60.0, 60)}
"""Seconds of a slice of each window, and how many of them it has besides the one that is being filled."""
MOST_KEPT = 500
"""Agents of a slice that is over; the others are one, `other`."""


class RecentAgents:
    """Calls, errors and refusals by agent, of the last minute and hour, and up to ten seconds and a minute more.

    `clock` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slices: dict[Window, list[tuple[int, dict[str, list[int]]]]] = {"1m": [], "1h": []}
        """Number of the slice, which is its time in steps; calls, errors and refusals by agent. The newest is last."""

    def add(self, agent: str, outcome: str, count: int) -> None:
        """An agent has made so many calls that ended so."""
        now = self._clock()
        for window, (step, most) in _STEPS.items():
            slices, number = self._slices[window], int(now / step)
            if not slices or slices[-1][0] != number:
                if slices:
                    slices[-1] = slices[-1][0], _shortened(slices[-1][1])
                slices.append((number, {}))
                self._slices[window] = slices = [one for one in slices if one[0] >= number - most]
            agents = slices[-1][1]
            row = agents.get(agent)
            if row is None:
                name = agent if len(agents) < MOST_COUNTED else OTHER_NAME
                row = agents.setdefault(name, [0, 0, 0])
            row[0] += count
            row[1] += count if outcome in ERROR_OUTCOMES else 0
            row[2] += count if outcome in REFUSED_OUTCOMES else 0

    def top(self, window: Window, most: int) -> list[AgentPace]:
        """Those that have called most within the window, the busiest first."""
        step, steps = _STEPS[window]
        first = int(self._clock() / step) - steps
        sums: dict[str, list[int]] = {}
        for number, agents in self._slices[window]:
            for agent, row in agents.items() if number >= first else ():
                known = sums.setdefault(agent, [0, 0, 0])
                known[:] = [one + more for one, more in zip(known, row, strict=True)]
        return [AgentPace(agent, *row) for agent, row in nlargest(most, sums.items(), key=lambda one: one[1][0])]


def _shortened(agents: dict[str, list[int]]) -> dict[str, list[int]]:
    """The busiest of a slice, and the others as one."""
    if len(agents) <= MOST_KEPT:
        return agents
    kept = dict(nlargest(MOST_KEPT, agents.items(), key=lambda one: one[1][0]))
    others = kept.pop(OTHER_NAME, [0, 0, 0])
    rest = [row for agent, row in agents.items() if agent not in kept and agent != OTHER_NAME]
    kept[OTHER_NAME] = [sum(column) for column in zip(others, *rest, strict=True)]
    return kept
