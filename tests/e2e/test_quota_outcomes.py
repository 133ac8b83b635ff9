"""Calls that end in every way, and agents that leave: what a quota counts is what the server was given, to the call."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, until
from tests.e2e.http import Asked, exchange, legacy, open_session
from tests.e2e.servers import Call, answer
from tests.e2e.test_limits import calling, limited

QUOTA: dict[str, Any] = {
    "name": "q", "by": ["agent"], "per": "month", "calls": 100_000, "tokens": 10**9, "cost": 1000, "warn_at": "1%",
}  # fmt: skip
USED = b'{"content":[],"isError":%s,"_meta":{"usage":{"in":%s,"out":7}}}'


async def well(call: Call) -> None:
    await call.result(USED % (b"false", b"5"))


async def badly(call: Call) -> None:
    await call.result(USED % (b"true", b"5"))


async def lying(call: Call) -> None:
    words = [b"-5", b"1e400", b'"5"', b"1000000001", b"9" * 400, b"null", b"[5]", b"0.5"]
    await call.result(USED % (b"false", random.choice(words)))


async def refusing(call: Call) -> None:
    error = b'{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":"no"}}' % json.dumps(call.id).encode()
    await call.send(answer(error))


async def nonsense(call: Call) -> None:
    await call.send(answer(b"nonsense"))


async def reset(call: Call) -> None:
    call.writer.transport.abort()


async def silent(call: Call) -> None:
    await call.left()


BOX = {"ok": well, "bad": badly, "lying": lying, "no": refusing, "odd": nonsense, "reset": reset, "silent": silent}
NAMES = list(BOX)


async def leave(gateway: Gateway, asked: Asked, after: float) -> None:
    """Ask, and be gone before the answer."""
    waiting = asyncio.ensure_future(exchange(gateway.url, asked))
    await asyncio.wait((waiting,), timeout=after)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def account(gateway: Gateway) -> dict[str, Any]:
    reply = await exchange(f"{gateway.admin}/limits", Asked(b"", [], verb="GET"))
    [found] = reply.json()["quotas"]
    return dict(found)


def test_used_is_what_the_server_was_given(tmp_path: Path) -> None:
    async def story() -> None:
        tools = {
            "*": {
                "tokens": {"in": "_meta.usage.in", "out": "_meta.usage.out"},
                "price": {"per_call": 0.001},
                "timeout": "400ms",
            }
        }
        breaker = {"breaker": {"failures": 1000, "open_for": "1s"}}
        dice = random.Random(11)
        async with limited(tmp_path, workers=2, box=BOX, quotas=[QUOTA], tools=tools, **breaker) as (gateway, box):
            session = await open_session(gateway.url, key=KEY)
            asked: list[Any] = []
            for at in range(120):
                name = NAMES[at % len(NAMES)]
                old = legacy("tools/call", {"name": name, "arguments": {}}, key=KEY, session=session, id=at + 10)
                one = dice.choice([calling(name, id=at), old])
                asked.append(leave(gateway, one, dice.choice([0.0, 0.02, 0.1, 9.0])))
            await asyncio.gather(*asked)
            head = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
            for name in NAMES:
                await exchange(f"{gateway.url}/tools/{name}/invoke", Asked(b"{}", head))

            async def is_quiet() -> bool:
                found = await account(gateway)
                amounts = found["amounts"].values()
                return not found["inFlight"] and not any(
                    float(one["reserved"]) or float(one["held"]) for one in amounts
                )

            await until(is_quiet)
            found = await account(gateway)
            # A call that was given up on a busy machine may have been sent and never read: it counts as used.
            used = found["amounts"]["calls"]["used"]

            async def is_told() -> bool:
                text = (await exchange(f"{gateway.admin}/metrics", Asked(b"", [], verb="GET"))).body.decode()
                rows = [row for row in text.splitlines() if row.startswith("fastgw_upstream_requests_total{")]
                return sum(float(row.rpartition(" ")[2]) for row in rows) == used

            await until(is_told)
            assert used >= len(box.ledger)
            assert float(found["amounts"]["cost"]["used"]) * 1000 >= used

    asyncio.run(story())
