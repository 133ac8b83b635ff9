"""A snapshot on its way to the workers: parts by the hash of their content; only those that a worker lacks are sent.

A part is a few grants, a piece of a list's text, a page, the URIs of an endpoint, or a view; pages and views name their
parts by hash. Each takes a worker a millisecond or so, with calls in between: ten thousand tools at once held them up
for 100 ms. Most changes are those of one server, and what has not changed stays the same object at a worker.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count, groupby, repeat
from operator import itemgetter
from typing import Any
from zlib import crc32

from fastgw.catalog.listing import ListEntry
from fastgw.catalog.uris import Uris
from fastgw.policy.uris import UriRules
from fastgw.snapshot.model import Grant, Listing, Page, Snapshot, View

GRANTS = 64
"""Most grants of one part: about half a millisecond to unpickle."""
ITEMS = 4
"""Items in a piece of a list's text, on the average."""
RUNS = 64
"""Parts whose grants are placed in a view without a pause: about 0.3 ms."""
NO_URIS = Uris()

Part = tuple[bytes, bytes]
"""Hash, and pickled."""
Runs = tuple[tuple[bytes, bytes], ...]
"""Grants in their order: hashes of parts, with places in each."""
_Ids = tuple[int, ...]
"""Places in memory of what a part is made of."""


@dataclass(frozen=True, slots=True)
class PageLayout:
    """A page: hashes of the pieces of each text that differs from the others, and each dialect's place in `texts`.

    A piece is some items, with commas between them.
    """

    texts: tuple[tuple[bytes, ...], ...]
    of: dict[str, int]
    start: int
    more: bool


@dataclass(frozen=True, slots=True)
class ViewLayout:
    """A view by its parts; `lists` has the hashes of the pages and the fingerprint of each list."""

    grants: Runs
    prompts: Runs
    uri_rules: UriRules
    lists: dict[str, tuple[tuple[bytes, ...], int]]


