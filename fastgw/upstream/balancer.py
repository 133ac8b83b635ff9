"""Which instance of a server a call goes to.

Where sessions live at instances (legacy servers) an identity keeps its instance, on every worker the same one. Else the
better of two that are drawn goes (power of two choices), by calls in flight and average latency; a canary gets its
share first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from random import random, sample
from typing import NamedTuple
from zlib import crc32

from fastgw.snapshot.model import Backend
from fastgw.upstream.instances import FORGETTING, LEAST_LATENCY, Instance

_TOP = 2**32


class Wish(NamedTuple):
    """What a call wants of the instance it gets.

    Args:
        identity: whose session, where there are any.
        first: the key of the one to begin with, where there is still such a one.
        stays: whether an identity has to keep its instance.
    """

    identity: str
    first: str | None = None
    stays: bool = True


def pick(
    instances: Sequence[Instance], wish: Wish, tried: Collection[Instance], now: float, *, last: bool = False
) -> Instance | None:
    """The instance to try next, None where none may be; `tried` were tried for this call.

    Args:
        now: CLOCK_MONOTONIC seconds.
        last: nothing better is left: those that are out of order, too, as far as they may be tried at all.
    """
    left = [one for one in instances if one not in tried and one.may_take(now, last=last)]
    if len(left) < 2:
        return left[0] if left else None
    if wish.stays:
        every = left[0].backend  # also those that are out of order: an identity stays though its canary goes
        weights = shares(every) if any(one.share for one in every.instances) else {}
        return min(left, key=lambda one: (one.address.key != wish.first, _rank(one, wish.identity, weights)))
    for one in left:
        # One whose time for a trial has come is out of the race for everybody else, so it goes first.
        if one.address.key == wish.first or not one.usable:
            return one
    drawn = random()
    for one in left:
        drawn -= one.address.share
        if drawn < 0.0:
            return one
    left = [one for one in left if not one.address.share] or left
    return min(sample(left, 2), key=lambda one: load(one, now)) if len(left) > 1 else left[0]


def load(one: Instance, now: float) -> float:
    """How long a call would take there, about: what it takes, for each call that is there already."""
    latency = one.latency * math.exp((one.measured - now) / FORGETTING)
    return (one.in_flight + 1) * max(latency, LEAST_LATENCY)


def shares(backend: Backend) -> dict[str, float]:
    """The part of a server's calls that each instance is to get, by key."""
    given = sum(one.share for one in backend.instances)
    others = sum(not one.share for one in backend.instances)
    return {one.key: one.share or (1.0 - given) / others for one in backend.instances}


def _rank(one: Instance, identity: str, weights: Mapping[str, float]) -> float:
    """Rendezvous hashing (Thaler and Ravishankar, 1998), weighted: when an instance goes, only its identities move.

    A CRC alone will not do: two of them differ by the same bits for every identity of a length, so that of three
    instances one would get half of all; to multiply (a step of lowbias32) ends that.
    """
    mixed = crc32(f"{one.address.key}\n{identity}".encode())
    drawn = ((mixed ^ mixed >> 16) * 0x21F0AAAD & 0xFFFFFFFF) + 1
    if not weights:
        return drawn
    return -math.log(drawn / (_TOP + 1)) / max(weights.get(one.address.key, 0.0), 1e-9)
