"""Agents with access tokens of two realms of Keycloak: verified here or asked about, logged in with nothing but the
URL, expiring, and signed by keys that change under a load of calls.
"""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
import jwt
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata

from fastgw.auth.tokens import SKEW
from tests.e2e.asking import ERAS, agent
from tests.e2e.gateway import Gateway, running, until
from tests.e2e.hostile import beside
from tests.e2e.http import Reply, exchange, modern, open_session
from tests.e2e.keycloak.issuer import Keycloak, Realm
from tests.e2e.servers import Call, Toolbox
from tests.e2e.test_oauth import challenged
from tests.e2e.test_oauth_login import Browser, Storage

pytestmark = pytest.mark.keycloak

REDIRECT = "http://localhost:3030/callback"
ASKING = "lean"
"""The client whose tokens say next to nothing."""
LOADED = 4
"""Agents of each era that call while keys change."""
POLICIES = [
    {"name": "engineers", "match": {"claims": {"role": "engineering"}}, "allow": ["*"]},
    {"name": "support", "match": {"claims": {"role": "support"}}, "allow": ["*-echo"]},
    {"name": "partners", "match": {"agent": "partners:*"}, "allow": ["shop-echo"]},
]
TOOLS = ["desk-deploy", "desk-echo", "shop-deploy", "shop-echo"]
BOXES = {"shop": "modern", "desk": "legacy"}


async def echo(call: Call) -> None:
    await call.text("here")


@dataclass
class Scene:
    """A gateway before servers of both eras, two realms that it knows, and one that it does not."""

    gateway: Gateway
    acme: Realm
    partners: Realm
    strangers: Realm
    boxes: list[Toolbox]

    async def sees(self, token: str, era: str) -> list[str]:
        return sorted(await (await agent(era, self.gateway.url, token)).names())

    async def call(self, token: str, era: str, tool: str = "shop-echo") -> Reply:
        return await (await agent(era, self.gateway.url, token)).call(tool)

    async def status(self, token: str) -> int:
        asked = modern("tools/call", {"name": "shop-echo", "arguments": {}}, key=token)
        return (await exchange(self.gateway.url, asked)).status


def furnish(realm: Realm) -> None:
    """What the page on authentication says for Keycloak: a scope for all clients that names the audience."""
    realm.client("fastgw", secret="introspecting")
    realm.scope("fastgw", "default", attributes={"include.in.token.scope": "false"})
    realm.audience("fastgw", client="fastgw")
    realm.scope("deploy", "optional")
    realm.client("console", publicClient=True, directAccessGrantsEnabled=True)
    realm.user("alice", "engineering")
    realm.user("bob", "support")
    realm.show_roles("fastgw", "engineering", "support")


