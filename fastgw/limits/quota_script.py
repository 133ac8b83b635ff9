"""What one question about quotas carries to the store and back: see `quota.lua`, which says what each field is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from importlib.resources import files
from typing import Protocol

import msgspec

from fastgw.limits.script import BadReply
from fastgw.policy.limits import Subject
from fastgw.policy.quotas import NOTHING, Amounts

QUOTA_VERSION = 1
QUOTA_SOURCE = files("fastgw.limits").joinpath("quota.lua").read_text("utf-8")
QUOTA_DIGEST = sha1(QUOTA_SOURCE.encode(), usedforsecurity=False).hexdigest()

GRANTED, SHORT, OUTSIDE, STALE = range(4)
"""`status` of an answer."""
_FIELDS = 20
_LATEST = 2 * 10**14
"""Unix ms, some 6,000 years on: a store with a later one has no clock that a calendar can be asked about."""


@dataclass(slots=True)
class AccountRow:
    """One account in a question; `key` and `index` are its names in the store, the others are as in the script."""

    key: str
    index: str
    member: str
    period: tuple[int, ...]
    amounts: Amounts
    warn: int = 0
    seq: int = 1
    told: list[tuple[int, ...]] = field(default_factory=list)
    need: Amounts = NOTHING
    ahead: Amounts = NOTHING
    order: tuple[int, ...] = ()
    life: str = ""
    ended: int = 0

    def encoded(self) -> tuple[object, ...]:
        """As the script takes it."""
        numbers = self.period, self.amounts, self.warn, self.seq, self.told, self.need, self.ahead, self.order
        return (*numbers, self.member, self.life, self.ended)


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """What became of one row: see the script. Times are Unix ms of the store; `used` is with what was granted."""

    status: int
    slot: int
    ends: int
    free: int
    warned: bool
    granted: Amounts
    used: Amounts
    raised: Amounts


@dataclass(frozen=True, slots=True)
class LedgerReply:
    """The answer to a question; `now`: Unix ms of the store; another `epoch`: it has lost what it knew."""

    epoch: str
    now: int
    rows: list[AccountAnswer]
    members: list[str]


class QuotaLedger(Protocol):
    """Where accounts are kept: a store, or this process."""

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        """Carry out the rows; with `index` list up to `most` members of it instead.

        Raises:
            StoreAway: it was not done, or nobody knows.
        """


class QuotaKeys:
    """The names of what a deployment keeps of quotas, in the slot of its buckets."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{{{prefix}}}:1:q"
        self.epoch = f"{self._start}:epoch"

    def account(self, quota: str, subject: Subject) -> str:
        """The key of an account: of one length and one alphabet, whatever a claim holds. `quota`: its `kept_as`."""
        parts = subject if isinstance(subject, tuple) else (subject,)
        return f"{self._start}:{sha256(json.dumps([quota, *parts]).encode()).hexdigest()[:32]}"

    def index(self, quota: str) -> str:
        """Of the subjects that have an account of a quota."""
        return f"{self._start}i:{sha256(quota.encode()).hexdigest()[:32]}"


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(tuple[int, str, int, list[list[int]], list[str]]).decode


def encode_question(rows: list[AccountRow], worker: str, epoch: str, most: int) -> bytes:
    """The script's argument."""
    return _ENCODE((QUOTA_VERSION, worker, epoch, [row.encoded() for row in rows], most))


def decode_reply(answer: object, rows: int) -> LedgerReply:
    """What the script answered to so many rows.

    Raises:
        BadReply: it is no answer of this version.
    """
    if not isinstance(answer, bytes):
        raise BadReply(f"a {type(answer).__name__} instead of bytes")
    try:
        version, epoch, now, found, members = _DECODE(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise BadReply(str(wrong)) from None
    if version != QUOTA_VERSION or len(found) != rows or any(len(row) != _FIELDS or min(row) < 0 for row in found):
        raise BadReply(f"version {version}, {len(found)} rows")
    if not 0 <= now < _LATEST:
        raise BadReply(f"its clock says {now}")
    return LedgerReply(epoch, now, [answer_of(row) for row in found], members)


def answer_of(row: list[int]) -> AccountAnswer:
    """The fields of a row of the answer, in their order."""
    status, slot, ends, free, warned, *amounts = row
    a, b, c, d, e, f, g, h, i, j, k, m, n, o, p = amounts
    return AccountAnswer(status, slot, ends, free, bool(warned), (a, b, c, d, e), (f, g, h, i, j), (k, m, n, o, p))
