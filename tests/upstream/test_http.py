"""The laws of an exchange, against a server that speaks raw bytes; on both loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import pytest

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault, Kind
from fastgw.upstream.transports.http import HttpPool, TransportSettings
from fastgw.upstream.transports.http_exchange import HttpAnswer
from tests.upstream.raw_server import HEADERS, Peer, chunked, ok, post, raw_server, run, slots, wire_to

CASES = ["asyncio", "uvloop"]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"

loops = pytest.mark.parametrize("loop", CASES)


def answering(*pieces: bytes, then: Callable[[Peer], Coroutine[Any, Any, None]] | None = None) -> Any:
    """A script: the same answer to every request; then hang up where `then` is None and a request cannot be read."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(*pieces)
            if then is not None:
                await then(peer)

    return script


async def hang_up(peer: Peer) -> None:
    peer.hang_up()
    await peer.gone()


async def reset(peer: Peer) -> None:
    peer.reset()


async def fault_of(work: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        await work
    return caught.value


def told(fault: Fault) -> tuple[Kind, bool, dict[str, Any]]:
    return fault.kind, fault.sent, fault.data


LOST = (Kind.LOST, True, {})
DOWN = (Kind.NO_SERVER, False, {"reason": "down"})
BUSY = (Kind.NO_SERVER, False, {"reason": "busy"})


@loops
def test_the_request_is_ours_to_the_byte(loop: str) -> None:
    heads: list[tuple[bytes, bytes]] = []

    async def script(peer: Peer) -> None:
        while got := await peer.request():
            heads.append(got)
            await peer.say(ok(b"{}"))

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            await transport.request("POST", b"X-A: 1\r\nx-b:  two \r\n", b'{"a":1}', Deadlines())
            await transport.request("POST", b"", b"", Deadlines())
            await transport.request("GET", b"X-A: 1\r\n", b"", Deadlines())
            await transport.request("DELETE", b"X-A: 1\r\n", b"", Deadlines())
            host = server.url.split("/")[2].encode()
        lines = [sorted(context.strip().lower() for context in head.split(b"\r\n")[1:] if context) for head, _ in heads]
        lines = [[context.replace(b":  ", b": ") for context in each] for each in lines]
        assert [head.split(b"\r\n")[0] for head, _ in heads] == [
            verb + b" /mcp?x=1 HTTP/1.1" for verb in (b"POST", b"POST", b"GET", b"DELETE")
        ]
        assert lines[0] == sorted([b"host: " + host, b"x-a: 1", b"x-b: two", b"content-length: 7"])
        assert lines[1] == sorted([b"host: " + host, b"content-length: 0"])
        assert lines[2] == sorted([b"host: " + host, b"x-a: 1"])
        assert set(lines[3]) - {b"content-length: 0"} == {b"host: " + host, b"x-a: 1"}
        assert heads[0][1] == b'{"a":1}'

    run(loop, work())


@loops
@pytest.mark.parametrize("cut", ["whole", "bytes"])
@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (ok(b'{"id":1}'), 200, b'{"id":1}'),
        (ok(b""), 200, b""),
        (b"".join(chunked(b"ab", b"c")), 200, b"abc"),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (ok(b"no", status=b"404 Not Found"), 404, b"no"),
        (ok(b"", status=b"302 Found"), 302, b""),
        (ok(b"x", b"Content-Encoding: identity"), 200, b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"x"), 200, b"x"),
        (b"HTTP/1.1 500 No\r\nContent-Type: text/event-stream\r\nContent-Length: 1\r\n\r\nx", 500, b"x"),
    ],
)
def test_an_answer_is_read_whole(loop: str, cut: str, raw: bytes, status: int, body: bytes) -> None:
    pieces = [raw] if cut == "whole" else [raw[i : i + 1] for i in range(len(raw))]

    async def work() -> None:
        async with raw_server(answering(*pieces)) as server, wire_to(server) as transport:
            for _ in range(3):
                answer = await post(transport)
                assert (answer.status, answer.body) == (status, body)
                answer.close()
            assert slots(transport) == 0
            assert len(server.peers) == 1

    run(loop, work())


