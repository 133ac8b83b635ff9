"""The script's words: what it answers is read into its types or refused, what lies under its keys does no harm."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis
from redis.crc import key_slot

from fastgw.config.schema.store import StorePlace
from fastgw.limits.batcher import StoreAway
from fastgw.limits.redis_connection import RedisConnection
from fastgw.limits.script import (
    DIGEST,
    ENFORCE,
    SHADOW,
    SOURCE,
    VERSION,
    BadReply,
    ScriptReply,
    ScriptRequest,
    ScriptRow,
    StoreKeys,
    decode,
    encode,
)
from fastgw.policy.bucket import MICROS, bucket_rate
from tests.limits.played import Played
from tests.limits.valkeys import HOST, Valkey
from tests.policy.test_bucket import START

KEYS = StoreKeys("fastgw")
SECOND = bucket_rate(1, 1, 10)
BUCKET = KEYS.bucket("limit", "agent")
ASKED = ScriptRequest(
    [ScriptRow(BUCKET, SECOND), ScriptRow("{fastgw}:1:b:2", most=5)], [[1, 1, ENFORCE, 2, 1, ENFORCE], [1, 3, SHADOW]]
)
GOOD: tuple[Any, ...] = (
    VERSION, "epoch", 3, ["reset"], [2, 0], [[0, 0, 0, 1_000_000, 1], [0, 250_000, 1, 4_000_000]]
)  # fmt: skip


@pytest.fixture(scope="module")
def started() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def server(started: Valkey) -> Valkey:
    started.ask("FLUSHALL")
    return started


def ask(server: Valkey, request: ScriptRequest, worker: str = "w1", epoch: str = "first") -> ScriptReply:
    """The script as it is, by the server's own clock."""
    keys = KEYS.of(request)
    argument = encode(request, worker, epoch)
    return decode(server.client().eval(SOURCE, len(keys), *keys, argument), request)


def connected(server: Valkey, keys: list[str], argument: bytes) -> object:
    """What our own connection brings."""

    async def story() -> object:
        connection = RedisConnection(StorePlace("single", ((HOST, server.port),)))
        try:
            return await connection.decide(keys, argument)
        finally:
            await connection.close()

    return asyncio.run(story())


# -- answers ---------------------------------------------------------------------------------------------------------


def test_a_good_answer_is_read() -> None:
    reply = decode(msgspec.msgpack.encode(GOOD), ASKED)
    assert reply == ScriptReply("epoch", 3, ["reset"], [2, 0], [[0, 0, 0, 1_000_000, 1], [0, 250_000, 1, 4_000_000]])


BAD: list[tuple[str, object]] = [
    ("nothing", None),
    ("a number", 7),
    ("text", "answer"),
    ("a list", [1]),
    ("no bytes", b""),
    ("another type", msgspec.msgpack.encode({"version": 1})),
    ("a nest of lists", b"\x91" * 100_000),
    ("text that is none", msgspec.msgpack.encode(GOOD).replace(b"epoch", b"\xff\xfe\xff\xfe\xff")),
    ("another version", msgspec.msgpack.encode((VERSION + 1, *GOOD[1:]))),
    ("too few parts", msgspec.msgpack.encode(GOOD[:-1])),
    ("too many parts", msgspec.msgpack.encode((*GOOD, 0))),
    ("too few rows", msgspec.msgpack.encode((*GOOD[:4], [2], GOOD[5]))),
    ("too many rows", msgspec.msgpack.encode((*GOOD[:4], [2, 0, 0], GOOD[5]))),
    ("a row below nothing", msgspec.msgpack.encode((*GOOD[:4], [2, -1], GOOD[5]))),
    ("part of a token", msgspec.msgpack.encode((*GOOD[:4], [2, 0.5], GOOD[5]))),
    ("too few checks", msgspec.msgpack.encode((*GOOD[:5], GOOD[5][:1]))),
    ("too many checks", msgspec.msgpack.encode((*GOOD[:5], [*GOOD[5], [0, 0, 0]]))),
    ("a check without an item", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], [0, 250_000, 1]]))),
    ("an item too many", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], [0, 250_000, 1, 4, 4]]))),
    ("a check without anything", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], []]))),
    ("a refusal of no item", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], [2, 250_000, 1, 4]]))),
    ("a wait below nothing", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], [1, -1, 1, 4]]))),
    ("units below nothing", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], [1, 0, 0, -4]]))),
    ("not a number", msgspec.msgpack.encode((*GOOD[:5], [GOOD[5][0], [1, 0, 0, float("nan")]]))),
    ("resets that are none", msgspec.msgpack.encode((*GOOD[:3], [5], *GOOD[4:]))),
]


