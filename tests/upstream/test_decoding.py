"""Bodies that come compressed although identity was asked for."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.upstream.transports.decoding import Decoder, decoder_of
from tests.upstream.raw_server import Peer, chunked, ok, post, raw_server, run, slots, wire_to

TEXT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[' + b'{"type":"text","text":"K\xc3\xb6ln"},' * 40 + b"{}]}}"
ROOM = 1_000_000


def bare(text: bytes) -> bytes:
    """Deflate without the zlib header, as many servers send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text) + packer.flush()


def members(text: bytes) -> bytes:
    """A gzip file of three members, one of them empty."""
    half = len(text) // 2
    return gzip.compress(text[:half]) + gzip.compress(b"") + gzip.compress(text[half:])


FORMS = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "in capitals": (" GZip ", gzip.compress(TEXT)),
    "named gzip": ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0" + gzip.compress(TEXT)[10:]),
    "members": ("gzip", members(TEXT)),
    "zeros after it": ("gzip", gzip.compress(TEXT) + b"\0" * 512),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "fast deflate": ("deflate", zlib.compress(TEXT, 1)),
    "best deflate": ("deflate", zlib.compress(TEXT, 9)),
    "stored deflate": ("deflate", zlib.compress(TEXT, 0)),
    "deflate in a small window": ("deflate", (lambda it: it.compress(TEXT) + it.flush())(zlib.compressobj(wbits=9))),
    "bare deflate": ("deflate", bare(TEXT)),
}
forms = pytest.mark.parametrize(("coding", "packed"), FORMS.values(), ids=FORMS)


def decoder(coding: str) -> Decoder:
    found = decoder_of({"content-encoding": coding})
    assert found is not None
    return found


@forms
def test_a_body_is_decoded_wherever_it_is_cut(coding: str, packed: bytes) -> None:
    for cut in range(1, len(packed)):
        reading = decoder(coding)
        assert reading.feed(packed[:cut], ROOM) + reading.feed(packed[cut:], ROOM) == TEXT, cut
        assert reading.is_amid is False


@forms
def test_a_body_is_decoded_byte_by_byte(coding: str, packed: bytes) -> None:
    reading = decoder(coding)
    assert b"".join(reading.feed(packed[at : at + 1], ROOM) for at in range(len(packed))) == TEXT
    assert reading.is_amid is False


@forms
def test_a_body_that_ends_before_its_end_is_noticed_wherever_it_is_cut(coding: str, packed: bytes) -> None:
    whole = len(packed.rstrip(b"\0")) if packed.endswith(b"\0" * 512) else len(packed)
    ends = set()
    for cut in range(1, whole):
        reading = decoder(coding)
        reading.feed(packed[:cut], ROOM)
        if not reading.is_amid:
            ends.add(cut)
    half = len(TEXT) // 2
    borders = {len(gzip.compress(TEXT[:half])), len(gzip.compress(TEXT[:half]) + gzip.compress(b""))}
    assert ends <= borders  # only where a member ends, which is where a file may end


def test_nothing_is_an_empty_body() -> None:
    for coding in ("gzip", "deflate"):
        assert decoder(coding).is_amid is False


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_bomb_is_refused_before_it_has_gone_off(coding: str, pieces: int) -> None:
    room = 100_000
    text = b"\0" * 50_000_000
    packed = gzip.compress(text) if coding == "gzip" else zlib.compress(text)
    reading, out = decoder(coding), 0
    size = len(packed) // pieces + 1
    with pytest.raises(Fault) as wrong:
        for at in range(0, len(packed), size):
            out += len(reading.feed(packed[at : at + size], room - out))
    assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)
    assert out <= room


def test_a_bomb_of_many_members_is_refused_too() -> None:
    packed = gzip.compress(b"x" * 1000) * 200
    with pytest.raises(Fault):
        decoder("gzip").feed(packed, 100_000)
    assert decoder("gzip").feed(packed, 200_000) == b"x" * 200_000


def test_exactly_what_fits_fits() -> None:
    assert decoder("gzip").feed(gzip.compress(b"x" * 1000), 1000) == b"x" * 1000
    with pytest.raises(Fault):
        decoder("gzip").feed(gzip.compress(b"x" * 1001), 1000)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", b"plain"), ("gzip", b"\x1f\x8b\x07\0\0\0\0\0\0\0"), ("gzip", gzip.compress(TEXT)[:-8] + b"\0" * 8),
        ("gzip", gzip.compress(TEXT) + b"\x1f\x8bnonsense"), ("deflate", b"plain"), ("deflate", b"\xff" * 9),
        ("deflate", zlib.compress(TEXT)[:-4] + b"\0" * 4),
    ],
)  # fmt: skip
def test_a_damaged_body_is_lost(coding: str, packed: bytes) -> None:
    with pytest.raises(Fault) as wrong:
        decoder(coding).feed(packed, ROOM)
    assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_what_is_not_encoded_is_not_decoded(coding: str) -> None:
    assert decoder_of({"content-encoding": coding}) is None
    assert decoder_of({}) is None


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, deflate", "x" * 10_000])
def test_another_coding_is_named(coding: str) -> None:
    with pytest.raises(Fault) as wrong:
        decoder_of({"content-encoding": coding})
    assert wrong.value.kind is Kind.LOST
    assert coding[:30] in str(wrong.value.detail)
    assert len(str(wrong.value.detail)) < 200


# -- on a connection ----------------------------------------------------------------------------------------------