@loops
def test_headers_have_lower_case_names_and_their_first_value(loop: str) -> None:
    async def work() -> None:
        raw = ok(b"", b"Mcp-Session-Id:  a b ", b"X: 1", b"x: 2")
        async with raw_server(answering(raw)) as server, wire_to(server) as transport:
            headers = (await post(transport)).headers
            assert headers["mcp-session-id"] == "a b"
            assert headers["x"] == "1"
            assert headers["content-type"] == "application/json"

    run(loop, work())


@loops
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        ok(b"x", b"Connection: close"),
        b"HTTP/1.1 200 OK\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nx",
    ],
)
def test_a_connection_that_must_close_is_not_used_again(loop: str, raw: bytes) -> None:
    async def work() -> None:
        async with raw_server(answering(raw, then=hang_up)) as server, wire_to(server) as transport:
            for _ in range(2):
                assert (await post(transport)).body == b"x"
            assert len(server.peers) == 2
            assert slots(transport) == 0

    run(loop, work())


@loops
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"".join(chunked(b"abc"))[:-5],
        b"".join(chunked(b"abc"))[:-7],
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
@pytest.mark.parametrize("end", [hang_up, reset])
def test_an_answer_cut_short_is_lost(loop: str, raw: bytes, end: Any) -> None:
    async def work() -> None:
        async with raw_server(answering(raw, then=end)) as server, wire_to(server) as transport:
            assert told(await fault_of(post(transport))) == LOST
            assert slots(transport) == 0
            for verb in ("GET", "DELETE"):
                assert told(await fault_of(transport.request(verb, HEADERS, b"", Deadlines()))) == LOST
            assert len(server.peers) == 3, "nothing is sent twice"

    run(loop, work())


@loops
def test_a_body_that_ends_by_a_reset_is_lost(loop: str) -> None:
    async def work() -> None:
        raw = b"HTTP/1.1 200 OK\r\n\r\nabc"
        async with raw_server(answering(raw, then=reset)) as server, wire_to(server, max_reply=10) as transport:
            # A RST may overtake the bytes; either way there is no answer.
            assert told(await fault_of(post(transport))) == LOST

    run(loop, work())


