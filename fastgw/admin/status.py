"""Whether the gateway is ready: what load balancers ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DRAIN_KNOWN_WITHIN = 0.5
"""Seconds in which every worker has report that it drains; one that is stopped is not waited for longer."""
LOOK_EVERY = 0.002
"""Seconds between two looks at what workers say."""


@dataclass(slots=True)
class Readiness:
    """Whether agents are served as they should be.

    Args:
        states: of the workers: `warming`, `active` or `draining`.
        generation: of the snapshot that lists are answered from.
        initialized: whether every server has answered or failed once, and the snapshot says so.
    """

    states: Callable[[], Sequence[str]]
    generation: Callable[[], int]
    initialized: Callable[[], bool]
    draining: bool = False
    _waited: bool = False

    def waited_enough(self) -> None:
        """Servers that have not answered by now are not waited for."""
        self._waited = True

    def not_ready(self) -> str | None:
        """Why the gateway is not ready; None where it is."""
        if self.draining:
            return "draining"
        if "active" not in self.states():
            return "no worker is active"
        if not self._waited and not self.initialized():
            return "servers have not answered yet"
        return None

    async def report(self) -> dict[str, Any]:
        """`ready`, `reason` where it is not, and how many workers are in which state.

        Nobody is told "draining" before every worker drains, so that whoever has read it finds that each answer closes
        its connection: the answer waits for the few milliseconds that it takes workers to say so.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + DRAIN_KNOWN_WITHIN
        while self.draining and clock() < end and set(self.states()) - {"draining"}:  # noqa: ASYNC110 - rare
            await asyncio.sleep(LOOK_EVERY)
        reason, states = self.not_ready(), self.states()
        workers = {state: states.count(state) for state in ("warming", "active", "draining")}
        report: dict[str, Any] = {"ready": reason is None, "workers": workers, "generation": self.generation()}
        return report if reason is None else {**report, "reason": reason}
