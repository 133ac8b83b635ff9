"""A snapshot on its way to the workers, in parcels: each is unpacked in about a millisecond, with calls in between.

    begin              forget what came of an older one
    grants [Grant]     so many at a time, each once, numbered in the order they come
    pages [Page]       likewise
    view ViewPlan      what one class of agents sees, by the numbers of its grants and pages
    load SHELL         the rest; the snapshot is whole

Ten thousand tools in one piece held a worker's loop for 100 ms; every call that came meanwhile waited.

Knows: which parts of a snapshot are many. Refuses to know: sockets, and what any part means.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fastgw.config.snapshot import Grant, Listing, Page, Snapshot, View
from fastgw.policy.uris import UriRules

Message = tuple[Any, ...]

GRANTS = 128
"""Grants in one parcel: about 1 ms to unpack."""
PLACED = 2000
"""Names placed in a view without a pause: about 0.2 ms."""


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """A view by numbers.

    Args:
        grants, prompts: numbers of grants.
        lists: list method to the numbers of its pages and its fingerprint.
    """

    grants: array[int]
    prompts: array[int]
    uri_rules: UriRules
    lists: dict[str, tuple[tuple[int, ...], int]]


def packed(generation: int, snapshot: Any) -> Iterator[Message]:
    """The messages that bring a snapshot. What is no `Snapshot` travels whole."""
    if not isinstance(snapshot, Snapshot):
        yield ("load", generation, snapshot)
        return
    views = [view for endpoint in snapshot.endpoints.values() for view in endpoint.views]
    grants = _Numbers(grant for view in views for part in (view.grants, view.prompts) for grant in part.values())
    pages = _Numbers(page for view in views for listing in view.lists.values() for page in listing.pages)
    yield ("begin", generation)
    for start in range(0, len(grants.items), GRANTS):
        yield ("grants", grants.items[start : start + GRANTS])
    for page in pages.items:
        yield ("pages", [page])
    for view in views:
        yield ("view", _plan(view, grants, pages))
    endpoints = {
        # Which routes there are is for operators to see, and they ask the keeper.
        path: replace(endpoint, routes={}, views=(View(),) * len(endpoint.views))
        for path, endpoint in snapshot.endpoints.items()
    }
    yield ("load", generation, replace(snapshot, endpoints=endpoints))


@dataclass(slots=True)
class Unpacking:
    """The parcels of one snapshot, put together again."""

    grants: list[Grant] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    views: list[View] = field(default_factory=list)

    def take(self, message: Message) -> Iterator[None]:
        """Put one parcel in its place; between two steps others may work."""
        match message:
            case ("grants", grants):
                self.grants.extend(grants)
            case ("pages", pages):
                self.pages.extend(pages)
            case ("view", ViewPlan() as plan):
                yield from self._view(plan)

    def whole(self, shell: Any) -> Any:
        """The snapshot, when the last parcel is here."""
        if not isinstance(shell, Snapshot):
            return shell
        views = iter(self.views)
        endpoints = {
            path: replace(endpoint, views=tuple(next(views) for _ in endpoint.views))
            for path, endpoint in shell.endpoints.items()
        }
        return replace(shell, endpoints=endpoints)

    def _view(self, plan: ViewPlan) -> Iterator[None]:
        placed: dict[str, Grant] = {}
        grants = self.grants
        for start in range(0, len(plan.grants), PLACED):
            found = [grants[at] for at in plan.grants[start : start + PLACED]]
            placed.update({grant.route.name: grant for grant in found})
            yield
        lists = {
            method: Listing(tuple(self.pages[at] for at in numbers), fingerprint)
            for method, (numbers, fingerprint) in plan.lists.items()
        }
        prompts = {grants[at].route.name: grants[at] for at in plan.prompts}
        self.views.append(View(placed, prompts, plan.uri_rules, lists))


class _Numbers:
    """Objects, each once, and the number of each."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items: list[Any] = []
        self._of: dict[int, int] = {}
        for item in items:
            if id(item) not in self._of:
                self._of[id(item)] = len(self.items)
                self.items.append(item)

    def of(self, items: Iterable[Any]) -> Iterator[int]:
        """The numbers of these."""
        return (self._of[id(item)] for item in items)


def _plan(view: View, grants: _Numbers, pages: _Numbers) -> ViewPlan:
    lists = {method: (tuple(pages.of(one.pages)), one.fingerprint) for method, one in view.lists.items()}
    by_name = array("I", grants.of(view.grants.values()))
    return ViewPlan(by_name, array("I", grants.of(view.prompts.values())), view.uri_rules, lists)
