"""What one compile leaves for the next: parts of a snapshot, reused as long as what they were made of is the same.

A part is made of *ingredients*, compared by identity: every step is a pure function of its ingredients and of the
settings, and whatever may be equal though made anew goes through `as_before` first. So a compile that finds one
server's catalogue changed makes that server's parts and what is put together of them, and equals one from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from fastgw.catalog.notice import Notice
from fastgw.config.conditions import policies_of
from fastgw.config.schema.settings import Settings
from fastgw.policy.authorise import Rules
from fastgw.policy.patterns import PROMPT
from fastgw.policy.principal import Principal
from fastgw.snapshot.server_catalogues import ServerCatalogues

T = TypeVar("T")
Place = Hashable
"""Which part: its kind, path of the endpoint, server. There are as many as the settings have of these."""


class CompileCache:
    """For the compiles of one configuration, one after the other; another configuration gets another one.

    Args:
        settings: the file as read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalogues = ServerCatalogues(settings)
        policies = policies_of(settings.policies)
        self.rules = Rules(policies)
        self.prompt_rules = Rules(policies, PROMPT)
        self.agents = _agents(settings)
        """Every agent that may come in, by name; which key it showed is added per key."""
        self.missing: list[Notice] | None = None
        """Where a list stands here, compiles take down what each endpoint does not have, and why."""
        self._kept: dict[Place, tuple[tuple[object, ...], Any]] = {}

    def kept(self, place: Place, ingredients: tuple[object, ...], make: Callable[[], T]) -> T:
        """The part of the last time where its ingredients are the same objects, else the one that `make` makes."""
        found = self._kept.get(place)
        if found is None or not _same(found[0], ingredients):
            found = self._kept[place] = ingredients, make()
        part: T = found[1]
        return part

    def as_before(self, place: Place, value: T) -> T:
        """The value of the last time where it equals this one, so that it is the same ingredient."""
        found = self._kept.get(place)
        if found is not None and found[1] == value:
            value = found[1]
        else:
            self._kept[place] = (), value
        return value

    def exchanged(self, place: Place, value: T) -> T:
        """The value of the last time, and this one for the next; itself where there is none."""
        found = self._kept.get(place)
        self._kept[place] = (), value
        earlier: T = value if found is None else found[1]
        return earlier

    def last(self, place: Place) -> Any:
        """The part of the last time, whatever it was made of; None where there is none."""
        found = self._kept.get(place)
        return None if found is None else found[1]


def _same(earlier: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return len(earlier) == len(now) and all(a is b for a, b in zip(earlier, now, strict=True))


def _agents(settings: Settings) -> dict[str, Principal]:
    return {
        name: Principal(
            name, {claim: values[0] if len(values) == 1 else values for claim, values in agent.claims.items()}
        )
        for name, agent in settings.agents.items()
        if not agent.disabled
    }