BIG = b"x" * 100_001
REFUSED = [
    ("switch", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ("bare switch", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ("damaged gzip", ok(b"x", b"Content-Encoding: gzip")),
    ("unknown coding", ok(b"x", b"Content-Encoding: zstd")),
    ("two codings", ok(b"x", b"Content-Encoding: gzip, gzip")),
    ("unknown coding of a stream", STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: br\r\n\r\n")),
    ("oversized", ok(BIG)),
    ("oversized announced", b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"),
    ("oversized chunks", b"".join(chunked(BIG))),
    ("oversized by close", b"HTTP/1.1 200 OK\r\n\r\n" + BIG),
    ("length twice", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    ("both framings", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
    ("framings swapped", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n"),
    ("unknown framing", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx"),
    ("bad length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx"),
    ("huge length", b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nx"),
    ("two types", ok(b"x", b"Content-Type: text/event-stream")),
    ("not http", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ("html", b"<html>\r\n\r\n"),
    ("bad chunk", b"".join(chunked())[:-5] + b"zz\r\n"),
    ("long head", b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 700) for i in range(100)) + b"\r\n"),
    ("endless head", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000),
    ("endless interim", b"HTTP/1.1 100 Continue\r\n\r\n" * 4000),
    ("endless trailer", b"".join(chunked(b"x"))[:-2] + b"X: " + b"y" * 400_000),
]


@loops
@pytest.mark.parametrize("raw", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_an_unsound_answer_is_lost_and_closes(loop: str, raw: bytes) -> None:
    async def then(peer: Peer) -> None:
        await peer.gone()

    async def work() -> None:
        async with raw_server(answering(raw, then=then)) as server, wire_to(server) as transport:
            assert told(await fault_of(post(transport))) == LOST
            assert slots(transport) == 0
            while not server.ended:
                await asyncio.sleep(0.001)
            assert len(server.peers) == 1

    run(loop, work())


@loops
@pytest.mark.parametrize("extra", [b"x", ok(b'{"stolen":1}'), ok(b"1")[:20], b"HTTP/1.1 100 Continue\r\n\r\n", b"\0"])
@pytest.mark.parametrize("when", ["with the answer", "while idle"])
def test_bytes_that_nobody_asked_for_close_the_connection(loop: str, extra: bytes, when: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if when == "with the answer":
            await peer.say(ok(b"%d" % peer.number) + extra)
        else:
            await peer.say(ok(b"%d" % peer.number))
            await told_more.wait()
            await peer.say(extra)
        await peer.gone()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            for number in (b"0", b"1"):
                assert (await post(transport)).body == number
                told_more.set()
                async with asyncio.timeout(2):  # at once: the pool itself would close it after IDLE_SECONDS
                    while not server.ended:
                        await asyncio.sleep(0.001)
            assert len(server.peers) == 2
            assert slots(transport) == 0

    told_more = asyncio.Event()
    run(loop, work())


@loops
def test_an_answer_before_the_request_has_left_closes_the_connection(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()
        await peer.say(ok(b"%d" % peer.number))
        await done.wait()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            for number in (b"0", b"1"):
                answer = await post(transport, b"x" * 30_000_000)
                assert answer.body == number
            assert len(server.peers) == 2
            done.set()

    done = asyncio.Event()
    run(loop, work())


@loops
def test_a_connection_closed_while_idle_is_not_used(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(ok(b"%d" % peer.number))

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            for number in range(20):
                assert (await post(transport)).body == b"%d" % number
                (pooled,) = [proto for row in transport._connector._conns.values() for proto, _ in row] or [None]
                while pooled is not None and pooled.is_connected():
                    await asyncio.sleep(0)

    run(loop, work())


@loops
def test_a_reused_connection_closed_without_an_answer_is_lost_not_repeated(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(ok(b"1"))
        requests.append(await peer.request())

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            assert (await post(transport)).body == b"1"
            assert told(await fault_of(post(transport, b"second"))) == LOST
            assert len(server.peers) == 1
            assert [got and got[1] for got in requests] == [b"second"]
            assert slots(transport) == 0

    requests: list[Any] = []
    run(loop, work())


@loops
def test_an_event_stream_comes_piece_by_piece(loop: str) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(STREAM)
            for number in range(5):
                await read.acquire()
                await peer.say(b"%x\r\n%s\r\n" % (10, b"data: %d\n\n\n" % number))
            await read.acquire()
            await peer.say(b"0\r\n\r\n")

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_reply=10) as transport:
            for _ in range(2):
                answer = await post(transport)
                assert answer.body is None
                for number in range(5):
                    read.release()
                    assert await answer.read() == b"data: %d\n\n\n" % number
                read.release()
                assert await answer.read() == b""
                assert await answer.read() == b""
                answer.close()
                assert slots(transport) == 0
            assert len(server.peers) == 1

    read = asyncio.Semaphore(0)
    run(loop, work())


@loops
@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_stream_cut_short_is_lost_after_its_pieces(loop: str, end: Any) -> None:
    async def then(peer: Peer) -> None:
        await status.wait()
        await end(peer)

    async def work() -> None:
        raw = STREAM + b"3\r\nabc\r\n"
        async with raw_server(answering(raw, then=then)) as server, wire_to(server) as transport:
            answer = await post(transport)
            assert await answer.read() == b"abc"
            status.set()
            for _ in range(2):
                assert told(await fault_of(answer.read())) == LOST
            answer.close()
            assert slots(transport) == 0
            assert len(server.peers) == 1

    status = asyncio.Event()
    run(loop, work())


@loops
def test_a_stream_may_end_by_close(loop: str) -> None:
    async def work() -> None:
        raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
        async with raw_server(answering(raw, then=hang_up)) as server, wire_to(server) as transport:
            answer = await post(transport)
            got = b""
            while piece := await answer.read():
                got += piece
            assert got == b"data: 1\n\n"
            assert slots(transport) == 0

    run(loop, work())


@loops
def test_a_stream_nobody_reads_stops_the_server_and_loses_nothing(loop: str) -> None:
    chunk = b"%x\r\n%s\r\n" % (10_000, b"y" * 10_000)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.transport.set_write_buffer_limits(high=1)
        await peer.say(STREAM)
        for number in range(3000):
            peer.writer.write(chunk)
            await peer.writer.drain()
            sent.append(number)
        await peer.say(b"0\r\n\r\n")
        await peer.request()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_reply=10) as transport:
            answer = await post(transport)
            before = -1
            while before != len(sent):
                before = len(sent)
                await asyncio.sleep(0.03)
            assert before < 3000, "30 MB went into buffers"
            assert answer._held <= 64 * 1024 + 256 * 1024
            got = 0
            while piece := await answer.read():
                got += len(piece)
            assert got == 30_000_000
            assert slots(transport) == 0
            assert [
                proto.transport.is_reading() for row in transport._connector._conns.values() for proto, _ in row
            ] == [True]

    sent: list[int] = []
    run(loop, work())


@loops
def test_a_stream_given_up_closes_its_connection(loop: str) -> None:
    async def work() -> None:
        raw = STREAM + b"3\r\nabc\r\n"
        async with raw_server(answering(raw)) as server, wire_to(server) as transport:
            answer = await post(transport)
            answer.close()
            answer.close()
            assert slots(transport) == 0
            while not server.ended:
                await asyncio.sleep(0.001)

    run(loop, work())


async def silent(peer: Peer) -> None:
    await peer.gone()


@loops
@pytest.mark.parametrize(
    ("deadlines", "raw", "ms"),
    [
        (Deadlines(5, 0.05, 5, 5), b"", 50),
        (Deadlines(5, 5, 5, 0.06), b"", 60),
        (Deadlines(5, 0.05, 5, 5), b"HTTP/1.1 100 Continue\r\n\r\n", 50),
        (Deadlines(5, 0.02, 5, 0.08), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 80),
    ],
)
def test_an_answer_too_late_is_a_timeout_and_closes(loop: str, deadlines: Deadlines, raw: bytes, ms: int) -> None:
    async def work() -> None:
        async with raw_server(answering(raw, then=silent)) as server, wire_to(server) as transport:
            fault = await fault_of(post(transport, deadlines=deadlines))
            assert told(fault) == (Kind.TIMEOUT, True, {"timeoutMs": ms})
            assert slots(transport) == 0
            while not server.ended:
                await asyncio.sleep(0.001)

    run(loop, work())


@loops
@pytest.mark.parametrize(
    ("deadlines", "ms"),
    [
        (Deadlines(5, 0.3, 0.07, 60), 70),
        (Deadlines(5, 0.3, 60, 0.35), 350),
        (Deadlines(60, 60, 0.07, 60), 70),
        (Deadlines(60, 60, 0.2, 0.3, granted=0.5), 200),
    ],
)
@pytest.mark.parametrize("first", [b"", b"abc"])
def test_a_silent_stream_is_a_timeout(loop: str, deadlines: Deadlines, ms: int, first: bytes) -> None:
    async def work() -> None:
        raw = STREAM + (b"3\r\nabc\r\n" if first else b"")
        async with raw_server(answering(raw, then=silent)) as server, wire_to(server) as transport:
            answer = await post(transport, deadlines=deadlines)
            if first:
                assert await answer.read() == first
            async with asyncio.timeout(4):
                for _ in range(2):
                    assert told(await fault_of(answer.read())) == (Kind.TIMEOUT, True, {"timeoutMs": ms})
            assert slots(transport) == 0

    run(loop, work())


@loops
def test_silence_that_nobody_waits_for_is_no_timeout(loop: str) -> None:
    async def work() -> None:
        go_on = asyncio.Event()

        async def pausing(peer: Peer) -> None:
            await peer.request()
            await peer.say(STREAM + b"3\r\nabc\r\n")
            await go_on.wait()
            await peer.say(b"3\r\ndef\r\n")
            await peer.gone()

        async with raw_server(pausing) as server, wire_to(server) as transport:
            answer = await post(transport, deadlines=Deadlines(60, 60, 0.2, 60))
            assert await answer.read() == b"abc"
            await asyncio.sleep(0.4)  # twice what silence may last
            go_on.set()
            assert await answer.read() == b"def"
            assert told(await fault_of(answer.read())) == (Kind.TIMEOUT, True, {"timeoutMs": 200})

    run(loop, work())


@loops
def test_bytes_keep_a_stream_alive_until_its_total_passes(loop: str) -> None:
    async def work() -> None:
        async def dripping(peer: Peer) -> None:
            await peer.request()
            await peer.say(STREAM)
            while True:
                await peer.say(b"1\r\nx\r\n")
                await asyncio.sleep(0.02)

        async with raw_server(dripping) as server, wire_to(server) as transport:
            answer = await post(transport, deadlines=Deadlines(60, 60, 0.4, 0.8))
            async with asyncio.timeout(4):
                with pytest.raises(Fault) as passed:
                    while True:
                        await answer.read()
            assert told(passed.value) == (Kind.TIMEOUT, True, {"timeoutMs": 800})

    run(loop, work())


@loops
@pytest.mark.parametrize(
    ("raw", "deadlines", "armed"),
    [
        (ok(b"{}"), Deadlines(60, 60, 30, 60), 1),
        (STREAM + b"1\r\nx\r\n" * 50 + b"0\r\n\r\n", Deadlines(60, 60, 60, 60), 1),
        (STREAM + b"1\r\nx\r\n" * 50 + b"0\r\n\r\n", Deadlines(60, 60, 30, 60), 2),
        (STREAM + b"1\r\nx\r\n" * 50 + b"0\r\n\r\n", Deadlines(60, 30, 60, 60), 1),
    ],
)
def test_a_timer_is_armed_again_only_where_a_stream_may_be_late_sooner(
    loop: str, raw: bytes, deadlines: Deadlines, armed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        arm, status = HttpAnswer._armed, []
        monkeypatch.setattr(HttpAnswer, "_armed", lambda *args: status.append(args) or arm(*args))
        pieces = [raw[at : at + 9] for at in range(0, len(raw), 9)]
        async with raw_server(answering(*pieces)) as server, wire_to(server) as transport:
            answer = await post(transport, deadlines=deadlines)
            while answer.body is None and await answer.read():
                pass
            assert len(status) == armed

    run(loop, work())


@loops
def test_a_total_may_be_put_off(loop: str) -> None:
    async def work() -> None:
        async with raw_server(answering(STREAM, then=silent)) as server, wire_to(server) as transport:
            answer = await post(transport, deadlines=Deadlines(60, 60, 60, 0.2))
            now = asyncio.get_running_loop().time()
            answer.extend(now + 0.6, 7.0)
            async with asyncio.timeout(4):
                assert told(await fault_of(answer.read())) == (Kind.TIMEOUT, True, {"timeoutMs": 7000})
            assert asyncio.get_running_loop().time() - now > 0.59

    run(loop, work())


@loops
def test_no_secret_of_the_request_is_in_a_fault(loop: str) -> None:
    async def work() -> None:
        async with raw_server(answering(b"SSH-2.0\r\n\r\n")) as server, wire_to(server) as transport:
            fault = await fault_of(transport.request("POST", b"Authorization: canary\r\n", b"", Deadlines()))
            assert "canary" not in f"{fault!r} {fault.detail} {fault.data} {fault.__cause__!r}"

    run(loop, work())


@loops
def test_a_refused_connection_is_no_server(loop: str) -> None:
    async def work() -> None:
        async with raw_server(silent) as server:
            url = server.url
        async with wire_to(url) as transport:
            fault = await fault_of(post(transport))
            assert told(fault) == DOWN
            assert fault.detail == f"cannot connect to {urlsplit(url).netloc}: connection refused"
            assert slots(transport) == 0
        for bad in ("http://no-such-host.invalid/", "https://127.0.0.1:1/"):
            async with wire_to(bad) as transport:
                assert told(await fault_of(post(transport))) == DOWN

    run(loop, work())


@loops
def test_a_full_pool_is_busy_and_the_next_in_the_queue_is_served(loop: str) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await go.wait()
            await peer.say(ok(b"x"))

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_connections=1) as transport:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(post(transport))
                while not server.peers:
                    await asyncio.sleep(0.001)
                assert transport.usage() == (1, 0, 1, 0)
                waiting = group.create_task(post(transport))
                while transport.usage() != (1, 0, 1, 1):
                    await asyncio.sleep(0.001)
                assert told(await fault_of(post(transport, deadlines=Deadlines(0.05, 5, 5, 5)))) == BUSY
                go.set()
            assert (first.result().body, waiting.result().body) == (b"x", b"x")
            assert slots(transport) == 0
            assert transport.usage() == (0, 1, 1, 0)

    go = asyncio.Event()
    run(loop, work())


@loops
def test_streams_that_last_leave_room_for_others(loop: str) -> None:
    """They count again as soon as they end: whole, given up, or broken off."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if request[1] != b"stream":
                await peer.say(ok(b"x"))
                continue
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            await go.wait()
            await peer.say(b"0\r\n\r\n")

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_connections=1) as transport:
            streams = [await post(transport, b"stream") for _ in range(3)]
            assert (await post(transport)).body == b"x"
            streams.pop().close()
            go.set()
            assert [await stream.read() for stream in streams] == [b"", b""]
            assert (slots(transport), transport._connector.limit) == (0, 1)

    go = asyncio.Event()
    run(loop, work())


@loops
def test_a_slot_given_to_one_who_leaves_goes_to_the_next(loop: str) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(ok(b"x"))

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_connections=1) as transport:
            held = await transport._connect(Deadlines())
            loop = asyncio.get_running_loop()
            leaver, stayer = loop.create_task(post(transport)), loop.create_task(post(transport))
            while sum(len(row) for row in transport._connector._waiters.values()) < 2:
                await asyncio.sleep(0)
            held.release()  # wakes the leaver ...
            leaver.cancel()  # ... who has left before it runs
            assert (await stayer).body == b"x"
            assert leaver.cancelled() or leaver.done()
            assert slots(transport) == 0

    run(loop, work())


@loops
def test_an_answer_that_its_reader_left_unread_ends_its_connection(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has looked whose it was; the next answer on the connection may be the one that belongs to it."""
    leaving: list[asyncio.Task[Any]] = []
    plain = HttpAnswer.ended

    def ended(answer: HttpAnswer) -> None:
        plain(answer)
        if leaving:
            leaving.pop().cancel()

    monkeypatch.setattr(HttpAnswer, "ended", ended)

    async def work() -> None:
        async with raw_server(answering(ok(b"{}"))) as server, wire_to(server) as transport:
            leaving.append(asyncio.get_running_loop().create_task(post(transport)))
            with pytest.raises(asyncio.CancelledError):
                await leaving[0]
            assert slots(transport) == 0
            for _ in range(2):
                assert (await post(transport)).body == b"{}"
            assert len(server.peers) == 2

    run(loop, work())


@loops
@pytest.mark.parametrize("stage", ["connecting", "sent", "head", "stream"])
def test_a_cancel_closes_the_connection_and_frees_its_slot(loop: str, stage: str) -> None:
    said = {
        "connecting": b"",
        "sent": b"",
        "head": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        "stream": STREAM,
    }

    async def script(peer: Peer) -> None:
        await peer.request()
        reached.set()
        await peer.say(said[stage])
        await peer.gone()

    async def exchange(transport: Any) -> None:
        answer = await post(transport)
        await answer.read()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_connections=1) as transport:
            for _ in range(2):
                reached.clear()
                task = asyncio.get_running_loop().create_task(exchange(transport))
                if stage == "connecting":
                    await asyncio.sleep(0)
                else:
                    await reached.wait()
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.sleep(0.01)
                assert slots(transport) == 0
            while len(server.ended) < len(server.peers):
                await asyncio.sleep(0.001)

    reached = asyncio.Event()
    run(loop, work())


@loops
def test_close_ends_what_is_under_way(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_connections=1) as transport:
            loop = asyncio.get_running_loop()
            under_way, queued = loop.create_task(post(transport)), loop.create_task(post(transport))
            await asked.wait()
            await transport.close()
            assert told(await fault_of(under_way)) == LOST
            assert told(await fault_of(queued)) == DOWN
            assert (await fault_of(post(transport))).kind is Kind.NO_SERVER
            await transport.close()

    asked = asyncio.Event()
    run(loop, work())


def test_what_cannot_be_opened_is_refused() -> None:
    async def work() -> None:
        for url in ("ftp://a/", "/mcp"):
            with pytest.raises(ValueError):
                HttpPool(TransportSettings(url, max_reply=1))

    run("asyncio", work())
