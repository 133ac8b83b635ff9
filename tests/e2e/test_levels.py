"""Log levels reach a server that has sessions for the agent that set them, whichever worker heard of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.gateway import fingerprint, running_beside
from tests.e2e.http import META, exchange, legacy, modern, open_session
from tests.e2e.pairs import whole
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, answer, event, serving

KEYS = {"ann": "fgw_test_ann", "bob": "fgw_test_bob"}


class Talkative(Toolbox):
    """A server with sessions and log messages; `levels` is what each session was told, in order."""

    def __init__(self) -> None:
        super().__init__("legacy", {"talk": self.talk})
        self.levels: list[tuple[str, str]] = []

    async def talk(self, call: Call) -> None:
        await call.send(STREAM)
        for level in ("debug", "info", "error"):
            message = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "x"}}
            await call.send(event(json.dumps(message).encode()))
        await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)

    def _answer(self, message: dict[str, Any], is_modern: bool) -> bytes:
        found = super()._answer(message, is_modern)
        if message["method"] == "logging/setLevel":
            self.levels.append((str(self.got[-1].header("mcp-session-id")), message["params"]["level"]))
            return answer(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}).encode())
        if message["method"] == "initialize":
            body = found.partition(b"\r\n\r\n")[2].replace(b'"capabilities": {', b'"capabilities": {"logging": {}, ')
            return answer(body, headers={"Mcp-Session-Id": self.opened[-1]})
        return found


def test_each_agents_level_is_its_own_on_both_workers(tmp_path: Path) -> None:
    box = Talkative()

    async def story() -> None:
        agents = {name: {"key": fingerprint(key)} for name, key in KEYS.items()}
        async with serving(box) as place:
            settings = {"servers": {"shop": {"url": place.url}}, "agents": agents}
            async with running_beside(settings, tmp_path) as gateway:
                await whole(gateway, 1, KEYS["ann"])
                url = gateway.url
                sessions = {name: await open_session(url, key=key) for name, key in KEYS.items()}

                async def heard(name: str, asked: Any = None) -> list[str]:
                    """The levels of what an agent hears during a call."""
                    call = legacy("tools/call", {"name": "talk"}, key=KEYS[name], session=sessions[name])
                    events = [json.loads(event.data) for event in (await exchange(url, asked or call)).events()]
                    return [found["params"]["level"] for found in events if "params" in found]

                async def sets(name: str, level: str) -> None:
                    ask = legacy("logging/setLevel", {"level": level}, key=KEYS[name], session=sessions[name])
                    assert (await exchange(url, ask)).json()["result"] == {}

                assert await heard("ann") == ["info", "error"]
                assert box.levels == [], "nobody has set a level"
                for level, told in (("error", ["error"]), ("debug", ["debug", "info", "error"]), ("error", ["error"])):
                    await sets("ann", level)
                    for _ in range(6):
                        assert await heard("ann") == told
                        assert box.levels[-1][1] == level
                assert {level for _, level in box.levels} == {"error", "debug"}
                assert len(box.levels) <= 6, "each worker says it once"
                anns = {session for session, _ in box.levels}
                assert len(anns) == 1

                await sets("bob", "debug")
                assert await heard("bob") == ["debug", "info", "error"]
                assert box.levels[-1][0] not in anns
                assert await heard("ann") == ["error"]

                meta = {f"{META}logLevel": "error"}
                assert await heard("bob", modern("tools/call", {"name": "talk"}, key=KEYS["bob"], meta=meta)) == [
                    "error"
                ]
                assert box.levels[-1][1] == "debug", "calls of several levels share this session"

    asyncio.run(story())
