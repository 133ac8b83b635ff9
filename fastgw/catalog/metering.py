"""What a call used, as its result says, and what that costs by the price of the server that answered.

Money is whole numbers: prices have at most 9 decimals, so the price of one token of a million is a whole number of
10**-15 of the currency; a cost is rounded to 10**-9 once, at its end, half of that upwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import msgspec

MOST_TOKENS = 10**9
"""Of one call: no model takes as many, so a server that says more says nothing."""
MOST_COST = 10**18 - 1
"""Of one call, in 10**-9 of the currency: what a column `Decimal(18, 9)` holds, in the archive and in ClickHouse."""
_PER_BILLIONTH = 10**6
"""Units of a price in the smallest unit of a cost."""

Path = tuple[str, ...]
"""Members, from the outside in, that lead to a number in a result; empty: it is not to be had."""


Member = Callable[[str], bytes | msgspec.Raw]
"""The JSON text of a member of a result, empty where there is none."""


Opener = Callable[[bytes | msgspec.Raw], Any]


class Price(NamedTuple):
    """Of a call, and of one token in and out of it, in 10**-15 of the currency."""

    per_call: int = 0
    per_token_in: int = 0
    per_token_out: int = 0

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """Of one call, in 10**-9 of the currency; `MOST_COST` where a server's word on tokens makes it more."""
        per_call, per_token_in, per_token_out = self
        exact = per_call + tokens_in * per_token_in + tokens_out * per_token_out
        found = (exact + _PER_BILLIONTH // 2) // _PER_BILLIONTH
        return found if found <= MOST_COST else MOST_COST


def price_of(per_call: Decimal, per_million_in: Decimal, per_million_out: Decimal) -> Price:
    """From amounts of the currency with at most 9 decimals."""
    return Price(int(per_call * 10**15), int(per_million_in * 10**9), int(per_million_out * 10**9))


@dataclass(frozen=True)
class Meter:
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

    @cached_property
    def tokens(self) -> Callable[[Member], tuple[int | None, int | None]]:
        """How many in and out; None for what the result does not say, or says so that it can not be. Found where it is
        first asked for, in a worker: it cannot be pickled.
        """
        return _reader(self.tokens_in, self.tokens_out, self.largest)


@lru_cache(maxsize=512)
def _reader(inward: Path, outward: Path, largest: int) -> Callable[[Member], tuple[int | None, int | None]]:
    """Looks for both numbers: where they stand in one object, which is usual, by opening that once."""
    if inward[1:] and outward[1:] and inward[:-1] == outward[:-1] and inward[-1] != outward[-1]:
        open_both, outermost, between = _opener(inward[1:-1], (inward[-1], outward[-1])), inward[0], inward[1:-1]

        def both(member: Member) -> tuple[int | None, int | None]:
            text = member(outermost)
            found = _opened(open_both, between, text) if 0 < len(text) <= largest else None
            if found is None:
                return None, None
            first, second = found.first, found.second
            if type(first) is int and type(second) is int and 0 <= first <= MOST_TOKENS and 0 <= second <= MOST_TOKENS:
                return first, second
            return _count(first), _count(second)

        return both
    one, other = _single_reader(inward, largest), _single_reader(outward, largest)
    return lambda member: (one(member), other(member))


def _single_reader(path: Path, largest: int) -> Callable[[Member], int | None]:
    if not path:
        return lambda _: None
    open_one = _opener(path[1:-1], (path[-1], "")) if path[1:] else _open_number

    def one(member: Member) -> int | None:
        text = member(path[0])
        found = _opened(open_one, path[1:-1], text) if 0 < len(text) <= largest else None
        return None if found is None else _count(found.first)

    return one


def _opened(opener: Opener, between: Path, text: bytes | msgspec.Raw) -> Any:
    """The innermost object, its members `first` and `second`; None where there is none."""
    try:
        found = opener(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for _ in between:
        if found is None:
            return None
        found = found.below
    return found


def _opener(path: Path, names: tuple[str, str]) -> Opener:
    """Reads objects down this path, each the `below` of the one around it, and skips all beside it; of the innermost
    the two members of these names.
    """
    members = [("first", Any, None), ("second", Any, None)]
    kind: Any = msgspec.defstruct("Innermost", members, rename=dict(zip(("first", "second"), names, strict=True)))
    for step in reversed(path):
        kind = msgspec.defstruct("Outer", [("below", kind | None, None)], rename={"below": step})
    return msgspec.json.Decoder(kind).decode


class _Number(NamedTuple):
    first: object


def _open_number(text: bytes | msgspec.Raw) -> _Number:
    return _Number(msgspec.json.decode(text))


def _count(value: object) -> int | None:
    """A whole number of tokens; None for what is none."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
