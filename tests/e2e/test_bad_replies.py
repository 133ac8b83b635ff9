"""A hostile server: whatever it answers, the agent hears what docs/errors.md says and nothing of the server's.

Servers of both eras answer agents of both eras alike. Every request is on a connection of its own, before two workers.
After each bad answer the same server is called again, and that call gets its own answer.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.hostile import Place, refusal, shared
from tests.e2e.http import Asked, Reply, exchange, legacy, modern, open_session
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, answer, chunk, event

LIMIT = 64 * 1024
SECONDS = 2.0
SECRET = "S3CRET"
"""Stands in whatever a server says that no agent may hear."""
LOST, LATE, GONE, OURS = -31003, -31002, -31001, -32603


@dataclass(frozen=True)
class Bad:
    """One bad answer: what makes its bytes, and what the agent hears. `closing`: the server hangs up after it."""

    said: Callable[[Call], bytes]
    code: int = LOST
    may_have_run: bool = True
    data: tuple[tuple[str, Any], ...] = ()
    closing: bool = False


def http(status: str, body: bytes = b"", headers: str = "", length: int | None = None) -> bytes:
    """An HTTP answer written by hand."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {size}\r\n\r\n".encode() + body


def good(call: Call, extra: bytes = b"") -> bytes:
    """The whole JSON-RPC answer, a result with more members."""
    return call.envelope(b'{"content":[{"type":"text","text":"S3CRET"}]' + extra + b"}")


def result(text: bytes) -> Callable[[Call], bytes]:
    """An answer to the right question with this for a result."""
    return lambda call: answer(b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (identity(call), text))


def error(text: bytes) -> Callable[[Call], bytes]:
    """An answer to the right question with this for an error."""
    return lambda call: answer(b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (identity(call), text))


def identity(call: Call) -> bytes:
    return json.dumps(call.id).encode()


def addressed(text: bytes) -> Callable[[Call], bytes]:
    """A good answer to another question."""
    return lambda call: answer(good(call).replace(b'"id":' + identity(call), b'"id":' + text))


def json_body(body: bytes) -> Callable[[Call], bytes]:
    return lambda call: answer(body)


def status(line: str, headers: str = "", body: bytes = b"<h1>S3CRET</h1>") -> Callable[[Call], bytes]:
    return lambda call: http(f"{line} S3CRET", body, f"X-Secret: S3CRET\r\n{headers}")


def events(*pieces: bytes, end: bytes = STREAM_END) -> Callable[[Call], bytes]:
    """An event stream; GOOD among the pieces is the right answer."""
    return lambda call: STREAM + b"".join(event(good(call)) if one == b"GOOD" else one for one in pieces) + end


