"""A snapshot on its way to the workers, in parcels: each is unpacked in about a millisecond, with calls in between.

    begin generation base        what is not in the parcels that follow stands in those of the snapshot `base`;
                                 0: nothing does, and what came of others is forgotten
    grants array [Grant]         the numbers of so many, and these: each once, for good
    pages array [Page|PagePlan]  likewise, one at a time; see `pages` for those told by the pages of `base`
    uris number Uris|None        of each endpoint in its turn; None: as before
    view number ViewPlan|None    of each view of each endpoint in its turn, by the numbers of its grants and pages
    gone {kind: array}           numbers of what this snapshot has no more
    load generation SHELL        the rest; the snapshot is whole

Ten thousand tools in one piece held a worker's loop for 100 ms; every call that came meanwhile waited. Most changes are
those of one server, and whatever the compile before made and this one kept is the same object: it is not sent again.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastgw.catalog.uris import Uris
from fastgw.policy.uris import UriRules
from fastgw.snapshot.model import Listing, Page, Snapshot, View
from fastgw.snapshot.page_codec import PageLayout, page_of, plans

Message = tuple[Any, ...]

GRANTS = 64
"""Grants in one parcel: about half a millisecond to unpack."""
PLACED = 2000
"""Names placed in a view without a pause: about 0.2 ms."""
MOST_NUMBER = 1 << 31
"""From here on numbering begins anew, with a whole snapshot: numbers have 32 bits in a parcel."""
KINDS = ("grants", "pages", "uris", "view")
"""What is numbered, in the order in which it is sent: whatever refers to another comes after it."""
NO_URIS = Uris()


class StaleSnapshot(LookupError):
    """The snapshot that these parcels are based on, or one of themselves, is not here."""


@dataclass(frozen=True, slots=True)
class ViewLayout:
    """A view by numbers.

    Args:
        grants, prompts: numbers of grants.
        lists: list method to the numbers of its pages and its fingerprint.
    """

    grants: array[int]
    prompts: array[int]
    uri_rules: UriRules
    lists: dict[str, tuple[tuple[int, ...], int]]


class PartNumbers:
    """Objects of one snapshot and the number of each; one that the snapshot before had keeps its number.

    Args:
        items: each object as often as it comes.
        before: of the snapshot before. Its objects must live until now: they are known by their places in memory.
    """

    def __init__(self, items: Iterable[Any], before: PartNumbers | None) -> None:
        known: dict[int, int] = before._of if before is not None else {}
        start: int = before._following if before is not None else 1
        self._items = {id(item): item for item in items}
        new = [key for key in self._items if key not in known]
        self._of: dict[int, int] = {key: known[key] for key in self._items if key in known}
        self._of.update(zip(new, range(start, start + len(new)), strict=True))
        self._new = frozenset(new)
        self._following: int = start + len(new)
        self.gone = array("I", [number for key, number in known.items() if key not in self._items])

    @property
    def used_up(self) -> bool:
        """Whether those who come next must begin anew."""
        return self._following > MOST_NUMBER

    def numbered(self, items: Iterable[Any]) -> array[int]:
        """The numbers of these."""
        of = self._of
        return array("I", [of[id(item)] for item in items])

    def known(self, item: Any, base: int) -> tuple[int, bool]:
        """Its number, and whether those who have the snapshot `base` (0: none) lack it."""
        return self._of[id(item)], base == 0 or id(item) in self._new

    def sent(self, base: int) -> list[Any]:
        """What those lack who have the snapshot `base`."""
        return [item for key, item in self._items.items() if base == 0 or key in self._new]


class EncodedSnapshot:
    """One snapshot, ready to be sent whole, or as what has changed since another.

    Args:
        generation: of the snapshot, above 0.
        snapshot: what is no `Snapshot` always travels whole.
        before: the one that those have who get `changes`. It may be forgotten afterwards.
    """

    def __init__(self, generation: int, snapshot: Any, before: EncodedSnapshot | None = None) -> None:
        self.generation = generation
        if not isinstance(snapshot, Snapshot) or before is None or not before.numbers or before.used_up:
            before = None
        self.base = before.generation if before is not None else 0
        self.numbers: dict[str, PartNumbers] = {}
        self.snapshot = snapshot
        self._told: dict[int, PageLayout] = {}
        if not isinstance(snapshot, Snapshot):
            return
        views = _views(snapshot)
        found: dict[str, Iterable[Any]] = {
            "grants": (grant for view in views for part in (view.grants, view.prompts) for grant in part.values()),
            "pages": (page for view in views for listing in view.lists.values() for page in listing.pages),
            "uris": (endpoint.uris for endpoint in snapshot.endpoints.values()),
            "view": views,
        }
        known = before.numbers if before is not None else {}
        self.numbers = {kind: PartNumbers(items, known.get(kind)) for kind, items in found.items()}
        self._told = dict(_told(snapshot, before, self.numbers["pages"])) if before is not None else {}

    @property
    def used_up(self) -> bool:
        """Whether there are no numbers left for what comes next."""
        return any(numbers.used_up for numbers in self.numbers.values())

    def whole(self) -> Iterator[Message]:
        """The messages that bring it to those who have nothing."""
        return self._messages(0)

    def changes(self) -> Iterator[Message]:
        """The messages that bring it to those who have the snapshot `base`."""
        return self._messages(self.base)

    def _messages(self, base: int) -> Iterator[Message]:
        snapshot = self.snapshot
        if not isinstance(snapshot, Snapshot):
            yield ("load", self.generation, snapshot)
            return
        yield ("begin", self.generation, base)
        yield from self._many("grants", GRANTS, base)
        yield from self._many("pages", 1, base)
        for endpoint in snapshot.endpoints.values():
            number, new = self.numbers["uris"].known(endpoint.uris, base)
            yield ("uris", number, endpoint.uris if new else None)
        for view in _views(snapshot):
            number, new = self.numbers["view"].known(view, base)
            yield ("view", number, self._plan(view) if new else None)
        if base:
            yield ("gone", {kind: one.gone for kind, one in self.numbers.items()})
        yield ("load", self.generation, _shell(snapshot))

    def _many(self, kind: str, step: int, base: int) -> Iterator[Message]:
        """The parcels with all of a kind, or with those that `base` has not, `step` in each."""
        numbers = self.numbers[kind]
        wanted = numbers.sent(base)
        for start in range(0, len(wanted), step):
            items = wanted[start : start + step]
            told = items if base == 0 else [self._told.get(id(item), item) for item in items]
            yield (kind, numbers.numbered(items), told)

    def _plan(self, view: View) -> ViewLayout:
        grants, pages = self.numbers["grants"].numbered, self.numbers["pages"].numbered
        lists = {method: (tuple(pages(one.pages)), one.fingerprint) for method, one in view.lists.items()}
        return ViewLayout(grants(view.grants.values()), grants(view.prompts.values()), view.uri_rules, lists)


def _told(snapshot: Snapshot, before: EncodedSnapshot, pages: PartNumbers) -> Iterator[tuple[int, PageLayout]]:
    """The new pages by those before, by their places in memory, where that is shorter."""
    earlier = before.numbers["pages"]

    def number(page: Page) -> int:
        return earlier.known(page, 0)[0]

    for new, old in _listings(snapshot, before.snapshot):
        if any(pages.known(page, 1)[1] for page in new.pages):
            for page, plan in zip(new.pages, plans(new, old, number), strict=True):
                if 2 * plan.size < sum(len(page.items[dialect]) for dialect, _ in plan.texts):
                    yield id(page), plan


def _listings(snapshot: Snapshot, before: Snapshot) -> Iterator[tuple[Listing, Listing]]:
    """Each list beside the one that most probably stood in its place before."""
    for path, endpoint in snapshot.endpoints.items():
        earlier = before.endpoints.get(path)
        for view, seen in zip(endpoint.views, earlier.views if earlier is not None else (), strict=False):
            for method, listing in view.lists.items():
                if method in seen.lists and listing is not seen.lists[method]:
                    yield listing, seen.lists[method]


def _views(snapshot: Any) -> list[View]:
    if not isinstance(snapshot, Snapshot):
        return []
    return [view for endpoint in snapshot.endpoints.values() for view in endpoint.views]


def _shell(snapshot: Snapshot) -> Snapshot:
    """The snapshot less what is sent in parcels."""
    endpoints = {
        # Which routes there are is for operators to see, and they ask the controller.
        path: replace(endpoint, routes={}, views=(View(),) * len(endpoint.views), uris=NO_URIS)
        for path, endpoint in snapshot.endpoints.items()
    }
    return replace(snapshot, endpoints=endpoints)


class SnapshotDecoder:
    """The parcels of one snapshot after another, put together again."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, Any]] = {kind: {} for kind in KINDS}
        self._generation = 0
        self._views: list[View] = []
        self._uris: list[Uris] = []
        self._gone: Mapping[str, array[int]] = {}
        self._left: list[Any] = []

    def take(self, message: Message) -> Iterator[None]:
        """Put one parcel in its place; between two steps others may work.

        Raises:
            LookupError: something it refers to is not here.
        """
        match message:
            case ("begin", _, base):
                self._begin(base)
            case ("uris", number, uris):
                if uris is not None:
                    self._kept["uris"][number] = uris
                self._uris.append(self._kept["uris"][number])
            case ("view", number, plan):
                if plan is not None:
                    yield from self._place(number, plan)
                self._views.append(self._kept["view"][number])
            case ("gone", gone):
                self._gone = gone
            case ("pages", numbers, items):
                pages = self._kept["pages"]
                made = [page_of(one, pages) if isinstance(one, PageLayout) else one for one in items]
                pages.update(zip(numbers, made, strict=True))
            case (kind, numbers, items):
                self._kept[kind].update(zip(numbers, items, strict=True))

    def whole(self, generation: int, shell: Any) -> Any:
        """The snapshot, when the last parcel is here.

        Raises:
            LookupError: a parcel is missing.
        """
        if not isinstance(shell, Snapshot):
            return shell
        if len(self._uris) != len(shell.endpoints) or len(self._views) != len(_views(shell)):
            raise StaleSnapshot(f"of snapshot {generation} parcels are missing")
        views, uris = iter(self._views), iter(self._uris)
        endpoints = {
            path: replace(endpoint, views=tuple([next(views) for _ in endpoint.views]), uris=next(uris))
            for path, endpoint in shell.endpoints.items()
        }
        for kind, numbers in self._gone.items():
            self._left.extend(self._kept[kind].pop(number) for number in numbers)
        self._generation, self._gone, self._views, self._uris = generation, {}, [], []
        return replace(shell, endpoints=endpoints)

    def left(self) -> list[Any]:
        """What older snapshots held and no newer one does, once: whoever asks lets go of it piece by piece."""
        found, self._left = self._left, []
        return found

    def _begin(self, base: int) -> None:
        if base == 0:
            for kind in KINDS:
                self._left.extend(self._kept[kind].values())
                self._kept[kind] = {}
        elif base != self._generation:
            raise StaleSnapshot(f"a change of snapshot {base}, but {self._generation or 'none'} is here")
        self._generation, self._gone, self._views, self._uris = 0, {}, [], []

    def _place(self, number: int, plan: ViewLayout) -> Iterator[None]:
        placed: dict[str, Any] = {}
        grants, pages = self._kept["grants"], self._kept["pages"]
        for start in range(0, len(plan.grants), PLACED):
            found = [grants[at] for at in plan.grants[start : start + PLACED]]
            placed.update({grant.route.name: grant for grant in found})
            yield
        lists = {
            method: Listing(tuple([pages[at] for at in numbers]), fingerprint)
            for method, (numbers, fingerprint) in plan.lists.items()
        }
        prompts = {grants[at].route.name: grants[at] for at in plan.prompts}
        self._kept["view"][number] = View(placed, prompts, plan.uri_rules, lists)
