"""Servers that take a token of the user: had in exchange for the one by which the agent has come (RFC 8693)."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.asking import ERAS, agent, listed
from tests.e2e.authorization_server import AuthorizationServer, authorizing
from tests.e2e.gateway import KEY, Gateway, running_beside
from tests.e2e.http import Reply
from tests.e2e.servers import Call, serving
from tests.e2e.token_endpoint import CLIENT, Guarded, TokenEndpoint, issuing

SERVERS = {"old": "legacy", "new": "modern", "mixed": "legacy"}
TOOLS = ("old-who", "new-who", "mixed-who")


@dataclass
class Scene:
    """A gateway that two people use by the same client, each with a token of an authorization server."""

    gateway: Gateway
    login: AuthorizationServer
    endpoint: TokenEndpoint
    boxes: dict[str, Guarded]

    def token(self, user: str) -> str:
        """An access token of a person for the gateway, of which the token endpoint knows."""
        found = self.login.token(user, self.gateway.url, azp="console")
        self.endpoint.users[found] = user
        return found

    async def call(self, key: str, era: str, tool: str) -> Reply:
        return await (await agent(era, self.gateway.url, key)).call(tool)

    async def who(self, key: str, era: str, tool: str) -> str:
        """For whom the server took the call."""
        found = (await self.call(key, era, tool)).json()
        assert "result" in found, found
        return str(found["result"]["content"][0]["text"])


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        login = stack.enter_context(authorizing())
        endpoint = await stack.enter_async_context(issuing())
        boxes: dict[str, Guarded] = {}

        def whose(name: str) -> Any:
            async def answer(call: Call) -> None:
                issued = boxes[name].whose(call.got)
                await call.text(issued.subject if issued is not None else "nobody")

            return answer

        own = {
            "token_url": endpoint.url,
            "client_id": CLIENT,
            "client_secret": "${env:CLIENT_SECRET}",
            "audience": "data",
        }
        exchange = {"oauth": {**own, "grant": "token_exchange"}}
        servers = {}
        for name, era in SERVERS.items():
            boxes[name] = Guarded(era, {f"{name}-who": whose(name)}, endpoint=endpoint)
            server = await stack.enter_async_context(serving(boxes[name]))
            mixed = [{**exchange, "match": {"agent": "login:*"}}, {"oauth": own}]
            servers[name] = {"url": server.url, "credential": mixed if name == "mixed" else exchange}
        settings = {
            "servers": servers,
            "identity": {"login": {"issuer": login.url, "agent_id": "azp"}},
            "tools": {"new-who": {"cache": "1h", "repeatable": True}},
            "log": {"level": "debug"},
        }
        gateway = await stack.enter_async_context(running_beside(settings, folder, {"CLIENT_SECRET": endpoint.secret}))
        await listed(gateway, *TOOLS)
        yield Scene(gateway, login, endpoint, boxes)


def test_each_user_is_known_to_the_servers_and_nothing_of_one_meets_another(tmp_path: Path) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), played(tmp_path) as scene:
            tokens = {user: scene.token(user) for user in ("alice", "bob")}
            order = [(user, era, tool) for _ in range(4) for user in tokens for era in ERAS for tool in TOOLS]
            found = await asyncio.gather(*[scene.who(tokens[user], era, tool) for user, era, tool in order])
            assert found == [user for user, _, _ in order]
            exchanged = [one for one in scene.endpoint.given if one.subject]
            assert {(one.subject, one.form["audience"]) for one in exchanged} == {("alice", "data"), ("bob", "data")}
            assert len(exchanged) == 2 * len(SERVERS)
            # Alice's next token is exchanged anew, and she is still in the session that she had.
            opened = len(scene.boxes["old"].opened)
            one = await agent("modern", scene.gateway.url, tokens["alice"])
            before = await one.call("old-who")
            again = await agent("modern", scene.gateway.url, scene.token("alice"))
            assert (await again.call("old-who")).json()["result"] == before.json()["result"]
            assert len(scene.boxes["old"].opened) <= opened + 1
            in_session = defaultdict(set)
            for name, box in scene.boxes.items():
                for got in box.got:
                    issued = box.whose(got)
                    assert issued is not None
                    if (session := got.header("mcp-session-id")) is not None:
                        in_session[name, session].add(issued.subject)
                    assert not [
                        value for _, value in got.headers if any(token in value for token in scene.endpoint.users)
                    ]
            assert all(len(subjects) == 1 for subjects in in_session.values()), in_session
            written = scene.gateway.log() + json.dumps(scene.gateway.events())
            secrets = [*scene.endpoint.users, *[one.token for one in scene.endpoint.given], scene.endpoint.secret]
            assert not [secret for secret in secrets if secret in written]

    asyncio.run(play())


def test_who_has_nothing_to_exchange_or_is_refused_is_told_so(tmp_path: Path) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), played(tmp_path) as scene:
            mallory = scene.login.token("mallory", scene.gateway.url, azp="console")  # the endpoint knows nothing of it
            for era in ERAS:
                for key, tool in ((KEY, "old-who"), (KEY, "new-who"), (mallory, "old-who"), (mallory, "mixed-who")):
                    reply = await scene.call(key, era, tool)
                    error = reply.json()["error"]
                    assert (error["code"], error["data"]["reason"], error["data"]["mayHaveRun"]) == (
                        -31001, "credential", False,
                    )  # fmt: skip
                    assert reply.header("www-authenticate") is None
                assert await scene.who(KEY, era, "mixed-who") == ""  # the other entry of the list
            state = json.loads(scene.gateway.ask_admin("/backends")[1])
            assert {one["instances"][0]["breaker"]["state"] for one in state.values()} == {"closed"}

    asyncio.run(play())
