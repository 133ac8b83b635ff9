"""What a process measures of itself."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from fastgw.telemetry import process
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.process import ProcessMeter, build, resident_bytes

LAG = ("fastgw_event_loop_lag_seconds", "worker")
PAUSE = ("fastgw_gc_pause_seconds", "worker")
CPU = ("fastgw_process_cpu_seconds_total", "worker")


@pytest.fixture
def meter() -> Iterator[ProcessMeter]:
    made = ProcessMeter("worker", Counters())
    yield made
    made.close()


def test_cpu_time_is_counted_once(meter: ProcessMeter) -> None:
    counters, begun = meter._counters, time.process_time()
    while time.process_time() < begun + 0.02:
        pass
    meter.measure()
    first = counters.counts[CPU]
    assert 0.02 <= first <= time.process_time()
    meter.measure()
    assert first <= counters.counts[CPU] <= time.process_time()


def test_memory_is_what_the_system_says(meter: ProcessMeter) -> None:
    meter.measure()
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    before = meter._counters.gauges["fastgw_process_resident_memory_bytes", "worker"]
    assert resident_bytes() > before + (60 << 20)
    del held


def test_each_collection_is_counted_with_its_time_in_whichever_thread(meter: ProcessMeter) -> None:
    gc.disable()
    try:
        meter.measure()
        before = sum(meter._counters.times.get(PAUSE, {}).values())
        gc.collect()
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
        meter.measure()
    finally:
        gc.enable()
    assert sum(meter._counters.times[PAUSE].values()) == before + 2


def test_a_loop_that_is_held_up_is_late_and_said_to_be(
    meter: ProcessMeter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "LOOK_EVERY", 0.01)
    told = []

    async def story() -> None:
        watching = asyncio.ensure_future(meter.watch(lambda: told.append(True)))
        while not told:
            await asyncio.sleep(0.001)
        time.sleep(0.3)
        while "late" not in caplog.text:
            await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(story())
    lags = meter._counters.times[LAG]
    assert sum(lags.values()) >= process.LOOKS
    assert max(lags) > 9000, "some 0.29 s, in buckets of HDR"


def test_which_fastgw_this_is() -> None:
    (series,) = build()
    assert series[0] == "fastgw_build_info"
    assert series[3] == "2025-03-26 to 2026-07-28"
