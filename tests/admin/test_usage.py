"""`/usage` on the admin face: answers of a process of its own, to whom they may be given, within their time."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from fastgw.admin.app import serve_admin
from fastgw.admin.usage import OperatorUsage
from fastgw.usage.questions import question
from tests.admin.test_app import shown
from tests.usage.events import line, spooled

NOW = 1_791_072_000.0  # 2026-10-04


def ask(folder: Path, *queries: str, token: str | None = None, within: float = 30.0) -> list[tuple[int, str]]:
    """Status and text of each, asked all at once."""

    async def main() -> list[tuple[int, str]]:
        listener = socket.create_server(("127.0.0.1", 0))
        usage = OperatorUsage(folder, lambda: {"codegen-openai": "gpt"}, lambda: NOW, within)
        runner = await serve_admin(listener, replace(shown(), usage=usage), token)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/usage"

        async def one(query: str) -> tuple[int, str]:
            async with session.get(f"{url}{query}") as answer:
                return answer.status, await answer.text()

        try:
            async with aiohttp.ClientSession() as session:
                return await asyncio.gather(*map(one, queries))
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def test_answers(tmp_path: Path) -> None:
    spooled(
        tmp_path, [line(1, "0.000000001"), line(2, "2.5", team="a\u202e"), line(3, timestamp="2026-09-30T00:00:00Z")]
    )
    questions = (
        "?by=team,model&metric=cost&month=2026-10",
        "?by=day&metric=calls&where=team=-&month=last",
        "?by=team",
        "?by=team&top=1",
    )
    answered = ask(tmp_path, *questions)
    assert [status for status, _ in answered] == [200] * 4
    rows = [json.loads(text, parse_float=Decimal) for _, text in answered]
    assert rows[0] == [
        {"team": "a\u202e", "model": "gpt", "cost": Decimal("2.5")},
        {"team": "engineering", "model": "gpt", "cost": Decimal("0.000000001")},
    ]
    assert rows[1] == []
    assert [row["calls"] for row in rows[2]] == [1, 1]
    assert len(rows[3]) == 1
    assert "0.000000001" in answered[0][1]


def test_what_is_ended_leaves_no_process(tmp_path: Path) -> None:
    """Two at a time, and none is left where time is over in the middle."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    before = children.read_text(encoding="ascii")  # other tests have started some that stay
    answered = ask(tmp_path, *[""] * 6, within=0.1)
    assert {status for status, _ in answered} <= {200, 503}
    assert children.read_text(encoding="ascii") == before


def test_a_question_that_is_given_up_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spooled(tmp_path / "usage", (line(number) for number in range(50_000)))
    (spill := tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(spill))
    monkeypatch.setattr(tempfile, "tempdir", None)
    asked = question({"by": ["user", "tool"]}, datetime.date(2026, 10, 4))

    async def main() -> None:
        usage = OperatorUsage(tmp_path / "usage", dict, lambda: NOW)
        asking = asyncio.create_task(usage._ask(asked))
        while not list(spill.glob("*/*")):  # the folder of the program, in ours
            assert not asking.done()
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(main())
    assert list(spill.iterdir()) == []


@pytest.mark.parametrize("query", ["?by=toool", "?folder=/etc", "?month=2026-13", "?metric=", "?top=-1", "?where=x"])
def test_what_cannot_be_asked(tmp_path: Path, query: str) -> None:
    ((status, text),) = ask(tmp_path, query)
    assert status == 400
    assert json.loads(text)["error"]


def test_what_has_no_answer(tmp_path: Path) -> None:
    spooled(tmp_path, [line(1, "1"), line(2, "2", currency="EUR")])
    ((status, text),) = ask(tmp_path, "?metric=cost")
    assert status == 409
    assert "EUR and USD" in json.loads(text)["error"]


def test_not_in_time(tmp_path: Path) -> None:
    ((status, text),) = ask(tmp_path, "", within=0.001)
    assert status == 503
    assert "within" in json.loads(text)["error"]


def test_where_there_is_no_room_it_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    ((status, text),) = ask(tmp_path, "")
    assert (status, "cannot be asked now" in json.loads(text)["error"]) == (503, True)


def test_beyond_loopback_it_takes_the_token(tmp_path: Path) -> None:
    assert ask(tmp_path, "", token="right")[0][0] == 401


def test_the_controller_has_no_duckdb() -> None:
    code = "import sys, fastgw.admin.app; assert 'duckdb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
