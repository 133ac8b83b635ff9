from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import Message
from fastgw.protocol.names import Era
from fastgw.upstream.call_context import CallContext
from fastgw.upstream.controller import NO_SESSION, UpstreamSession
from fastgw.upstream.reply import UpstreamReply
from tests.upstream.fakes import PATIENT, SSE, FakeAnswer, FakeWire, backend, event, registry, run, settle

NUMBER = 12
ID = b"12"
DONE = {"jsonrpc": "2.0", "id": NUMBER, "result": {"content": []}}
STEP = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": NUMBER, "progress": 1}}
NEW = UpstreamSession("s1", "2025-11-25")
OLD = UpstreamSession("s1", "2025-03-26")


def context(
    transport: FakeWire, spawn: Any, session: UpstreamSession = NEW, deadlines: Deadlines = PATIENT
) -> CallContext:
    era = Era.MODERN if session is NO_SESSION else Era.LEGACY
    return CallContext(
        ID, era, transport, backend().headers, session, deadlines, asyncio.get_running_loop().time(), spawn, 10_000
    )


def silent(_: Any) -> FakeAnswer:
    return FakeAnswer(202)


async def heard(answer: FakeAnswer, session: UpstreamSession = NEW, transport: FakeWire | None = None) -> list[Message]:
    """All messages up to the final one."""
    async with registry() as found:
        upstream = UpstreamReply(context(transport or FakeWire(silent), found.spawn, session), answer)
        try:
            messages = [await upstream.next()]
            while messages[-1].method is not None:
                messages.append(await upstream.next())
        finally:
            await settle()
        return messages


def stream(*pieces: bytes | Fault) -> FakeAnswer:
    return FakeAnswer(200, SSE, None, pieces)


def test_events_are_handed_up_in_order_however_they_are_cut() -> None:
    whole = event({**STEP}, ": hello\nid: 1\n") + event(DONE, "event: message\n").replace(b"\n", b"\r\n")
    for cut in range(1, len(whole)):
        first, last = run(heard(stream(whole[:cut], whole[cut:], b"")))
        assert first.method == "notifications/progress"
        assert last.result == b'{"content": []}'


def test_a_json_body_is_the_response() -> None:
    assert run(heard(FakeAnswer(body=json.dumps(DONE).encode())))[0].result == b'{"content": []}'


@pytest.mark.parametrize("body", [b"[%s,%s]", b"[%s, %s ]"])
def test_an_array_of_an_old_server_is_taken_apart(body: bytes) -> None:
    text = body % (json.dumps(STEP).encode(), json.dumps(DONE).encode())
    assert [one.method for one in run(heard(FakeAnswer(body=text), OLD))] == ["notifications/progress", None]
    assert [one.method for one in run(heard(stream(event(text.decode())), OLD))] == ["notifications/progress", None]
    with pytest.raises(Fault) as wrong:
        run(heard(stream(event(text.decode())), NEW))
    assert wrong.value.kind is Kind.LOST


def test_an_array_without_a_response_ends() -> None:
    with pytest.raises(Fault) as wrong:
        run(heard(FakeAnswer(body=b"[%s]" % json.dumps(STEP).encode()), OLD))
    assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)


@pytest.mark.parametrize(
    "strange",
    [
        {**DONE, "id": "13"},
        {**DONE, "id": 1},
        {**DONE, "id": 12.5},
        {**DONE, "id": "12x"},
        {**DONE, "id": None},
        {"jsonrpc": "2.0", "result": {}},
        "not json",
        '{"jsonrpc":"2.0","id":12,"id":12,"result":{}}',
        '{"jsonrpc":"2.0","id":12}',
        {"jsonrpc": "1.0", "id": NUMBER, "result": {}},
    ],
)
@pytest.mark.parametrize("form", ["sse", "json"])
def test_anything_but_our_response_loses_the_call_and_the_connection(strange: Any, form: str) -> None:
    text = strange if isinstance(strange, str) else json.dumps(strange)
    answer = stream(event(text)) if form == "sse" else FakeAnswer(body=text.encode())
    with pytest.raises(Fault) as wrong:
        run(heard(answer))
    assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)
    assert answer.closed


