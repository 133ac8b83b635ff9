"""A snapshot on its way to the workers: parts by the hash of their content; only those that a worker lacks are sent.

A part is a few grants, what a view has of one section, a piece of a list's text, a page, the URIs of an endpoint, or a
view; those made of others name them by hash. Each takes a worker a millisecond or so, with calls in between: ten
thousand tools at once held them up for 100 ms. Most changes are those of one server, and what has not changed stays the
same object at a worker.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from io import BytesIO
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.uris import Uris
from fastgw.policy.shadow import ShadowRules
from fastgw.policy.uris import UriRules
from fastgw.snapshot.model import Grant, ListEntry, Listing, Page, Snapshot, View

MOST = 32
"""Most grants of one part, about half a millisecond to unpickle; and most items in a piece of a list's text."""

T = TypeVar("T")
Part = tuple[bytes, bytes]
"""Hash, and pickled."""
_Ids = tuple[int, ...]
"""Places in memory of what a part is made of."""


class SectionLayout(NamedTuple):
    """What one view has of a section, in its order: hashes of parts with grants, with places in each."""

    runs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class PageLayout:
    """A page: for each dialect the hashes of its pieces, which are some items each, with commas between them."""

    texts: dict[str, tuple[bytes, ...]]
    start: int
    more: bool


@dataclass(frozen=True, slots=True)
class ViewLayout:
    """A view by its parts: hashes of what it has of each section, and of each list's pages, with the fingerprint."""

    tools: tuple[bytes, ...]
    prompts: tuple[bytes, ...]
    uri_rules: UriRules
    lists: dict[str, tuple[tuple[bytes, ...], int]]
    shadow: ShadowRules | None


class EndpointLayout(NamedTuple):
    """An endpoint by its parts: hashes of its URIs, of its views, and of its `traits` where it has some. A thousand
    patterns among those take tens of milliseconds to compile: not at each change of a list.
    """

    uris: bytes
    views: list[bytes]
    traits: bytes | None


class _Made(NamedTuple):
    """What some objects have become: one part, or one for each view or dialect; and of what else these name parts."""

    parts: list[Part]
    inner: dict[_Ids, _Made]


class EncodedSnapshot:
    """One snapshot as parts; what is no `Snapshot` travels as it is.

    The parts of the snapshot `before` are not made again; it may be forgotten afterwards.
    """

    def __init__(self, generation: int, snapshot: Any, before: EncodedSnapshot | None = None) -> None:
        self.generation = generation
        self.parts: dict[bytes, bytes] = {}
        """Hash to pickled part; each comes after those it names."""
        self._snapshot = snapshot  # its objects are known by their places in memory: they must live
        self._made: dict[_Ids, _Made] = {}
        self._before = before._made if before is not None else {}
        layout = self._layout(snapshot) if isinstance(snapshot, Snapshot) else (snapshot, {})
        self._before = {}
        self.root = pickle.dumps(layout, pickle.HIGHEST_PROTOCOL)
        """What is sent each time: the snapshot less its parts, and by endpoint the hashes of these."""

    def lacked(self, known: Collection[bytes]) -> Iterator[Part]:
        """The parts that those lack who have the ones with the hashes `known`."""
        return ((key, text) for key, text in self.parts.items() if key not in known)

    def _add(self, made_of: Sequence[object], make: Callable[[Any], _Made]) -> list[Part]:
        """Add what these objects become."""
        ids = tuple(map(id, made_of))
        if ids not in self._made:
            made = self._before.get(ids) or make(made_of)
            self._made |= {**made.inner, ids: made}
            for one in (*made.inner.values(), made):
                self.parts.update(one.parts)
        return self._made[ids].parts

    def _inner(self, cut: Sequence[Sequence[object]]) -> dict[_Ids, _Made]:
        return {ids: self._made[ids] for ids in (tuple(map(id, some)) for some in cut)}

    def _layout(self, snapshot: Snapshot) -> tuple[Snapshot, dict[str, EndpointLayout]]:
        hashes, bare = {}, {}
        for path, endpoint in snapshot.endpoints.items():
            views = endpoint.views
            [(uris, _)] = self._add((endpoint.uris,), lambda found: _pickled(found[0]))
            tools = self._add_sections([view.tool_sections or (view.grants,) for view in views])
            prompts = self._add_sections([view.prompt_sections or (view.prompts,) for view in views])
            traits = [self._add((one,), lambda found: _pickled(found[0]))[0][0] for one in (endpoint.traits,) if one]
            laid = list(map(self._add_view, views, tools, prompts))
            hashes[path] = EndpointLayout(uris, laid, traits[0] if traits else None)
            # Which routes there are is for operators to see, and they ask the controller.
            bare[path] = replace(endpoint, routes={}, views=(View(),) * len(views), uris=Uris(), traits=None)
        return replace(snapshot, endpoints=bare), hashes

    def _add_sections(self, views: Sequence[Sequence[dict[str, Grant]]]) -> Iterator[tuple[bytes, ...]]:
        """The hash of each section, view by view; views share the grants that they have in common."""
        made = [self._add(section, self._made_of_section) for section in zip(*views, strict=True)]
        return zip(*[[key for key, _ in parts] for parts in made], strict=True)

    def _made_of_section(self, views: Sequence[dict[str, Grant]]) -> _Made:
        unique = {id(grant): grant for grants in views for grant in grants.values()}
        cut = list(_cut(list(unique.values()), lambda grant: crc32(grant.route.name.encode())))
        places: dict[int, tuple[bytes, int]] = {}
        for some in cut:
            [(key, _)] = self._add(some, _pickled)
            places.update((id(grant), (key, at)) for at, grant in enumerate(some))
        layouts = []
        for grants in views:
            runs = groupby([places[id(grant)] for grant in grants.values()], lambda place: place[0])
            layouts.append(SectionLayout(tuple([(key, bytes([at for _, at in run])) for key, run in runs])))
        return _Made([_part(layout) for layout in layouts], self._inner(cut))

    def _add_view(self, view: View, tools: tuple[bytes, ...], prompts: tuple[bytes, ...]) -> bytes:
        lists = {
            method: (tuple([self._add((page,), self._made_of_page)[0][0] for page in found.pages]), found.fingerprint)
            for method, found in view.lists.items()
        }
        key, text = _part(ViewLayout(tools, prompts, view.uri_rules, lists, view.shadow))
        self.parts[key] = text
        return key

    def _made_of_page(self, pages: Sequence[Page]) -> _Made:
        (page,) = pages
        cut = list(_cut(page.entries, lambda entry: entry.checksum))
        pieces = [self._add(some, _made_of_items) for some in cut]
        columns = [tuple([parts[at][0] for parts in pieces]) for at in range(len(page.items))]
        shared = {column: column for column in columns}  # dialects that list the same: each column is pickled once
        texts = {dialect: shared[column] for dialect, column in zip(page.items, columns, strict=True)}
        return _Made([_part(PageLayout(texts, page.start, page.more))], self._inner(cut))


