"""Servers that take tokens of Keycloak: had by every kind of credential, replaced ahead of their expiry, by another
secret or key, and where a server has refused one; agents of both eras that call meanwhile notice nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastgw.credentials.server_tokens import SETTLED
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.keycloak.issuer import Keycloak, Realm
from tests.e2e.servers import Call, Got, Toolbox, answer, serving
from tests.e2e.test_reload import APPLIED, reload

pytestmark = pytest.mark.keycloak

KINDS = ("basic", "post", "jwt", "exchange")
"""How the gateway proves who it is; the last one by `basic`, to exchange the user's token."""
TAKEN = "data"
"""The audience that servers demand, and the scope that brings it."""
BRIEF = 6
"""Seconds that tokens live where they are to expire."""


@dataclass
class Resource(Toolbox):
    """Takes tokens of a realm for `data`, if they are no older than it wants them, and turns all others away."""

    keys: dict[str, Any] = field(default_factory=dict)
    issuer: str = ""
    not_before: int = 0
    turned_away: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)

    def learn(self, realm: Realm) -> None:
        self.issuer = realm.issuer
        found = [one for one in realm.jwks()["keys"] if one["use"] == "sig"]
        self.keys = {one["kid"]: jwt.PyJWK(one).key for one in found}

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        token = (got.header("authorization") or "").removeprefix("Bearer ")
        try:
            key = self.keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(token, key, ["RS256"], audience=TAKEN, issuer=self.issuer)
            is_good = claims["iat"] >= self.not_before
        except (jwt.PyJWTError, KeyError):
            is_good = False
        if not is_good:
            self.turned_away += 1
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            writer.write(answer(b"", status="401 Unauthorized", headers=challenge))
            return
        self.shown.append(claims)
        await super().handle(got, writer)


async def echo(call: Call) -> None:
    await call.text("here")


@dataclass
class Scene:
    """A gateway before a server of each kind and era, and agents of both eras that come with alice's token."""

    gateway: Gateway
    realm: Realm
    settings: dict[str, Any]
    boxes: dict[str, Resource]
    agents: list[Agent]
    failed: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    async def call(self, one: Agent, tool: str) -> None:
        reply = await one.call(tool)
        if reply.status == 200 and "result" in reply.json():
            self.done[tool] += 1
        else:
            self.failed.append(f"{tool}: {reply}")

    async def each(self) -> None:
        """Every agent calls every server."""
        await asyncio.gather(*[self.call(one, tool) for one in self.agents for tool in self.boxes])
        assert not self.failed, self.failed

    async def asked(self) -> Counter[str]:
        """How often the realm was asked for tokens, by kind, as it has written it down itself."""
        found = Counter[str]()
        for kind in KINDS:
            event = "TOKEN_EXCHANGE" if kind == "exchange" else "CLIENT_LOGIN"
            found[kind] = len(await asyncio.to_thread(self.realm.events, event, f"fastgw-{kind}"))
        return found

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Every agent keeps calling every server, and none of that fails."""
        over = asyncio.Event()

        async def keep_calling(one: Agent, tool: str) -> None:
            while not over.is_set():
                await self.call(one, tool)

        tasks = [asyncio.create_task(keep_calling(one, tool)) for one in self.agents for tool in self.boxes]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*tasks)
        assert not self.failed, self.failed[:3]


class Keys:
    """The private keys of a client, by name; the realm has their public halves."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    def make(self, name: str) -> str:
        """A new one, as PEM."""
        key = self.keys[name] = ec.generate_private_key(ec.SECP256R1())
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def published(self) -> str:
        found = []
        for name, key in self.keys.items():
            public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
            found.append({**public, "kid": name, "use": "sig", "alg": "ES256"})
        return json.dumps({"keys": found})


@pytest.fixture(scope="module")
def realm(keycloak: Keycloak) -> Iterator[Realm]:
    """Clients of each kind for the gateway, which may ask for `data`, and one for people."""
    made = keycloak.realm("outward")
    made.client(TAKEN, bearerOnly=True)
    made.scope(TAKEN, "optional")
    made.audience(TAKEN, client=TAKEN)
    for kind in KINDS:
        more: dict[str, Any] = {"secret": f"first-{kind}", "attributes": {}}
        if kind == "exchange":
            more["attributes"] = {"standard.token.exchange.enabled": "true"}
        if kind == "jwt":
            more["clientAuthenticatorType"] = "client-jwt"
        made.client(f"fastgw-{kind}", serviceAccountsEnabled=True, **more)
    made.scope("fastgw", "default")
    made.audience("fastgw", client="fastgw-exchange")
    lasting = {"access.token.lifespan": "300"}
    made.client("console", publicClient=True, directAccessGrantsEnabled=True, attributes=lasting)
    made.user("alice")
    yield made


def credential(realm: Realm, kind: str, key: str) -> dict[str, Any]:
    """The credential of a server, as its kind has it."""
    oauth: dict[str, Any] = {"token_url": realm.token_url, "client_id": f"fastgw-{kind}", "scopes": [TAKEN]}
    if kind == "jwt":
        return {"oauth": {**oauth, "private_key": f"${{file:{key}.pem}}", "key_id": key}}
    oauth["client_secret"] = f"${{file:{kind}}}"
    if kind == "exchange":
        return {"oauth": {**oauth, "grant": "token_exchange", "audience": TAKEN}}
    return {"oauth": {**oauth, "client_auth": kind}}


