"""What the usage process has found is told once, whatever becomes of the file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastgw.processes.anomaly_reports import AnomalyReports
from fastgw.telemetry.counters import Counters
from fastgw.usage.anomalies import Anomaly, Findings, findings_file

Sent = list[tuple[str, str, Mapping[str, Any]]]


def loop(agent: str, hour: str = "2026-11-24T12:00:00Z", calls: float = 500) -> Anomaly:
    return Anomaly("pace", {"agent": agent}, hour, calls, 10, 99.0, f"agent {agent}: {calls} calls")


def write(folder: Path, *found: Anomaly) -> None:
    hidden = folder / "hidden"
    hidden.write_bytes(msgspec.json.encode(Findings(list(found))))
    hidden.replace(findings_file(folder))


def reports(folder: Path) -> tuple[AnomalyReports, Counters, Sent]:
    counters, sent = Counters(), Sent()
    return AnomalyReports(folder, counters, lambda *words: sent.append(words)), counters, sent


def test_each_is_logged_counted_and_posted_once_an_hour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        found, counters, sent = reports(tmp_path)
        await found.look()
        assert found.report() == {"anomalies": [], "history_since": None}
        write(tmp_path, loop("a"))
        await found.look()
        write(tmp_path, loop("b"), loop("a", calls=700))
        await found.look()
        write(tmp_path, loop("a", "2026-11-24T13:00:00Z"), loop("b"), loop("a"))
        await found.look()
        await found.look()
        assert [(kind, details["anomaly"]["subject"]) for kind, _, details in sent] == [
            ("anomaly", {"agent": "a"}),
            ("anomaly", {"agent": "b"}),
            ("anomaly", {"agent": "a"}),
        ]
        assert counters.counts["fastgw_anomalies_total", "pace"] == 3
        assert [one["subject"]["agent"] for one in found.report()["anomalies"]] == ["a", "b", "a"]

    with caplog.at_level(logging.WARNING, "fastgw"):
        asyncio.run(story())
    assert caplog.messages[0] == "unusual: agent a: 500 calls"


def test_what_was_found_before_the_start_is_shown_and_not_told_again(tmp_path: Path) -> None:
    async def story() -> None:
        write(tmp_path, loop("a"))
        found, _, sent = reports(tmp_path)
        await found.look()
        assert (len(found.report()["anomalies"]), sent) == (1, [])

    asyncio.run(story())


def test_a_file_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    async def story() -> None:
        findings_file(tmp_path).write_text("{")
        found, _, sent = reports(tmp_path)
        await found.look()
        assert found.report()["anomalies"] == []
        write(tmp_path, loop("a"))
        await found.look()
        assert len(sent) == 1

    asyncio.run(story())
