"""Events pass one by one, in all four pairs of eras: what a server says now, its agent reads now."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.http import META, PATIENCE
from tests.e2e.pairs import PAIRS, Pair, World, world
from tests.e2e.servers import STREAM, STREAM_END, Call, chunk, event

STEPS = 5
LEVELS = ["debug", "info", "warning", "error"]
TOKENS = [7, "7", 2**60, 1.5, 'a "quoted" ü\n', ""]


def progress(token: Any, step: int) -> bytes:
    params = {"progressToken": token, "progress": step, "total": STEPS, "message": f"step {step}"}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()


def log(level: str) -> bytes:
    params = {"level": level, "logger": "steps", "data": {"said": level}}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()


def token_of(call: Call) -> Any:
    return call.params["_meta"]["progressToken"]


async def last(call: Call) -> None:
    await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)


def test_the_next_event_is_sent_only_after_the_last_was_read(tmp_path: Path) -> None:
    read: asyncio.Queue[int] = asyncio.Queue()

    async def steps(call: Call) -> None:
        await call.send(STREAM)
        for step in range(STEPS):
            said = b"id: %d\r\ndata: %s\r\n\r\n" % (step, progress(token_of(call), step))
            # A comment before it, the event in two chunks, and not a byte after it.
            for piece in (b": still here\n\n", said[:30], said[30:]):
                await call.send(chunk(piece))
            async with asyncio.timeout(PATIENCE):
                assert await read.get() == step
        await last(call)

    async def heard(found: World, pair: Pair) -> list[Any]:
        async with found.call(pair, "steps", token="t", id=f"{pair}") as stream:
            assert stream.header("content-type") == "text/event-stream", await stream.rest()
            messages = []
            while got := await stream.event():
                messages.append(got.json())
                if "method" in messages[-1]:
                    await read.put(messages[-1]["params"]["progress"])
        return messages

    async def story() -> None:
        async with world(tmp_path, {"steps": steps}) as found:
            for pair in PAIRS:
                *events, answer = await heard(found, pair)
                assert [message["params"]["message"] for message in events] == [f"step {n}" for n in range(STEPS)]
                assert {message["params"]["progressToken"] for message in events} == {"t"}
                assert (answer["id"], answer["result"]["content"]) == (f"{pair}", [])

    asyncio.run(story())


def test_a_progress_token_comes_back_as_it_was_given(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def step(call: Call) -> None:
        seen.append(token_of(call))
        others = [progress(token, 1) for token in ("another's", 1, call.id + 1, f"{call.id}0")]
        ours = progress(token_of(call), 2)
        await call.send(STREAM + b"".join(map(event, [*others, ours])))
        await last(call)

    async def story() -> None:
        async with world(tmp_path, {"step": step}) as found:
            for pair in PAIRS:
                for token in TOKENS:
                    async with found.call(pair, "step", token=token) as stream:
                        events = (await stream.rest()).events()
                    assert len(events) == 2, (pair, token, events)
                    params = events[0].json()["params"]
                    assert params == {"progressToken": token, "progress": 2, "total": STEPS, "message": "step 2"}
                    assert type(params["progressToken"]) is type(token)

    asyncio.run(story())
    assert all(isinstance(token, int) for token in seen)
    assert len(set(seen)) == len(seen) == len(PAIRS) * len(TOKENS), "each call has a token of its own towards servers"


def test_without_a_token_there_is_no_progress(tmp_path: Path) -> None:
    async def step(call: Call) -> None:
        assert "progressToken" not in call.params.get("_meta", {})
        await call.send(STREAM + event(progress(call.id, 1)))
        await last(call)

    async def story() -> None:
        async with world(tmp_path, {"step": step}) as found:
            for pair in PAIRS:
                async with found.call(pair, "step") as stream:
                    reply = await stream.rest()
                assert b"notifications/progress" not in reply.body
                assert reply.json()["result"]["content"] == []

    asyncio.run(story())


@pytest.mark.parametrize(("asked", "given"), [(None, []), ("warning", LEVELS[2:]), ("debug", LEVELS)])
def test_log_messages_by_level(tmp_path: Path, asked: str | None, given: list[str]) -> None:
    wanted: dict[str, list[Any]] = {"modern": [], "legacy": []}

    async def speak(call: Call) -> None:
        wanted["modern" if call.session is None else "legacy"].append(call.params["_meta"].get(f"{META}logLevel"))
        await call.send(STREAM + b"".join(event(log(level)) for level in LEVELS))
        await last(call)

    async def story() -> None:
        async with world(tmp_path, {"speak": speak}) as found:
            for pair in PAIRS:
                async with found.call(pair, "speak", level=asked, token=1) as stream:
                    reply = await stream.rest()
                levels = [message["params"]["level"] for message in map(json.loads, lines(reply.body))]
                assert levels == (given if pair.agent == "modern" else LEVELS[1:]), pair  # a session begins at info

    asyncio.run(story())
    assert wanted == {"modern": [asked, "info"], "legacy": [None, None]}


def lines(body: bytes) -> list[bytes]:
    """The log messages in a stream, as they stand there."""
    return [line.removeprefix(b"data: ") for line in body.splitlines() if b"notifications/message" in line]


def test_silence_is_filled_with_comments_and_the_stream_goes_on(tmp_path: Path) -> None:
    waiting: dict[str, asyncio.Event] = {}

    async def pause(call: Call) -> None:
        await call.send(STREAM + event(progress(token_of(call), 0)))
        await waiting[call.arguments["pair"]].wait()
        await call.send(event(progress(token_of(call), 1)))
        await last(call)

    async def heard(found: World, pair: Pair) -> None:
        waiting[f"{pair}"] = asyncio.Event()
        async with found.call(pair, "pause", {"pair": f"{pair}"}, token=1, id=f"{pair}") as stream:
            assert await stream.event()
            assert await stream.comment() == b":\n\n"
            waiting[f"{pair}"].set()
            rest = (await stream.rest()).events()
        assert rest[0].json()["params"]["progress"] == 1
        assert rest[1].json()["id"] == f"{pair}"
        assert len(rest) == 2

    async def story() -> None:
        async with world(tmp_path, {"pause": pause}) as found:
            await asyncio.gather(*[heard(found, pair) for pair in PAIRS])

    asyncio.run(story())