@asynccontextmanager
async def staged(realm: Realm, folder: Path, keys: Keys, lifetime: int) -> AsyncIterator[Scene]:
    realm.ask("PUT", "", {"accessTokenLifespan": lifetime})
    (folder / "key-1.pem").write_text(keys.make("key-1"))
    publish(realm, keys)
    for kind in ("basic", "post", "exchange"):
        (folder / kind).write_text(realm.new_secret(f"fastgw-{kind}"))
    realm.ask("DELETE", "/events")
    async with AsyncExitStack() as stack:
        boxes = {f"{kind}-{era}": Resource(era, {f"{kind}-{era}": echo}) for kind in KINDS for era in ERAS}
        servers = {}
        for name, box in boxes.items():
            box.learn(realm)
            server = await stack.enter_async_context(serving(box))
            servers[name] = {"url": server.url, "credential": credential(realm, name.split("-")[0], "key-1")}
        login = {"issuer": realm.issuer, "audience": "fastgw-exchange"}
        settings = {"servers": servers, "identity": {"login": login}}
        gateway = await stack.enter_async_context(running_beside(settings, folder))
        await listed(gateway, *boxes)
        token = realm.token("console", "alice")
        agents = [await agent(era, gateway.url, token) for era in ERAS]
        yield Scene(gateway, realm, settings, boxes, agents)


def publish(realm: Realm, keys: Keys) -> None:
    realm.set_attributes("fastgw-jwt", {"use.jwks.string": "true", "jwks.string": keys.published()})


def played(realm: Realm, folder: Path, play: Any, lifetime: int = 300) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120), staged(realm, folder, keys := Keys(), lifetime) as scene:
            await play(scene, keys)

    asyncio.run(bounded())


def test_every_kind_of_credential_opens_servers_of_both_eras(realm: Realm, tmp_path: Path) -> None:
    async def play(scene: Scene, _: Keys) -> None:
        for _ in range(4):
            await scene.each()
        asked = await scene.asked()
        assert asked == dict.fromkeys(KINDS, len(ERAS))  # once for each server, whichever worker has the call
        for name, box in scene.boxes.items():
            kind = name.split("-")[0]
            assert box.turned_away == 0
            assert {claims["azp"] for claims in box.shown} == {f"fastgw-{kind}"}
            calls = [claims for claims, got in zip(box.shown, box.got, strict=True) if b"tools/call" in got.body]
            user = "alice" if kind == "exchange" else f"service-account-fastgw-{kind}"
            assert {claims["preferred_username"] for claims in calls} == {user}
            assert "fastgw-exchange" not in str([claims["aud"] for claims in calls])  # nor the agent's own token

    played(realm, tmp_path, play)


def test_tokens_expire_under_load_and_no_call_notices(realm: Realm, tmp_path: Path) -> None:
    async def play(scene: Scene, _: Keys) -> None:
        begun, before = time.monotonic(), await scene.asked()

        async def renewed() -> bool:
            asked = await scene.asked()
            return all(asked[kind] >= before[kind] + 3 * len(ERAS) for kind in KINDS)

        async with scene.load():
            await until(renewed, 60)
        # For each server one token after another, each asked for at 0.8 of the life of the one before, less a second:
        # one flight for all workers and calls, and none besides.
        asked, most = await scene.asked(), 3 + (time.monotonic() - begun) / (0.8 * (BRIEF - 1))
        assert all(asked[kind] - before[kind] <= most * len(ERAS) for kind in KINDS), (asked, before, most)
        assert min(scene.done.values()) > 0

    played(realm, tmp_path, play, BRIEF)


def test_secrets_and_keys_change_at_the_issuer_and_no_call_notices(realm: Realm, tmp_path: Path) -> None:
    async def play(scene: Scene, keys: Keys) -> None:
        await scene.each()
        begun = time.monotonic()
        async with scene.load():
            # The gateway's secrets: others at the issuer, then here, each in its file. The key that it signs by: both
            # are good for a while, as keys can be.
            before = scene.gateway.metric(APPLIED)
            for kind in ("basic", "post", "exchange"):
                secret = await asyncio.to_thread(realm.new_secret, f"fastgw-{kind}")
                (tmp_path / kind).write_text(secret)
            await until(lambda: is_applied(scene, before))
            (tmp_path / "key-2.pem").write_text(keys.make("key-2"))
            publish(realm, keys)
            for name, server in scene.settings["servers"].items():
                server["credential"] = credential(realm, name.split("-")[0], "key-2")
            scene.gateway.configure(scene.settings)
            await reload(scene.gateway, APPLIED)
            del keys.keys["key-1"]
            publish(realm, keys)
            await until(lambda: is_over(begun + SETTLED))
            # And now servers take no token that was issued before: they refuse it, and nothing has run then.
            asked, turned_away = await scene.asked(), sum(box.turned_away for box in scene.boxes.values())
            for box in scene.boxes.values():
                box.not_before = int(time.time())
            goal = {tool: count + 8 for tool, count in scene.done.items()}
            await until(lambda: are_done(scene, goal), 60)
        assert turned_away == 0
        assert sum(box.turned_away for box in scene.boxes.values()) >= len(scene.boxes)
        # By the new secret or key, once for each server and whoever noticed.
        assert await scene.asked() == {kind: asked[kind] + len(ERAS) for kind in KINDS}
        ran = Counter(got.body for box in scene.boxes.values() for got in box.got if b"tools/call" in got.body)
        assert ran.total() == sum(scene.done.values())

    played(realm, tmp_path, play)


async def is_applied(scene: Scene, before: float) -> bool:
    return await asyncio.to_thread(scene.gateway.metric, APPLIED) > before


async def is_over(moment: float) -> bool:
    return time.monotonic() > moment


async def are_done(scene: Scene, goal: dict[str, int]) -> bool:
    return all(scene.done[tool] >= count for tool, count in goal.items())