def head(coding: str, kind: str = "application/json") -> bytes:
    lines = f"Content-Type: {kind}\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked"
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n\r\n".encode()


def framed(*pieces: bytes) -> list[bytes]:
    return chunked(*pieces)[1:]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["length", "chunks", "close"])
@forms
def test_an_encoded_answer_is_its_text_and_that_is_noted(loop: str, end: str, coding: str, packed: bytes) -> None:
    context = f"Content-Encoding: {coding}".encode()
    pieces = {
        "length": [ok(packed, context)],
        "chunks": [head(coding), *framed(packed[:9], packed[9:])],
        "close": [b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (context, packed)],
    }[end]

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(*pieces)
            if end == "close":
                return

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            for _ in range(2):
                assert (await post(transport)).body == TEXT
            assert len(server.peers) == (2 if end == "close" else 1)
            assert slots(transport) == 0
            (note,) = transport.notes
            assert "compresses" in note

    run(loop, work())


def answering(*pieces: bytes) -> Any:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(*pieces)

    return script


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_events_come_as_soon_as_the_server_has_flushed_them(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        packer = zlib.compressobj(wbits=31)
        await peer.say(head("gzip", "text/event-stream"))
        for number in range(3):
            event = packer.compress(b"data: %d\n\n" % number) + packer.flush(zlib.Z_SYNC_FLUSH)
            await peer.say(b"%x\r\n%s\r\n" % (len(event), event))
            await read.acquire()
        await peer.say(*framed(packer.flush()))
        await peer.request()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_reply=1000) as transport:
            answer = await post(transport)
            for number in range(3):
                got = b""
                while not got.endswith(b"\n\n"):
                    got += await answer.read()
                assert got == b"data: %d\n\n" % number
                read.release()
            assert await answer.read() == b""
            assert (len(server.peers), slots(transport)) == (1, 0)

    read = asyncio.Semaphore(0)
    run(loop, work())


BOMB = gzip.compress(b"x" * 10_000_000)
UNSOUND = {
    "bomb": [ok(BOMB, b"Content-Encoding: gzip")],
    "bomb in chunks": [head("gzip"), *framed(*(BOMB[at : at + 100] for at in range(0, len(BOMB), 100)))],
    "cut short": [ok(gzip.compress(TEXT)[:-3], b"Content-Encoding: gzip")],
    "cut short in chunks": [head("gzip"), *framed(gzip.compress(TEXT)[:-3])],
    "unknown coding": [ok(b"x", b"Content-Encoding: br")],
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("pieces", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_encoding_loses_the_call_and_its_connection_only(loop: str, pieces: list[bytes]) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(*(pieces if peer.number == 0 else [ok(b"{}")]))

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server) as transport:
            with pytest.raises(Fault) as wrong:
                await post(transport)
            assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)
            assert slots(transport) == 0
            assert (await post(transport)).body == b"{}"
            assert len(server.peers) == 2

    run(loop, work())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stream_that_is_cut_short_is_lost_after_what_came(loop: str) -> None:
    packer = zlib.compressobj(wbits=31)
    event = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)

    async def work() -> None:
        pieces = [head("gzip", "text/event-stream"), *framed(event)]
        async with raw_server(answering(*pieces)) as server, wire_to(server) as transport:
            answer = await post(transport)
            got = b""
            with pytest.raises(Fault) as wrong:
                while piece := await answer.read():
                    got += piece
            assert (got, wrong.value.kind) == (b"data: 1\n\n", Kind.LOST)
            assert slots(transport) == 0

    run(loop, work())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stream_may_come_to_more_than_one_answer_may_have(loop: str) -> None:
    event = b"data: " + b"x" * 900 + b"\n\n"
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for _ in range(50)]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(head("gzip", "text/event-stream"))
        for piece in pieces:
            await peer.say(b"%x\r\n%s\r\n" % (len(piece), piece))
            await read.acquire()
        await peer.say(*framed(packer.flush()))

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_reply=1000) as transport:
            answer, got = await post(transport), b""
            while piece := await answer.read():
                got += piece
                if len(got) % len(event) == 0:
                    read.release()
            assert got == event * 50

    read = asyncio.Semaphore(0)
    run(loop, work())


MUCH = b"data: " + b"x" * 1000 + b"\n\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stream_that_nobody_reads_is_decoded_up_to_what_an_answer_may_have(loop: str) -> None:
    """A few kilobytes stand for 60 MB."""
    packed = gzip.compress(MUCH * 60_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(head + b"Content-Length: %d\r\n\r\n" % len(packed), packed)

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_reply=1 << 20) as transport:
            with pytest.raises(Fault) as wrong:
                answer = await post(transport)
                while await answer.read():
                    assert answer._held <= 1 << 20
            assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)
            assert slots(transport) == 0

    run(loop, work())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("wait", [False, True])
def test_an_encoded_stream_that_breaks_off_is_lost(loop: str, wait: bool) -> None:
    packed = gzip.compress(MUCH * 100)[:-9]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(head + b"Content-Length: %d\r\n\r\n" % len(packed), packed)
        await peer.gone()

    async def work() -> None:
        async with raw_server(script) as server, wire_to(server, max_reply=1 << 20) as transport:
            answer = await post(transport)
            if wait:
                await asyncio.sleep(0.05)
            with pytest.raises(Fault) as wrong:
                while await answer.read():
                    pass
            assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)

    run(loop, work())