def _reducer(kind: type[Any]) -> Callable[[Any], tuple[type[Any], tuple[object, ...]]]:
    values = attrgetter(*[field.name for field in fields(kind)])
    return lambda one: (kind, values(one))


_REDUCERS = copyreg.dispatch_table | {kind: _reducer(kind) for kind in (Grant, Route, Arm, Target)}
"""Dataclasses with slots pickle themselves field by field, in Python: of ten thousand tools that is half the time."""


def _part(found: object) -> Part:
    written = BytesIO()
    pickler = pickle.Pickler(written, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(found)
    text = written.getvalue()
    return blake2b(text, digest_size=16).digest(), text


def _pickled(found: object) -> _Made:
    return _Made([_part(found)], {})


def _made_of_items(some: Sequence[ListEntry]) -> _Made:
    """A part for each dialect: these items, with commas between them."""
    columns = list(zip(*[entry.texts for entry in some], strict=True))
    parts = {texts: _part(b",".join(texts)) for texts in dict.fromkeys(columns)}
    return _Made([parts[texts] for texts in columns], {})


def _cut(items: Sequence[T], checksum: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """In pieces: an item decides by itself whether a piece ends with it, so that a new one moves no other."""
    begin = 0
    for end, item in enumerate(items, 1):
        if end == len(items) or checksum(item) % (MOST // 2) == 0 or end - begin == MOST:
            yield tuple(items[begin:end])
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
        elif isinstance(found, SectionLayout):
            section: dict[str, Grant] = {}
            for part, places in found.runs:
                grants = self.parts[part]
                section.update([(grants[at].route.name, grants[at]) for at in places])
                yield
            found = section
        elif isinstance(found, ViewLayout):
            tools: dict[str, Grant] = {}
            prompts: dict[str, Grant] = {}
            for has, sections in ((tools, found.tools), (prompts, found.prompts)):
                for part in sections:
                    has.update(self.parts[part])
                    yield
            lists = {
                method: Listing(tuple([self.parts[page] for page in pages]), fingerprint)
                for method, (pages, fingerprint) in found.lists.items()
            }
            found = View(tools, prompts, found.uri_rules, lists, shadow=found.shadow)
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
            for path, (uris, views, key) in hashes.items():
                found, traits = tuple([self.parts[view] for view in views]), key and self.parts[key]
                endpoints[path] = replace(endpoints[path], uris=self.parts[uris], views=found, traits=traits)
            snapshot = replace(snapshot, endpoints=endpoints)
        return snapshot, [self.parts.pop(key, None) for key in gone]

    def _page(self, layout: PageLayout) -> Page:
        texts: dict[tuple[bytes, ...], bytes] = {}
        for pieces in dict.fromkeys(layout.texts.values()):
            text = texts[pieces] = b"".join((b"[", b",".join([self.parts[piece] for piece in pieces]), b"]"))
            # From here on the pieces are places in the page: all lists would be kept twice otherwise.
            view, begin = memoryview(text), 1
            for piece in pieces:
                end = begin + len(self.parts[piece])
                self.parts[piece], begin = view[begin:end], end + 1
        return Page({dialect: texts[pieces] for dialect, pieces in layout.texts.items()}, layout.start, layout.more)
