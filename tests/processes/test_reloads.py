"""What becomes of readings: which one is in force, what is said of one that is refused, when a file is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastgw.config.files import ConfigFiles
from fastgw.processes import reloads
from fastgw.processes.plan import Plan
from fastgw.processes.reloads import Reloads

BASE = Plan(("127.0.0.1", 0), ("127.0.0.1", 0), Path("data"), workers=2)


class Stage:
    """A configuration that is a JSON object of plan members; `word: unfit` reads well and cannot be applied."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "fastgw.json"
        self.write(word="first")
        self.read_times = 0
        self.in_force: list[Any] = []
        self.heard: list[bool] = []
        self.reloads = Reloads(self.read(ConfigFiles()), self.read, self.apply, self.heard.append)
        self.read_times = 0

    def write(self, **told: Any) -> None:
        self.file.write_text(json.dumps(told))

    def read(self, files: ConfigFiles) -> Plan:
        self.read_times += 1
        told = json.loads(files.content(self.file))
        return replace(BASE, workers=told.get("workers", 2), settings=told["word"], files=files)

    async def apply(self, plan: Plan) -> None:
        if plan.settings == "unfit":
            raise ValueError("unfit")
        self.in_force.append(plan.settings)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_at_first_it_is_the_one_of_the_start(stage: Stage) -> None:
    found = stage.reloads.report()
    assert (found["files"], found["applied"]["by"], found["refused"]) == ([str(stage.file)], "start", None)
    assert found["needs_restart"] == []


def test_what_reads_well_is_in_force(stage: Stage) -> None:
    async def story() -> None:
        stage.write(word="second")
        reading = await stage.reloads.reload("signal")
        assert (reading.error, stage.in_force, stage.heard) == ("", ["second"], [True])
        assert stage.reloads.plan.settings == "second"
        assert stage.reloads.report()["applied"] == reading.shown()
        assert reading.shown()["by"] == "signal"

    run(story)


@pytest.mark.parametrize("told", ['{"word": "unfit"}', '{"wrod": 1}', "{"])
def test_what_cannot_be_applied_leaves_the_one_before_and_the_next_good_one_ends_that(stage: Stage, told: str) -> None:
    async def story() -> None:
        stage.file.write_text(told)
        error = (await stage.reloads.reload("order")).error
        assert error
        assert (stage.in_force, stage.heard, stage.reloads.plan.settings) == ([], [False], "first")
        said = stage.reloads.report()
        assert (said["applied"]["by"], said["refused"]["by"], said["refused"]["error"]) == ("start", "order", error)
        stage.write(word="second")
        await stage.reloads.reload("file")
        assert (stage.reloads.report()["refused"], stage.heard) == (None, [False, True])

    run(story)


def test_what_takes_a_restart_is_kept_and_said(stage: Stage) -> None:
    async def story() -> None:
        stage.write(word="second", workers=3)
        await stage.reloads.reload("signal")
        assert (stage.reloads.plan.workers, stage.reloads.report()["needs_restart"]) == (2, ["workers"])
        stage.write(word="third", workers=2)
        await stage.reloads.reload("signal")
        assert stage.reloads.report()["needs_restart"] == []

    run(story)


def test_a_file_that_another_reading_has_met_is_not_read_again(stage: Stage) -> None:
    async def story() -> None:
        stage.write(word="second")
        await asyncio.gather(stage.reloads.reload("signal"), stage.reloads.reload("file"))
        assert (stage.read_times, stage.in_force) == (1, ["second"])

    run(story)


def test_a_signal_reads_what_has_not_changed(stage: Stage) -> None:
    async def story() -> None:
        await stage.reloads.reload("signal")
        assert stage.read_times == 1

    run(story)


def test_the_same_bytes_are_not_read_again_whether_they_were_good_or_not(stage: Stage) -> None:
    async def story() -> None:
        for text in (stage.file.read_text(), "{"):
            stage.file.write_text(text)
            await stage.reloads.reload("signal")
            before = stage.read_times
            stage.file.write_text(text)
            await stage.reloads.reload("file")
            assert stage.read_times == before

    run(story)


def test_a_file_that_changes_is_read_once_it_changes_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloads, "SETTLED", 0.05)

    async def until(heard: list[bool]) -> None:
        while stage.heard != heard:
            await asyncio.sleep(0.01)

    async def story() -> None:
        watching = asyncio.ensure_future(stage.reloads.watch())
        stage.file.write_text('{"wor')
        await asyncio.sleep(0)
        stage.write(word="second")
        await until([True])
        stage.file.unlink()
        await until([True, False])
        stage.write(word="third")
        await until([True, False, True])
        assert stage.in_force == ["second", "third"]
        watching.cancel()
        await asyncio.wait([watching])

    run(lambda: asyncio.wait_for(story(), 20))


def test_a_comparison_says_what_takes_a_restart_apart(stage: Stage) -> None:
    async def compare(settings: Any) -> dict[str, Any]:
        rows = [{"setting": name} for name in ("workers", "admin.token", "limits.a.rate")]
        return {"of": settings, "settings": rows}

    async def story() -> None:
        stage.write(word="second", workers=3)
        found = await stage.reloads.diff(compare)
        assert found == {"of": "second", "settings": [{"setting": "limits.a.rate"}], "needs_restart": ["workers"]}
        assert (stage.in_force, stage.reloads.plan.settings) == ([], "first")

    run(story)
