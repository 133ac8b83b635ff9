"""One name, two places it leads to: each agent gets the words and the deadlines of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.asking import ERAS, agent, listed
from tests.e2e.gateway import KEY, fingerprint, running_beside
from tests.e2e.servers import Call, Toolbox, serving

OTHER = "fgw_test_other"
TIMEOUT = -31002
TOOLS = {
    "query": {"route": [{"match": {"agent": "tester"}, "to": "calm/q"}, {"to": "sandbox/query"}], "timeout": "30s"},
    "sandbox/query": {"timeout": "500ms", "description": "Quick."},
}
AGENTS = {"tester": {"key": fingerprint(KEY)}, "other": {"key": fingerprint(OTHER)}}


@pytest.mark.parametrize("era", ERAS)
def test_an_agent_waits_as_long_as_its_own_arm_says(tmp_path: Path, era: str) -> None:
    async def story() -> None:
        is_late = asyncio.Event()

        async def patient(call: Call) -> None:
            await is_late.wait()
            await call.text("calm")

        async def never(call: Call) -> None:
            await call.left()

        boxes = Toolbox(era, {"q": patient}), Toolbox(era, {"query": never})
        async with serving(boxes[0]) as calm, serving(boxes[1]) as sandbox:
            more = {
                "servers": {"calm": {"url": calm.url}, "sandbox": {"url": sandbox.url}},
                "agents": AGENTS,
                "tools": TOOLS,
            }
            async with running_beside(more, tmp_path) as gateway:
                await listed(gateway, "query")
                first, second = await agent(era, gateway.url), await agent(era, gateway.url, OTHER)
                assert (await second.tools())[0]["description"] == "Quick."
                assert (await first.tools())[0].get("description") != "Quick."
                slow = asyncio.ensure_future(first.call("query"))
                for _ in range(2):
                    late = await asyncio.wait_for(second.call("query"), 10)
                    assert late.json()["error"]["code"] == TIMEOUT
                is_late.set()
                assert (await slow).json()["result"]["content"][0]["text"] == "calm"

    asyncio.run(story())
