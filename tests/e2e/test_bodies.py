"""Bodies that are too large, too slow, cut short or announced: told at once, on a connection that is then closed.

Each test has a connection of its own, before two workers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.hostile import Place, is_refused, shared
from tests.e2e.http import Asked, Connection, connected, exchange, legacy, modern, open_session
from tests.e2e.servers import Call, Toolbox

LIMIT = 256 * 1024
DEADLINE = 1.0
MEBIBYTE = 1024 * 1024


async def echo(call: Call) -> None:
    await call.text(str(len(json.dumps(call.arguments))))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    more = {"max_body": "256KiB", "timeout": f"{DEADLINE:g}s"}
    with shared(tmp_path_factory.mktemp("gateway"), {"new": Toolbox("modern", {"echo": echo})}, more) as found:
        yield found


@pytest.fixture(autouse=True)
def unharmed(place: Place) -> Iterator[None]:
    with place.unharmed():
        yield


@pytest.fixture(params=["legacy", "modern"])
def headers(request: pytest.FixtureRequest, place: Place) -> list[tuple[str, str]]:
    """The headers of a call by an agent of either era, on a connection that it wants to keep."""
    call = {"name": "echo", "arguments": {}}
    if request.param == "modern":
        found = modern("tools/call", call, key=KEY).headers
    else:
        session = asyncio.run(open_session(place.gateway.url, key=KEY))
        found = legacy("tools/call", call, key=KEY, session=session).headers
    return [*found, ("Connection", "keep-alive")]


@asynccontextmanager
async def begun(place: Place, headers: list[tuple[str, str]], more: dict[str, str]) -> AsyncIterator[Connection]:
    """A connection on which a head has been sent."""
    async with connected(place.gateway.url) as connection:
        connection.send(Asked(b"", [*headers, *more.items()]))
        yield connection


async def is_closed(connection: Connection) -> None:
    """The other side ends the connection, with or without a reset."""
    async with asyncio.timeout(5):
        with suppress(ConnectionError):
            assert await connection.reader.read() == b""


def sized(size: int) -> bytes:
    """A call whose body has exactly this many bytes."""
    body = modern("tools/call", {"name": "echo", "arguments": {"a": "@"}}, key=KEY).body
    return body.replace(b"@", b"a" * (size - len(body) + 1))


def chunked(body: bytes, size: int = 65_536) -> bytes:
    """The body in chunks, with its end."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# -- too large ------------------------------------------------------------------------------------------------------


def test_the_limit_itself_is_allowed_and_one_more_is_not(place: Place) -> None:
    asked = modern("tools/call", {"name": "echo", "arguments": {}}, key=KEY)
    chunks = asked.having("Transfer-Encoding", "chunked").headers
    for size in (LIMIT, LIMIT + 1):
        whole = place.ask(Asked(sized(size), asked.headers))
        pieces = place.ask(Asked(chunked(sized(size)), chunks))
        if size == LIMIT:
            assert (whole.status, pieces.status) == (200, 200)
        else:
            is_refused(whole, 413, -32600, limitBytes=LIMIT)
            is_refused(pieces, 413, -32600, limitBytes=LIMIT)
    assert place.boxes["new"].ledger == [(None, "echo")] * 2


def test_an_announced_excess_is_refused_before_a_byte_of_it_came(place: Place, headers: list[tuple[str, str]]) -> None:
    async def story() -> None:
        async with begun(place, headers, {"Content-Length": str(LIMIT + 1)}) as connection:
            reply = await (await connection.answer()).rest()
            is_refused(reply, 413, -32600, limitBytes=LIMIT)
            assert reply.header("connection") == "close"
            await is_closed(connection)

    asyncio.run(story())


def test_an_excess_in_chunks_is_refused_before_its_end(place: Place, headers: list[tuple[str, str]]) -> None:
    async def story() -> None:
        async with begun(place, headers, {"Transfer-Encoding": "chunked"}) as connection:
            connection.writer.write(chunked(b"x" * (LIMIT + 65_536))[: -len("0\r\n\r\n")])
            reply = await (await connection.answer()).rest()
            is_refused(reply, 413, -32600, limitBytes=LIMIT)
            assert reply.header("connection") == "close"
            await is_closed(connection)

    asyncio.run(story())


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_who_sends_on_for_a_mebibyte_still_reads_the_refusal(
    place: Place, headers: list[tuple[str, str]], framing: str
) -> None:
    """A client that writes first and reads afterwards must not lose the refusal to a reset."""
    body = b"x" * (MEBIBYTE - 65_536)

    async def story() -> None:
        more = {"Content-Length": str(len(body))} if framing == "length" else {"Transfer-Encoding": "chunked"}
        async with begun(place, headers, more) as connection:
            for at in range(0, len(body), 65_536):
                piece = body[at : at + 65_536]
                connection.writer.write(piece if framing == "length" else b"%x\r\n%s\r\n" % (len(piece), piece))
                await connection.writer.drain()
            if framing == "chunks":
                connection.writer.write(b"0\r\n\r\n")
                await connection.writer.drain()
            reply = await (await connection.answer()).rest()
            is_refused(reply, 413, -32600, limitBytes=LIMIT)
            await is_closed(connection)

    asyncio.run(story())


