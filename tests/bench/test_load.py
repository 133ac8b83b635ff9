"""The generator against the bare backend, and against servers that lie in one way each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench import backend, handshake, loop
from bench.messages import BODY, Target, template

TINY = loop.Plan(connections=4, seconds=0.15, warm=0.05)
Lie = Callable[[int, bytes], bytes]


def against(
    era: str, plan: loop.Plan = TINY, size: int = 0, lie: Lie | None = None, streams: bool = False
) -> loop.Outcome:
    """One run against a backend in this process; `lie` alters the n-th answer's bytes, head and body."""

    async def dialogue() -> loop.Outcome:
        server = backend.Server(era, size=size)
        factory = (lambda: Liar(server, lie)) if lie else (lambda: backend.Connection(server))
        listener = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
        target = Target(listener.sockets[0].getsockname()[1], era, size=size, streams=streams)
        if era == "legacy":
            sessions = await asyncio.to_thread(handshake.open_sessions, target, plan.connections)
            assert len(server.sessions) == plan.connections
            target = replace(target, sessions=sessions)
        try:
            return await loop.run(target, plan)
        finally:
            listener.close()

    return asyncio.run(dialogue())


class Liar(backend.Connection):
    """Tells the truth a few times, then what `lie` makes of it."""

    def __init__(self, server: backend.Server, lie: Lie) -> None:
        super().__init__(server)
        self.lie = lie
        self.answers = 0

    def write(self, status: int, lines: bytes, body: bytes) -> None:
        self.answers += 1
        head = b"HTTP/1.1 %d OK\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        whole = head % (status, lines, len(body)) + body
        self.transport.write(self.lie(self.answers, whole) if self.answers > 5 else whole)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_right_answers_are_counted(era: str) -> None:
    outcome = against(era)
    assert outcome.errors == 0, outcome.samples
    assert outcome.calls > 20
    assert outcome.calls <= len(outcome.latencies) <= outcome.calls + TINY.connections


def test_others_may_answer_as_a_stream_of_one_event() -> None:
    def streamed(_: int, answer: bytes) -> bytes:
        body = b"event: message\ndata: " + answer.split(b"\r\n\r\n")[1] + b"\n\n"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body

    assert against("modern", lie=streamed, streams=True).errors == 0
    assert "Content-Type" in against("modern", lie=streamed).samples[0]


def test_padded_results_are_compared_whole() -> None:
    assert against("modern", size=5000).errors == 0
    outcome = against("modern", size=5000, lie=lambda n, answer: answer.replace(b"xxxx", b"xxyx", 1))
    assert "altered content" in outcome.samples[0]


def test_open_loop_keeps_its_rate_and_counts_from_when_calls_were_due() -> None:
    outcome = against("modern", loop.Plan(connections=4, seconds=0.5, warm=0.1, rate=400))
    assert outcome.errors == 0, outcome.samples
    assert 100 <= outcome.calls <= 320
    assert len(outcome.late) > 0


def test_open_loop_counts_every_call_that_was_due_while_the_target_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PATIENCE", 0.1)
    stalled = against("modern", loop.Plan(connections=1, seconds=0.5, warm=0, rate=100), lie=lambda n, answer: b"")
    assert "no answer within" in stalled.samples[0]
    assert "were due and never sent" in stalled.samples[1]
    assert stalled.errors > 10


def wrong_id(_: int, answer: bytes) -> bytes:
    return re.sub(rb'"id":(\d{9})(\d)', lambda m: b'"id":%b%d' % (m[1], (int(m[2]) + 1) % 10), answer, count=1)


def text_id(_: int, answer: bytes) -> bytes:
    found = re.search(rb'"id":(\d+)', answer)
    assert found
    return answer.replace(found[0], b'"id":"%b"' % found[1]).replace(
        b"Length: %d" % len(answer.split(b"\r\n\r\n")[1]), b"Length: %d" % (len(answer.split(b"\r\n\r\n")[1]) + 2)
    )


def wrong_nonce(_: int, answer: bytes) -> bytes:
    return re.sub(rb'"text":"(.)', lambda m: b'"text":"%b' % (b"0" if m[1] != b"0" else b"1"), answer, count=1)


def stale() -> Lie:
    kept: list[bytes] = []

    def lie(_: int, answer: bytes) -> bytes:
        kept.append(answer)
        return kept[max(0, len(kept) - 2)] if len(kept) > 1 else answer

    return lie


LIES: dict[str, tuple[Lie, str]] = {
    "another id": (wrong_id, "instead of"),
    "the id as text": (text_id, "not the reply"),
    "another nonce": (wrong_nonce, "foreign or altered content"),
    "the answer before": (stale(), "instead of"),
    "another status": (lambda n, answer: answer.replace(b"200 OK", b"503 NO"), "HTTP 503"),
    "an event stream": (lambda n, answer: answer.replace(b"application/json", b"text/event-stream"), "Content-Type"),
    "an error": (
        lambda n, answer: re.sub(rb'"result":.*', lambda m: b'"error":{}}'.ljust(len(m[0])), answer),
        "an error",
    ),
    "a tool error": (lambda n, answer: answer.replace(b'"isError":false', b'"isError":true '), "isError True"),
    "no resultType": (lambda n, answer: answer.replace(b'"resultType"', b'"ResultType"'), "resultType None"),
    "two answers": (lambda n, answer: answer + answer, "instead of"),
    "not JSON": (lambda n, answer: answer.replace(b"{", b"[", 1), "not the reply"),
    "not HTTP": (lambda n, answer: b"hello\r\n\r\n", "not HTTP"),
    "the end of keep-alive": (
        lambda n, answer: answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1),
        "ends the connection",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_fails_the_run(name: str) -> None:
    lie, words = LIES[name]
    outcome = against("modern", lie=lie)
    assert outcome.errors >= 1
    assert any(words in sample for sample in outcome.samples), outcome.samples


def test_a_hung_up_connection_fails_the_run() -> None:
    class Leaver(backend.Connection):
        def write(self, status: int, lines: bytes, body: bytes) -> None:
            self.transport.close()

    async def dialogue() -> loop.Outcome:
        server = backend.Server()
        listener = await asyncio.get_running_loop().create_server(lambda: Leaver(server), "127.0.0.1", 0)
        try:
            return await loop.run(Target(listener.sockets[0].getsockname()[1]), TINY)
        finally:
            listener.close()

    outcome = asyncio.run(dialogue())
    assert outcome.calls == 0
    assert "connection lost in a call" in outcome.samples[0]


def test_a_legacy_agent_must_not_see_a_result_type() -> None:
    def modernise(_: int, answer: bytes) -> bytes:
        return answer.replace(b'"isError":false', b'"resultType":""')

    outcome = against("legacy", lie=modernise)
    assert any("resultType ''" in sample for sample in outcome.samples), outcome.samples


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_request_is_of_the_typical_size(era: str) -> None:
    made = template(Target(1, era), "session")
    request = made.fill(1234567890, "0123456789abcdef")
    head, body = request.split(b"\r\n\r\n", 1)
    assert len(body) == BODY
    assert b"Content-Length: %d" % BODY in head
    assert b'"id":1234567890,' in body
    assert b'"nonce":"0123456789abcdef"' in body


def test_percentiles_are_those_of_the_sorted_values() -> None:
    values = [one / 1e6 for one in range(1000, 0, -1)]
    assert loop.percentiles(values) == {"p50_us": 500, "p90_us": 900, "p99_us": 990, "p99.9_us": 999, "max_us": 1000}
    assert loop.percentile([3e-6], 1) == 3 and loop.percentile([], 99) == 0
