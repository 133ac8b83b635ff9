"""Agents with access tokens of a real authorization server: who is let in, as whom, and what a client is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from tests.auth import signing
from tests.e2e.authorization_server import INTROSPECTING, AuthorizationServer, authorizing
from tests.e2e.gateway import KEY, until
from tests.e2e.hostile import Place, shared
from tests.e2e.http import Asked, Reply, legacy, modern, open_session
from tests.e2e.servers import Call, Toolbox

CALL = {"name": "echo", "arguments": {}}
GENERATED = 600
POLICIES = [
    {"name": "testers", "match": {"agent": "tester"}, "allow": ["*"]},
    {"name": "engineers", "match": {"claims": {"team": "engineering"}}, "allow": ["echo", "deploy-*"]},
    {"name": "support", "match": {"claims": {"team": ["support", "help-*"]}}, "allow": ["echo"]},
    {"name": "no-trial", "match": {"agent": "login:trial-*"}, "deny": ["*"]},
]


async def echo(call: Call) -> None:
    await call.text("here")


@dataclass
class Realm:
    """A gateway, its authorization server, and tokens of that for the gateway's endpoints."""

    place: Place
    server: AuthorizationServer

    def token(self, subject: str = "alice", path: str = "/mcp", **more: Any) -> str:
        return self.server.token(subject, self.place.gateway.root + path, **more)

    def ask(self, asked: Asked, path: str = "/mcp") -> Reply:
        return self.place.ask(asked, path)

    def sees(self, token: str, path: str = "/mcp") -> list[str]:
        """The tools that a token shows."""
        reply = self.ask(modern("tools/list", {}, key=token), path)
        assert reply.status == 200, reply
        return sorted(tool["name"] for tool in reply.json()["result"]["tools"])


def identity(server: AuthorizationServer) -> dict[str, Any]:
    asking = {"url": f"{server.url}introspect", "client_id": INTROSPECTING[0], "client_secret": "${env:INTROSPECTING}"}
    claims = {"team": "team", "project": "resource_access.project"}
    return {
        "login": {"issuer": server.url, "claims": claims, "set": {"tier": "internal"}, "introspection": asking},
        "signing": {
            "issuer": signing.ISSUER,
            "audience": signing.AUDIENCE,
            "jwks_url": f"{server.url}signing",
            "set": {"team": "engineering"},
            "scopes": ["profile", "tools"],
        },
    }


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    boxes = {"shop": Toolbox("modern", {"echo": echo, "deploy-it": echo, "sell": echo})}
    with ExitStack() as stack:
        server = stack.enter_context(authorizing())
        more = {
            "failed_credentials": "off",
            "identity": identity(server),
            "policies": POLICIES,
            "tools": {"deploy-*": {"scopes": ["deploy", "danger"]}},
            "endpoints": {"/mcp": {}, "/mcp/keys": {"auth": ["keys"]}, "/mcp/people": {"auth": ["login"]}},
        }
        environment = {"INTROSPECTING": INTROSPECTING[1]}
        place = stack.enter_context(shared(tmp_path_factory.mktemp("gateway"), boxes, more, environment))
        yield Realm(place, server)


def test_claims_alone_put_an_agent_into_a_class(realm: Realm) -> None:
    assert realm.sees(realm.token(team="engineering")) == ["deploy-it", "echo"]
    assert realm.sees(realm.token(team="help-desk")) == ["echo"]
    assert realm.sees(realm.token(team="sales")) == []


def challenged(reply: Reply) -> dict[str, str]:
    """The parameters of a challenge."""
    said = reply.header("www-authenticate") or ""
    assert said.startswith("Bearer"), reply
    return dict(re.findall(r'(\w+)="([^"]*)"', said))


def test_the_endpoint_itself_is_told_by_what_a_challenge_points_to(realm: Realm) -> None:
    root = realm.place.gateway.root
    for path, sent in (("/mcp", None), ("/mcp", "not.a.token"), ("/mcp/people", None), ("/mcp/people", "fgw_nobody")):
        reply = realm.ask(modern("tools/list", {}, key=sent), path)
        assert reply.status == 401
        said = challenged(reply)
        assert said.pop("error", None) == ("invalid_token" if sent else None)
        assert said == {"resource_metadata": f"{root}/.well-known/oauth-protected-resource{path}"}
        found = realm.ask(
            Asked(b"", [("Origin", "https://page.example")], "GET"), urlsplit(said["resource_metadata"]).path
        )
        assert (found.status, found.header("access-control-allow-origin")) == (200, "*")
        assert found.json()["resource"] == f"{root}{path}"
        assert found.json()["authorization_servers"] == [
            realm.server.url,
            *([signing.ISSUER] if path == "/mcp" else []),
        ]
        assert found.json().get("scopes_supported") == (["profile", "tools"] if path == "/mcp" else None)


