"""Events as entries of a stream of a real Valkey: killed, full, a replica, with a password, with a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, make_sink
from fastgw.usage.sinks.sink import Sink
from tests.limits.valkeys import Valkey
from tests.usage.sinks.receivers import FIRST, SECOND, event, feeding, names, spooled, until

MANY = 20_000


def sink_of(server: Valkey, tail: str = "events", **more: str) -> Sink:
    return make_sink(SinkSettings.model_validate({"url": f"redis://127.0.0.1:{server.port}/{tail}", **more}), Path())


def entries(server: Valkey, stream: str = "events") -> list[dict[bytes, bytes]]:
    return [fields for _, fields in server.client().xrange(stream)]


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


def test_an_entry_has_the_event_and_its_id(server: Valkey) -> None:
    server.ask("FLUSHALL")
    sink = sink_of(server, "3/usage%20events")
    sink.deliver([event(1), b"cut sho", event(2)])
    sink.close()
    with Redis(port=server.port, db=3) as client:
        found = [fields for _, fields in client.xrange("usage events")]
    assert found == [{b"requestId": f"req_{n}".encode(), b"event": event(n)} for n in (1, 2)]
    assert sink.lost == 1


def test_maxlen_bounds_the_stream(server: Valkey) -> None:
    server.ask("FLUSHALL")
    sink = sink_of(server, "events?maxlen=100")
    sink.deliver([event(number) for number in range(3000)])
    sink.close()
    assert 100 <= server.ask("XLEN", "events") < 300


@pytest.mark.parametrize(
    ("refusing", "taking", "words"),
    [
        (("maxmemory", "1"), ("maxmemory", "0"), "OutOfMemory"),
        (("min-replicas-to-write", "1"), ("min-replicas-to-write", "0"), "NOREPLICAS"),
    ],
)
def test_a_server_that_refuses_is_down_until_it_takes(
    server: Valkey, refusing: tuple[str, str], taking: tuple[str, str], words: str
) -> None:
    server.ask("FLUSHALL")
    sink = sink_of(server)
    server.ask("CONFIG", "SET", *refusing)
    try:
        with pytest.raises(SinkDown, match=words) as told:
            sink.deliver([event(1)])
        assert "req_1" not in str(told.value), "what is in an event is not for a log"
    finally:
        server.ask("CONFIG", "SET", *taking)
    sink.deliver([event(1)])
    sink.close()
    assert (len(entries(server)), sink.lost) == (1, 0)


def test_a_replica_is_down_until_it_is_promoted() -> None:
    with Valkey(replicaof="127.0.0.1 1") as replica:
        sink = sink_of(replica)
        with pytest.raises(SinkDown, match="ReadOnly"):
            sink.deliver([event(1)])
        replica.ask("REPLICAOF", "NO", "ONE")
        sink.deliver([event(1)])
        sink.close()
        assert len(entries(replica)) == 1


def test_a_password_is_sent_and_never_told() -> None:
    with Valkey(user=["eve on >hush ~* +@all"], requirepass="other") as server:
        for more in ({}, {"password": "hussh"}, {"username": "eve", "password": "hussh"}):
            sink = sink_of(server, **more)
            with pytest.raises(SinkDown) as told:
                sink.deliver([event(1)])
            assert "hussh" not in str(told.value)
        sink = sink_of(server, username="eve", password="hush")
        sink.deliver([event(1)])
        sink.close()
        assert len(entries(server)) == 1


def test_a_server_that_stands_still_is_left_after_some_seconds(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgw.usage.sinks.redis_stream.TIMEOUT", 0.2)
    server.ask("FLUSHALL")
    sink = sink_of(server)
    sink.deliver([event(1)])
    server.stop_answering()
    try:
        with pytest.raises(SinkDown, match="Timeout"):
            sink.deliver([event(2)])
    finally:
        server.go_on()
    sink.deliver([event(2)])
    sink.close()
    assert {fields[b"requestId"] for fields in entries(server)} == {b"req_1", b"req_2"}


def test_what_was_taken_before_a_failure_is_not_sent_again(server: Valkey) -> None:
    """Else a server that takes but a part of each batch would never have all of it."""
    server.ask("FLUSHALL")
    server.ask("SET", "events", "no stream")
    sink = sink_of(server)
    lines = [event(number) for number in range(1200)]
    with pytest.raises(SinkDown):
        sink.deliver(lines)
    server.ask("DEL", "events")
    sink.deliver(lines)
    sink.close()
    assert len(entries(server)) == 1200


def test_a_kill_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    with Valkey(appendonly="yes", appendfsync="always") as server:
        lines = [event(number) for number in range(MANY)]
        with feeding(tmp_path, lines[: MANY // 2], url=f"redis://127.0.0.1:{server.port}/events") as feed:
            until(lambda: server.ask("XLEN", "events") > 500)
            server.kill()  # in the middle, unless this machine is very busy
            spooled(tmp_path, SECOND, lines[MANY // 2 :])
            until(lambda: feed.errors > 0)
            server.start()
            until(lambda: feed.has(FIRST) and feed.has(SECOND))
            assert feed.lost == 0
        found = entries(server)
        assert {fields[b"requestId"].decode() for fields in found} == names(0, MANY)
        assert {fields[b"event"] for fields in found} == set(lines)


def test_a_server_that_repeats_the_password_is_not_quoted() -> None:
    with Valkey(rename_command='AUTH ""') as server:
        sink = sink_of(server, password="hush-hush")
        with pytest.raises(SinkDown, match=r"unknown command.*\*\*\*") as down:
            sink.deliver([event(1)])
        assert "hush" not in str(down.value)
        sink.close()
