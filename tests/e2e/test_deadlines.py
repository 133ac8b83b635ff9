"""How long a call may take: `timeout`, renewed by progress up to `max_timeout`, `idle_timeout` between two bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.e2e.gateway import until
from tests.e2e.pairs import PAIRS, Pair, World, world
from tests.e2e.servers import STREAM, STREAM_END, Call, chunk, event

OFTEN = 0.15
"""Seconds between two notifications of a tool: well below every deadline here, on a busy machine too."""
TIMES: dict[str, dict[str, str]] = {
    "*_steps": {"timeout": "900ms"},
    "*_logs": {"timeout": "900ms"},
    "*_endless": {"timeout": "900ms", "max_timeout": "1500ms"},
    "*_stuck": {"timeout": "900ms"},
    "*_mute": {"timeout": "40s", "idle_timeout": "300ms"},
    "*_drips": {"timeout": "40s", "idle_timeout": "900ms"},
}


def progress(call: Call, step: int) -> bytes:
    """Under the token that the call brought; where it brought none, under what would have been it."""
    token = call.params.get("_meta", {}).get("progressToken", call.id)
    params = {"progressToken": token, "progress": step}
    return event(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode())


async def beats(call: Call, count: int = 1000) -> AsyncIterator[int]:
    """Numbers, one every `OFTEN`, as long as somebody listens."""
    for number in range(count):
        yield number
        await asyncio.sleep(OFTEN)
        if call.has_left():
            return


async def last(call: Call) -> None:
    await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)


async def steps(call: Call) -> None:
    await call.send(STREAM)
    async for number in beats(call, 10):
        await call.send(progress(call, number))
    await last(call)


async def endless(call: Call) -> None:
    await call.send(STREAM)
    async for number in beats(call):
        await call.send(progress(call, number))


async def logs(call: Call) -> None:
    await call.send(STREAM)
    said = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "still here"}}
    async for _ in beats(call):
        await call.send(event(json.dumps(said).encode()))


async def stuck(call: Call) -> None:
    await call.send(STREAM)
    async for number in beats(call, 6):
        await call.send(progress(call, number))
    await call.left()


async def mute(call: Call) -> None:
    await call.send(STREAM)
    await call.left()


async def drips(call: Call) -> None:
    """Its last word comes byte by byte, and takes longer than silence may."""
    await call.send(STREAM)
    text = b"data: %s\n\n" % call.envelope(b'{"content":[]}')
    async for number in beats(call, 10):
        await call.send(chunk(text[number : number + 1]))
    await call.send(chunk(text[10:]) + STREAM_END)


TOOLS = {"steps": steps, "endless": endless, "logs": logs, "stuck": stuck, "mute": mute, "drips": drips}
EXPECTED = [
    ("steps", "t", None),
    ("steps", None, 900),  # nobody asked for its progress
    ("logs", "t", 900),
    ("endless", "t", 1500),
    ("stuck", "t", 900),
    ("mute", None, 300),
    ("mute", "t", 300),
    ("drips", None, None),
]


async def told(found: World, pair: Pair, tool: str, token: Any) -> int | None:
    """The deadline that passed, in milliseconds; None for a result."""
    async with found.call(pair, tool, token=token, id=f"{pair}{tool}{token}") as stream:
        answer = (await stream.rest()).json()
    assert answer["id"] == f"{pair}{tool}{token}"
    if "error" not in answer:
        assert answer["result"]["content"] == []
        return None
    assert answer["error"]["code"] == -31002
    assert answer["error"]["data"]["mayHaveRun"] is True
    return int(answer["error"]["data"]["timeoutMs"])


def test_each_deadline_ends_a_call_and_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, TOOLS, tools=TIMES) as found:
            asked = [(pair, tool, token) for pair in PAIRS for tool, token, _ in EXPECTED]
            heard = await asyncio.gather(*[told(found, *one) for one in asked])
            assert dict(zip(asked, heard, strict=True)) == {
                (pair, tool, token): ms for pair in PAIRS for tool, token, ms in EXPECTED
            }
            legacy = [pair for pair in PAIRS if pair.server == "legacy"]
            late = len(legacy) * sum(ms is not None for *_, ms in EXPECTED)

            async def withdrawn() -> bool:
                return len(found.servers["legacy"].cancelled) == late

            await until(withdrawn)

    asyncio.run(story())
