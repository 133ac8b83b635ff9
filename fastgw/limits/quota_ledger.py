"""Accounts of quotas in this process, for `store: memory`: what `quota.lua` does, and a journal on disk.

Each grant is in the journal before it is used, so that a killed worker has spent no more than is read there again. The
journal is a folder's `journal.jsonl`: one JSON array [key, slot, text, member, index, kept until] for each slot that
changed; text is empty where the slot is forgotten. A last line that was cut short counts for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic, time
from typing import Annotated

import msgspec

from fastgw.limits.quota_script import GRANTED, OUTSIDE, SHORT, STALE, AccountRow, LedgerReply, answer_of

log = logging.getLogger("fastgw")

KINDS = range(5)
ROOM = 10
COMPACT_AT = 16 * 2**20
"""Bytes of the journal from which on it is written anew, when it has also doubled."""
KEPT = 35 * 86_400_000
"""Milliseconds after the end of its period for which an account is kept."""
TRY_AGAIN = 5.0
"""Seconds between two attempts at a journal that cannot be written."""


class JournalLine(msgspec.Struct, array_like=True):
    """One slot of an account; `lasts`: Unix ms to which the account is kept, 0 where that is not known."""

    key: str
    slot: int
    text: str
    member: str
    index: str
    lasts: int = 0


_LINE = msgspec.json.Decoder(JournalLine).decode


@dataclass(slots=True)
class LedgerSlot:
    """One slot of an account; `registers`: by worker [seq, granted of each kind]."""

    used: list[int] = field(default_factory=lambda: [0] * 5)
    raised: list[int] = field(default_factory=lambda: [0] * 5)
    warned: int = 0
    orders: list[int] = field(default_factory=list)
    registers: dict[str, list[int]] = field(default_factory=dict)
    dirty: bool = False

    def register(self, worker: str, seq: int, granted: Iterable[int]) -> None:
        """Take a worker's register in the place of an older one."""
        kept = self.registers.get(worker, [0] * 6)
        if seq > kept[0]:
            new = [seq, *granted]
            self.used = [max(0, used + new[at + 1] - kept[at + 1]) for at, used in enumerate(self.used)]
            self.registers[worker], self.dirty = new, True

    def grant(self, worker: str, seq: int, granted: list[int]) -> None:
        """Add to a worker's register."""
        mine = self.registers.get(worker, [0] * 6)
        self.registers[worker] = [seq, *_sum((mine[1:], granted))]
        self.used, self.dirty = _sum((self.used, granted)), True

    def text(self) -> str:
        """As the journal keeps it."""
        parts = (self.used, self.raised, self.warned, self.orders, self.registers)
        return msgspec.json.encode(parts).decode()

    @classmethod
    def of(cls, text: str) -> LedgerSlot:
        """What `text` wrote. Raises ValueError: nothing that it wrote."""
        return cls(*msgspec.json.decode(text, type=_SLOT))


_EMPTY = LedgerSlot()
_COUNT = Annotated[int, msgspec.Meta(ge=0)]
_FIVE = Annotated[list[_COUNT], msgspec.Meta(min_length=5, max_length=5)]
_REGISTER = Annotated[list[_COUNT], msgspec.Meta(min_length=6, max_length=6)]
_SLOT = tuple[_FIVE, _FIVE, int, list[int], dict[str, _REGISTER]]


@dataclass(slots=True)
class LedgerAccount:
    """The slots of one account by their start."""

    index: str
    member: str
    slots: dict[int, LedgerSlot] = field(default_factory=dict)
    share: float = 0.0
    lasts: int = 0

    def hear(self, worker: str, row: AccountRow) -> None:
        """What a worker says that it was granted, and whether it will be heard again."""
        for slot, *granted in row.told:
            self.slots.setdefault(slot, LedgerSlot()).register(worker, row.seq, granted)
        for one in self.slots.values() if row.ended else ():
            one.dirty |= one.registers.pop(worker, None) is not None


def slot_now(period: tuple[int, ...], now: int) -> tuple[int, int, int] | None:
    """Start and end of the slot that holds `now`, and the first start that counts with it; None: outside."""
    kind, *rest = period
    if kind == 1:
        width, length = rest
        start = now - now % width
        return start, start + width, now - length - width + 1
    for start, end in pairwise(rest):
        if start <= now < end:
            return start, end, start
    return None