class EncodedSnapshot:
    """One snapshot as parts; what is no `Snapshot` travels as it is.

    The parts of the snapshot `before` are not made again; it may be forgotten afterwards.
    """

    def __init__(self, generation: int, snapshot: Any, before: EncodedSnapshot | None = None) -> None:
        self.generation = generation
        self.parts: dict[bytes, bytes] = {}
        """Hash to pickled part; each comes after those it names."""
        self._snapshot = snapshot  # its objects are known by their places in memory: they must live
        self._made: dict[_Ids, list[Part]] = {}
        """What objects have become: one part, or one for each dialect of agents."""
        self._pieces: dict[_Ids, list[_Ids]] = {}
        """Of each page: what its pieces are made of."""
        self._before = before
        layout = self._layout(snapshot) if isinstance(snapshot, Snapshot) else (snapshot, {})
        self._before = None
        self.root = pickle.dumps(layout, pickle.HIGHEST_PROTOCOL)
        """What is sent each time: the snapshot less its parts, and by endpoint the hashes of its URIs and its views."""

    def lacked(self, known: Collection[bytes]) -> Iterator[Part]:
        """The parts that those lack who have the ones with the hashes `known`."""
        return ((key, text) for key, text in self.parts.items() if key not in known)

    def _add(self, made_of: Sequence[object], make: Callable[[Any], list[Part]]) -> list[Part]:
        """Add what these objects become, the snapshot before may have made it."""
        ids = tuple(map(id, made_of))
        # Once for all who name it: a view that names one hash twice would be pickled otherwise the next time.
        made = self._made.get(ids)
        if made is None:
            before = self._before._made.get(ids) if self._before is not None else None
            made = self._made[ids] = before or make(made_of)
            self.parts.update(made)
        return made

    def _layout(self, snapshot: Snapshot) -> tuple[Snapshot, dict[str, tuple[bytes, list[bytes]]]]:
        views = [view for endpoint in snapshot.endpoints.values() for view in endpoint.views]
        tools_and_prompts = [found for view in views for found in (view.grants, view.prompts)]
        places = self._add_grants([grant for found in tools_and_prompts for grant in found.values()])
        hashes, bare = {}, {}
        for path, endpoint in snapshot.endpoints.items():
            uris = self._add((endpoint.uris,), lambda found: _parts_of(found[0]))[0][0]
            hashes[path] = uris, [self._add_view(view, places) for view in endpoint.views]
            # Which routes there are is for operators to see, and they ask the controller.
            bare[path] = replace(endpoint, routes={}, views=(View(),) * len(endpoint.views), uris=NO_URIS)
        return replace(snapshot, endpoints=bare), hashes

    def _add_grants(self, grants: list[Grant]) -> dict[int, tuple[bytes, int]]:
        """Where each grant is, by its place in memory: hash of a part, and the place in it."""
        places: dict[int, tuple[bytes, int]] = {}
        unique = list(dict(zip(map(id, grants), grants, strict=True)).values())
        begin = 0
        for end, grant in enumerate(unique, 1):
            # Names decide where a part ends, so that what stands behind a change is parted as before.
            last = end == len(unique) or crc32(grant.route.name.encode()) % (GRANTS // 2) == 0
            if last or end - begin == GRANTS:
                some = tuple(unique[begin:end])
                [(key, _)] = self._add(some, _parts_of)
                places.update(zip(map(id, some), zip(repeat(key), count()), strict=False))
                begin = end
        return places

    def _add_view(self, view: View, places: Mapping[int, tuple[bytes, int]]) -> bytes:
        lists = {
            method: (tuple([self._add_page(page) for page in found.pages]), found.fingerprint)
            for method, found in view.lists.items()
        }
        layout = ViewLayout(_runs(view.grants, places), _runs(view.prompts, places), view.uri_rules, lists)
        [(key, text)] = _parts_of(layout)
        self.parts[key] = text
        return key

    def _add_page(self, page: Page) -> bytes:
        ids = (id(page),)
        if self._before is not None and ids in self._before._made and ids not in self._made:
            pieces = self._pieces[ids] = self._before._pieces[ids]
            for piece in pieces:
                self._made[piece] = self._before._made[piece]
                self.parts.update(self._made[piece])
        return self._add((page,), self._parts_of_page)[-1][0]

    def _parts_of_page(self, pages: Sequence[Page]) -> list[Part]:
        """Its layout; its pieces are added."""
        (page,) = pages
        pieces = [(some, self._add(some, _parts_of_items)) for some in _cut(page.entries)]
        self._pieces[id(page),] = [tuple(map(id, some)) for some, _ in pieces]
        columns = {id(text): at for at, text in enumerate(page.items.values())}  # dialects that list the same share one
        places = {key: at for at, key in enumerate(columns)}
        texts = tuple([tuple([made[at][0] for _, made in pieces]) for at in columns.values()])
        of = {name: places[id(text)] for name, text in page.items.items()}
        return _parts_of(PageLayout(texts, of, page.start, page.more))


def _runs(grants: Mapping[str, Grant], places: Mapping[int, tuple[bytes, int]]) -> Runs:
    runs = groupby([places[id(grant)] for grant in grants.values()], itemgetter(0))
    return tuple([(key, bytes([at for _, at in run])) for key, run in runs])


def _parts_of(found: object) -> list[Part]:
    text = pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
    return [(blake2b(text, digest_size=16).digest(), text)]


def _parts_of_items(some: Sequence[ListEntry]) -> list[Part]:
    """One for each dialect: these items, with commas between them."""
    columns = zip(*[entry.texts for entry in some], strict=True)
    made: dict[tuple[bytes, ...], Part] = {}
    return [made.get(texts) or made.setdefault(texts, _parts_of(b",".join(texts))[0]) for texts in columns]


def _cut(entries: Sequence[ListEntry]) -> Iterator[Sequence[ListEntry]]:
    """Items in pieces: an item decides by itself whether a piece ends with it, so that a new one moves no other."""
    begin = 0
    for end, entry in enumerate(entries, 1):
        if end == len(entries) or entry.checksum % ITEMS == 0:
            yield entries[begin:end]
            begin = end


class SnapshotDecoder:
    """Snapshots put together of parts; what two have in common is the same object in both."""

    def __init__(self) -> None:
        self.parts: dict[bytes, Any] = {}
        """What is here, by hash."""

    def take(self, key: bytes, text: bytes) -> Iterator[None]:
        """Unpack one part; between two steps others may work.

        Raises:
            KeyError: one that it names is not here.
        """
        found = pickle.loads(text)
        if isinstance(found, PageLayout):
            found = self._page(found)
        elif isinstance(found, ViewLayout):
            grants: dict[str, Grant] = {}
            for at, (name, places) in enumerate(found.grants):
                if at % RUNS == 0:
                    yield
                grants.update(self._named(name, places))
            prompts = dict([pair for name, places in found.prompts for pair in self._named(name, places)])
            lists = {
                method: Listing(tuple([self.parts[page] for page in pages]), fingerprint)
                for method, (pages, fingerprint) in found.lists.items()
            }
            found = View(grants, prompts, found.uri_rules, lists)
        self.parts[key] = found
        yield

    def whole(self, root: bytes, gone: Collection[bytes]) -> tuple[Any, list[Any]]:
        """The snapshot, when all its parts are here, and what is not used any more: the parts with the hashes `gone`.

        Raises:
            KeyError: a part is not here.
        """
        snapshot, hashes = pickle.loads(root)
        if isinstance(snapshot, Snapshot):
            endpoints = dict(snapshot.endpoints)
            for path, (uris, views) in hashes.items():
                found = tuple([self.parts[view] for view in views])
                endpoints[path] = replace(endpoints[path], uris=self.parts[uris], views=found)
            snapshot = replace(snapshot, endpoints=endpoints)
        return snapshot, [self.parts.pop(key, None) for key in gone]

    def _named(self, key: bytes, places: bytes) -> list[tuple[str, Grant]]:
        grants = self.parts[key]
        return [(grants[at].route.name, grants[at]) for at in places]

    def _page(self, layout: PageLayout) -> Page:
        texts = []
        for pieces in layout.texts:
            text = b"[" + b",".join([self.parts[piece] for piece in pieces]) + b"]"
            # From here on the pieces are places in the page: all lists would be kept twice otherwise.
            view, begin = memoryview(text), 1
            for piece in pieces:
                end = begin + len(self.parts[piece])
                self.parts[piece], begin = view[begin:end], end + 1
            texts.append(text)
        return Page({name: texts[at] for name, at in layout.of.items()}, layout.start, layout.more)
