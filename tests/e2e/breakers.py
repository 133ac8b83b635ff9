"""What a gateway says of its breakers, so that a test can wait for one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.e2e.gateway import Gateway, until


async def instances(gateway: Gateway, server: str) -> dict[str, dict[str, Any]]:
    """What `/backends` says of each instance of a server, by its port."""
    status, body = await asyncio.to_thread(gateway.ask_admin, "/backends")
    assert status == 200
    found = json.loads(body)[server]["instances"]
    return {one["url"].split("/")[2].rpartition(":")[2]: one for one in found}


async def breaker_is(gateway: Gateway, server: str, port: int, *states: str, within: float = 10.0) -> None:
    """Return when the breaker of the instance at this port is in one of these states."""

    async def there() -> bool:
        found = (await instances(gateway, server))[str(port)]
        if "breaker" not in found:  # not shown yet
            return "closed" not in states or f":{port}: its breaker closes" in gateway.log()
        return found["breaker"]["state"] in states

    await until(there, within)


async def failed(gateway: Gateway, server: str, failure: str) -> float:
    """Attempts at this server that have failed for this reason."""
    line = f'fastgw_attempts_failed_total{{server="{server}",failure="{failure}"}}'
    return await asyncio.to_thread(gateway.metric, line)
