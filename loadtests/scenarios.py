"""The scenarios: how many agents, what they call, and what happens beside. Their budgets are in `budgets.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LIST = "tools/list"
MIXED = {"echo": 4, "echo-legacy": 4, LIST: 1}
"""What agents ask for, with weights: the tool of each server, and the list."""
RATE, BURST = 4, 20
"""Of the limit in `limits`: calls a second, and at once."""
SHARED = {"workers": 2, "store": "embedded"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load.

    Args:
        about: what it shows, for people.
        stages: share of the run's time, and agents during it.
        pace: calls a second of each agent, at most: it waits for its answers.
        asks: tools by weight, and `tools/list`. A tool `...-slow` takes a second.
        streams: agents beside these, each with an event stream open that says nothing; they come after a quarter.
        beside: what happens every `every` seconds: `flap`, `reload` or `kill store` (loadtests/fleet.py).
        settings: of the gateway, in place of the usual.
    """

    about: str
    stages: tuple[tuple[float, int], ...] = ((1.0, 20),)
    pace: float = 5.0
    asks: Mapping[str, int] = field(default_factory=lambda: MIXED)
    streams: int = 0
    beside: str = ""
    every: float = 3.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def agents(self) -> int:
        """Most agents at a time, those with streams left out."""
        return max(agents for _, agents in self.stages)


SCENARIOS = {
    "steady": Scenario("20 agents at an ordinary pace"),
    "burst": Scenario("5 agents, then 60 at once, and again", ((0.3, 5), (0.2, 60), (0.3, 5), (0.2, 60))),
    "overload": Scenario(
        "more and more agents that do not wait", tuple((0.2, agents) for agents in (5, 20, 50, 100, 200)), pace=1000
    ),
    "slow-server": Scenario(
        "half of the calls take a second; the others must not notice",
        ((1.0, 60),),
        asks={"echo-slow": 3, "echo-legacy-slow": 3, **MIXED},
    ),
    "flapping-server": Scenario(
        "the server with sessions goes and comes back; calls to the other must not notice", beside="flap"
    ),
    "reload": Scenario("a changed configuration is loaded again and again", beside="reload", every=2.0),
    "store-dies": Scenario("two workers; the store of their limits is killed", beside="kill store", settings=SHARED),
    "limits": Scenario(
        "40 agents ask for more than their limit gives each of them; two workers",
        ((1.0, 40),),
        pace=8,
        asks={"echo": 1, "echo-legacy": 1},
        settings={**SHARED, "limits": [{"name": "own", "by": ["agent"], "rate": f"{RATE}/second", "burst": BURST}]},
    ),
    "streams": Scenario("event streams that stay open; calls beside them must not notice", streams=200),
}
