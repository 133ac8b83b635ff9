"""What operators have ordered about limits: buckets made full, and rates raised for a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Literal
from zlib import crc32

import msgspec

from fastgw.policy.bucket import MICROS, BucketRate, figures_of
from fastgw.policy.limits import Part, Subject, shown

RESET_FOR = 10.0
"""Seconds a reset is repeated to workers that have not heard of it; each obeys once."""
MOST_REMEMBERED = 1000


class Order(msgspec.Struct, frozen=True):
    """One order.

    Args:
        id: no other order has it.
        do: make buckets full, or count by another rate.
        limit: name of the limit.
        subject: values of its `by`, in order; None for all of its buckets.
        calls, seconds, burst: the rate of a raise.
    """

    id: str
    do: Literal["reset", "raise"]
    limit: str
    subject: tuple[str | None, ...] | None = None
    calls: Annotated[int, msgspec.Meta(ge=0)] = 0
    seconds: Annotated[int, msgspec.Meta(ge=1)] = 1
    burst: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def target(self) -> str:
        """What it is about: a newer order about the same replaces it. Without a line break."""
        return msgspec.json.encode((self.do, self.limit, self.subject)).decode()

    @property
    def number(self) -> int:
        """Which order it is, above 0."""
        return crc32(self.id.encode("utf-8", "surrogatepass")) or 1

    @property
    def text(self) -> str:
        """As it travels; `order_of` reads it."""
        return msgspec.json.encode(self).decode()


def order_of(text: str) -> Order | None:
    """The order that is this text; None where it is none, or one of another release."""
    try:
        return msgspec.json.decode(text, type=Order)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class _Raise:
    order: Order
    figures: BucketRate
    until: float


class Orders:
    """The orders in force, at one worker.

    Args:
        tell: lets all workers of the deployment know: target, text, seconds; None where there is only this one.
        clock: monotonic seconds.
    """

    def __init__(
        self, tell: Callable[[str, str, float], None] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._done: dict[str, None] = {}
        self.raises: dict[tuple[str, tuple[Part, ...] | None], _Raise] = {}
        """By limit and the values of its `by`; None for all buckets."""
        self.reset: Callable[[Order], None] = lambda _: None
        """Carries a reset out."""

    def give(self, text: str, seconds: float) -> None:
        """An operator orders this, for so long; no seconds take it back."""
        order = order_of(text)
        if order is None:
            return
        self._take(order, seconds)
        if self._tell is not None:
            self._tell(order.target, text, seconds)

    def remember(self, text: str, seconds: float) -> None:
        """An operator has ordered this before. Where there is a store it knows better: others order, too."""
        order = order_of(text)
        if order is not None and self._tell is None:
            self._take(order, seconds)

    def repeat(self) -> None:
        """The store has lost them: tell it again."""
        if self._tell is None:
            return
        now = self._clock()
        for one in self.raises.values():
            if one.until > now:
                self._tell(one.order.target, one.order.text, one.until - now)

    def heard(self, orders: Iterable[tuple[str, float]]) -> None:
        """All that is in force in the whole deployment: text, and seconds it still holds."""
        self.raises = {}
        for text, seconds in orders:
            order = order_of(text)
            if order is not None:
                self._take(order, seconds)

    def raised(self, limit: str, subject: Subject, figures: BucketRate) -> BucketRate:
        """The figures that hold for a bucket: wherever a raise lets no more through, those of the configuration."""
        parts, now = subject if isinstance(subject, tuple) else (subject,), self._clock()
        for target in (parts, None):
            found = self.raises.get((limit, target))
            if found is not None and found.until > now:
                figures = _wider(figures, found.figures)
        return figures

    def told(self) -> list[dict[str, object]]:
        """The raises in force, fit for JSON."""
        now = self._clock()
        return [
            {
                "limit": limit,
                "subject": None if parts is None else shown(parts),
                "rate": f"{one.order.calls}/{one.order.seconds}s",
                "burst": one.order.burst,
                "secondsLeft": round(one.until - now),
            }
            for (limit, parts), one in self.raises.items()
            if one.until > now
        ]

    def _take(self, order: Order, seconds: float) -> None:
        if order.do == "raise":
            self._raise(order, seconds)
        elif order.id not in self._done:
            self._done[order.id] = None
            if len(self._done) > MOST_REMEMBERED:
                del self._done[next(iter(self._done))]
            self.reset(order)

    def _raise(self, order: Order, seconds: float) -> None:
        now = self._clock()
        self.raises = {target: one for target, one in self.raises.items() if one.until > now}
        self.raises.pop((order.limit, order.subject), None)
        if seconds <= 0:
            return
        try:
            figures = figures_of(order.calls, order.seconds, order.burst)
        except ValueError:
            return
        self.raises[order.limit, order.subject] = _Raise(order, figures, now + seconds)


def _wider(one: BucketRate, other: BucketRate) -> BucketRate:
    """The faster rate of two, with the larger burst of both."""
    faster = max(one, other, key=_rate)
    burst = max(one.burst, other.burst)
    if faster.burst == burst:
        return faster
    return figures_of(faster.gain * MICROS, faster.price * faster.tick, burst)


def _rate(figures: BucketRate) -> float:
    return figures.gain / (figures.price * figures.tick)