NOTE = event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"debug","data":"hello"}}')
CHALLENGE = 'WWW-Authenticate: Bearer resource_metadata="http://S3CRET/"\r\n'
BUSY = (("reason", "busy"),)
DOWN = (("reason", "credential"),)
ELSEWHERE = (("reason", "down"), ("retryAfter", 1))
BAD: dict[str, Bad] = {
    "nothing, hung up": Bad(lambda call: b"", closing=True),
    "a cut head": Bad(lambda call: b"HTTP/1.1 200 OK\r\nContent-Ty", closing=True),
    "a cut body": Bad(lambda call: http("200 OK", good(call)[:-5], length=len(good(call))), closing=True),
    "cut JSON": Bad(lambda call: answer(good(call)[:-5])),
    "an empty body": Bad(json_body(b"")),
    "white space": Bad(json_body(b" \r\n ")),
    "HTML": Bad(lambda call: http("200 OK", b"<html>S3CRET</html>", "Content-Type: text/html\r\n")),
    "no media type": Bad(lambda call: http("200 OK", b"S3CRET")),
    "not HTTP": Bad(lambda call: b"S3CRET\r\n\r\n", closing=True),
    "no UTF-8": Bad(json_body(b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}')),
    "deep arrays": Bad(result(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}")),
    "deep objects that never end": Bad(json_body(b'{"a":' * 10_000)),
    "half a surrogate pair": Bad(result(b'{"content":"\\ud800"}')),
    "oversized": Bad(lambda call: answer(good(call, b',"x":"' + b"x" * LIMIT + b'"'))),
    "oversized in chunks": Bad(
        lambda call: STREAM.replace(b"text/event-stream", b"application/json") + chunk(b" " * (LIMIT + 1)) + STREAM_END
    ),
    "oversized by its word": Bad(lambda call: http("200 OK", b"{", "", 10**15)),
    "a length that is none": Bad(lambda call: b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n{}"),
    "two lengths": Bad(lambda call: http("200 OK", good(call), "Content-Length: 1\r\n")),
    "both framings": Bad(lambda call: http("200 OK", chunk(good(call)) + STREAM_END, "Transfer-Encoding: chunked\r\n")),
    "garbage for chunks": Bad(lambda call: STREAM.replace(b"text/event-stream", b"application/json") + b"zz\r\nS3CRET"),
    "a head without end": Bad(lambda call: b"HTTP/1.1 200 OK\r\n" + b"X-Secret: S3CRET\r\n" * 10_000),
    "a header without end": Bad(lambda call: b"HTTP/1.1 200 OK\r\nX-Secret: " + b"S3CRET" * 30_000),
    "interim answers without end": Bad(lambda call: b"HTTP/1.1 103 Early\r\nX-Secret: S3CRET\r\n\r\n" * 5000),
    "gzip, cut short": Bad(lambda call: http("200 OK", gzip.compress(good(call))[:-9], "Content-Encoding: gzip\r\n")),
    "gzip that is none": Bad(lambda call: http("200 OK", good(call), "Content-Encoding: gzip\r\n")),
    "gzip of too much": Bad(
        lambda call: http("200 OK", gzip.compress(b" " * (LIMIT + 1) + good(call)), "Content-Encoding: gzip\r\n")
    ),
    "brotli": Bad(lambda call: http("200 OK", good(call), "Content-Encoding: br\r\n")),
    "101": Bad(lambda call: b"HTTP/1.1 101 S3CRET\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    "201": Bad(status("201")),
    "202": Bad(lambda call: http("202 Accepted")),
    "204": Bad(lambda call: b"HTTP/1.1 204 S3CRET\r\n\r\n"),
    "301": Bad(status("301", "Location: http://S3CRET/\r\n")),
    "307 to elsewhere": Bad(status("307", "Location: http://S3CRET/\r\n"), GONE, False, ELSEWHERE),
    "308 in a circle": Bad(status("308", "Location: /S3CRET\r\n"), GONE, False, ELSEWHERE),
    "400": Bad(status("400")),
    "401": Bad(status("401", CHALLENGE), GONE, True, DOWN),
    "403": Bad(status("403", CHALLENGE), GONE, True, DOWN),
    "404": Bad(status("404")),
    "405": Bad(status("405", "Allow: S3CRET\r\n")),
    "418": Bad(status("418")),
    "429": Bad(status("429"), GONE, False, (*BUSY, ("retryAfter", 1))),
    "429 with a time": Bad(status("429", "Retry-After: 7\r\n"), GONE, False, (*BUSY, ("retryAfter", 7))),
    "429 with a long time": Bad(status("429", "Retry-After: 99999\r\n"), GONE, False, (*BUSY, ("retryAfter", 3600))),
    "429 with a lie": Bad(status("429", "Retry-After: S3CRET\r\n"), GONE, False, (*BUSY, ("retryAfter", 1))),
    "500": Bad(status("500")),
    "502": Bad(status("502")),
    "503": Bad(status("503"), GONE, True, (*BUSY, ("retryAfter", 1))),
    "503 with a time": Bad(status("503", "Retry-After: 9\r\n"), GONE, False, (*BUSY, ("retryAfter", 9))),
    "504": Bad(status("504")),
    "another id": Bad(addressed(b'"other-1"')),
    "an id of another type": Bad(addressed(b"1")),
    "id null": Bad(addressed(b"null")),
    "an id that is an object": Bad(addressed(b"{}")),
    "no id": Bad(lambda call: answer(good(call).replace(b'"id":' + identity(call) + b",", b""))),
    "the id twice": Bad(lambda call: answer(good(call).replace(b'"id":', b'"id":"x","id":'))),
    "no jsonrpc": Bad(lambda call: answer(good(call).replace(b'"jsonrpc":"2.0",', b""))),
    "a request": Bad(json_body(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')),
    "an array": Bad(lambda call: answer(b"[" + good(call) + b"]")),
    "a number": Bad(json_body(b"5")),
    "a result that is a string": Bad(result(b'"S3CRET"')),
    "a result that is null": Bad(result(b"null")),
    "a result that is an array": Bad(result(b"[]")),
    "content twice": Bad(result(b'{"content":[],"content":["S3CRET"]}')),
    "isError in another case": Bad(result(b'{"content":[],"IsError":true}')),
    "_meta twice": Bad(result(b'{"content":[],"_meta":{},"_meta":{"a":1}}')),
    "_meta that is an array": Bad(result(b'{"content":[],"_meta":[]}')),
    "the revision's word twice": Bad(result(b'{"resultType":"complete","content":[],"resultType":"complete"}')),
    "result and error": Bad(
        lambda call: answer(good(call)[:-1] + b',"error":{"code":1,"message":"S3CRET"}}'),
    ),
    "result twice": Bad(lambda call: answer(good(call)[:-1] + b',"result":{}}')),
    "an error without a code": Bad(error(b'{"message":"S3CRET"}')),
    "an error without a message": Bad(error(b'{"code":5}')),
    "an error whose code is a string": Bad(error(b'{"code":"5","message":"S3CRET"}')),
    "an error whose code is true": Bad(error(b'{"code":true,"message":"S3CRET"}')),
    "an error whose code is a fraction": Bad(error(b'{"code":1.5,"message":"S3CRET"}')),
    "an error with two codes": Bad(error(b'{"code":1,"code":2,"message":"S3CRET"}')),
    "an error that is a string": Bad(error(b'"S3CRET"')),
    "input required": Bad(result(b'{"resultType":"input_required","inputRequests":{"S3CRET":{}}}'), OURS),
    "an unknown kind of result": Bad(result(b'{"resultType":"S3CRET","content":[]}'), OURS),
    "a kind that is a number": Bad(result(b'{"resultType":5,"content":[]}'), code=0),
    "a stream cut in an event": Bad(events(NOTE, end=chunk(b"data: {")), closing=True),
    "a stream cut between events": Bad(events(NOTE, end=b""), closing=True),
    "a stream without the answer": Bad(events(NOTE)),
    "an empty stream": Bad(events()),
    "a stream of comments": Bad(events(chunk(b": S3CRET\n\n"))),
    "an event of no JSON": Bad(events(event(b"S3CRET"))),
    "an event too large": Bad(events(event(b'{"jsonrpc":"2.0","method":"x","params":"' + b"x" * LIMIT + b'"}'))),
    "an event of endless lines": Bad(events(*[chunk(b"data: " + b"x" * 1000 + b"\n")] * 80)),
    "a stream with another's answer": Bad(events(event(b'{"jsonrpc":"2.0","id":"other-1","result":{"a":"S3CRET"}}'))),
    "a stream in garbage chunks": Bad(lambda call: STREAM + b"xyz\r\n"),
    "a stream of status 500": Bad(lambda call: STREAM.replace(b"200 OK", b"500 S3CRET") + STREAM_END),
    "a stream, encoded": Bad(lambda call: STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n" + STREAM_END),
}


def ruled(bad: Bad) -> Callable[[Call], Awaitable[None]]:
    async def tool(call: Call) -> None:
        await call.send(bad.said(call))
        if bad.closing:
            call.writer.close()

    return tool


async def echo(call: Call) -> None:
    await call.text(str(call.arguments.get("nonce")))


async def late(call: Call) -> None:
    """Answer when nobody waits any more."""
    await asyncio.sleep(SECONDS + 0.5)
    await call.text(SECRET)


async def twice(call: Call) -> None:
    body = call.envelope(b'{"content":[{"type":"text","text":"first"}]}')
    await call.send(answer(body) + answer(body.replace(b"first", SECRET.encode())))


async def twice_streamed(call: Call) -> None:
    body = call.envelope(b'{"content":[{"type":"text","text":"first"}]}')
    await call.send(STREAM + event(body) + event(body.replace(b"first", SECRET.encode())) + STREAM_END)


def toolbox(spoken: str) -> Toolbox:
    """All bad answers as tools of a server, under names that no other server has."""
    tools = {f"{spoken}-{number}": ruled(bad) for number, bad in enumerate(BAD.values())}
    more = {"echo": echo, "late": late, "twice": twice, "twice-streamed": twice_streamed}
    return Toolbox(spoken, {**tools, **{f"{spoken}-{name}": tool for name, tool in more.items()}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    boxes = {"old": toolbox("legacy"), "new": toolbox("modern"), "good": Toolbox("modern", {"fine": echo})}
    more = {"max_reply": "64KiB", "timeout": f"{SECONDS:g}s"}
    with shared(tmp_path_factory.mktemp("gateway"), boxes, more) as found:
        yield found


@pytest.fixture(autouse=True)
def unharmed(place: Place) -> Iterator[None]:
    with place.unharmed():
        yield


@pytest.fixture(scope="module")
def session(place: Place) -> str:
    return asyncio.run(open_session(place.gateway.url, key=KEY))


Speak = Callable[..., Asked]


@pytest.fixture(params=["legacy", "modern"])
def speak(request: pytest.FixtureRequest, session: str) -> Speak:
    """Makes a call of a tool as an agent of either era."""

    def asked(tool: str, **arguments: Any) -> Asked:
        params = {"name": tool, "arguments": arguments}
        if request.param == "modern":
            return modern("tools/call", params, key=KEY, id="m")
        return legacy("tools/call", params, key=KEY, id="m", session=session)

    asked.era = request.param  # type: ignore[attr-defined]
    return asked


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply
    return str(reply.json()["result"]["content"][0]["text"])


def says_nothing_of_the_server(place: Place, reply: Reply) -> None:
    """Neither its words nor its address."""
    told = repr((reply.headers, reply.body))
    assert SECRET not in told
    assert "127.0.0.1" not in told
    assert reply.header("www-authenticate") is None


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer(place: Place, speak: Speak, server: str, name: str) -> None:
    bad = BAD[name]
    number = list(BAD).index(name)
    is_modern = speak.era == "modern"  # type: ignore[attr-defined]

    async def story() -> tuple[Reply, Reply]:
        url = place.gateway.url
        return await exchange(url, speak(f"{server}-{number}")), await exchange(url, speak(f"{server}-echo", nonce=7))

    reply, following = asyncio.run(story())
    if reply.is_stream:
        found = reply.events()[-1].json()["error"]
        assert reply.status == 200
    else:
        found = refusal(reply)
        assert reply.status == (503 if is_modern and bad.code == GONE else 200)
    assert reply.json()["id"] == "m"
    assert found["code"] == bad.code or (bad.code == 0 and found["code"] in (LOST, OURS)), found
    wanted = {"requestId": reply.header("x-request-id"), "mayHaveRun": bad.may_have_run, **dict(bad.data)}
    assert {"retryAfter": wanted.get("retryAfter"), **found["data"]} == {"retryAfter": None, **wanted}
    waiting = dict(bad.data).get("retryAfter")
    assert reply.header("retry-after") == (str(waiting) if waiting and is_modern else None)
    says_nothing_of_the_server(place, reply)
    assert place.gateway.logs(found["data"]["requestId"])
    assert text_of(following) == "7"


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("tool", ["twice", "twice-streamed"])
def test_of_two_answers_the_first_counts(place: Place, speak: Speak, server: str, tool: str) -> None:
    for nonce in range(5):
        assert text_of(place.ask(speak(f"{server}-{tool}"))) == "first"
        assert text_of(place.ask(speak(f"{server}-echo", nonce=nonce))) == str(nonce)


def test_late_answers_are_nobodys_and_hold_nobody_up(place: Place, speak: Speak) -> None:
    async def others() -> AsyncIterator[float]:
        for nonce in range(5):
            for tool in ("fine", "legacy-echo", "modern-echo"):
                began = time.monotonic()
                reply = await exchange(place.gateway.url, speak(tool, nonce=nonce))
                assert text_of(reply) == str(nonce)
                yield time.monotonic() - began

    async def story() -> tuple[list[Reply], float]:
        late = [asyncio.create_task(exchange(place.gateway.url, speak(f"{one}-late"))) for one in ("legacy", "modern")]
        slowest = max([seconds async for seconds in others()])
        return await asyncio.gather(*late), slowest

    replies, slowest = asyncio.run(story())
    assert slowest < SECONDS
    for reply in replies:
        found = refusal(reply)
        assert (reply.status, found["code"], found["data"]["mayHaveRun"]) == (200, LATE, True)
        assert 0 < found["data"]["timeoutMs"] <= SECONDS * 1000
        says_nothing_of_the_server(place, reply)
    for nonce in range(5):
        for tool in ("legacy-echo", "modern-echo"):
            assert text_of(place.ask(speak(tool, nonce=nonce))) == str(nonce)


def test_the_servers_own_error_is_passed_on_as_it_is(place: Place, speak: Speak) -> None:
    """Which the bad answers are not: an error that has all it must have."""
    reply = place.ask(speak("legacy-no-such"))
    assert refusal(reply)["message"] == "Unknown tool: legacy-no-such"
