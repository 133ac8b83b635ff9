"""The usage process killed at random, again and again, while events come and questions are asked."""

from __future__ import annotations

import datetime
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from fastgw.usage import spool
from fastgw.usage.answers import answer
from fastgw.usage.questions import Question
from fastgw.usage.spool import SpoolWriter
from fastgw.usage.spool_files import spool_files
from tests.usage.events import line

PROCESS = """
import random, socket, sys, time
from pathlib import Path
from fastgw.config.schema.settings import SinkSettings, UsageSettings
from fastgw.processes import usage
from fastgw.usage import archive, feed
usage.KEEP_EVERY, feed.SAVE_EVERY, archive.MERGE_AT, archive.LINGER = 0.05, 0.1, 3, 1.0
now = time.time
time.time = lambda: now() + random.choice((0, 86400, -86400))
folder, control = Path(sys.argv[1]), socket.socketpair()
locked = usage.lock_alone(folder / "usage", control[0])
settings = UsageSettings(sinks=(SinkSettings(url="file:sink"),))
usage.UsageProcess(settings, folder, folder / "told").run(usage.Orders(control[0]))
"""
"""With a clock that jumps by a day whenever it is read."""
ALL = Question((), ("calls",), datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1))  # noqa: DTZ001 - UTC


def write(writer: SpoolWriter, seconds: float) -> None:
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(random.randrange(100)):
            number += 1
            stamp = f"2026-10-{random.randrange(1, 4):02}T12:00:00.000Z"
            writer.add(line(number, "0.000000001", timestamp=stamp).encode().rstrip())
        time.sleep(0.02)
    writer.close(10)


@pytest.mark.soak
def test_random_kills_lose_and_double_nothing_and_no_answer_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MOST_SECONDS", 0.25)
    writer = SpoolWriter(tmp_path / "usage" / "spool")
    writing = threading.Thread(target=write, args=(writer, 20.0))
    writing.start()
    counts, kills = [0], 0

    def living(until: float) -> None:
        """One life of the process; questions meanwhile."""
        process = subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path)])
        while time.monotonic() < until and (writing.is_alive() or spool_files(tmp_path / "usage" / "spool")):
            for (count,) in answer(tmp_path / "usage", ALL, {}):
                assert isinstance(count, int)
                counts.append(count)
        process.kill()
        process.wait()

    while writing.is_alive():
        living(time.monotonic() + random.uniform(0.5, 2.0))
        kills += 1
    living(time.monotonic() + 60)
    assert kills > 5
    assert spool_files(tmp_path / "usage" / "spool") == []
    assert answer(tmp_path / "usage", ALL, {}) == [(writer.written,)]
    assert counts == sorted(counts)
    arrived = Counter(json.loads(text)["requestId"] for text in (tmp_path / "sink").read_text().splitlines())
    assert (len(arrived), writer.lost) == (writer.written, 0)
