"""A server of either era that answers rightly, but in every crooked way HTTP and chance allow.

Late, out of order, after `100 Continue`, in chunks and writes of one byte, twice at once, twice with the second answer
somewhere in the middle of the next one. Which way a call is answered depends on its nonce alone.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e.servers import STREAM, STREAM_END, Call, Tool, answer, chunk

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LATEST = 0.03  # seconds


def single(data: bytes) -> bytes:
    """A chunk for every byte."""
    return b"".join(chunk(data[at : at + 1]) for at in range(len(data)))


def plain(call: Call, result: bytes) -> list[bytes]:
    return [answer(call.envelope(result))]


def continued(call: Call, result: bytes) -> list[bytes]:
    return [CONTINUE, CONTINUE + answer(call.envelope(result))]


def chunked(call: Call, result: bytes) -> list[bytes]:
    head = STREAM.replace(b"text/event-stream", b"application/json")
    return [CONTINUE + head, single(call.envelope(result)), STREAM_END]


def streamed(call: Call, result: bytes) -> list[bytes]:
    return [STREAM, single(_events(call, result)) + STREAM_END]


def by_bytes(call: Call, result: bytes) -> list[bytes]:
    whole = CONTINUE + answer(call.envelope(result))
    return [whole[at : at + 1] for at in range(len(whole))]


def twice(call: Call, result: bytes) -> list[bytes]:
    return plain(call, result) * 2


def twice_in_one(call: Call, result: bytes) -> list[bytes]:
    return [b"".join(twice(call, result))]


def _events(call: Call, result: bytes) -> bytes:
    token = call.params["_meta"]["progressToken"]
    params = {"progressToken": token, "progress": 1, "message": call.arguments["nonce"]}
    progress = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()
    return b"data: " + progress + b"\n\ndata: " + call.envelope(result) + b"\n\n"


Way = Callable[[Call, bytes], list[bytes]]
WAYS: dict[Way, int] = {plain: 40, continued: 15, chunked: 15, streamed: 15, by_bytes: 5, twice: 2, twice_in_one: 2}
AGAIN = {plain: 2, streamed: 2}
"""Ways after which the whole answer comes once more, later."""


@dataclass
class Crooked:
    """The tools `nonce`, which answers with its argument, and `gate`, whose calls wait until it is opened."""

    ways: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    def tools(self) -> dict[str, Tool]:
        return {"nonce": self.nonce, "gate": self.wait}

    async def nonce(self, call: Call) -> None:
        dice = random.Random(call.arguments["nonce"])
        again = dice.randrange(100) < sum(AGAIN.values())
        ways = AGAIN if again else WAYS
        way = dice.choices(list(ways), list(ways.values()))[0]
        self.ways[way.__name__ + " again" * again] += 1
        content = json.dumps([{"type": "text", "text": call.arguments["nonce"]}]).encode()
        pieces = way(call, b'{"content":%s,"isError":false}' % content)
        await asyncio.sleep(dice.random() * LATEST * dice.randrange(2))
        for piece in pieces:
            await call.send(piece)
        if again:
            later = dice.random() * LATEST / 3
            asyncio.get_running_loop().call_later(later, call.writer.write, b"".join(pieces))

    async def wait(self, call: Call) -> None:
        self.waiting += 1
        await self.gate.wait()
        await call.text("through")
        self.waiting -= 1
