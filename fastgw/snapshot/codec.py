"""A snapshot on its way to the workers: parts by the hash of their content; only those that a worker lacks are sent.

A part is a few items of a list with their grants, what a view has of one section, the URIs of an endpoint, or a view;
those made of others name them by hash. Of a section whose items anybody can have the worker is sent all: a class of
agents that comes later is then but places in what is there. Each part takes a worker a millisecond or so, with calls in
between: ten thousand tools at once held them up for 100 ms. Most changes are those of one server, and what has not
changed stays the same object at a worker.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from io import BytesIO
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.uris import Uris
from fastgw.policy.shadow import ShadowRules
from fastgw.policy.uris import UriRules
from fastgw.protocol import names
from fastgw.snapshot.model import Grant, Item, ListEntry, Listing, Snapshot, View, VisibleSection, granted

T = TypeVar("T")
MOST = 32
"""Most items of one part, about half a millisecond to unpickle."""

Part = tuple[bytes, bytes]
"""Hash, and pickled."""
Place = tuple[bytes, int]
"""Of an item: hash of its part, and where it is in it."""


class SectionLayout(NamedTuple):
    """What one view has of a section, in its order: hashes of parts with items, with places in each."""

    runs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class ViewLayout:
    """A view by its parts: by list method the hashes of what it has of each section, and the list's fingerprint."""

    sections: dict[str, tuple[tuple[bytes, ...], int]]
    uri_rules: UriRules
    shadow: ShadowRules | None


class EndpointLayout(NamedTuple):
    """An endpoint by its parts: hashes of its URIs, of its views, and of its `traits` where it has some. A thousand
    patterns among those take tens of milliseconds to compile: not at each change of a list.
    """

    uris: bytes
    views: list[bytes]
    traits: bytes | None


class _Made(NamedTuple):
    """What an object has become: parts, each after those it names; and of items, by `id`, where each is."""

    parts: list[Part]
    places: Mapping[int, Place] = MappingProxyType({})


class EncodedSnapshot:
    """One snapshot as parts; what is no `Snapshot` travels as it is.

    The parts of the snapshot `before` are not made again; it may be forgotten afterwards.
    """

    def __init__(self, generation: int, snapshot: Any, before: EncodedSnapshot | None = None) -> None:
        self.generation = generation
        self.parts: dict[bytes, bytes] = {}
        """Hash to pickled part; each comes after those it names."""
        self._snapshot = snapshot  # its objects are known by their places in memory: they must live
        self._made: dict[int, _Made] = {}
        self._before = before._made if before is not None else {}
        layout = self._layout(snapshot) if isinstance(snapshot, Snapshot) else (snapshot, {})
        self._before = {}
        self.root = pickle.dumps(layout, pickle.HIGHEST_PROTOCOL)
        """What is sent each time: the snapshot less its parts, and by endpoint the hashes of these."""

    def lacked(self, known: Collection[bytes]) -> Iterator[Part]:
        """The parts that those lack who have the ones with the hashes `known`."""
        return ((key, text) for key, text in self.parts.items() if key not in known)

    def _add(self, one: T, make: Callable[[T], _Made]) -> _Made:
        """Add what this object becomes."""
        made = self._made.get(id(one))
        if made is None:
            made = self._made[id(one)] = self._before.get(id(one)) or make(one)
            self.parts.update(made.parts)
        return made

    def _layout(self, snapshot: Snapshot) -> tuple[Snapshot, dict[str, EndpointLayout]]:
        hashes, bare = {}, {}
        for path, endpoint in snapshot.endpoints.items():
            uris = self._key_of(endpoint.uris, _pickled)
            traits = self._key_of(endpoint.traits, _pickled) if endpoint.traits is not None else None
            views = list(map(self._add_view, endpoint.views))
            hashes[path] = EndpointLayout(uris, views, traits)
            # Which routes there are is for operators to see, and they ask the controller.
            bare[path] = replace(endpoint, routes={}, views=(View(),) * len(views), uris=Uris(), traits=None)
        return replace(snapshot, endpoints=bare), hashes

    def _key_of(self, one: T, make: Callable[[T], _Made]) -> bytes:
        """Add it; the hash of the part that stands for it."""
        return self._add(one, make).parts[-1][0]

    def _add_view(self, view: View) -> bytes:
        for section in chain.from_iterable(view.sections.values()):
            if id(section) not in self._made:  # a thousand views share most of theirs
                self._add(section.whole, _cut)
                self._add(section, self._made_of_section)
        return self._key_of(view, self._made_of_view)

    def _made_of_section(self, section: VisibleSection) -> _Made:
        places = self._made[id(section.whole)].places
        # Grants that policies have put conditions on are those of whoever has this.
        own = _cut([item for item in section.items if id(item) not in places])
        found = [places.get(id(item)) or own.places[id(item)] for item in section.items]
        runs = [(key, bytes([at for _, at in run])) for key, run in groupby(found, itemgetter(0))]
        return _Made([*own.parts, _part(SectionLayout(tuple(runs)))])

    def _made_of_view(self, view: View) -> _Made:
        sections = {
            method: (tuple([self._made[id(one)].parts[-1][0] for one in every]), view.lists[method].fingerprint)
            for method, every in view.sections.items()
        }
        return _Made([_part(ViewLayout(sections, view.uri_rules, view.shadow))])


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
    return _Made([_part(found)])


def _cut(items: Sequence[Item]) -> _Made:
    """In parts: an item decides by itself whether a part ends with it, so that a new one moves no other."""
    parts: list[Part] = []
    places: dict[int, Place] = {}
    begin = 0
    for end, (name, *_) in enumerate(items, 1):
        if end == len(items) or crc32(name.encode()) % (MOST // 2) == 0 or end - begin == MOST:
            some = tuple(items[begin:end])
            parts.append(_part(some))
            places.update((id(item), (parts[-1][0], at)) for at, item in enumerate(some))
            begin = end
    return _Made(parts, places)


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
        if isinstance(found, SectionLayout):
            items: list[Item] = []
            for part, places in found.runs:
                some = self.parts[part]
                items.extend([some[at] for at in places])
                yield
            found = items
        elif isinstance(found, ViewLayout):
            tools: dict[str, Grant] = {}
            prompts: dict[str, Grant] = {}
            called, lists = {names.TOOLS_LIST: tools, names.PROMPTS_LIST: prompts}, {}
            for method, (sections, fingerprint) in found.sections.items():
                entries: list[ListEntry] = []
                for part in sections:
                    entries.extend([entry for _, _, entry in self.parts[part]])
                    if method in called:
                        called[method].update(granted(self.parts[part]))
                    yield
                lists[method] = Listing(tuple(entries), fingerprint)
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
