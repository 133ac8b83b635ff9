"""What every sink over a network does with the lines it is given."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable

import pytest

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, make_sink
from fastgw.usage.sinks.http_sink import Receiver
from fastgw.usage.sinks.network import NetworkSink, Part
from tests.usage.sinks.receivers import event


class Collecting(NetworkSink):
    """Takes one event a part; is down after so many parts, once."""

    def __init__(self, takes: int) -> None:
        super().__init__(SinkSettings(url="http://127.0.0.1:9/"), most_events=1, most_bytes=1 << 20)
        self.takes, self.got = takes, list[str]()

    def send(self, part: Part) -> None:
        if self.takes == 0:
            self.takes = -1
            raise SinkDown("once")
        self.takes -= 1
        self.got += [json.loads(one.line)["requestId"] for one in part]

    def close(self) -> None: ...


def events(numbers: Iterable[int]) -> list[bytes]:
    return [event(number) for number in numbers]


def ids(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["requestId"] for line in lines]


def test_the_same_lines_go_on_where_they_stopped() -> None:
    sink, lines = Collecting(takes=2), events(range(4))
    with pytest.raises(SinkDown):
        sink.deliver(lines)
    sink.deliver(lines)
    assert sink.got == ids(lines)


def test_other_lines_are_not_taken_for_those_that_were_down() -> None:
    sink, others = Collecting(takes=2), events(range(10, 13))
    with pytest.raises(SinkDown):
        sink.deliver(events(range(4)))
    sink.deliver(others)
    assert sink.got[2:] == ids(others)


def test_what_no_receiver_could_read_is_lost_and_keeps_no_other() -> None:
    sink, good = Collecting(takes=-1), event(1)
    torn = good.replace(b"{", b'{"later":"\xff\xfe",', 1)
    deep = b'{"requestId":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    sink.deliver([torn, deep, b"7", good])
    assert (sink.got, sink.lost) == (ids([good]), 3)


def test_a_bad_certificate_is_told_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ssl.SSLCertVerificationError(1, "certificate has expired")

    monkeypatch.setattr(Receiver, "_ask", refused)
    with pytest.raises(SinkDown, match="certificate has expired"):
        make_sink(SinkSettings(url="https://127.0.0.1:9/"), base=None).deliver([event(1)])  # type: ignore[arg-type]
