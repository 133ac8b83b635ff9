"""The way to a store of each kind: whatever the other side is or says, it is an answer or a store that is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from fastgw.config.schema.store import StorePlace, StoreSettings
from fastgw.limits.batcher import StoreAway
from fastgw.limits.redis_connection import RedisConnection
from fastgw.limits.script import ScriptRequest, StoreKeys, decode, encode
from tests.limits.fakes import until
from tests.limits.tls_proxy import TlsProxy
from tests.limits.valkeys import HOST, Valkey

KINDS = ["single", "cluster", "sentinel"]
KEYS, ASKED = StoreKeys("fastgw"), ScriptRequest(heartbeat=True)
IMPATIENT = 0.03  # seconds
SHAPES = [
    b"+OK\r\n", b":1\r\n", b"*-1\r\n", b"$-1\r\n", b"*0\r\n", b"-ERR x\r\n", b"-MOVED 1 127.0.0.1:1\r\n",
    b"-ASK 1 h:x\r\n", b"-MOVED\r\n", b"-CLUSTERDOWN x\r\n", b"-NOSCRIPT x\r\n", b"-LOADING x\r\n", b"-READONLY x\r\n",
    b"-MASTERDOWN x\r\n", b"*1\r\n*0\r\n", b"*1\r\n*2\r\n:0\r\n:1\r\n", b"*1\r\n:3\r\n", b"%1\r\n+a\r\n+b\r\n",
    b"_\r\n", b"#t\r\n", b",nan\r\n", b">2\r\n+invalidate\r\n*0\r\n", b"(99999999999999999999999\r\n",
    b"=5\r\ntxt:a\r\n", b"*2\r\n$-1\r\n$-1\r\n", b"*2\r\n$9\r\n127.0.0.1\r\n$1\r\nx\r\n",
    b"*1\r\n*3\r\n:0\r\n:16383\r\n*1\r\n$-1\r\n",
    b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:1\r\n$1\r\na\r\n",
    b"*1\r\n*3\r\n$1\r\na\r\n:16383\r\n*2\r\n$1\r\n\xff\r\n:1\r\n", b"$6\r\n\x96\x01\xa1e\x01\x90\r\n",
]  # fmt: skip


class Stranger:
    """A server that answers each piece of what it reads with something; nothing: it says nothing."""

    def __init__(self, says: Callable[[], bytes]) -> None:
        self.says = says
        self.open = 0
        self.met = 0
        self.port = 0

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.met += 1
        try:
            while await reader.read(1 << 16):
                writer.write(self.says())
                await writer.drain()
        except OSError:
            pass  # it has left
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def stranger(says: Callable[[], bytes]) -> AsyncIterator[Stranger]:
    found = Stranger(says)
    async with await asyncio.start_server(found._meet, HOST, 0) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


def place_of_stranger(kind: str, port: int) -> StorePlace:
    return StorePlace(kind, ((HOST, port),), name="store")  # type: ignore[arg-type]


def mutated(dice: random.Random) -> bytes:
    text = bytearray(dice.choice(SHAPES))
    for _ in range(dice.choice([0, 0, 1, 2])):
        at = dice.randrange(len(text) + 1)
        text[at : at + dice.randint(0, 3)] = dice.choice([b"", dice.randbytes(2), b"\r\n", b"-", b"9"])
    return bytes(text)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_server_says_is_an_answer_or_a_store_that_is_away(kind: str) -> None:
    seed = random.randrange(10**9)
    dice, kinds = random.Random(seed), set()

    async def story() -> None:
        async with stranger(lambda: text if dice.random() < 0.7 else mutated(dice)) as server:
            for _ in range(150):
                text = mutated(dice)
                connection = RedisConnection(place_of_stranger(kind, server.port))
                try:
                    async with asyncio.timeout(IMPATIENT):
                        await connection.decide(KEYS.of(ASKED), encode(ASKED, "w1", "first"))
                except StoreAway as wrong:
                    kinds.add(wrong.kind)
                except TimeoutError:
                    kinds.add("none")
                except BaseException as wrong:
                    raise AssertionError((seed, text)) from wrong
                finally:
                    await connection.close()
            await until(lambda: server.open == 0)
            assert server.met >= 100

    asyncio.run(story())
    assert {"refused", "none"} < kinds


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_says_nothing_leaves_no_connection_open(kind: str) -> None:
    async def story() -> None:
        async with stranger(lambda: b"") as server:
            connection = RedisConnection(place_of_stranger(kind, server.port))
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(IMPATIENT):
                        await connection.decide(KEYS.of(ASKED), encode(ASKED, "w1", "first"))
                await connection.close()
            await until(lambda: server.open == 0)
            assert server.met >= 10

    asyncio.run(story())


def test_a_connection_that_is_reset_as_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = asyncio.open_connection

    async def reset(*place: Any, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await opened(*place, **options)
        writer.transport.abort()
        return reader, writer

    async def story() -> None:
        async with stranger(lambda: b"") as server:
            connection = RedisConnection(place_of_stranger("single", server.port))
            with pytest.raises(StoreAway) as away:
                await connection.decide(KEYS.of(ASKED), encode(ASKED, "w1", "first"))
            assert away.value.kind == "connection"
            await connection.close()

    monkeypatch.setattr(asyncio, "open_connection", reset)
    uvloop.run(story())


def asked(place: StorePlace) -> str:
    """The epoch that a store answers, or why there is none."""

    async def story() -> str:
        connection = RedisConnection(place)
        try:
            answer = await connection.decide(KEYS.of(ASKED), encode(ASKED, "w1", "first"))
            return decode(answer, ASKED).epoch
        except StoreAway as wrong:
            return wrong.kind
        finally:
            await connection.close()

    return asyncio.run(story())


def test_nobody_there() -> None:
    for kind in KINDS:
        assert asked(place_of_stranger(kind, 1)) in ("connection", "refused")


def test_a_password_is_needed_and_given() -> None:
    with Valkey(requirepass="right") as server:
        url = f"redis://{HOST}:{server.port}"
        assert asked(StoreSettings(url=url).place(1)) == "refused"
        assert asked(StoreSettings(url=url, password="wrong").place(1)) == "refused"
        assert asked(StoreSettings(url=url, password="right").place(1)) == "first"


def test_a_server_that_repeats_the_password_is_not_quoted() -> None:
    async def story(url: str, username: str | None) -> str:
        connection = RedisConnection(StoreSettings(url=url, username=username, password="hush-hush").place(1))
        with pytest.raises(StoreAway) as away:
            await connection.decide(KEYS.of(ASKED), encode(ASKED, "w1", "first"))
        await connection.close()
        return str(away.value)

    with Valkey(rename_command='AUTH ""') as server:
        for username in (None, "bob"):
            told = asyncio.run(story(f"redis://{HOST}:{server.port}", username))
            assert "unknown command" in told and "***" in told and "hush" not in told, told


def test_a_certificate_of_another_authority_is_refused() -> None:
    with Valkey() as server, TlsProxy(server.port) as proxy, TlsProxy(server.port) as other:
        assert asked(StoreSettings(url=proxy.url, ca=str(proxy.ca)).place(1)) == "first"
        assert asked(StoreSettings(url=proxy.url, ca=str(other.ca)).place(1)) == "connection"
        assert asked(StoreSettings(url=proxy.url).place(1)) == "connection"