@pytest.mark.parametrize("written", ["12", '"12"', "12.0", '"\\u0031\\u0032"'])
def test_our_id_and_our_token_are_known_however_they_are_written(written: str) -> None:
    done = f'{{"jsonrpc":"2.0","id":{written},"result":{{}}}}'
    params = f'{{"progressToken":{written},"progress":1}}'
    step = f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}'
    found = run(heard(stream(event(step), event(done))))
    assert [one.method for one in found] == ["notifications/progress", None]
    assert found[1].result == b"{}"


def test_only_this_calls_notifications_are_handed_up() -> None:
    foreign = {**STEP, "params": {"progressToken": "x", "progress": 1}}
    number = {**STEP, "params": {"progressToken": 13, "progress": 1}}
    changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
    messages = run(heard(stream(*map(event, (foreign, number, changed, log, STEP, DONE)))))
    assert [one.method for one in messages] == ["notifications/message", "notifications/progress", None]


def test_a_second_answer_is_not_handed_up_and_closes_the_connection() -> None:
    answer = stream(event(DONE) + event({**DONE, "result": {"content": ["second"]}}))

    async def play() -> None:
        async with registry() as found:
            upstream = UpstreamReply(context(FakeWire(silent), found.spawn), answer)
            assert (await upstream.next()).result == b'{"content": []}'
            assert answer.closed
            with pytest.raises(Fault):
                await upstream.next()

    run(play())


def test_what_a_legacy_server_asks_is_answered_aside() -> None:
    transport = FakeWire(silent)
    asks = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": "x", "method": "sampling/createMessage", "params": {}},
    ]
    messages = run(heard(stream(*map(event, asks), event(DONE)), NEW, transport))
    assert len(messages) == 1
    assert [sent.json for sent in transport.sent] == [
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": "x", "error": {"code": -32601, "message": "not supported through the gateway"}},
    ]
    assert {sent.headers["mcp-session-id"] for sent in transport.sent} == {"s1"}


def test_what_a_modern_server_asks_is_not_answered() -> None:
    transport = FakeWire(silent)
    ask = {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {}}
    assert len(run(heard(stream(event(ask), event(DONE)), NO_SESSION, transport))) == 1
    assert transport.sent == []


def test_a_server_that_never_stops_asking_is_given_up() -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with pytest.raises(Fault) as wrong:
        run(heard(stream(event(ask) * 100)))
    assert wrong.value.kind is Kind.LOST


def test_an_event_beyond_the_limit_loses_the_call() -> None:
    with pytest.raises(Fault) as wrong:
        run(heard(stream(b"data: " + b"x" * 20_000)))
    assert wrong.value.kind is Kind.LOST


def resuming(*answers: Any) -> FakeWire:
    left = list(answers)
    return FakeWire(lambda sent: left.pop(0) if sent.verb == "GET" else FakeAnswer(202))


def test_a_stream_that_ends_early_is_resumed_from_its_last_event() -> None:
    transport = resuming(stream(event(STEP, "id: e2\n"), Fault(Kind.LOST, sent=True)), stream(event(DONE)))
    first = stream(b"retry: 1\nid: e1\ndata:\n\n", b"")
    assert [one.method for one in run(heard(first, NEW, transport))] == ["notifications/progress", None]
    assert [sent.headers["last-event-id"] for sent in transport.sent] == ["e1", "e2"]


