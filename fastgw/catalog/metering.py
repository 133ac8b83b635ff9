"""What a call used, as its result says, and what that costs by the price of the server that answered.

Money is whole numbers: prices have at most 9 decimals, so the price of one token of a million is a whole number of
10**-15 of the currency; a cost is rounded to 10**-9 once, at its end, half of that upwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

MOST_TOKENS = 10**9
"""Of one call: no model takes as many, so a server that says more says nothing."""
_WHOLE = re.compile(rb"([0-9]{1,10})(\.0+)?")
_PER_BILLIONTH = 10**6
"""Units of a price in the smallest unit of a cost."""

Path = tuple[str, ...]
"""Members, from the outside in, that lead to a number in a result; empty: it is not to be had."""


Member = Callable[[str], bytes]
"""The JSON text of a member of a result, empty where there is none."""


class Price(NamedTuple):
    """Of a call, and of one token in and out of it, in 10**-15 of the currency."""

    per_call: int = 0
    per_token_in: int = 0
    per_token_out: int = 0

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """Of one call, in 10**-9 of the currency."""
        exact = self.per_call + tokens_in * self.per_token_in + tokens_out * self.per_token_out
        return (exact + _PER_BILLIONTH // 2) // _PER_BILLIONTH


def price_of(per_call: Decimal, per_million_in: Decimal, per_million_out: Decimal) -> Price:
    """From amounts of the currency with at most 9 decimals."""
    return Price(int(per_call * 10**15), int(per_million_in * 10**9), int(per_million_out * 10**9))


class Meter(NamedTuple):
    """How one server's answers to calls of a tool are measured.

    Args:
        server, tool: whose answers, by its own name.
        tokens_in, tokens_out: where in the result.
        largest: bytes of a member of the result that is opened to look.
        price: None where nobody has given one.
    """

    server: str
    tool: str
    tokens_in: Path = ()
    tokens_out: Path = ()
    largest: int = 2**20
    price: Price | None = None

    def tokens(self, member: Member) -> tuple[int | None, int | None]:
        """How many in and out; None for what the result does not say, or says so that it can not be."""
        return _reader(self.tokens_in, self.tokens_out, self.largest)(member)


@lru_cache(maxsize=512)
def _reader(inward: Path, outward: Path, largest: int) -> Callable[[Member], tuple[int | None, int | None]]:
    """Looks for both numbers: where they stand in one object, which is usual, by opening that once."""
    if inward[1:] and outward[1:] and inward[:-1] == outward[:-1] and inward[-1] != outward[-1]:
        open_both = _opener(inward[1:-1], (inward[-1], outward[-1]))

        def both(member: Member) -> tuple[int | None, int | None]:
            found = _opened(open_both, len(inward) - 2, member(inward[0]), largest)
            return (None, None) if found is None else (_count(found.first), _count(found.second))

        return both
    one, other = _single_reader(inward, largest), _single_reader(outward, largest)
    return lambda member: (one(member), other(member))


def _single_reader(path: Path, largest: int) -> Callable[[Member], int | None]:
    if len(path) < 2:
        return lambda member: _count(member(path[0])) if path else None
    open_one = _opener(path[1:-1], (path[-1], ""))

    def one(member: Member) -> int | None:
        found = _opened(open_one, len(path) - 2, member(path[0]), largest)
        return None if found is None else _count(found.first)

    return one


def _opened(opener: Callable[[bytes], Any], depth: int, text: bytes, largest: int) -> Any:
    """The innermost object, its members `first` and `second`; None where there is none, or nobody may look."""
    if not text or len(text) > largest:
        return None
    try:
        found = opener(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for _ in range(depth):
        if found is None:
            return None
        found = found.below
    return found


def _opener(path: Path, names: tuple[str, str]) -> Callable[[bytes], Any]:
    """Reads objects down this path, each the `below` of the one around it, and skips all beside it; of the innermost
    the two members of these names.
    """
    members = [("first", msgspec.Raw, msgspec.Raw(b"")), ("second", msgspec.Raw, msgspec.Raw(b""))]
    kind: Any = msgspec.defstruct("Innermost", members, rename=dict(zip(("first", "second"), names, strict=True)))
    for step in reversed(path):
        kind = msgspec.defstruct("Outer", [("below", kind | None, None)], rename={"below": step})
    return msgspec.json.Decoder(kind).decode


def _count(text: bytes | msgspec.Raw) -> int | None:
    """A whole number of tokens from JSON text; None for what is none."""
    try:
        number = int(bytes(text))
    except ValueError:
        found = _WHOLE.fullmatch(bytes(text).strip())
        if found is None:
            return None
        number = int(found[1])
    return number if 0 <= number <= MOST_TOKENS else None
