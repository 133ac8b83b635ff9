"""Quotas of the whole gateway: two workers over the embedded store, and one that keeps a journal."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, until
from tests.e2e.http import Asked, Reply, exchange, legacy, modern, open_session
from tests.e2e.test_limits import calling, limited, many
from tests.e2e.test_limits_store import answers, store_of

OVER_QUOTA = -31030
FEW: dict[str, Any] = {"name": "few", "by": ["agent"], "per": "month", "calls": 20}


def passed(replies: list[Reply]) -> int:
    return sum(reply.status == 200 for reply in replies)


async def used_up(gateway: Gateway) -> bool:
    return (await exchange(gateway.url, calling())).json().get("error", {}).get("code") == OVER_QUOTA


def test_two_workers_refuse_in_every_shape(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, workers=2, quotas=[FEW]) as (gateway, _):
            assert passed(await many(gateway, lambda at: calling(id=at), 50)) == 20
            reply = await exchange(gateway.url, calling())
            error = reply.json()["error"]
            assert (reply.status, error["code"]) == (429, OVER_QUOTA)
            assert {"quota": "few", "by": ["agent"], "mayHaveRun": False}.items() <= error["data"].items()
            assert error["data"]["resetAt"].endswith("T00:00:00Z")
            assert error["data"]["retryAfter"] > 0
            assert reply.header("retry-after") == (
                str(error["data"]["retryAfter"]) if error["data"]["retryAfter"] <= 3600 else None
            )
            session = await open_session(gateway.url, key=KEY)
            asked = legacy("tools/call", {"name": "echo", "arguments": {}}, key=KEY, session=session)
            old = await exchange(gateway.url, asked)
            assert (old.status, old.json()["error"]["code"]) == (200, OVER_QUOTA)
            head = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
            plain = await exchange(f"{gateway.url}/tools/echo/invoke", Asked(b"{}", head))
            assert (plain.status, plain.json()["code"], plain.json()["quota"]) == (429, OVER_QUOTA, "few")
            gateway.wait_until_ready()
            event = [one for one in gateway.events() if one["outcome"] == "over_quota"]
            assert event == [] or event[-1]["refusedBy"] == "few"

    asyncio.run(story())


def test_spend_survives_the_kill_of_a_worker_and_of_the_store_and_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, workers=2, quotas=[FEW]) as (gateway, _):
            total = passed(await many(gateway, lambda at: calling(id=at), 9))
            assert total == 9
            worker, store = gateway.child("worker-1"), store_of(gateway)
            os.kill(worker, signal.SIGKILL)
            os.kill(store, signal.SIGKILL)

            async def is_back() -> bool:
                found = store_of(gateway)
                return found not in (0, store) and answers(found)

            await until(is_back)
            gateway.wait_until_ready()

            async def goes() -> bool:
                nonlocal total
                ok = (await exchange(gateway.url, calling())).status == 200
                total += ok
                return ok

            await until(goes)
            total += passed(await many(gateway, lambda at: calling(id=at), 5))
            gateway.stop()
            gateway.start_again()
            gateway.wait_until_ready()
            while not await used_up(gateway) and total < 40:
                total += (await exchange(gateway.url, calling())).status == 200
            assert 15 < total <= 20

    asyncio.run(story())


def test_one_worker_keeps_a_journal(tmp_path: Path) -> None:
    """One worker: that is the case."""

    async def story() -> None:
        async with limited(tmp_path, workers=1, quotas=[FEW]) as (gateway, _):
            total = passed(await many(gateway, lambda at: calling(id=at), 5))
            os.kill(gateway.child("worker-1"), signal.SIGKILL)
            await until(lambda: serves(gateway))
            total += passed(await many(gateway, lambda at: calling(id=at), 30))
            assert 18 <= total <= 20
            gateway.stop()
            gateway.start_again()
            gateway.wait_until_ready()
            assert await used_up(gateway)

    asyncio.run(story())


async def serves(gateway: Gateway) -> bool:
    try:
        return (await exchange(gateway.url, modern("ping", {}, key=KEY))).status < 500
    except OSError:
        return False


def test_a_store_that_cannot_read_its_file_starts_without_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, workers=2, quotas=[FEW]) as (gateway, _):
            assert passed(await many(gateway, lambda at: calling(id=at), 3)) == 3
            gateway.stop()
            folder = tmp_path / "data" / "store"
            for file in folder.rglob("*.incr.aof"):
                text = file.read_bytes()
                file.write_bytes(b"nonsense\r\n" * 100 + text)
            gateway.start_again()
            gateway.wait_until_ready()
            assert gateway.logs("the store cannot read its file", within=10)

            async def goes() -> bool:
                return (await exchange(gateway.url, calling())).status == 200

            await until(goes)
            assert list(folder.glob("broken-*"))

    asyncio.run(story())


def test_money_is_counted_by_the_price_of_each_call(tmp_path: Path) -> None:
    async def story() -> None:
        quota = {"name": "purse", "by": ["agent"], "rolling": "1h", "cost": 0.005, "warn_at": "80%"}
        tools = {"echo": {"price": {"per_call": 0.001}}}
        async with limited(tmp_path, workers=2, quotas=[quota], tools=tools) as (gateway, _):
            assert sum([(await exchange(gateway.url, calling())).status == 200 for _ in range(8)]) == 5
            assert gateway.logs("Quota purse of tester: (80|100)% used")

            async def told() -> bool:
                return gateway.metric('fastgw_quota_warnings_total{quota="purse"}') == 1

            await until(told)

    asyncio.run(story())


def test_reload_keeps_what_is_spent(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, workers=2, quotas=[FEW]) as (gateway, _):
            assert passed(await many(gateway, lambda at: calling(id=at), 25)) == 20
            file = tmp_path / "fastgw.yaml"
            file.write_text(file.read_text().replace('"calls": 20', '"calls": 23'))
            gateway.process.send_signal(signal.SIGHUP)

            async def lets_in() -> bool:
                return (await exchange(gateway.url, calling())).status == 200

            await until(lets_in)
            assert passed(await many(gateway, lambda at: calling(id=at), 10)) <= 2

    asyncio.run(story())
