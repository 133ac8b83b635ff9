"""What calls cost: tokens from wherever a result has them, by the price of whoever answered, whatever else happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.e2e.asking import listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import Reply, exchange, modern
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, event, serving

SINK = "usage.jsonl"
TOKENS = {"in": "_meta.usage.in", "out": "_meta.usage.out"}
PRICE = {"per_call": 0.001, "per_million_tokens_in": 3.00, "per_million_tokens_out": 15.00}
DEARER = {"per_call": 0.002, "per_million_tokens_in": 5.00, "per_million_tokens_out": 25.00}


def result(call: Call, text: str = "done") -> bytes:
    """One that says what the call's arguments say it used."""
    usage = json.dumps({"usage": {"in": call.arguments.get("in", 1250), "out": call.arguments.get("out", 487)}})
    return b'{"content":[{"type":"text","text":"%s"}],"_meta":%s}' % (text.encode(), usage.encode())


async def answers(call: Call) -> None:
    await call.result(result(call))


async def streams(call: Call) -> None:
    await call.send(STREAM)
    await call.send(event(call.envelope(result(call))))
    await call.send(STREAM_END)


async def large(call: Call) -> None:
    await call.result(result(call, "x" * 2**21))


async def overloaded(call: Call) -> None:
    await call.result(b'{"content":[{"type":"text","text":"overloaded"}],"isError":true,"_meta":{"usage":{"in":9}}}')


async def stuck(call: Call) -> None:
    await asyncio.Event().wait()


FIRST = {"model": overloaded, "stream": streams, "large": large, "plain": answers, "stuck": stuck, "kept": answers}
SETTINGS: dict[str, Any] = {
    "tools": {
        "code": {
            "to": ["first/model", "second/model"],
            "failover_on": ["tool_error"],
            "tool_error": "overloaded",
            "repeatable": True,
            "tokens": TOKENS,
            "price": PRICE,
        },
        "second/model": {"price": DEARER},
        "stream": {"tokens": TOKENS, "price": PRICE},
        "large": {"tokens": TOKENS, "price": PRICE},
        "kept": {"tokens": TOKENS, "price": PRICE, "cache": "1h"},
        "stuck": {"price": PRICE, "timeout": "200ms"},
    },
    "usage": {"sinks": [f"file:{SINK}"]},
}


@asynccontextmanager
async def priced(folder: Path) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        servers = {}
        for name, tools in (("first", FIRST), ("second", {"model": answers})):
            server = await stack.enter_async_context(serving(Toolbox("modern", dict(tools))))
            servers[name] = {"url": f"http://127.0.0.1:{server.port}/mcp"}
        gateway = await stack.enter_async_context(running_beside({"servers": servers, **SETTINGS}, folder))
        await listed(gateway, "code", "stream", "large", "plain", "stuck", "kept")
        yield gateway


def events(gateway: Gateway) -> list[dict[str, Any]]:
    file = gateway.folder / SINK
    return [json.loads(line, parse_float=Decimal) for line in file.read_text().splitlines()] if file.exists() else []


async def call(gateway: Gateway, tool: str, **arguments: Any) -> Reply:
    return await exchange(gateway.url, modern("tools/call", {"name": tool, "arguments": arguments}, key=KEY))


async def told(gateway: Gateway, tool: str, **arguments: Any) -> tuple[Any, ...]:
    """(tokens in, out, cost) of a call's event."""
    name = (await call(gateway, tool, **arguments)).header("x-request-id")

    async def found() -> list[dict[str, Any]]:
        return [one for one in events(gateway) if one["requestId"] == name]

    [one] = await until(found)
    assert one["currency"] == "USD"
    return one["tokensIn"], one["tokensOut"], one["cost"]


def test_a_call_costs_what_the_server_asks_that_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with priced(tmp_path) as gateway:
            # The first one failed and says that it used tokens: neither they nor its price count.
            assert await told(gateway, "code") == (1250, 487, Decimal("0.020425"))
            assert await told(gateway, "stream") == (1250, 487, Decimal("0.012055"))
            assert await told(gateway, "large") == (1250, 487, Decimal("0.012055")), "its `_meta` is small"
            assert await told(gateway, "plain") == (None, None, None)

    asyncio.run(story())


def test_what_cannot_be_counted_costs_the_call_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with priced(tmp_path) as gateway:
            for odd in (-1, "12", 1.5, 10**30, None, [], {"a": 1}):
                assert await told(gateway, "stream", **{"in": odd, "out": odd}) == (None, None, Decimal("0.001"))
            assert await told(gateway, "stuck") == (None, None, Decimal("0.001")), "it was sent"
            assert await told(gateway, "stream", **{"in": 1, "out": 0}) == (1, 0, Decimal("0.001003"))

    asyncio.run(story())


def test_what_no_server_did_costs_nothing(tmp_path: Path) -> None:
    """An answer that was kept by the worker, or a call that never was sent."""

    async def story() -> None:
        async with priced(tmp_path) as gateway:
            for _ in range(8):
                await call(gateway, "kept")

            async def all_there() -> list[dict[str, Any]]:
                found = [one for one in events(gateway) if one["tool"] == "kept"]
                return found if len(found) == 8 else []

            seen = await until(all_there)
            paid = [one for one in seen if not one["cached"]]
            assert 1 <= len(paid) <= 2, "each worker keeps its own"
            assert {(one["tokensIn"], one["cost"]) for one in paid} == {(1250, Decimal("0.012055"))}
            assert {(one["tokensIn"], one["cost"]) for one in seen if one["cached"]} == {(None, 0)}

    asyncio.run(story())
