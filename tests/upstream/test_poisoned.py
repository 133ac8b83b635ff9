"""A late answer of one exchange never becomes another's: real connections, a server that answers out of step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.protocol.names import Era
from fastgw.upstream.attempts import UpstreamCaller
from fastgw.upstream.call_context import BackgroundTasks, CallContext
from fastgw.upstream.classify import ReplyKind, classify
from fastgw.upstream.controller import NO_SESSION
from fastgw.upstream.reply import UpstreamReply, aside
from tests.upstream.fakes import (  # fmt: skip
    JSON,
    PATIENT,
    SSE,
    TARGET,
    FakeAnswer,
    FakeKeeper,
    FakeWire,
    backend,
    call,
    caller_of,
    event,
    given,
    instance,
    registry,
)
from tests.upstream.fakes import run as run_bounded
from tests.upstream.raw_server import Peer, chunked, ok, raw_server, run, wire_to

EARLIER, OURS_NOW = (5 << 32) + 1, (5 << 32) + 2
ID = b"%d" % OURS_NOW
Ask = Callable[[], Awaitable[str]]


def said(got: tuple[bytes, bytes], more: str = "") -> bytes:
    """The result to this request: its own number."""
    message = json.loads(got[1])
    content = [{"type": "text", "text": f"{message['params']['arguments']['n']}{more}"}]
    result = {"resultType": "complete", "content": content}
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()


async def answered(caller: UpstreamCaller, number: int) -> str:
    """The number in the answer to the call with this number, or the kind of the fault."""
    asked = call(params={"arguments": b'{"n":%d}' % number})
    try:
        upstream = await given(caller, asked, TARGET, backend(), instance("modern"), "agent:a")
        message = await upstream.next()
        upstream.close()
    except Fault as fault:
        return fault.kind.name.lower()
    return str(json.loads(message.result or b"")["content"][0]["text"])


def told(script: Callable[[Peer], Awaitable[None]], story: Callable[[UpstreamCaller], Awaitable[Any]]) -> Any:
    """Play a story with one caller on at most one connection."""

    async def play() -> Any:
        found = BackgroundTasks()
        try:
            async with raw_server(script) as server, wire_to(server, max_connections=1) as transport:
                return await story(caller_of(FakeKeeper("modern"), transport, found.spawn))
        finally:
            await found.close()

    return run("uvloop", play())


@pytest.mark.parametrize("late", ["json", "events"])
def test_after_an_answer_that_is_anothers_the_next_call_gets_its_own(late: str) -> None:
    async def script(peer: Peer) -> None:
        previous = b""
        while got := await peer.request():
            now = said(got)
            if not previous:
                await peer.say(ok(now))
            elif late == "json":
                # The first answer again, when the next request is out; from here on all are one behind.
                await peer.say(ok(previous))
            else:
                await peer.say(*chunked(b"data: " + previous + b"\n\n", kind=b"text/event-stream"))
            previous = now

    async def story(caller: UpstreamCaller) -> list[str]:
        return [await answered(caller, number) for number in range(1, 5)]

    assert told(script, story) == ["1", "lost", "3", "lost"]


def test_a_call_that_was_given_up_leaves_no_answer_to_the_next() -> None:
    there, given_up = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while got := await peer.request():
            if b'"n":1' in got[1]:
                there.set()
                await given_up.wait()
            await peer.say(ok(said(got, f" on {peer.number}")))

    async def story(caller: UpstreamCaller) -> str:
        first = asyncio.ensure_future(answered(caller, 1))
        await there.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        given_up.set()
        return await answered(caller, 2)

    assert told(script, story) == "2 on 1"


@pytest.mark.parametrize(
    ("status", "ident", "trusted"),
    [
        (200, EARLIER, False), (200, "x", False), (200, 1, False), (400, EARLIER, False), (503, EARLIER, False),
        (400, str(EARLIER), False), (400, float(EARLIER), False), (400, 1, True), (400, "1", True),
        (400, "server-error", True), (404, None, True), (503, "x", True), (200, None, True), (200, OURS_NOW, True),
        (200, str(OURS_NOW), True), (400, float(OURS_NOW), True),
    ],
)  # fmt: skip
def test_which_answers_are_out_of_step(status: int, ident: Any, trusted: bool) -> None:
    error = {"code": -32000, "message": "no"}
    answer = FakeAnswer(status, JSON, json.dumps({"jsonrpc": "2.0", "id": ident, "error": error}).encode())
    try:
        classify(answer, Era.LEGACY, ID, b"{}")
    except Fault as fault:
        assert fault.kind in (Kind.LOST, Kind.NO_SERVER)
    assert answer.distrusted is not trusted


def test_a_call_answered_as_notifications_are() -> None:
    answers = FakeAnswer(202), FakeAnswer(202)
    with pytest.raises(Fault):
        classify(answers[0], Era.MODERN, ID, b"{}")
    assert classify(answers[1], Era.LEGACY, ID, b"{}").kind is ReplyKind.SESSION_SUSPECT
    assert all(answer.distrusted for answer in answers)


def test_a_stream_with_anothers_response() -> None:
    message = {"jsonrpc": "2.0", "id": EARLIER, "result": {}}
    answer = FakeAnswer(200, SSE, None, [event(message)])

    async def story() -> None:
        async with registry() as found:
            began = asyncio.get_running_loop().time()
            context = CallContext(ID, Era.MODERN, FakeWire(None), b"", NO_SESSION, PATIENT, began, found.spawn)
            with pytest.raises(Fault):
                await UpstreamReply(context, answer).next()

    run_bounded(story())
    assert answer.distrusted


@pytest.mark.parametrize(
    ("body", "trusted"), [(b"", True), (b'{"jsonrpc":"2.0","id":%d,"result":{}}' % EARLIER, False)]
)
def test_a_notification_answered_with_a_late_response(body: bytes, trusted: bool) -> None:
    answer = FakeAnswer(202 if not body else 200, body=body)

    async def story() -> None:
        async with registry() as found:
            began = asyncio.get_running_loop().time()
            transport = FakeWire(lambda _: answer)
            context = CallContext(ID, Era.LEGACY, transport, b"", NO_SESSION, PATIENT, began, found.spawn)
            await aside(context, b"{}")

    run_bounded(story())
    assert answer.distrusted is not trusted
