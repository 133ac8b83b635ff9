"""The journal of `store: memory`: cut anywhere, with strangers' lines, on a full disk, over years."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fastgw.limits import quota_ledger
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.policy.quotas import Period
from tests.limits.quota_worlds import MONTH, HandClock, QuotaWorker, calls, ledger

DAY = 86_400_000


async def spend(folder: Path, clock: HandClock, times: int, who: str = "bot") -> int:
    """How many of so many calls a worker lets through that is killed then."""
    worker = QuotaWorker(ledger(folder, clock), clock=clock)
    passed = 0
    for _ in range(times):
        verdict = await worker.reserve(calls(40), (1, 1, 1, 1, 1), who)
        passed += verdict.refused is None
        worker.accounts.settle(verdict.taken, (1, 0, 0, 0, 0))
    await worker.close()
    return passed


def test_a_journal_cut_anywhere_has_all_that_came_before(tmp_path: Path) -> None:
    async def story() -> None:
        clock, file = HandClock(), tmp_path / "journal.jsonl"
        assert await spend(tmp_path, clock, 30) == 30
        whole = file.read_bytes()
        for cut in [*range(0, len(whole), 7), len(whole)]:
            file.write_bytes(whole[:cut])
            kept = ledger(tmp_path, clock)
            used = [slot.used[0] for account in kept.accounts.values() for slot in account.slots.values()]
            assert sum(used) == whole[:cut].count(b"\n"), "each grant of one call is a line"
        assert await spend(tmp_path, clock, 50) == 10

    asyncio.run(story())


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'["k",1,"[[1],[0,0,0,0,0],0,[],{}]","m","i"]',
        b'["k",1,"[[-9,0,0,0,0],[0,0,0,0,0],0,[],{}]","m","i"]',
        b'["k",1,"[[0,0,0,0,0],[0,0,0,0,0],0,[],{\\"w\\":[1]}]","m","i"]',
        b'["k",1,2,"m","i"]',
        b"\xff\xfe\x00",
        b"",
        b'{"key": 1}',
    ],
)
def test_lines_of_strangers_are_left_out(tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        clock = HandClock()
        assert await spend(tmp_path, clock, 30) == 30
        with (tmp_path / "journal.jsonl").open("ab") as file:
            file.write((line + b"\n") * 500)
        assert await spend(tmp_path, clock, 20) == 10

    asyncio.run(story())
    assert len(caplog.records) <= 1, "one line in the log, however many there are in the journal"


def test_once_the_disk_has_room_the_journal_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_ledger, "TRY_AGAIN", 0.0)

    async def story() -> None:
        clock, counted = HandClock(), list[str]()
        kept = LocalLedger(tmp_path, "w", clock, lambda *labels: counted.append(labels[0]))
        worker = QuotaWorker(kept, clock=clock)
        assert await worker.call(calls(9))
        assert kept._journal is not None and kept._journal._file is not None
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, kept._journal._file)
        os.close(full)
        assert all([await worker.call(calls(9)) for _ in range(5)])
        assert set(counted) == {"fastgw_quota_journal_errors_total"}
        for _ in range(2):
            await kept.sync()
        assert await worker.call(calls(9))
        await worker.close()  # as by SIGKILL
        again = QuotaWorker(ledger(tmp_path, clock), clock=clock)
        assert [await again.call(calls(9)) for _ in range(3)] == [True, True, False]
        await again.close()

    asyncio.run(story())


def test_accounts_are_forgotten_35_days_after_their_period(tmp_path: Path) -> None:
    async def story() -> None:
        clock, sizes = HandClock(), []
        for month in range(24):  # each with agents of its own
            clock.now = Period("month").boundaries(MONTH + month * 30 * DAY + 15 * DAY)[1]
            for at in range(5):
                assert await spend(tmp_path, clock, 1, f"bot-{month}-{at}") == 1
            sizes.append(len(ledger(tmp_path, clock).accounts))
        assert max(sizes) <= 15
        clock.now += 65 * DAY  # the end of that month, and 34 days or so
        assert len(ledger(tmp_path, clock).accounts) >= 5
        clock.now += 3 * DAY
        assert not ledger(tmp_path, clock).accounts

    asyncio.run(story())
