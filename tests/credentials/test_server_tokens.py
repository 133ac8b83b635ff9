"""Tokens of servers: fetched once, ahead of their expiry, and what becomes of calls while none can be had."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from fastgw.config.schema.servers import OAuthSettings, signing_key
from fastgw.credentials.server_tokens import LONGEST_PAUSE, SETTLED, ServerTokens
from fastgw.credentials.token_endpoint import ServerToken, TokenUnavailable, fetch_token
from fastgw.errors import Fault, Kind
from fastgw.protocol.call import SubjectToken
from fastgw.upstream.call_context import BackgroundTasks
from tests.e2e.token_endpoint import CLIENT, TokenEndpoint, issuing

ALICE = SubjectToken("token-of-alice", "login:alice")


def settings(endpoint: TokenEndpoint, **more: Any) -> OAuthSettings:
    usual = {"token_url": endpoint.url, "client_id": CLIENT, "client_secret": endpoint.secret}
    found = {**usual, **more}
    return OAuthSettings.model_validate({name: value for name, value in found.items() if value is not None})


class World:
    """`ServerTokens` by a clock that the test sets."""

    def __init__(self, endpoint: TokenEndpoint) -> None:
        self.endpoint = endpoint
        self.now = 1_000_000.0
        self.counts: list[tuple[str, ...]] = []
        self.tokens = ServerTokens(
            BackgroundTasks().spawn, lambda *series: self.counts.append(series), lambda: self.now
        )

    def watch(self, **more: Any) -> None:
        self.tokens.watch({("main", "g"): settings(self.endpoint, **more)})

    async def get(self, subject: SubjectToken | None = None, refused: bytes = b"") -> bytes:
        return (await self.tokens.token("main", "g", subject, refused)).line

    async def fails(self, subject: SubjectToken | None = None, refused: bytes = b"") -> Fault:
        with pytest.raises(Fault) as found:
            await self.get(subject, refused)
        fault = found.value
        assert (fault.kind, fault.data, fault.sent, fault.failure) == (
            Kind.NO_SERVER, {"reason": "credential"}, False, "",
        )  # fmt: skip
        assert self.endpoint.secret not in str(fault)
        return fault


def played(play: Callable[[World], Awaitable[None]], **more: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20), issuing() as endpoint:
            world = World(endpoint)
            world.watch(**more)
            await play(world)

    asyncio.run(bounded())


@contextmanager
def by_this_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The endpoint's answers are dated by the test's clock too."""
    monkeypatch.setattr("fastgw.credentials.token_endpoint.time.time", lambda: world.now)
    yield


def test_it_is_fetched_once_for_all_who_ask() -> None:
    async def play(world: World) -> None:
        found = await asyncio.gather(*[world.get() for _ in range(50)])
        assert len(set(found)) == 1
        assert found[0] == b"Authorization: Bearer %b\r\n" % world.endpoint.given[0].token.encode()
        assert (await world.get(), world.endpoint.asked) == (found[0], 1)
        assert world.counts == [("fastgw_server_tokens_total", "main", "fetched")]

    played(play)


def test_it_is_replaced_before_it_expires_and_shown_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(world: World) -> None:
        with by_this_clock(world, monkeypatch):
            first = await world.get()
            world.now += 239
            assert (await world.get(), world.endpoint.asked) == (first, 1)
            world.now += 2
            world.endpoint.held = asyncio.Event()
            assert await world.get() == first  # while another is being fetched
            assert await world.get() == first
            world.endpoint.held.set()
            while await world.get() == first:
                await asyncio.sleep(0)
            assert world.endpoint.asked == 2

    played(play)


def test_while_the_endpoint_is_away_the_old_one_serves_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(world: World) -> None:
        with by_this_clock(world, monkeypatch):
            first = await world.get()
            world.endpoint.away = True
            for _ in range(48):
                world.now += 6
                assert await world.get() == first
                await asyncio.sleep(0.002)
            world.now += 10
            asked = world.endpoint.asked
            assert asked < 20
            fault = await world.fails()
            assert 1 <= (fault.retry_after or 0) <= LONGEST_PAUSE
            assert "status 503" in fault.detail
            for _ in range(20):
                await world.fails()
            assert world.endpoint.asked <= asked + 1
            world.endpoint.away = False
            world.now += LONGEST_PAUSE
            assert await world.get() != first

    played(play)


def test_a_refused_one_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(world: World) -> None:
        with by_this_clock(world, monkeypatch):
            first = await world.get()
            assert await world.get(refused=first) == first  # it was fetched only just now
            world.now += SETTLED
            lines = b"X-Other: 1\r\n" + first
            found = set(await asyncio.gather(*[world.get(refused=lines) for _ in range(20)]))
            assert len(found) == 1
            assert first not in found
            assert world.endpoint.asked == 2
            assert {await world.get(refused=first)} == found  # whoever comes late with the first
            world.endpoint.away = True
            world.now += SETTLED
            await world.fails(refused=found.pop())

    played(play)


def test_another_secret_is_tried_at_once_and_another_account_starts_anew() -> None:
    async def play(world: World) -> None:
        assert "invalid_client" in (await world.fails()).detail
        world.watch()
        first = await world.get()
        world.watch(client_secret="another one, wrong")
        assert await world.get() == first
        world.tokens.watch({})
        await world.fails()
        world.watch()
        assert await world.get() != first

    played(play, client_secret="wrong")