@pytest.mark.parametrize("answer", [answer for _, answer in BAD], ids=[name for name, _ in BAD])
def test_a_bad_answer_is_refused(answer: object) -> None:
    with pytest.raises(BadReply):
        decode(answer, ASKED)


def mutated(dice: random.Random, answer: bytes) -> bytes:
    """The answer with some of its bytes changed, cut out, doubled or put in."""
    text = bytearray(answer)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(text) + 1)
        end = min(len(text), at + dice.randint(0, 4))
        text[at:end] = dice.choice([b"", dice.randbytes(end - at), dice.randbytes(2), bytes(text[at:end]) * 2])
    return bytes(text)


def test_whatever_comes_is_an_answer_or_refused() -> None:
    seed = random.randrange(10**9)
    dice, read, refused = random.Random(seed), 0, 0
    good = msgspec.msgpack.encode(GOOD)
    for _ in range(5_000):
        answer = mutated(dice, good)
        try:
            reply = decode(answer, ASKED)
        except BadReply:
            refused += 1
            continue
        except BaseException as wrong:
            raise AssertionError((seed, answer)) from wrong
        read += 1
        assert [len(reply.held), *map(len, reply.checks)] == [2, 5, 4]
        assert min(*reply.held, *reply.checks[0], *reply.checks[1]) >= 0
    assert read > 100
    assert refused > 1_000


def test_the_script_answers_no_other_version(server: Valkey) -> None:
    _, *rest = msgspec.msgpack.decode(encode(ScriptRequest(), "w1", "first"))
    other = msgspec.msgpack.encode((VERSION + 1, *rest))
    with pytest.raises(StoreAway, match=r"refused: .*this is version 1 of the script"):
        connected(server, KEYS.of(ScriptRequest()), other)
    assert server.ask("DBSIZE") == 0


def test_a_script_that_is_not_known_is_sent_whole(server: Valkey) -> None:
    request = ScriptRequest([ScriptRow(BUCKET, SECOND)], [[1, 1, ENFORCE]])
    for lacking in (1, 2):
        server.ask("SCRIPT", "FLUSH")
        answer = connected(server, KEYS.of(request), encode(request, "w1", "first"))
        assert decode(answer, request).checks[0][3] > (lacking - 1) * MICROS
        assert server.ask("SCRIPT", "EXISTS", DIGEST) == [1]


# -- what lies under our keys ----------------------------------------------------------------------------------------

GARBAGE = [
    b"", b"garbage", b"12", b"12 34", b" 1 2 3", b"-5 1 10000000", b"1.5 2 3", b"nan nan nan", b"\xff\x00\xfe",
    b"0 0 0", b";w2 5 9", b"1 1;1", "५ ५ ५".encode(),
]  # fmt: skip
STRANGE = [
    b"9" * 400 + b" 1 10000000", b"5 " + b"9" * 400 + b" 10000000", b"5 1 " + b"9" * 400, b"1 1 1" + b";w2 5" * 50,
    b"9 1 3", b"5 1 10000000;w2 " + b"9" * 400 + b" " + b"9" * 400, b"5 1 10000000;w2 5 1;w2 7 9999999999999999",
]  # fmt: skip


@pytest.mark.parametrize("kept", GARBAGE)
def test_garbage_is_a_bucket_that_nobody_keeps(server: Valkey, kept: bytes) -> None:
    server.client().set(BUCKET, kept)
    assert ask(server, ScriptRequest([ScriptRow(BUCKET, SECOND)], [[1, 1, ENFORCE]])).checks == [[0, 0, 0, MICROS]]