def test_where_no_token_is_taken_none_is_spoken_of(realm: Realm) -> None:
    reply = realm.ask(modern("tools/list", {}), "/mcp/keys")
    assert (reply.status, reply.header("www-authenticate")) == (401, "Bearer")
    assert realm.ask(modern("tools/list", {}, key=realm.token(path="/mcp/keys")), "/mcp/keys").status == 401
    assert realm.ask(modern("tools/list", {}, key=KEY), "/mcp/people").status == 401
    assert realm.ask(modern("tools/list", {}, key=KEY), "/mcp/keys").status == 200
    for path in ("/mcp/keys", "", "/mcp/nowhere"):  # of the root form there is one for one endpoint
        found = realm.ask(Asked(b"", [], "GET"), f"/.well-known/oauth-protected-resource{path}")
        assert (found.status, "login" in str(found.json())) == (404, True)


def test_metadata_is_for_reading(realm: Realm) -> None:
    path = "/.well-known/oauth-protected-resource/mcp"
    preflight = [("Origin", "https://page.example"), ("Access-Control-Request-Method", "GET")]
    reply = realm.ask(Asked(b"", preflight, "OPTIONS"), path)
    assert (reply.status, reply.header("access-control-allow-headers")) == (204, "*")
    assert realm.ask(Asked(b"{}", [("Content-Type", "application/json")], "POST"), path).status == 405
    assert realm.ask(Asked(b"", [("Host", "elsewhere.example")], "GET"), path).status == 421


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_token_is_good_on_every_worker_in_both_eras(realm: Realm, era: str) -> None:
    url, reached = realm.place.gateway.url, realm.place.reached()
    for turn in range(4):
        token = realm.token(f"agent-{turn}", team="engineering")
        session = None if era == "modern" else asyncio.run(open_session(url, key=token))
        for _ in range(6):
            asked = (
                modern("tools/call", CALL, key=token)
                if session is None
                else (legacy("tools/call", CALL, key=token, session=session))
            )
            assert realm.ask(asked).json()["result"]["content"][0]["text"] == "here"
        if session is not None:  # a session is its agent's alone
            stranger = legacy("tools/call", CALL, key=realm.token("other", team="engineering"), session=session)
            assert realm.ask(stranger).status == 404
    assert realm.place.reached() == reached + 24
    shown = [value for got in realm.place.boxes["shop"].got for name, value in got.headers if name == "authorization"]
    assert shown == []


def test_scopes_are_asked_for_all_at_once(realm: Realm) -> None:
    call = {"name": "deploy-it", "arguments": {}}
    for scope in ("", "deploy", "danger other"):
        token = realm.token(team="engineering", scope=scope)
        reply = realm.ask(modern("tools/call", call, key=token))
        assert reply.status == 403
        said = challenged(reply)
        assert (said["error"], said["scope"]) == ("insufficient_scope", "deploy danger")
        assert said["resource_metadata"].endswith("/.well-known/oauth-protected-resource/mcp")
        session = asyncio.run(open_session(realm.place.gateway.url, key=token))
        assert realm.ask(legacy("tools/call", call, key=token, session=session)).status == 403
        assert (
            realm.ask(
                Asked(b"{}", [("Content-Type", "application/json"), ("Authorization", f"Bearer {token}")]),
                "/mcp/tools/deploy-it/invoke",
            ).status
            == 403
        )
    for good in (realm.token(team="engineering", scp=["danger", "deploy"]), KEY):
        assert "result" in realm.ask(modern("tools/call", call, key=good)).json()
    # What no scope would open is no matter of scopes.
    reply = realm.ask(modern("tools/call", {"name": "sell", "arguments": {}}, key=realm.token(team="engineering")))
    assert (reply.status, reply.json()["error"]["code"], reply.header("www-authenticate")) == (400, -32602, None)


def test_an_opaque_token_is_asked_about_once_for_all_workers(realm: Realm) -> None:
    before = realm.server.asked.get("/introspect", 0)
    token = realm.server.opaque_token("bob", realm.place.gateway.url, team="engineering")
    for _ in range(8):
        assert realm.sees(token) == ["deploy-it", "echo"]
    assert realm.server.asked["/introspect"] == before + 1
    for bad in ("unheard-of", realm.server.opaque_token("bob", "https://elsewhere.example/mcp", team="engineering")):
        assert realm.ask(modern("tools/list", {}, key=bad)).status == 401


