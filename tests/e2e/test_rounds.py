"""Multi-round-trip results over two workers: whichever has the retry, and never with another agent's state."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.gateway import fingerprint, running_beside, until
from tests.e2e.http import META, Asked, Reply, exchange, modern
from tests.e2e.pairs import whole
from tests.e2e.servers import Call, Toolbox, answer, serving

FORM = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object"}}}
KEYS = {"ann": "fgw_test_ann", "bob": "fgw_test_bob"}
ROUNDS = 10


class Asking:
    """A server that asks who calls, and wants to hear it together with the state it gave. It sees one credential."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.given = 0

    async def greet(self, call: Call) -> None:
        state = call.params.get("requestState")
        if state is not None:
            self.states.append(state)
            await call.text(f"{state}: {call.params['inputResponses']['who']['content']['name']}")
            return
        assert call.params["_meta"][f"{META}clientCapabilities"] == {"elicitation": {}}
        self.given += 1
        result = {"resultType": "input_required", "inputRequests": {"who": FORM}, "requestState": f"s-{self.given}"}
        await call.send(answer(json.dumps({"jsonrpc": "2.0", "id": call.id, "result": result}).encode()))


def asked(agent: str, state: str | None = None, tool: str = "greet") -> Asked:
    params: dict[str, Any] = {"name": tool, "arguments": {}}
    if state is not None:
        params |= {"requestState": state, "inputResponses": {"who": {"action": "accept", "content": {"name": agent}}}}
    meta = {f"{META}clientCapabilities": {"elicitation": {}, "extensions": {"x/y": {}}}}
    return modern("tools/call", params, key=KEYS[agent], meta=meta)


def test_a_dialogue_goes_over_two_workers_and_belongs_to_one_agent(tmp_path: Path) -> None:
    server = Asking()

    async def dialogue(url: str, agent: str) -> str:
        """Ask, answer; the state that was carried."""
        first = (await exchange(url, asked(agent))).json()["result"]
        assert first["inputRequests"] == {"who": FORM}
        second = (await exchange(url, asked(agent, first["requestState"]))).json()["result"]
        assert second["content"][0]["text"].endswith(f": {agent}")
        return str(first["requestState"])

    async def refused(url: str, ask: Asked) -> Reply:
        reply = await exchange(url, ask)
        assert (reply.status, reply.json()["error"]["code"]) == (400, -32602)
        return reply

    async def story() -> None:
        box = Toolbox("modern", {"greet": server.greet, "part": server.greet})
        agents = {name: {"key": fingerprint(key)} for name, key in KEYS.items()}
        async with serving(box) as place:
            settings = {"servers": {"shop": {"url": place.url}}, "agents": agents}
            async with running_beside(settings, tmp_path) as gateway:
                await whole(gateway, 2, KEYS["ann"])
                work = [dialogue(gateway.url, agent) for agent in KEYS for _ in range(ROUNDS)]
                states = await asyncio.gather(*work)
                assert sorted(server.states) == sorted(f"s-{n}" for n in range(1, 2 * ROUNDS + 1))
                anns, seen = states[0], len(server.states)
                turned = anns[:20] + ("A" if anns[20] != "A" else "B") + anns[21:]
                for ask in (asked("bob", anns), asked("ann", anns, "part"), asked("ann", turned), asked("ann", "s-1")):
                    await asyncio.gather(*(refused(gateway.url, ask) for _ in range(4)))
                assert len(server.states) == seen, "a state reached the server from where it did not belong"

                async def written() -> bool:
                    outcomes = [event["outcome"] for event in gateway.events()]
                    return outcomes.count("input_required") == 2 * ROUNDS and outcomes.count("invalid") == 4 * 4

                await until(written)

    asyncio.run(story())