def test_who_sends_without_end_is_cut_off(place: Place, headers: list[tuple[str, str]]) -> None:
    async def story() -> int:
        sent = 0
        async with begun(place, headers, {"Transfer-Encoding": "chunked"}) as connection:
            piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            with suppress(ConnectionError):
                async with asyncio.timeout(15):
                    while sent < 1000:
                        connection.writer.write(piece)
                        await connection.writer.drain()
                        sent += 1
        return sent

    # What the kernel holds on both sides comes on top of the mebibyte.
    assert asyncio.run(story()) * 65_536 < 32 * MEBIBYTE


# -- too slow -------------------------------------------------------------------------------------------------------


def test_a_body_that_does_not_come(place: Place, headers: list[tuple[str, str]]) -> None:
    """Not a byte of it, or only some, or a byte now and then: what counts is the whole."""

    async def dripping(connection: Connection, drop: bytes) -> None:
        with suppress(ConnectionError):
            while True:
                connection.writer.write(drop)
                await connection.writer.drain()
                await asyncio.sleep(0.05)

    async def slow(part: str, framing: dict[str, str]) -> None:
        drop = b" " if "Content-Length" in framing else b"1\r\n \r\n"
        async with begun(place, headers, framing) as connection:
            began = time.monotonic()
            if part != "nothing":
                connection.writer.write(drop)
            drip = asyncio.create_task(dripping(connection, drop)) if part == "drops" else None
            reply = await (await connection.answer()).rest()
            took = time.monotonic() - began
            is_refused(reply, 408, -32600)
            assert reply.header("connection") == "close"
            if drip is not None:
                drip.cancel()
            await is_closed(connection)
            assert took >= DEADLINE * 0.9

    async def story() -> None:
        framings = ({"Content-Length": "5000"}, {"Transfer-Encoding": "chunked"})
        await asyncio.gather(*(slow(part, one) for part in ("nothing", "some", "drops") for one in framings))

    asyncio.run(story())


def test_slow_bodies_hold_nobody_up(place: Place, headers: list[tuple[str, str]]) -> None:
    async def story() -> None:
        slow = [begun(place, headers, {"Content-Length": "5000"}) for _ in range(50)]
        for one in slow:
            await one.__aenter__()
        try:
            asked = modern("tools/call", {"name": "echo", "arguments": {}}, key=KEY)
            began = time.monotonic()
            for _ in range(4):
                assert (await exchange(place.gateway.url, asked)).status == 200
            assert time.monotonic() - began < DEADLINE
        finally:
            for one in slow:
                await one.__aexit__(None, None, None)

    asyncio.run(story())


# -- cut short, and announced ---------------------------------------------------------------------------------------


def test_who_leaves_in_the_middle_of_a_body_reaches_nobody(place: Place, headers: list[tuple[str, str]]) -> None:
    before = place.reached()

    async def story() -> None:
        for framing in ({"Content-Length": "5000"}, {"Transfer-Encoding": "chunked"}):
            async with begun(place, headers, framing) as connection:
                connection.writer.write(b"5\r\n{}   \r\n")
                await connection.writer.drain()
        assert (await exchange(place.gateway.url, modern("server/discover", {}, key=KEY))).status == 200

    asyncio.run(story())
    assert place.reached() == before


def test_broken_chunks(place: Place, headers: list[tuple[str, str]]) -> None:
    async def story(broken: bytes) -> bytes:
        async with begun(place, headers, {"Transfer-Encoding": "chunked"}) as connection:
            connection.writer.write(broken)
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    return await connection.reader.read()
        return b""

    before = place.reached()
    for broken in (b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n", b"ffffffffffffffffff\r\n{}", b"2\r\n{}xx0\r\n\r\n"):
        answer = asyncio.run(story(broken))
        assert answer == b"" or 400 <= int(answer.split(b" ")[1]) < 500, answer
    assert place.reached() == before


def test_expect_100_continue(place: Place) -> None:
    asked = modern("tools/call", {"name": "echo", "arguments": {}}, key=KEY).having("Expect", "100-continue")

    async def story(body: bytes, announced: int) -> tuple[bytes, Any]:
        async with begun(place, asked.headers, {"Content-Length": str(announced)}) as connection:
            async with asyncio.timeout(5):
                first = await connection.reader.readline()
            if first.startswith(b"HTTP/1.1 100"):
                await connection.reader.readline()
                connection.writer.write(body)
                return first, (await (await connection.answer()).rest()).json()
            return first, None

    first, reply = asyncio.run(story(asked.body, len(asked.body)))
    assert first.startswith(b"HTTP/1.1 100 ")
    assert reply["result"]["content"][0]["text"] == "2"
    first, _ = asyncio.run(story(b"", LIMIT + 1))
    assert first.startswith(b"HTTP/1.1 413 ")


def test_the_connection_serves_on_after_an_ordinary_refusal(place: Place, headers: list[tuple[str, str]]) -> None:
    async def story() -> None:
        async with connected(place.gateway.url) as connection:
            for text, status in ((b"{", 400), (b"[]", 400), (sized(500), 200), (b"", 400), (sized(500), 200)):
                reply = await (await connection.ask(Asked(text, headers))).rest()
                assert reply.status == status

    asyncio.run(story())