@pytest.fixture(scope="module")
def scene(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    acme, partners, strangers = [keycloak.realm(name) for name in ("acme", "partners", "strangers")]
    for realm in (acme, partners, strangers):
        furnish(realm)
    acme.client("brief", publicClient=True, directAccessGrantsEnabled=True, attributes={"access.token.lifespan": "1"})
    partners.sign_by("ES256")
    partners.ask("PUT", "", {"defaultSignatureAlgorithm": "ES256"})
    attributes = {"client.use.lightweight.access.token.enabled": "true"}
    partners.client(ASKING, publicClient=True, directAccessGrantsEnabled=True, attributes=attributes)
    lean = {"url": f"{partners.issuer}/protocol/openid-connect/token/introspect", "client_id": "fastgw"}
    lean |= {"client_secret": "${env:INTROSPECTING}", "tokens": "all"}
    identity = {
        "acme": {
            "issuer": acme.issuer,
            "agent_id": "preferred_username",
            "claims": {"role": "realm_access.roles"},
            "scopes": ["fastgw", "roles", "profile"],
        },
        "partners": {"issuer": partners.issuer, "audience": "fastgw", "introspection": lean},
    }
    boxes = {name: Toolbox(era, {f"{name}-echo": echo, f"{name}-deploy": echo}) for name, era in BOXES.items()}
    with beside({name: box.handle for name, box in boxes.items()}) as urls:
        settings = {
            "servers": {name: {"url": url} for name, url in urls.items()},
            "agents": {},
            "failed_credentials": "off",
            "identity": identity,
            "policies": POLICIES,
            "tools": {"*-deploy": {"scopes": ["deploy"]}},
        }
        folder = tmp_path_factory.mktemp("gateway")
        with running(settings, folder, {"INTROSPECTING": "introspecting"}) as gateway:
            for realm in (acme, strangers):
                realm.audience("fastgw", custom=gateway.url)
            yield Scene(gateway, acme, partners, strangers, list(boxes.values()))


@pytest.mark.parametrize("era", ERAS)
def test_tokens_of_two_realms_are_good_and_of_a_third_are_not(scene: Scene, era: str) -> None:
    async def play() -> None:
        alice, bob = scene.acme.token("console", "alice"), scene.acme.token("console", "bob")
        partner = scene.partners.token("console", "alice")
        assert [jwt.get_unverified_header(token)["alg"] for token in (alice, partner)] == ["RS256", "ES256"]
        assert await scene.sees(alice, era) == TOOLS
        assert await scene.sees(bob, era) == ["desk-echo", "shop-echo"]
        assert await scene.sees(partner, era) == ["shop-echo"]
        for tool, token in (("shop-echo", alice), ("desk-echo", alice), ("desk-echo", bob), ("shop-echo", partner)):
            replies = await asyncio.gather(*[scene.call(token, era, tool) for _ in range(6)])
            assert [reply.json()["result"]["content"][0]["text"] for reply in replies] == ["here"] * 6
        for token, tool in ((bob, "shop-deploy"), (partner, "desk-echo")):
            assert (await scene.call(token, era, tool)).json()["error"]["code"] == -32602
        # Of no known issuer; and of one, but for another audience than this gateway.
        assert await scene.status(scene.strangers.token("console", "alice")) == 401
        elsewhere = scene.acme.granted("admin-cli", grant_type="password", username="bob", password="bob")
        assert await scene.status(elsewhere["access_token"]) == 401
        shown = [
            value for box in scene.boxes for got in box.got for name, value in got.headers if name == "authorization"
        ]
        assert shown == []

    asyncio.run(play())


@pytest.mark.parametrize("era", ERAS)
def test_a_token_that_says_nothing_is_asked_about(scene: Scene, era: str) -> None:
    async def play() -> None:
        lean = scene.partners.token(ASKING, "alice")
        assert await scene.sees(lean, era) == ["shop-echo"]
        assert (await scene.call(lean, era)).status == 200
        # A session that has been ended at the issuer: the token's signature is as good as ever.
        ended = scene.partners.token(ASKING, "bob")
        scene.partners.ask("POST", f"/users/{scene.partners.ids['bob']}/logout")
        assert await scene.status(ended) == 401

    asyncio.run(play())


@pytest.mark.parametrize("era", ERAS)
def test_a_scope_is_asked_for_and_the_token_that_has_it_is_good(scene: Scene, era: str) -> None:
    async def play() -> None:
        for tool in ("shop-deploy", "desk-deploy"):
            reply = await scene.call(scene.acme.token("console", "alice"), era, tool)
            assert reply.status == 403
            said = challenged(reply)
            assert (said["error"], said["scope"]) == ("insufficient_scope", "deploy")
            larger = scene.acme.token("console", "alice", scope=said["scope"])
            assert "result" in (await scene.call(larger, era, tool)).json()

    asyncio.run(play())


class LoginPage(Browser):
    """Fills in Keycloak's forms: who one is, and that the client may."""

    def __init__(self, user: str) -> None:
        super().__init__()
        # To a browser this machine is as good as https: it sends cookies here that are marked as secure.
        jar = CookieJar(DefaultCookiePolicy(secure_protocols=("http", "https")))
        self.user, self.http = user, httpx2.AsyncClient(trust_env=False, cookies=jar)

    async def open(self, url: str) -> None:
        answer = await self.http.get(url)
        while not (went_to := answer.headers.get("location", "")).startswith(REDIRECT):
            if went_to:
                answer = await self.http.get(answer.url.join(went_to))
                continue
            [form] = re.findall(r'<form[^>]* action="([^"]*)"', answer.text)
            hidden = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', answer.text))
            filled = {**hidden, "username": self.user, "password": self.user, "accept": "Yes"}
            answer = await self.http.post(answer.url.join(html.unescape(form)), data=filled)
        self.came_back = went_to


async def log_in(url: str, mode: Any, storage: Storage, *tools: str) -> None:
    """A client of the Python SDK lists and calls these tools; nobody but the page has told it who it is."""
    browser = LoginPage("alice")
    metadata = OAuthClientMetadata(client_name="a client", redirect_uris=[REDIRECT])
    login = OAuthClientProvider(url, metadata, storage, browser.open, browser.result)
    http = httpx2.AsyncClient(auth=login, timeout=20)
    async with browser.http, http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
        assert sorted(tool.name for tool in (await client.list_tools()).tools) == TOOLS
        results = [await client.call_tool(name, {}) for name in tools]
        assert [result.content[0].text for result in results] == ["here"] * len(tools)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_registers_and_logs_in_with_nothing_but_the_url(scene: Scene, mode: Any) -> None:
    let_register(scene.acme)
    storage = Storage()
    asyncio.run(log_in(scene.gateway.url, mode, storage, "shop-echo", "desk-echo"))
    assert storage.client is not None
    assert len(scene.acme.events("CODE_TO_TOKEN", str(storage.client.client_id))) == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_is_known_there_steps_up_for_the_scope_of_a_tool(scene: Scene, mode: Any) -> None:
    name, storage = f"desktop-{mode}", Storage()
    scene.acme.client(name, publicClient=True, standardFlowEnabled=True, redirectUris=[REDIRECT])
    known = {"client_id": name, "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}
    storage.client = OAuthClientInformationFull(**known, issuer=scene.acme.issuer)
    asyncio.run(log_in(scene.gateway.url, mode, storage, "shop-echo", "shop-deploy", "desk-deploy"))
    assert len(scene.acme.events("CODE_TO_TOKEN", name)) == 2


def let_register(realm: Realm) -> None:
    """Let clients of this machine register themselves, with redirects to it."""
    kind = "org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy"
    for policy in realm.ask("GET", f"/components?type={kind}"):
        if (policy["providerId"], policy["subType"]) == ("trusted-hosts", "anonymous"):
            policy["config"]["trusted-hosts"] = ["127.0.0.1", "localhost"]
            realm.ask("PUT", f"/components/{policy['id']}", policy)


async def keep_calling(scene: Scene, era: str, over: asyncio.Event, answers: Counter[int]) -> None:
    """One agent: a new token for every few calls, each token by whatever key signs just then."""
    while not over.is_set():
        token = await asyncio.to_thread(scene.acme.token, "console", "alice")
        one = await agent(era, scene.gateway.url, token)
        for number in range(4):
            reply = await one.call(("shop-echo", "desk-echo")[number % 2])
            answers[reply.status if "result" in reply.json() else 0] += 1


def test_keys_change_at_the_issuer_and_no_call_notices(scene: Scene) -> None:
    async def play() -> None:
        over, answers = asyncio.Event(), Counter[int]()
        early = await asyncio.to_thread(scene.acme.token, "console", "alice")
        sessions = [await open_session(scene.gateway.url, key=early) for _ in range(2)]
        assert all(sessions)
        load = [asyncio.create_task(keep_calling(scene, era, over, answers)) for era in ERAS for _ in range(LOADED)]

        async def more() -> bool:
            return answers[200] >= wanted

        for _ in range(2):
            before = await asyncio.to_thread(scene.acme.keys)
            await asyncio.to_thread(scene.acme.sign_by)
            for key in before:
                await asyncio.to_thread(scene.acme.retire, key, disable=False)
            wanted = answers[200] + 64
            await until(more, 60)
            assert await scene.status(early) == 200  # its key signs no more, and is still published
        over.set()
        await asyncio.gather(*load)
        assert set(answers) == {200}
        # And disabled: what it has signed counts no more as soon as the gateway has the keys, here by the next new one.
        for key in await asyncio.to_thread(scene.acme.keys):
            await asyncio.to_thread(scene.acme.retire, key, disable=True)
        await asyncio.to_thread(scene.acme.sign_by)
        late = await asyncio.to_thread(scene.acme.token, "console", "alice")
        assert {await scene.status(late) for _ in range(6)} == {200}
        assert {await scene.status(early) for _ in range(6)} == {401}

    asyncio.run(play())


def test_the_issuer_stops_and_starts_again(scene: Scene, keycloak: Keycloak) -> None:
    async def play() -> None:
        known, unseen = [scene.acme.token("console", name) for name in ("alice", "bob")]
        asked, unasked = [scene.partners.token(ASKING, name) for name in ("alice", "bob")]
        assert [await scene.status(token) for token in (known, asked)] == [200, 200]
        keycloak.stop()
        for era in ERAS:
            for token in (known, unseen, asked):  # keys and answers that are known are used on
                assert "result" in (await scene.call(token, era)).json()
        assert await scene.status(unasked) == 503  # nobody is made to log in again for that
        keycloak.start()
        after = [scene.acme.token("console", "alice"), unasked]
        for era in ERAS:
            for token in (known, unseen, *after):
                assert "result" in (await scene.call(token, era)).json()
        scene.acme.sign_by()
        assert await scene.status(scene.acme.token("console", "bob")) == 200

    asyncio.run(play())


def test_a_token_ends_when_it_says_so(scene: Scene) -> None:
    token, begun = scene.acme.token("brief", "alice"), time.monotonic()  # lives for a second

    async def ended() -> bool:
        return await scene.status(token) == 401

    async def play() -> None:
        await until(ended, SKEW + 10)
        assert time.monotonic() - begun > SKEW
        for era in ERAS:
            fresh = scene.acme.token("brief", "alice")
            assert "result" in (await scene.call(fresh, era)).json()
        reply = await exchange(scene.gateway.url, modern("tools/list", {}, key=token))
        assert challenged(reply)["error"] == "invalid_token"

    asyncio.run(play())
