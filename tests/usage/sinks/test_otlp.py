"""Events as log records of OTLP/HTTP, taken by a real HTTP server and read as the JSON mapping of protobuf has them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, make_sink
from fastgw.usage.sinks.network import NetworkSink
from tests.usage.sinks.receivers import DIES, FIRST, HttpReceiver, Request, event, feeding, names, until

MANY = 12_000
RECORD = {"timeUnixNano", "observedTimeUnixNano", "severityNumber", "severityText", "eventName", "body", "attributes"}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path) as started:
        yield started


def sink_of(receiver: HttpReceiver, path: str = "", **more: str) -> NetworkSink:
    made = make_sink(SinkSettings.model_validate({"url": f"otlp://{receiver.place}{path}", **more}), Path())
    assert isinstance(made, NetworkSink)
    return made


def value(told: dict[str, Any]) -> str | int:
    """An AnyValue: of its kinds exactly one, 64-bit integers as strings."""
    ((kind, content),) = told.items()
    assert isinstance(content, str)
    assert kind in ("stringValue", "intValue")
    return int(content) if kind == "intValue" else content


def attributes(told: list[dict[str, Any]]) -> dict[str, str | int]:
    assert all(set(one) == {"key", "value"} for one in told)
    assert len({one["key"] for one in told}) == len(told), "keys are unique"
    return {one["key"]: value(one["value"]) for one in told}


def records(request: Request) -> list[tuple[str, dict[str, Any]]]:
    """Each record with the gateway of its resource."""
    assert request.headers["content-type"] == "application/json"
    told = json.loads(request.body)
    assert set(told) == {"resourceLogs"}
    found = []
    for of_resource in told["resourceLogs"]:
        assert set(of_resource) == {"resource", "scopeLogs"}
        resource = attributes(of_resource["resource"]["attributes"])
        assert resource["service.name"] == "fastgw"
        for of_scope in of_resource["scopeLogs"]:
            assert set(of_scope) == {"scope", "logRecords"}
            assert set(of_scope["scope"]) == {"name", "version"}
            for record in of_scope["logRecords"]:
                assert set(record) - {"traceId"} == RECORD
                assert re.fullmatch("[0-9]+", record["timeUnixNano"])
                assert re.fullmatch("[0-9a-f]{32}", record.get("traceId", "0" * 32))
                found.append((str(resource["service.instance.id"]), record))
    return found


def ids(receiver: HttpReceiver) -> list[str]:
    return [
        str(attributes(record["attributes"])["requestId"])
        for request in receiver.requests()
        for _, record in records(request)
    ]


def test_a_record_is_the_event(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver, "/otel/", username="eve", password="höh")
    lines = [event(1), event(2, gateway="gw-2", traceId=None, tool="grüße\n"), b"[1]", b'{"requestId":1}']
    sink.deliver(lines)
    sink.close()
    (request,) = receiver.requests()
    assert (request.path, request.headers["authorization"]) == ("/otel/v1/logs", "Basic ZXZlOmjDtmg=")
    (first_gateway, first), (second_gateway, second) = records(request)
    assert (first_gateway, second_gateway, sink.lost) == ("gw-1", "gw-2", 2)
    assert (first["timeUnixNano"], first["traceId"]) == ("1772116321445000000", "0af7651916cd43dd8448eb211c80319c")
    assert [value(first["body"]), value(second["body"])] == [line.decode() for line in lines[:2]]
    told = attributes(first["attributes"])
    assert (told["requestId"], told["statusCode"], told["team"]) == ("req_1", 200, "engineering")
    assert "project" not in told, "null is left out"
    assert "traceId" not in second
    assert attributes(second["attributes"])["tool"] == "grüße\n"


def test_a_bearer_token_goes_without_a_user(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver, password="hush")
    sink.deliver([event(1)])
    sink.close()
    assert receiver.requests()[0].headers["authorization"] == "Bearer hush"


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_a_pause_gets_it(
    receiver: HttpReceiver, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("fastgw.usage.sinks.http_sink.time.monotonic", lambda: now[0])
    sink = sink_of(receiver)
    receiver.answer(status, {"Retry-After": "7"}, "busy")
    with pytest.raises(SinkDown, match=f"answered {status} busy"):
        sink.deliver([event(1)])
    now[0] += 6.9
    with pytest.raises(SinkDown, match="left alone"):
        sink.deliver([event(1)])
    assert receiver.requests() == []
    now[0] += 0.2
    sink.deliver([event(1)])
    sink.close()
    assert (ids(receiver), sink.lost) == (["req_1"], 0)


@pytest.mark.parametrize("status", [302, 401, 404, 500, 502, 504])
def test_what_the_receiver_is_to_blame_for_is_waited_for(receiver: HttpReceiver, status: int) -> None:
    sink = sink_of(receiver)
    receiver.answer(status, {"Location": "/x"}, "a\x1b[31m\nb")
    with pytest.raises(SinkDown, match=rf"answered {status} a\?\[31m b$"):
        sink.deliver([event(1)])
    sink.deliver([event(1)])
    sink.close()
    assert (ids(receiver), sink.lost) == (["req_1"], 0)


def test_what_is_refused_is_lost_and_the_rest_goes_on(receiver: HttpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    sink = sink_of(receiver)
    lines = [event(number) for number in range(1500)]  # more than one request
    receiver.answer(400, body="not like this")
    receiver.answer(422)
    with caplog.at_level(logging.ERROR):
        sink.deliver(lines)
        sink.deliver([event(1500)])
    sink.close()
    got = ids(receiver)
    assert sink.lost + len(got) == 1501
    assert (sink.lost > 0, got[-1], len(set(got))) == (True, "req_1500", len(got))
    assert len([record for record in caplog.records if "not like this" in record.getMessage()]) == 1


def test_who_always_warns_does_not_fill_the_log(receiver: HttpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    sink = sink_of(receiver)
    receiver.answer(200, body='{"partialSuccess":{"errorMessage":"use gzip"}}', times=5)
    for number in range(5):
        sink.deliver([event(number)])
    sink.close()
    assert (caplog.text.count("use gzip"), sink.lost) == (1, 0)


def test_a_partial_success_is_counted_and_not_sent_again(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver)
    receiver.answer(200, body='{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}')
    receiver.answer(200, body='{"partialSuccess":{"rejectedLogRecords":"99"}}')
    receiver.answer(200, body='{"partialSuccess":{"errorMessage":"use gzip"}}')
    receiver.answer(200, body='{"partialSuccess":{"rejectedLogRecords":"-5"}}')
    receiver.answer(200, body='{"partialSuccess":null}')
    receiver.answer(200, body="ok")
    losses = []
    for _ in range(6):
        before = sink.lost
        sink.deliver([event(number) for number in range(3)])
        losses.append(sink.lost - before)
    sink.close()
    assert losses == [2, 3, 0, 0, 0, 0]
    assert len(ids(receiver)) == 18


def test_what_is_too_large_is_halved_down_to_the_one_that_is(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver)
    receiver.answer(413, times=3)  # all four, the first two, the first
    sink.deliver([event(number) for number in range(4)])
    sink.close()
    assert (ids(receiver), sink.lost) == (["req_1", "req_2", "req_3"], 1)


def test_a_password_that_http_cannot_carry_is_not_told(receiver: HttpReceiver) -> None:
    sink = sink_of(receiver, password="hush\nX-Evil: 1")
    with pytest.raises(SinkDown) as told:
        sink.deliver([event(1)])
    assert "hush" not in str(told.value)


def test_a_receiver_that_does_not_answer_is_left(receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("fastgw.usage.sinks.http_sink.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = make_sink(SinkSettings(url=f"otlp://127.0.0.1:{silent.getsockname()[1]}"), Path())
        with pytest.raises(SinkDown, match="Timeout"):
            sink.deliver([event(1)])
        sink.close()


def test_a_kill_in_the_middle_loses_nothing(tmp_path: Path, receiver: HttpReceiver) -> None:
    lines = [event(number) for number in range(MANY)]
    receiver.answer(200)
    receiver.answer(DIES)
    with feeding(tmp_path, lines, url=f"otlp://{receiver.place}") as feed:
        until(lambda: feed.errors > 0)
        receiver.kill()
        assert len(receiver.requests()) == 2, "the second was taken, and not answered"
        receiver.start()
        until(lambda: feed.has(FIRST))
        assert feed.lost == 0
    assert set(ids(receiver)) == names(0, MANY)
    assert len(ids(receiver)) > MANY, "at least once"