@pytest.mark.parametrize("kept", STRANGE)
def test_strange_numbers_are_read_as_a_bucket_and_kept_as_one(server: Valkey, kept: bytes) -> None:
    for row in (ScriptRow(BUCKET, SECOND), ScriptRow(BUCKET, most=10)):
        server.client().set(BUCKET, kept)
        for _ in range(2):
            (refused, pause, _, lacking), *_ = ask(server, ScriptRequest([row], [[1, 1, ENFORCE]])).checks
            assert refused in (0, 1)
            assert row.rate is None or (0 <= lacking <= SECOND.cap and pause <= 10 * MICROS)
        assert not (left := server.client().get(BUCKET)) or len(left) < 100
        assert -1 != server.ask("PTTL", BUCKET) < 20_000


@pytest.mark.parametrize("key", [BUCKET, KEYS.epoch])
def test_another_type_of_value_is_a_store_that_refuses(server: Valkey, key: str) -> None:
    server.client().rpush(key, "one", "two")
    request = ScriptRequest([ScriptRow(BUCKET, SECOND)], [[1, 1, ENFORCE]], heartbeat=True)
    with pytest.raises(StoreAway, match=r"refused: .*WRONGTYPE"):
        connected(server, KEYS.of(request), encode(request, "w1", "first"))


def test_whatever_is_known_of_an_agent_makes_a_key_of_its_own() -> None:
    texts = [
        None, "", "None", "null", "-", " ", "a", "A", "a ", "a\n", "a\r\n", "a\0", "{a}", "}{", "{}",
        "{fastgw}:1:epoch", "é", "e\u0301", "\U0001f600", "\\", '"', '","', "a\nb",
        "x" * 10_000, "x" * 9_999, "{" * 10_000,
    ]  # fmt: skip
    subjects = [*texts, (), *((text, "a") for text in texts), *(("a", text) for text in texts if text != "a")]
    subjects += [("a", "b", "c"), ("a\nb", "c"), ("a", "b\nc"), ('a","b', "c"), ("ab", ""), ("", "ab")]
    keys = [KEYS.bucket(table, subject) for table in ("limit", "limit\n0", "limi", "t") for subject in subjects]
    assert len(set(keys)) == len(keys) == 4 * len(set(subjects))
    assert {len(key) for key in keys} == {len(BUCKET)}
    assert all(key.isascii() and key.isprintable() for key in keys)


@pytest.mark.parametrize("prefix", ["fastgw", "a", "some.longer_prefix-2"])
def test_all_keys_of_a_deployment_are_in_one_slot_of_a_cluster(prefix: str) -> None:
    keys = StoreKeys(prefix)
    request = ScriptRequest([ScriptRow(keys.bucket("limit", f"{{agent{one}}}"), SECOND) for one in range(50)])
    assert len({key_slot(key.encode()) for key in keys.of(request)}) == 1
    assert len(set(keys.of(request))) == 53


def test_every_key_is_forgotten_in_time(server: Valkey) -> None:
    dice = random.Random(7)
    for at in range(200):
        rows = [ScriptRow(KEYS.bucket("rate", f"a{dice.randrange(20)}"), bucket_rate(dice.randint(1, 50), 60, 100))]
        rows.append(
            ScriptRow(KEYS.bucket("calls", f"a{dice.randrange(20)}"), most=100, held=dice.randrange(3), ahead=1)
        )
        rows[0].ahead = dice.randrange(3)
        request = ScriptRequest(rows, [[1, dice.randrange(5), ENFORCE, 2, 1, ENFORCE]], heartbeat=at % 3 == 0)
        request.resets = [f"reset {at % 5}"] if at % 10 == 1 else []
        ask(server, request, f"w{at % 4}")
        client: redis.Redis = server.client()
        lasting = [key for key in client.scan_iter(count=1000) if client.pttl(key) < 0] if at % 10 == 1 else []
        assert lasting == []
    assert 20 < server.ask("DBSIZE") <= 43


def test_a_bucket_is_kept_until_all_that_is_lent_of_it_has_come_back(server: Valkey) -> None:
    ask(server, ScriptRequest([ScriptRow(BUCKET, bucket_rate(1, 1, 1000), ahead=10)]))
    assert 12_000 < server.ask("PTTL", BUCKET) <= 13_000  # 2 s lent, 10 s to come back, 1 s more