@pytest.mark.parametrize(
    ("session", "pieces"),
    [
        (NEW, [event(STEP), b""]),  # no event id
        (UpstreamSession("s1", "2025-06-18"), [b"retry: 1\nid: e1\ndata:\n\n", b""]),  # not offered then
        (NO_SESSION, [b"retry: 1\nid: e1\ndata:\n\n", b""]),  # removed in 2026-07-28
        (NEW, [b"retry: 1\nid: e\x7f1\ndata:\n\n", b""]),  # an id no header can hold
        (NEW, [b"retry: 99999\nid: e1\ndata:\n\n", b""]),  # not in time
        (NEW, [event(STEP), Fault(Kind.LOST, sent=True)]),
    ],
)
def test_a_stream_that_cannot_be_resumed_is_lost(session: UpstreamSession, pieces: list[Any]) -> None:
    with pytest.raises(Fault) as wrong:
        run(heard(stream(*pieces), session, resuming()))
    assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)


@pytest.mark.parametrize("answer", [FakeAnswer(404), FakeAnswer(200), Fault(Kind.NO_SERVER)])
def test_a_refused_resumption_is_a_lost_call_that_was_sent(answer: Any) -> None:
    with pytest.raises(Fault) as wrong:
        run(heard(stream(b"retry: 1\nid: e1\ndata:\n\n", b""), NEW, resuming(answer)))
    assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)


def test_a_late_answer_is_told_as_such_and_the_server_too() -> None:
    transport = FakeWire(silent)
    with pytest.raises(Fault) as wrong:
        run(heard(stream(Fault(Kind.TIMEOUT, sent=True)), NEW, transport))
    assert wrong.value.kind is Kind.TIMEOUT
    assert [sent.method for sent in transport.sent] == ["notifications/cancelled"]


@pytest.mark.parametrize("renews", [True, False])
def test_progress_gives_a_call_that_is_resumed_its_time_anew(renews: bool) -> None:
    async def story() -> None:
        given = Deadlines(5, 5, 5, 2.0, longest=60.0)
        resumed = stream(event(DONE))
        async with registry() as found:
            way = context(resuming(resumed), found.spawn, NEW, given)
            way = replace(way, started=way.started - 1.9)
            first = stream(event(STEP, "id: e1\nretry: 150\n"), b"")
            upstream = UpstreamReply(way, first)
            await upstream.next()
            if not renews:
                with pytest.raises(Fault, match="in time"):
                    await upstream.next()
                return
            upstream.renew()
            (due, seconds), now = first.extended[0], asyncio.get_running_loop().time()
            assert (seconds, now + 1.0 < due <= now + 2.0) == (2.0, True)
            assert (await upstream.next()).result
            upstream.renew()
            assert resumed.extended[0][0] > due

    run(story())


async def left(session: UpstreamSession, *pieces: bytes) -> tuple[FakeAnswer, FakeWire, list[int]]:
    """The agent goes while the call runs."""
    transport, ends = FakeWire(silent), []
    answer = stream(*pieces)
    async with registry() as found:
        upstream = UpstreamReply(context(transport, found.spawn, session), answer)
        upstream.on_over = lambda: ends.append(1)
        for _ in pieces:
            await upstream.next()
        upstream.close()
        await settle()
        upstream.close()
        await settle()
    return answer, transport, ends


def test_a_legacy_server_is_told_by_our_id_once() -> None:
    answer, transport, ends = run(left(NEW, event(STEP)))
    assert [sent.json["params"]["requestId"] for sent in transport.sent] == [NUMBER]
    assert transport.sent[0].headers["mcp-session-id"] == "s1"
    assert answer.closed
    assert ends == [1]


def test_a_modern_server_sees_the_connection_close_and_nothing_else() -> None:
    answer, transport, ends = run(left(NO_SESSION, event(STEP)))
    assert transport.sent == []
    assert answer.closed
    assert ends == [1]


@pytest.mark.parametrize("session", [NEW, NO_SESSION])
def test_closing_after_the_answer_tells_nobody_and_keeps_the_connection(session: UpstreamSession) -> None:
    answer, transport, ends = run(left(session, event(DONE)))
    assert (transport.sent, answer.closed, ends) == ([], False, [1])