class LocalLedger:
    """A `quota_script.QuotaLedger` of one process.

    Args:
        folder: for the journal; None: nothing is kept.
        clock: Unix ms.
        count: counts one of a metric: name and labels.
    """

    def __init__(
        self,
        folder: Path | None,
        worker: str,
        clock: Callable[[], int] = lambda: int(time() * 1000),
        count: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._worker, self._clock = worker, clock
        self.accounts: dict[str, LedgerAccount] = {}
        self._journal = _Journal(folder, count) if folder is not None else None
        if self._journal is not None:
            self._journal.load(self.accounts, clock())

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        return self.decide(self._worker, rows, index, most)

    def decide(self, worker: str, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        """What the script does, of a worker, now."""
        now = self._clock()
        found = [answer_of(self._account(worker, row, now)) for row in rows]
        members: list[str] = []
        if most:
            listed = sorted((one for one in self.accounts.values() if one.index == index), key=lambda one: -one.share)
            members = [one.member for one in listed[:most]]
        return LedgerReply("local", now, found, members)

    async def sync(self) -> None:
        """Bring the journal to the disk itself; called once a second."""
        if self._journal is not None:
            await self._journal.sync(self.accounts, self._clock())

    def _account(self, worker: str, row: AccountRow, now: int) -> list[int]:
        place = slot_now(row.period, now)
        if place is None:
            return [OUTSIDE, 0, now, *[0] * 17]
        worker += row.life
        start, ends, first = place
        account = self.accounts.get(row.key) or LedgerAccount(row.index, row.member)
        slots = account.slots
        before = slots[start].registers.get(worker) if start in slots else None
        stale = before is not None and before[0] >= row.seq
        account.hear(worker, row)
        current = slots.setdefault(start, LedgerSlot())
        if row.order and not any(row.order[0] in slot.orders for slot in slots.values()):
            current.orders.append(row.order[0])
            current.raised = [have + more for have, more in zip(current.raised, row.order[1:], strict=True)]
            current.dirty = True
        window = {at: slot for at, slot in slots.items() if first <= at <= start}
        used, raised = _sum(one.used for one in window.values()), _sum(one.raised for one in window.values())
        most = [have + more for have, more in zip(row.amounts, raised, strict=True)]
        status, granted_now, lacking = _grants(row, used, most) if not stale else (STALE, [0] * 5, [0] * 5)
        if any(granted_now):
            current.grant(worker, row.seq, granted_now)
            used = _sum((used, granted_now))
        reached = any(row.amounts[k] > 0 and used[k] * 1000 >= row.warn * most[k] for k in KINDS)
        warns = row.warn > 0 and reached and not any(slot.warned for slot in window.values())
        if warns:
            current.warned, current.dirty = 1, True
        account.share = max((used[k] / most[k] for k in KINDS if row.amounts[k] >= 0 and most[k] > 0), default=0.0)
        free, length = 0, row.period[2] if row.period[0] == 1 else 0
        if status == SHORT:
            free = _freed(window, lacking, row.period, now) if length else ends
        gone = _old(slots, first, length)
        if current == _EMPTY:
            del slots[start]  # nothing is kept of it, so it must not count as one that was here
        account.lasts = ends + KEPT + length
        self._keep(row.key, account, gone)
        return [status, start, ends, free, int(warns), *granted_now, *used, *raised]

    def _keep(self, key: str, account: LedgerAccount, gone: list[int]) -> None:
        changed = [(at, slot.text()) for at, slot in account.slots.items() if slot.dirty]
        if changed:
            self.accounts[key] = account
        for at in gone:
            del account.slots[at]
        if self._journal is not None and changed:
            self._journal.write(
                [JournalLine(key, at, text, account.member, account.index, account.lasts) for at, text in changed]
                + [JournalLine(key, at, "", account.member, account.index) for at in gone]
            )
        for at, _ in changed:
            if at in account.slots:
                account.slots[at].dirty = False


def _sum(amounts: Iterable[list[int]]) -> list[int]:
    return [sum(one) for one in zip([0] * 5, *amounts, strict=True)]


def _grants(row: AccountRow, used: list[int], most: list[int]) -> tuple[int, list[int], list[int]]:
    """Status, what is granted of each kind, what is lacking."""
    status, granted, lacking = GRANTED, [0] * 5, [0] * 5
    for kind in KINDS:
        if row.amounts[kind] < 0:
            continue
        room = max(0, most[kind] - used[kind])
        got = min(row.need[kind], room)
        if got < row.need[kind]:
            status, lacking[kind] = SHORT, used[kind] + row.need[kind] - most[kind]
        elif row.ahead[kind] > 0 and room - got >= ROOM * max(row.ahead[kind], row.need[kind]):
            got += row.ahead[kind]
        granted[kind] = got
    return status, granted, lacking


def _freed(window: dict[int, LedgerSlot], lacking: list[int], period: tuple[int, ...], now: int) -> int:
    for start in sorted(window):
        lacking = [lack - used for lack, used in zip(lacking, window[start].used, strict=True)]
        if max(lacking) <= 0:
            return start + period[1] + period[2]
    return now + period[2]


def _old(slots: dict[int, LedgerSlot], first: int, length: int) -> list[int]:
    newest = max((at for at in slots if at < first), default=-1)
    return [at for at in slots if at < newest - length]


class _Journal:
    """Changes of slots, appended; where the disk cannot be written, calls go on, and it is logged once and counted."""

    def __init__(self, folder: Path, count: Callable[..., None]) -> None:
        self._path, self._count = folder / "journal.jsonl", count
        self._file: int | None = None
        self._wrong, self._dirty = False, False
        self._try_at = 0.0
        self._compact_at = COMPACT_AT

    def load(self, accounts: dict[str, LedgerAccount], now: int) -> None:
        """What was kept, and a journal that holds just that from now on."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
            wrong = [number for number, line in enumerate(lines[:-1], 1) if line and not _read(line, accounts)]
            if wrong:
                words = "%s: %d lines are none of a journal and left out, the first is line %d"
                log.warning(words, self._path, len(wrong), wrong[0])
            self._rewrite(accounts, now)
        except OSError as wrong:
            self._failed(wrong)

    def write(self, rows: list[JournalLine]) -> None:
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if self._wrong:  # the last line may have been cut short
                data = b"\n" + data
            if os.write(self._file, data) < len(data):
                raise OSError("the disk is full")
            self._dirty = True
        except OSError as wrong:
            self._failed(wrong)

    async def sync(self, accounts: dict[str, LedgerAccount], now: int) -> None:
        file, self._dirty, due = self._file, False, self._dirty
        try:
            if due and file is not None:
                await asyncio.to_thread(os.fdatasync, file)
            is_large = file is not None and os.fstat(file).st_size > self._compact_at
            if is_large or (self._wrong and monotonic() > self._try_at):  # what could not be appended is written now
                self._rewrite(accounts, now)
        except OSError as wrong:
            self._failed(wrong)

    def _rewrite(self, accounts: dict[str, LedgerAccount], now: int) -> None:
        for key in [key for key, account in accounts.items() if 0 < account.lasts < now]:
            del accounts[key]
        new = self._path.with_suffix(".new")
        try:
            with new.open("wb") as file:
                for key, account in accounts.items():
                    for at, slot in account.slots.items():
                        line = JournalLine(key, at, slot.text(), account.member, account.index, account.lasts)
                        file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)  # half of it would keep a full disk full
            raise
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._compact_at = max(COMPACT_AT, 2 * os.fstat(self._file).st_size)
        self._wrong = False

    def _failed(self, wrong: OSError) -> None:
        self._count("fastgw_quota_journal_errors_total")
        if not self._wrong:
            log.error("the journal of quotas cannot be written, so spend does not survive a restart: %s", wrong)
        self._wrong, self._try_at = True, monotonic() + TRY_AGAIN


def _read(line: bytes, accounts: dict[str, LedgerAccount]) -> bool:
    """Go by a line of the journal; whether it is one."""
    try:
        found = _LINE(line)
        slot = LedgerSlot.of(found.text) if found.text else None
    except (ValueError, RecursionError):
        return False
    account = accounts.setdefault(found.key, LedgerAccount(found.index, found.member))
    account.lasts = max(account.lasts, found.lasts)
    if slot is not None:
        account.slots[found.slot] = slot
    else:
        account.slots.pop(found.slot, None)
    return True
