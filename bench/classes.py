"""A class of agents that nobody of has come before, with 10,000 tools and 1,000 policies by claims: what the controller
does for it, and each worker.

It imports the gateway, since these steps cannot be told apart from outside.
"""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from bench.catalogues import NOUNS, VERBS, Size
from bench.compile import Controller, Worker, frames
from fastgw.policy.match import Principal
from fastgw.snapshot.codec import EncodedSnapshot

MANY = 1000
ISSUER = "https://login.example.com/"


def policies() -> list[dict[str, Any]]:
    """One for each team: a server, a verb, a noun and all that is read; a quarter of the tools."""
    found = []
    for at in range(MANY):
        dice = random.Random(at)
        verb, noun = dice.choice(VERBS), dice.choice(NOUNS)
        allow = [f"server-{dice.randrange(30):02d}/*", f"{verb}_*", f"*_{noun}_*", "prompt:*", "resource:*"]
        deny = [f"{dice.choice(VERBS)}_{dice.choice(NOUNS)}_*"]
        found.append({"name": f"p{at}", "match": {"claims": {"team": f"team-{at}"}}, "allow": allow, "deny": deny})
    return found


class Newcomers:
    """One class after the other at one endpoint; of each the controller has heard nothing, as of all others."""

    def __init__(self) -> None:
        identity = {"login": {"issuer": ISSUER, "claims": {"team": "team"}}}
        self._controller = Controller(Size(), agents={}, identity=identity, policies=policies())
        self._numbers = count(1)
        self._packed: EncodedSnapshot | None = None
        self.worker = Worker()
        self._take(self._compile())

    def _compile(self) -> list[bytes]:
        number = next(self._numbers)
        snapshot = self._controller.compile(number)
        self._packed = EncodedSnapshot(number, snapshot, self._packed)
        return frames(self._packed, self.worker)

    def _take(self, sent: list[bytes]) -> None:
        for frame in sent:
            self.worker.take(frame)

    def announced(self) -> list[bytes]:
        """All that the controller does for the next class: what a worker is sent."""
        claims: dict[str, Any] = {"team": f"team-{next(self._numbers) % MANY}"}
        self._controller.cache.strangers = {"/mcp": [Principal("login:a", claims, "login", None, frozenset())]}
        return self._compile()

    def met(self) -> None:
        """All that is done for the next class: by the controller, and by one worker."""
        self._take(self.announced())

    def heard(self, sent: list[bytes]) -> None:
        """All that a worker does for a class."""
        self.worker.stretches.clear()
        self._take(sent)