def test_each_user_has_one_in_exchange() -> None:
    async def play(world: World) -> None:
        bob = SubjectToken("token-of-bob", "login:bob")
        world.endpoint.users = {"token-of-alice": "alice", "token-of-bob": "bob"}
        order = [ALICE, bob, None] * 5
        found = await asyncio.gather(*[world.get(one) for one in order])
        assert [world.endpoint.good(line.decode().split()[2]).subject for line in found] == ["alice", "bob", ""] * 5  # type: ignore[union-attr]
        assert world.endpoint.asked == 3
        form = next(one.form for one in world.endpoint.given if one.subject == "alice")
        assert form["subject_token"] == "token-of-alice"
        assert (form["audience"], form["resource"], form["scope"]) == ("data", "https://data.example/", "a b")
        assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
        assert "invalid_request" in (await world.fails(SubjectToken("token-of-mallory", "m"))).detail

    more = {"audience": "data", "resource": "https://data.example/", "scopes": ["a", "b"]}
    played(play, grant="token_exchange", **more)


@pytest.mark.parametrize("way", ["basic", "post", "private_key_jwt"])
def test_each_way_to_show_who_asks(way: str) -> None:
    async def play(world: World) -> None:
        if way == "private_key_jwt":
            world.watch(client_secret=None, private_key=world.endpoint.pem, key_id="k1")
        else:
            world.watch(client_auth=way)
        assert await world.get()
        [issued] = world.endpoint.given
        assert ("client_secret" in issued.form, "client_assertion" in issued.form) == (
            way == "post", way == "private_key_jwt",
        )  # fmt: skip

    played(play)


ODD = [
    ({"access_token": "a b"}, "access_token that a header can carry"),
    ({"access_token": "a\r\nX-Evil: b"}, "access_token that a header can carry"),
    ({"access_token": ""}, "access_token that a header can carry"),
    ({"access_token": "a" * 40_000}, "access_token that a header can carry"),
    ({}, "access_token that a header can carry"),
    ({"access_token": "a", "token_type": "DPoP"}, "type Bearer"),
    ({"access_token": "a", "expires_in": 0}, "has expired already"),
    ({"access_token": "a", "expires_in": -5}, "has expired already"),
    ({"access_token": "a" * 70_000}, "more than 65536 bytes"),
    ([], "status 200 without a JSON object"),
]


@pytest.mark.parametrize(("body", "words"), ODD)
def test_what_is_no_token(body: Any, words: str) -> None:
    assert words in refused(web.json_response(body))


def test_a_redirect_is_not_followed() -> None:
    assert "redirects" in refused(web.Response(status=307, headers={"Location": "http://169.254.169.254/token"}))


def test_what_an_endpoint_says_of_us_is_not_repeated() -> None:
    for error in ("Invalid <secret>", "as_good_as_a_secret", "invalid_client2", ["invalid_client"]):
        told = refused(web.json_response({"error": error, "error_description": "a secret"}, status=400))
        assert told.endswith("status 400, with no error of a known name")
    assert refused(web.json_response({"error": "invalid_client"}, status=400)).endswith("status 400, invalid_client")


@pytest.mark.parametrize(("said", "seconds"), [(None, 300.0), ("120", 120.0), (90.5, 90.5), ("soon", 300.0)])
def test_how_long_it_is_good(said: Any, seconds: float) -> None:
    async def play() -> ServerToken:
        async with issuing() as endpoint:
            endpoint.instead = web.json_response({"access_token": "a", "expires_in": said})
            return await fetch_token(settings(endpoint), None)

    token = asyncio.run(play())
    sure = seconds - 1.0  # a JWT's `exp` is a whole second
    assert token.expires - token.refresh_at == pytest.approx(sure * 0.2 - min(10.0, sure * 0.1), abs=0.01)
    assert "Bearer" not in repr(token)


def test_nobody_is_there() -> None:
    oauth = OAuthSettings(token_url="http://127.0.0.1:1/token?key=hush", client_id="c", client_secret="hush")
    with pytest.raises(TokenUnavailable, match=r"^http://127.0.0.1:1: ClientConnectorError$"):
        asyncio.run(fetch_token(oauth, None))


def refused(instead: web.Response) -> str:
    async def play() -> str:
        async with issuing() as endpoint:
            endpoint.instead = instead
            with pytest.raises(TokenUnavailable) as found:
                await fetch_token(settings(endpoint), None)
            return str(found.value)

    return asyncio.run(play())


KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
UNFIT: dict[str, Any] = {
    "short": rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "another curve": ec.generate_private_key(ec.SECP256K1()),
    "no signature": x25519.X25519PrivateKey.generate(),
}


def pem(key: Any, password: bytes | None = None) -> str:
    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock).decode())


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_kind_of_key_signs_by_its_algorithm(algorithm: str) -> None:
    key, found = signing_key(pem(KEYS[algorithm]))
    assert found == algorithm
    signed = jwt.encode({"a": 1}, key, found)
    assert jwt.decode(signed, KEYS[algorithm].public_key(), [algorithm]) == {"a": 1}


@pytest.mark.parametrize("kind", UNFIT)
def test_keys_that_cannot_sign_are_told(kind: str) -> None:
    with pytest.raises(ValueError, match="is not a key that signs"):
        signing_key(pem(UNFIT[kind]))


@pytest.mark.parametrize("text", ["", "hush", "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key(text: str) -> None:
    for found in (text, pem(KEYS["ES256"], b"hush")):
        with pytest.raises(ValueError, match="is not a private key") as wrong:
            signing_key(found)
        assert "hush" not in str(wrong.value)
