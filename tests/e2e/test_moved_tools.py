"""A tool is moved to another server by a reload while agents of both eras call it: nobody notices where it is now."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, agent, listed
from tests.e2e.gateway import KEY, running_beside, until
from tests.e2e.servers import Call, Toolbox, serving
from tests.e2e.test_reload import APPLIED, reload
from tests.e2e.test_secret_rotation import keep_calling

TOOL = "search"
FROM, TO = "first", "second"


async def echo(call: Call) -> None:
    await call.text("here")


def taken_by(name: str) -> dict[str, Any]:
    """Both servers have the tool, and one of them gives it."""
    return {other: {"tools": [TOOL] if other == name else []} for other in (FROM, TO)}


def led_to(name: str) -> dict[str, Any]:
    """Agents call it by a name that is the gateway's own."""
    return {TOOL: {"to": f"{name}/find"}}


@pytest.mark.parametrize(("old", "new"), [("legacy", "modern"), ("modern", "legacy"), ("legacy", "legacy")])
@pytest.mark.parametrize("way", ["tools", "to"])
def test_a_tool_moves_under_load_and_no_agent_notices(tmp_path: Path, way: str, old: str, new: str) -> None:
    own = TOOL if way == "tools" else "find"
    boxes = {FROM: Toolbox(old, {own: echo}), TO: Toolbox(new, {own: echo})}

    async def play() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(60))
            urls = {name: (await stack.enter_async_context(serving(box))).url for name, box in boxes.items()}

            def settings(name: str) -> dict[str, Any]:
                taken = taken_by(name) if way == "tools" else {}
                servers = {one: {"url": url, **taken.get(one, {})} for one, url in urls.items()}
                return {"servers": servers, **({"tools": led_to(name)} if way == "to" else {})}

            gateway = await stack.enter_async_context(running_beside(settings(FROM), tmp_path))
            await listed(gateway, TOOL)
            agents = [await agent(era, gateway.url, KEY) for era in ERAS for _ in range(2)]
            lists = [await one.tools() for one in agents]
            over = asyncio.Event()
            load = [asyncio.create_task(keep_calling(one, TOOL, over)) for one in agents]

            async def many_more_at(name: str) -> None:
                begun = len(boxes[name].ledger)

                async def there() -> bool:
                    return len(boxes[name].ledger) >= begun + 16

                await until(there)

            await many_more_at(FROM)
            for there, left in ((TO, FROM), (FROM, TO), (TO, FROM)):
                gateway.configure(settings(there))
                await reload(gateway, APPLIED)
                where_it_was = len(boxes[left].ledger)
                await many_more_at(there)
                assert [await one.tools() for one in agents] == lists
                await many_more_at(there)
                # In force everywhere: none goes there any more but those that were on their way.
                assert len(boxes[left].ledger) <= where_it_was + len(agents)
            over.set()
            done = sum(await asyncio.gather(*load))
            assert done == sum(len(box.ledger) for box in boxes.values())
            assert gateway.metric("fastgw_worker_restarts_total") == 0

    asyncio.run(play())
