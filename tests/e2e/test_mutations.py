"""Three thousand spoiled requests of each era, from a seed: every one is answered in good form, and none does harm.

Each is on a connection of its own, before two workers. What once did harm stands in `test_bad_requests.py` by name.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from urllib.parse import urlsplit

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.hostile import Place, shared
from tests.e2e.http import Asked, Reply, connected, legacy, modern, open_session
from tests.e2e.servers import Call, Toolbox

SEED = 20_260_728
ROUNDS = 3000
AT_A_TIME = 40
CODES = {-32700, -32600, -32601, -32602, -32020, -32021, -32022}
TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\0", b"\xff", b"\xed\xa0\x80", b"null", b"1e999", b"-",
    b"\\ud800", b'"name":"echo",', b'"id":9,', b'"Method":"x",', b'"_meta":{},', b" ", b"\r\n", b"[" * 3000, b"9" * 400,
    b"\xe2\x80\xa8",
)  # fmt: skip
NOISE = (
    "", " ", "\t", ",", "a,b", "\xff\xfe", "=?base64?", "=?base64?Zm9v?=", "x" * 9000,
    "2026-07-28", "0", "*/*", "%00", '"',
)  # fmt: skip


async def echo(call: Call) -> None:
    await call.text("echo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    boxes = {"new": Toolbox("modern", {"echo": echo}), "old": Toolbox("legacy", {"old-echo": echo})}
    more = {"timeout": "1s", "failed_credentials": "off"}  # spoiled keys are to be answered as such, however many
    with shared(tmp_path_factory.mktemp("gateway"), boxes, more) as found:
        yield found


def spoiled(dice: Random, body: bytes) -> bytes:
    """The body with one to three things done to it."""
    text = bytearray(body)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(text) + 1)
        match dice.randrange(6):
            case 0 if at < len(text):
                text[at] ^= 1 << dice.randrange(8)
            case 1:
                del text[at:]
            case 2:
                del text[at : at + dice.randint(1, 12)]
            case 3:
                text[at:at] = dice.choice(TOKENS)
            case 4:  # something that stands elsewhere, once more: members twice, brackets that do not fit
                other = dice.randrange(len(text) + 1)
                text[at:at] = text[other : other + dice.randint(1, 60)]
            case _:
                members = bytes(text).split(b",")
                dice.shuffle(members)
                text = bytearray(b",".join(members))
    return bytes(text)


def noisy(dice: Random, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers with one to three things done to them."""
    found = list(headers)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(found))
        name, value = found[at]
        match dice.randrange(6):
            case 0:
                found[at] = (name, dice.choice(NOISE))
            case 1:
                found.insert(dice.randrange(len(found)), (name, dice.choice([value, *NOISE])))
            case 2 if len(found) > 1:
                del found[at]
            case 3:
                found[at] = (name.swapcase(), value.swapcase() if value.isascii() else value)
            case 4:
                found[at] = (name, found[dice.randrange(len(found))][1])
            case _:
                cut = dice.randrange(len(value) + 1)
                found[at] = (name, value[:cut] + dice.choice(NOISE) + value[cut:])
    return found


def mutations(asked: list[Asked]) -> list[Asked]:
    """The requests, spoiled in body or head or both, always the same."""
    dice = Random(SEED)
    found = []
    for _ in range(ROUNDS):
        one = dice.choice(asked)
        where = dice.randrange(10)
        body = spoiled(dice, one.body) if where < 8 else one.body
        headers = noisy(dice, one.headers) if where > 5 else one.headers
        found.append(Asked(body, headers, one.verb if where else dice.choice(["GET", "DELETE", "PUT", "post", "POST"])))
    return found


async def tell(url: str, asked: Asked) -> Reply | None:
    """The answer; None where the connection was closed without one."""
    try:
        async with connected(url) as connection:
            return await (await connection.ask(asked)).rest()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def tell_all(url: str, requests: list[Asked]) -> list[Reply | None]:
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(asked: Asked) -> Reply | None:
        async with turns:
            return await tell(url, asked)

    return await asyncio.gather(*(one(asked) for asked in requests))


def is_in_good_form(reply: Reply) -> None:
    """A 2xx or 4xx with what belongs to it; a head that is no HTTP is answered below us, without a body."""
    assert 200 <= reply.status < 300 or 400 <= reply.status < 500, reply
    if not reply.body:
        assert reply.status in (200, 202) or reply.header("x-request-id") is None
        return
    messages = json.loads(reply.body)
    for message in messages if isinstance(messages, list) else [messages]:
        assert message["jsonrpc"] == "2.0"
        assert ("result" in message) != ("error" in message)
        assert message["id"] is None or type(message["id"]) in (int, str)
        if "error" in message:
            assert message["error"]["code"] in CODES, message
            assert message["error"]["data"]["mayHaveRun"] is False


@pytest.mark.parametrize("era", ["modern", "legacy", "2025-03-26"])
def test_spoiled_requests(place: Place, era: str) -> None:
    url = place.gateway.url
    call = {"name": "echo", "arguments": {"a": [1, {"b": "c"}]}, "_meta": {"progressToken": "t"}}
    if era == "modern":
        asked = [modern("tools/call", call, key=KEY), modern("tools/list", {}, key=KEY, id="l")]
        asked.append(modern("notifications/x", {}, key=KEY, id=None))
    else:
        version = era if era != "legacy" else "2025-11-25"
        session = asyncio.run(open_session(url, key=KEY, version=version))
        messages = (("tools/call", call, 1), ("ping", None, "p"), ("notifications/cancelled", {}, None))
        asked = [
            legacy(method, params, key=KEY, session=session, version=version, id=identity)
            for method, params, identity in messages
        ]
        if era == "2025-03-26":
            asked = [Asked(b"[%s]" % b",".join(one.body for one in asked), asked[0].headers)]
    with place.unharmed():
        replies = asyncio.run(tell_all(url, mutations(asked)[:: 1 if era != "2025-03-26" else 4]))
        for reply in replies:
            if reply is not None:
                is_in_good_form(reply)
    told = Counter(reply.status if reply is not None else 0 for reply in replies)
    assert told[0] < 10, told
    assert told[200], "nothing got through: the mutations spoil too much"
    assert told[400] > 100, told
    for got in place.boxes["new"].got:
        assert urlsplit(got.target).path == "/mcp"
        assert json.loads(got.body)["jsonrpc"] == "2.0"
    assert {tool for _, tool in place.boxes["new"].ledger} <= {"echo"}
    assert place.boxes["old"].ledger == []
