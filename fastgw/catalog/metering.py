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

    def tokens(self, member: Callable[[str], bytes]) -> tuple[int | None, int | None]:
        """How many in and out; None for what the result does not say, or says so that it can not be.

        Args:
            member: the JSON text of a member of the result, empty where there is none.
        """
        return self._found(self.tokens_in, member), self._found(self.tokens_out, member)

    def _found(self, path: Path, member: Callable[[str], bytes]) -> int | None:
        if not path:
            return None
        text = member(path[0])
        if len(text) > self.largest:
            return None
        if len(path) > 1:
            try:
                text = _opener(path[1:])(text).text
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
        number = _WHOLE.fullmatch(text.strip())
        tokens = int(number[1]) if number is not None else MOST_TOKENS + 1
        return tokens if tokens <= MOST_TOKENS else None


class _Innermost(msgspec.Struct):
    below: msgspec.Raw = msgspec.Raw(b"")

    @property
    def text(self) -> bytes:
        return bytes(self.below)


class _Outer(msgspec.Struct):
    below: Any = None

    @property
    def text(self) -> bytes:
        return self.below.text if self.below is not None else b""


@lru_cache(maxsize=512)
def _opener(path: Path) -> Callable[[bytes], Any]:
    """Reads an object down this path, and skips all beside it; `text` of what it gives is the JSON text found there."""
    found = ("below", msgspec.Raw, msgspec.Raw(b""))
    kind: Any = msgspec.defstruct("Innermost", [found], bases=(_Innermost,), rename={"below": path[-1]})
    for step in reversed(path[:-1]):
        kind = msgspec.defstruct("Outer", [("below", kind | None, None)], bases=(_Outer,), rename={"below": step})
    return msgspec.json.Decoder(kind).decode
