"""Rows of ClickHouse, whose HTTP interface a real HTTP server plays; lines of JSON to any server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from fastgw.cli.main import main
from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, make_sink
from fastgw.usage.sinks.sink import Sink
from tests.usage.sinks.receivers import COST, DIES, FIRST, HttpReceiver, event, feeding, names, until

MANY = 12_000
DOCS = Path(__file__).parents[3] / "docs" / "usage-events.md"
NO_TABLE = "Code: 60. DB::Exception: Table u.usage_events does not exist. (UNKNOWN_TABLE) (version 26.9.2.1)"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path) as started:
        yield started


def sink_of(receiver: HttpReceiver, path: str = "/u.usage_events", **more: str) -> Sink:
    return make_sink(SinkSettings.model_validate({"url": f"clickhouse://{receiver.place}{path}", **more}), Path())


def ids(receiver: HttpReceiver) -> list[str]:
    return [json.loads(line)["requestId"] for request in receiver.requests() for line in request.lines()]


def test_a_batch_is_one_insert(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver, username="eve", password="hush")
    sink.deliver([event(1), b"{", event(2)])
    sink.close()
    (request,) = receiver.requests()
    assert request.query["query"] == "INSERT INTO `u`.`usage_events` FORMAT JSONEachRow"
    assert (request.query["date_time_input_format"], request.query["async_insert"]) == ("best_effort", "0")
    assert (request.headers["x-clickhouse-user"], request.headers["x-clickhouse-key"]) == ("eve", "hush")
    assert "hush" not in str(request.query)
    rows = [json.loads(line, parse_float=Decimal) for line in request.lines()]
    assert [(row["requestId"], row["cost"]) for row in rows] == [("req_1", Decimal(COST)), ("req_2", Decimal(COST))]
    assert sink.lost == 1


def test_the_table_has_a_name_of_its_own_where_none_is_given(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver, "")
    sink.deliver([event(1)])
    sink.close()
    (request,) = receiver.requests()
    assert request.query["query"] == "INSERT INTO `usage_events` FORMAT JSONEachRow"
    assert "x-clickhouse-user" not in request.headers


def test_nothing_that_it_answers_loses_events(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver)
    receiver.answer(400, body="Code: 27. DB::Exception: Cannot parse input. (CANNOT_PARSE_INPUT_ASSERTION_FAILED)")
    receiver.answer(403, body="Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)")
    receiver.answer(404, body=NO_TABLE)
    receiver.answer(413)
    receiver.answer(500, body="Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)")
    for words in ("Cannot parse", "Authentication", "fastgw schema clickhouse", "413", "Too many parts"):
        with pytest.raises(SinkDown, match=words):
            sink.deliver([event(1)])
    sink.deliver([event(1)])
    sink.close()
    assert (ids(receiver), sink.lost) == (["req_1"], 0)


def test_a_kill_in_the_middle_loses_nothing(tmp_path: Path, receiver: HttpReceiver) -> None:
    lines = [event(number) for number in range(MANY)]
    receiver.answer(200)
    receiver.answer(DIES)
    with feeding(tmp_path, lines, url=f"clickhouse://{receiver.place}/u.usage_events") as feed:
        until(lambda: feed.errors > 0)
        receiver.kill()
        assert len(receiver.requests()) == 2, "the second was taken, and not answered"
        receiver.start()
        until(lambda: feed.has(FIRST))
        assert feed.lost == 0
    assert set(ids(receiver)) == names(0, MANY)
    assert len(ids(receiver)) > MANY, "at least once"


def test_the_table_has_every_field_of_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "clickhouse"]) == 0
    table = capsys.readouterr().out.partition("CREATE TABLE")[2].partition("ENGINE")[0]
    columns = re.findall(r"^    (\w+) ", table, re.MULTILINE)
    rows = [line.split("|")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    fields = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(columns) == sorted(fields)


def test_lines_of_json_go_to_any_server(tmp_path: Path, receiver: HttpReceiver) -> None:
    settings = SinkSettings(url=f"http://{receiver.place}/in?source=fastgw", username="eve", password="hush")
    sink = make_sink(settings, tmp_path)
    receiver.answer(204)
    sink.deliver([event(1), event(2)])
    receiver.answer(500)
    with pytest.raises(SinkDown):
        sink.deliver([event(3)])
    sink.deliver([event(3)])
    sink.close()
    first, second = receiver.requests()
    assert (first.path, first.query, first.headers["content-type"]) == (
        "/in",
        {"source": "fastgw"},
        "application/x-ndjson",
    )
    assert first.headers["authorization"] == "Basic ZXZlOmh1c2g="
    assert [line.encode() for line in first.lines() + second.lines()] == [event(1), event(2), event(3)]