# -- what is held ----------------------------------------------------------------------------------------------------


@pytest.fixture
def played(server: Valkey) -> Played:
    return Played(server.client(), "fastgw")


def test_a_lease_that_nobody_speaks_of_may_have_been_spent_at_its_end(played: Played) -> None:
    rate = bucket_rate(1, 1, 1000)
    row, check = ScriptRow(BUCKET, rate), [1, 0, ENFORCE]
    assert played.ask(ScriptRequest([ScriptRow(BUCKET, rate, ahead=10)]), "w1", START).held == [10]
    # ten seconds' worth came back meanwhile, had it not been lent for two of them
    assert played.ask(ScriptRequest([row], [check]), "w2", START + 10 * MICROS).checks == [[0, 0, 0, 2 * MICROS]]


def test_calls_of_a_worker_that_is_silent_for_four_seconds_are_over(played: Played) -> None:
    row = ScriptRow(BUCKET, most=3)
    assert played.ask(ScriptRequest([row], [[1, 3, ENFORCE]]), "w1", START).held == [3]
    late = ScriptRequest([row], [[1, 1, ENFORCE]])
    assert played.ask(late, "w2", START + 4 * MICROS - 1).checks == [[1, 0, 0, 3]]
    assert played.ask(late, "w2", START + 4 * MICROS).checks == [[0, 0, 0, 1]]


def test_a_clock_that_goes_back_keeps_nothing_longer_than_it_was_given(played: Played) -> None:
    row = ScriptRow(BUCKET, most=3)
    early = START - 3600 * MICROS
    played.ask(ScriptRequest([row], [[1, 3, ENFORCE]]), "w1", START)
    late = ScriptRequest([row], [[1, 1, ENFORCE]])
    assert played.ask(late, "w2", early).checks == [[1, 0, 0, 3]]
    assert played.ask(late, "w2", early + 4 * MICROS).checks == [[0, 0, 0, 1]]


def test_workers_are_counted_while_they_are_heard_of(played: Played) -> None:
    heartbeat = ScriptRequest(heartbeat=True)
    assert [played.ask(heartbeat, f"w{at}", START + at * MICROS).workers for at in range(3)] == [1, 2, 3]
    assert played.ask(ScriptRequest(), "w9", START + 3 * MICROS).workers == 0
    assert played.ask(heartbeat, "w2", START + 6 * MICROS + 1).workers == 1
    assert played.ask(heartbeat, "w3", START - 3600 * MICROS).workers == 1


def test_a_reset_is_repeated_to_every_worker_for_ten_seconds(played: Played) -> None:
    played.ask(ScriptRequest(resets=["one", "two"]), "w1", START)
    played.ask(ScriptRequest(resets=["three"]), "w1", START + 2 * MICROS)
    heartbeat = ScriptRequest(heartbeat=True)
    assert played.ask(ScriptRequest(), "w2", START + 2 * MICROS).resets == []
    assert sorted(played.ask(heartbeat, "w2", START + 2 * MICROS).resets) == ["one", "three", "two"]
    assert played.ask(heartbeat, "w3", START + 10 * MICROS).resets == ["three"]
    assert played.ask(heartbeat, "w2", START + 12 * MICROS).resets == []


def test_the_first_to_come_names_the_epoch(server: Valkey) -> None:
    assert ask(server, ScriptRequest(), epoch="one").epoch == "one"
    assert ask(server, ScriptRequest(), "w2", epoch="two").epoch == "one"
    server.ask("FLUSHALL")
    assert ask(server, ScriptRequest(), "w2", epoch="two").epoch == "two"


def test_a_store_of_another_epoch_decides_nothing(server: Valkey) -> None:
    request = ScriptRequest([ScriptRow(BUCKET, SECOND)], [[1, 1, ENFORCE]], heartbeat=True)
    request.known = ask(server, request, epoch="one").epoch
    assert ask(server, request).checks[0][3] > MICROS
    server.ask("FLUSHALL")
    assert ask(server, request, epoch="two") == ScriptReply("two", 0, [], [], [], emptied=True)
    assert server.client().keys() == [KEYS.epoch.encode()]
    request.known = "two"
    assert ask(server, request).checks == [[0, 0, 0, MICROS]]