def test_a_new_key_of_the_issuer_is_found_by_the_first_token_that_it_signs(realm: Realm) -> None:
    before = realm.server.asked["/jwks"]
    old = realm.token("early", team="engineering")
    realm.server.rotate()
    new = realm.token("late", team="engineering")
    assert [realm.sees(token) for token in (new, old, new)] == [["deploy-it", "echo"]] * 3
    assert realm.server.asked["/jwks"] == before + 1
    forged = jwt.encode({"iss": realm.server.url}, "secret of sixteen or more letters!", headers={"kid": "made-up"})
    for token in (forged, forged, forged):
        assert realm.ask(modern("tools/list", {}, key=token)).status == 401
    assert realm.server.asked["/jwks"] <= before + 2


def test_usage_events_say_whose_a_call_was(realm: Realm) -> None:
    token = realm.token("metered", team="engineering", resource_access={"project": "checkout"})
    assert "result" in realm.ask(modern("tools/call", CALL, key=token)).json()

    async def written() -> Any:
        return [one for one in realm.place.gateway.events() if one["agentId"] == "login:metered"]

    [event] = asyncio.run(until(written))
    assert [event[name] for name in ("team", "project", "credential")] == ["engineering", "checkout", "login"]
    assert token not in realm.place.gateway.log()


def test_bad_tokens_reach_nobody(realm: Realm) -> None:
    reached = realm.place.reached()
    with realm.place.unharmed():
        for shown in signing.bad_tokens(GENERATED, seed=8):
            asked = modern("tools/call", CALL)
            header = ("Authorization", f"Bearer {shown.decode('latin-1')}")
            if set(shown) & set(b"\x00\r\n\x7f") or min(shown) < 32:
                continue  # no HTTP server lets these into a header
            reply = realm.ask(Asked(asked.body, [*asked.headers, header]))
            assert reply.status in ((401,) if len(shown) < 60_000 else (401, 431)), (reply, shown)
        assert realm.ask(modern("tools/call", CALL, key=signing.token().decode())).status == 200
    assert realm.place.reached() == reached + 1


def test_a_token_counts_in_one_header_alone(realm: Realm) -> None:
    token, reached = realm.token(team="engineering"), realm.place.reached()
    asked = modern("tools/call", CALL)
    shown = ("Authorization", f"Bearer {token}")
    forms = [
        [shown, shown], [shown, ("Authorization", f"Bearer {KEY}")], [("Authorization", f"Bearer {KEY}"), shown],
        [shown, ("X-API-Key", KEY)], [shown, ("X-API-Key", token)], [("X-API-Key", token)], [("Authorization", token)],
        [("Authorization", f"Basic {token}")], [("Authorization", f"Bearer {token}, Bearer {token}")],
        [("Authorization", f"Bearer {token} {token}")], [("Authorization", f"DPoP {token}")],
        [("Cookie", f"access_token={token}")], [("Cookie", f"Authorization=Bearer {token}"), ("X-API-Key", "")],
        [("Proxy-Authorization", f"Bearer {token}")], [("Authorization", f"Bearer\t{token}")], [("X-Token", token)],
        [("Authorization", f"Bearer {token};")], [("Authorization", f'Bearer "{token}"')],
        [("Authorization", f"Bearer:{token}")],
        [("Authorization", f"Bearer {KEY}, Bearer {token}")], [("Authorization", f"Bearer {KEY} {token}")],
        [shown, ("AUTHORIZATION", f"Bearer {token}")], [("Authorization", ""), shown],
    ]  # fmt: skip
    for form in forms:
        reply = realm.ask(Asked(asked.body, [*asked.headers, *form]))
        assert reply.status == 401, form
        assert ("DPoP is not taken here" in reply.json()["error"]["message"]) == ("DPoP" in str(form))
    in_body = Asked(asked.body.replace(b'"params":{', f'"access_token":"{token}","params":{{'.encode()), asked.headers)
    form_body = Asked(f"access_token={token}".encode(), [("Content-Type", "application/x-www-form-urlencoded")])
    for spoiled in (in_body, form_body):
        assert realm.ask(spoiled).status == 401
    for query in (f"access_token={token}", f"token={token}", f"Authorization=Bearer%20{token}"):
        assert realm.ask(asked, f"/mcp?{query}").status == 401
    assert realm.place.reached() == reached
    for good in (f"bearer  {token} ", f"BEARER {token}", f"Bearer \t{token}\t"):
        assert realm.ask(Asked(asked.body, [*asked.headers, ("authorization", good)])).status == 200, good
    assert token not in realm.place.gateway.log()
