"""Servers that take OAuth tokens: had by client credentials, shown by all workers, replaced without a call noticing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastgw.credentials.server_tokens import SETTLED
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import Reply
from tests.e2e.servers import Call, Toolbox, serving
from tests.e2e.test_reload import APPLIED, reload
from tests.e2e.token_endpoint import CLIENT, Guarded, TokenEndpoint, issuing

TOOLS = {"old": "echo", "new": "ping-back"}
ERA_OF = {"old": "legacy", "new": "modern"}


async def echo(call: Call) -> None:
    await call.text(f"{call.name} {call.arguments.get('n')}")


@dataclass
class Stage:
    """A gateway before two servers of both eras, which take the tokens of one endpoint."""

    gateway: Gateway
    endpoint: TokenEndpoint
    boxes: dict[str, Guarded]
    agents: list[Agent]
    settings: dict[str, Any]

    async def call(self, number: int) -> Reply:
        """One of many: of each era in turn, at each server in turn."""
        tool = list(TOOLS.values())[number // 2 % 2]
        return await self.agents[number % 2].call(tool, {"n": number})

    async def works(self, number: int) -> bool:
        reply = await self.call(number)
        return "result" in reply.json() and reply.json()["result"]["content"][0]["text"].endswith(f" {number}")

    def ran(self) -> Counter[str]:
        """How often each call ran, by its number."""
        calls = [got.json() for box in self.boxes.values() for got in box.got if b"tools/call" in got.body]
        return Counter(str(one["params"]["arguments"]["n"]) for one in calls)

    async def settled(self) -> None:
        """The token has been there for long enough to be called refused."""
        begun = time.monotonic()
        await until(self.is_settled(begun))

    def is_settled(self, begun: float) -> Any:
        async def look() -> bool:
            return time.monotonic() - begun > SETTLED

        return look


def oauth(endpoint: TokenEndpoint, **more: Any) -> dict[str, Any]:
    usual = {"token_url": endpoint.url, "client_id": CLIENT, "client_secret": "${file:secret}", "scopes": ["a", "b"]}
    return {"oauth": {name: value for name, value in {**usual, **more}.items() if value is not None}}


@asynccontextmanager
async def staged(folder: Path, endpoint: TokenEndpoint, **more: Any) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(issuing(endpoint))
        (folder / "secret").write_text(f"{endpoint.secret}\n")
        (folder / "key.pem").write_text(endpoint.pem)
        boxes = {name: Guarded(ERA_OF[name], {TOOLS[name]: echo}, endpoint=endpoint) for name in TOOLS}
        servers = {}
        for name, box in boxes.items():
            server = await stack.enter_async_context(serving(box))
            servers[name] = {"url": server.url, "credential": oauth(endpoint, **more)}
        settings = {"servers": servers, "breaker": {"failures": 2, "open_for": "1m"}}
        gateway = await stack.enter_async_context(running_beside(settings, folder))
        await listed(gateway, *TOOLS.values())
        agents = [await agent(era, gateway.url, KEY) for era in ERAS]
        yield Stage(gateway, endpoint, boxes, agents, settings)


def played(folder: Path, play: Any, endpoint: TokenEndpoint | None = None, **more: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60), staged(folder, endpoint or TokenEndpoint(), **more) as stage:
            await play(stage)

    asyncio.run(bounded())


@pytest.mark.parametrize("way", ["basic", "private_key_jwt"])
def test_every_worker_shows_the_one_token(tmp_path: Path, way: str) -> None:
    async def play(stage: Stage) -> None:
        assert all(await asyncio.gather(*[stage.works(number) for number in range(32)]))
        assert stage.endpoint.asked == 2  # one for each server
        assert stage.endpoint.given[0].form["scope"] == "a b"
        for box in stage.boxes.values():
            assert box.turned_away == 0
            assert not [value for got in box.got for _, value in got.headers if KEY in value]

    more: dict[str, Any] = {"client_auth": way}
    if way == "private_key_jwt":
        more = {"client_secret": None, "private_key": "${file:key.pem}"}
    played(tmp_path, play, **more)


def test_tokens_expire_under_load_and_no_call_notices(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        until_then, number = time.monotonic() + 3.5, 0
        while time.monotonic() < until_then:
            assert all(await asyncio.gather(*[stage.works(number + n) for n in range(8)]))
            number += 8
        assert sum(box.turned_away for box in stage.boxes.values()) == 0
        assert 4 <= stage.endpoint.asked <= 12  # each server's every 1.6 s
        assert max(stage.ran().values()) == 1

    played(tmp_path, play, TokenEndpoint(lifetime=2))


def test_a_refused_token_is_replaced_once_and_each_call_runs_once(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        assert all([await stage.works(number) for number in range(8)])
        await stage.settled()
        stage.endpoint.revoke_all()
        before = stage.endpoint.asked
        assert all(await asyncio.gather(*[stage.works(number) for number in range(100, 132)]))
        assert stage.endpoint.asked == before + 2
        assert max(stage.ran().values()) == 1

    played(tmp_path, play)


def test_while_none_can_be_had_calls_hear_so_and_servers_keep_their_good_name(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        assert all([await stage.works(number) for number in range(8)])
        await stage.settled()
        stage.endpoint.away = True
        stage.endpoint.revoke_all()
        for number in range(16):
            reply = await stage.call(number)
            error = reply.json()["error"]
            assert (reply.status, error["code"]) == (200 if number % 2 == 0 else 503, -31001), error
            data = error["data"]
            assert (data["reason"], data["mayHaveRun"], data["retryAfter"] >= 1) == ("credential", False, True)
            assert reply.header("www-authenticate") is None
        for known in json.loads(stage.gateway.ask_admin("/backends")[1]).values():
            breaker = known["instances"][0]["breaker"]
            assert (breaker["state"], breaker["failures"]) == ("closed", 0)
            assert known["instances"][0]["health"] != "unhealthy"
        assert stage.gateway.logs("there is no new token for new: http://127.0.0.1:[0-9]+: status 503")
        stage.endpoint.away = False
        await until(lambda: stage.works(1000))
        await until(lambda: stage.works(1002))

    played(tmp_path, play)


def test_without_a_controller_workers_show_what_they_have(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        # Both workers have the token, and the sessions that each call needs: as good as certainly, 16 of each kind.
        assert all(await asyncio.gather(*[stage.works(number) for number in range(64)]))
        controller = stage.gateway.child("controller")
        os.kill(controller, signal.SIGSTOP)
        try:
            assert all([await stage.works(number) for number in range(100, 116)])
        finally:
            os.kill(controller, signal.SIGCONT)

    played(tmp_path, play)


def test_another_secret_comes_by_its_file_and_no_call_notices(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        done, failed = asyncio.Event(), []

        async def keep_calling() -> None:
            number = 0
            while not done.is_set():
                number += 1
                if not await stage.works(number):
                    failed.append(number)

        load = [asyncio.create_task(keep_calling()) for _ in range(2)]
        stage.endpoint.secret = "another secret of this client"
        before = await asyncio.to_thread(stage.gateway.metric, APPLIED)
        (tmp_path / "secret").write_text(stage.endpoint.secret)

        async def applied() -> bool:
            return await asyncio.to_thread(stage.gateway.metric, APPLIED) > before

        await until(applied)
        given = len(stage.endpoint.given)

        async def renewed() -> bool:
            return len(stage.endpoint.given) >= given + 2

        await until(renewed)
        done.set()
        await asyncio.gather(*load)
        assert not failed

    played(tmp_path, play, TokenEndpoint(lifetime=3))


def test_a_server_is_moved_to_another_account_and_has_its_tokens(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        assert all([await stage.works(number) for number in range(8)])
        for server in stage.settings["servers"].values():
            server["credential"]["oauth"]["audience"] = "elsewhere"
        stage.gateway.configure(stage.settings)
        await reload(stage.gateway, APPLIED)
        assert all([await stage.works(number) for number in range(100, 116)])
        elsewhere = {one.token for one in stage.endpoint.given if one.form.get("audience") == "elsewhere"}
        for box in stage.boxes.values():
            later = [
                got for got in box.got if b"tools/call" in got.body and got.json()["params"]["arguments"]["n"] > 99
            ]
            assert later
            assert all((got.header("authorization") or "").split()[1] in elsewhere for got in later)

    played(tmp_path, play)


@dataclass
class Chatty(Toolbox):
    """Repeats whatever it is shown, in what it refuses."""

    async def handle(self, got: Any, writer: asyncio.StreamWriter) -> None:
        self.got.append(got)
        shown = " ".join(value for name, value in got.headers if name in ("authorization", "x-key"))
        body = json.dumps(
            {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": f"bad: {shown}"}}
        ).encode()
        head = f"HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)


def test_no_secret_is_to_be_found_anywhere(tmp_path: Path) -> None:
    canaries = {"BEARER": "canary-bearer", "PASSWORD": "canary-password", "HEADER": "canary-header"}

    async def play() -> None:
        async with AsyncExitStack() as stack:
            endpoint = TokenEndpoint(secret="canary-client-secret", padding="x" * 1000)
            await stack.enter_async_context(issuing(endpoint))
            (tmp_path / "secret").write_text(endpoint.secret)
            (tmp_path / "key.pem").write_text(endpoint.pem)
            kinds: dict[str, Any] = {
                "bearer": {"bearer": "${env:BEARER}"},
                "basic": {"basic": {"username": "u", "password": "${env:PASSWORD}"}},
                "header": [{"header": {"X-Key": "${env:HEADER}"}, "match": {"agent": "tester"}}],
                "secret": oauth(endpoint),
                "key": oauth(endpoint, client_secret=None, private_key="${file:key.pem}"),
                "wrong": oauth(endpoint, client_id="wrong"),
            }
            servers = {}
            for name, credential in kinds.items():
                server = await stack.enter_async_context(serving(Chatty("modern", {})))
                servers[name] = {"url": server.url, "credential": credential, "era": "modern"}
            tools = {f"try-{name}": {"to": f"{name}/x"} for name in kinds}
            settings = {"servers": servers, "tools": tools, "log": {"level": "debug"}}
            async with running_beside(settings, tmp_path, canaries) as gateway:
                replies = []
                for era in ERAS:
                    one = await agent(era, gateway.url, KEY)
                    replies += [await one.call(f"try-{name}") for name in kinds]
                pages = ["/metrics", "/backends", "/catalogue", "/config", "/config/diff", "/limits", "/stats", "/"]
                texts = [gateway.ask_admin(page)[1].decode() for page in pages]
                await until(lambda: all_written(gateway, len(replies)))
                texts += [gateway.log(), json.dumps(gateway.events()), *[str(reply.headers) for reply in replies]]
                texts += [reply.body.decode() for reply in replies]
            kept = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
            texts += [file.read_bytes().decode("latin-1") for file in kept]
            pem = endpoint.pem.split("\n")[1]
            tokens = [one.token[:20] for one in endpoint.given]  # nor half of one
            assert tokens
            for secret in (*canaries.values(), endpoint.secret, pem, *tokens, "dTpjYW5hcnktcGFzc3dvcmQ"):
                assert not [text for text in texts if secret in text], secret
            assert any("bad: ***" in text for text in texts)  # they were there to be seen

    asyncio.run(play())


async def all_written(gateway: Gateway, count: int) -> bool:
    return len(gateway.events()) >= count
