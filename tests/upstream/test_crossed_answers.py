"""Many exchanges, late answers, 100 Continue, chunks of one byte, leavers: nobody gets another's answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault
from tests.upstream.raw_server import Peer, chunked, ok, post, raw_server, run, slots, wire_to

PLENTY = Deadlines(10, 10, 10, 10)
EVENTS = b"text/event-stream"
UNASKED = (b"twice", b"late")


def script_of(dice: random.Random) -> Any:
    """A server that answers each request with its own body, in every way a server may."""

    async def script(peer: Peer) -> None:
        while got := await peer.request():
            body = got[1]
            for _ in range(dice.randrange(20)):
                await asyncio.sleep(0)
            single = [bytes([byte]) for byte in body]
            way = dice.randrange(7)
            if way < 4:
                await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            if way in (0, 1):
                await peer.say(*chunked(*single, kind=b"application/json" if way else EVENTS))
            elif way in (2, 3):
                await peer.say(*[bytes([byte]) for byte in ok(body)])
            elif way == 4:
                await peer.say(ok(body) + ok(UNASKED[0]))
            elif way == 5:
                await peer.say(ok(body))
                await peer.say(ok(UNASKED[1]))
            else:
                await peer.say(ok(body))

    return script


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_exchange_gets_the_answer_of_another(loop: str) -> None:
    dice = random.Random(7)
    counts = {"right": 0, "fault": 0, "left": 0}

    async def exchange(transport: Any, nonce: bytes) -> None:
        try:
            answer = await post(transport, nonce, PLENTY)
        except Fault:
            counts["fault"] += 1
            return
        body = answer.body
        if body is None:
            body = b""
            while piece := await answer.read():
                body += piece
        # An unasked answer that comes when the next request is already out cannot be told apart by HTTP alone: the
        # JSON-RPC id does that, and then distrusts the connection. Here the text does.
        assert body in (nonce, *UNASKED), (nonce, body)
        if body in UNASKED:
            answer.poison()
        counts["right"] += body == nonce

    async def leaving(transport: Any, nonce: bytes) -> None:
        task = asyncio.get_running_loop().create_task(exchange(transport, nonce))
        for _ in range(dice.randrange(200)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            counts["left"] += 1

    async def work() -> None:
        async with raw_server(script_of(dice)) as server, wire_to(server, max_connections=60) as transport:
            for turn in range(2):
                async with asyncio.TaskGroup() as group:
                    for number in range(200):
                        nonce = b"%d-%d" % (turn, number)
                        group.create_task((leaving if number % 5 == 0 else exchange)(transport, nonce))
                await asyncio.sleep(0.02)
                assert slots(transport) == 0
            assert (counts["right"] > 150) and counts["left"] > 10, counts

    run(loop, work())
