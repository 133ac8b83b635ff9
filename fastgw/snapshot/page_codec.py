"""Pages of a list told by those it had before: one tool more on the first page moves all that follow by one item.

Behind each other, without their brackets, the pages of a list are one text. Of two such texts the beginning and the end
that they have in common are not sent: a page is put together of slices of earlier pages and of what is new.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fastgw.snapshot.model import Listing, Page

Slice = tuple[int, int, int]
"""Number of an earlier page, and where the slice of its text begins and ends."""
Piece = bytes | Slice
STEP = 65536
"""Bytes that are compared at once."""


@dataclass(frozen=True, slots=True)
class PageLayout:
    """A page by earlier ones.

    Args:
        texts: for each text that differs from the others, one dialect that has it, and its pieces less the brackets.
        of: dialect to its place in `texts`.
        start, more: of the page.
    """

    texts: tuple[tuple[str, tuple[Piece, ...]], ...]
    of: dict[str, int]
    start: int
    more: bool

    @property
    def size(self) -> int:
        """Bytes that are new."""
        return sum(len(piece) for _, pieces in self.texts for piece in pieces if isinstance(piece, bytes))


def plans(new: Listing, old: Listing, number: Callable[[Page], int]) -> Iterator[PageLayout]:
    """Every page of the new list by pages of the old one, which `number` numbers."""
    recipes: list[list[tuple[Piece, ...]]] = []
    dialects: list[str] = []
    of: dict[str, int] = {}
    places: dict[tuple[int, ...], int] = {}
    numbers = [number(page) for page in old.pages]
    for dialect in new.pages[0].items:
        texts = [page.items[dialect] for page in new.pages]
        earlier = [page.items[dialect] for page in old.pages]
        # Dialects that know the same share one text.
        place = of[dialect] = places.setdefault(tuple(map(id, (*texts, *earlier))), len(recipes))
        if place == len(recipes):
            recipes.append(list(_recipes(texts, earlier, numbers)))
            dialects.append(dialect)
    for at, page in enumerate(new.pages):
        pieces = tuple((dialect, recipe[at]) for dialect, recipe in zip(dialects, recipes, strict=True))
        yield PageLayout(pieces, of, page.start, page.more)


def page_of(plan: PageLayout, earlier: Mapping[int, Page]) -> Page:
    """The page.

    Raises:
        LookupError: an earlier page is not here.
    """
    texts = []
    for dialect, pieces in plan.texts:
        parts = [
            piece if isinstance(piece, bytes) else memoryview(earlier[piece[0]].items[dialect])[piece[1] : piece[2]]
            for piece in pieces
        ]
        texts.append(b"".join((b"[", *parts, b"]")))
    return Page({dialect: texts[place] for dialect, place in plan.of.items()}, plan.start, plan.more)


def _recipes(texts: Sequence[bytes], earlier: Sequence[bytes], numbers: Sequence[int]) -> Iterator[tuple[Piece, ...]]:
    now, before = _whole(texts), _whole(earlier)
    begin = _alike(now, before)
    end = min(_alike_at_end(now, before), min(len(now), len(before)) - begin)
    starts = list(accumulate((len(text) - 1 for text in earlier), initial=0))
    behind = len(before) - len(now)
    at = 0
    for text in texts:
        # The comma before the first item is the bracket that opens the page.
        first, last = at + 1, at + len(text) - 1
        pieces: list[Piece] = list(_slices(first, min(last, begin), starts, numbers))
        if max(first, begin) < min(last, len(now) - end):
            pieces.append(now[max(first, begin) : min(last, len(now) - end)])
        pieces.extend(_slices(max(first, len(now) - end) + behind, last + behind, starts, numbers))
        yield tuple(pieces)
        at = last


def _slices(begin: int, end: int, starts: Sequence[int], numbers: Sequence[int]) -> Iterator[Piece]:
    """What stands from `begin` to `end` in all earlier pages behind each other, as slices of each."""
    while begin < end:
        at = bisect_right(starts, begin) - 1
        start, stop = begin - starts[at], min(end, starts[at + 1]) - starts[at]
        if start == 0:
            yield b","
            start = 1
        if start < stop:
            yield numbers[at], start, stop
        begin = starts[at] + stop


def _whole(texts: Sequence[bytes]) -> bytes:
    """All pages behind each other: before each item a comma, brackets nowhere."""
    return b"".join([part for text in texts for part in (b",", memoryview(text)[1:-1])])


def _alike(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are the same."""
    most, size, step = min(len(one), len(other)), 0, STEP
    while step:
        while size + step <= most and one[size : size + step] == other[size : size + step]:
            size += step
        step //= 4
    return size


def _alike_at_end(one: bytes, other: bytes) -> int:
    """How many bytes at the end are the same."""
    most, size, step = min(len(one), len(other)), 0, STEP
    first, second = len(one), len(other)
    while step:
        while size + step <= most:
            if one[first - size - step : first - size] != other[second - size - step : second - size]:
                break
            size += step
        step //= 4
    return size
