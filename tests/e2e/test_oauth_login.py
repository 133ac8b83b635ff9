"""A public client that is given the URL and nothing else logs in at the authorization server, and steps up by scopes;
and what becomes of tokens when issuers go, come back, are taken out, and the gateway is started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.e2e.authorization_server import INTROSPECTING, AuthorizationServer, authorizing
from tests.e2e.gateway import Gateway, running, until
from tests.e2e.hostile import beside
from tests.e2e.http import Reply, exchange, modern
from tests.e2e.servers import Call, Toolbox
from tests.e2e.tour import CLIENTS, given

ROTATIONS = 5
POLICIES = [{"name": "engineers", "match": {"claims": {"team": "engineering"}}, "allow": ["*"]}]


async def echo(call: Call) -> None:
    await call.text("here")


class Storage:
    """What a client keeps."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Browser:
    """Goes where the client sends it, and brings the code back."""

    def __init__(self) -> None:
        self.came_back = ""

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient() as http:
            self.came_back = (await http.get(url, follow_redirects=False)).headers["location"]

    async def result(self) -> AuthorizationCodeResult:
        found = {name: values[0] for name, values in parse_qs(urlsplit(self.came_back).query).items()}
        return AuthorizationCodeResult(code=found["code"], state=found.get("state"), iss=found.get("iss"))


@contextmanager
def realm(
    folder: Path, environment: dict[str, str] | None = None, **more: Any
) -> Iterator[tuple[Gateway, AuthorizationServer, dict[str, Any]]]:
    """A gateway and its authorization server; no API key opens it."""
    box = Toolbox("modern", {"echo": echo, "deploy": echo})
    with authorizing() as server, beside({"shop": box.handle}) as urls:
        server.claims = {"team": "engineering"}
        settings = {
            "servers": {"shop": {"url": urls["shop"]}},
            "agents": {},
            "failed_credentials": "off",
            "identity": {"login": {"issuer": server.url, "claims": {"team": "team"}}},
            "policies": POLICIES,
            "tools": {"deploy": {"scopes": ["deploy"]}},
            **more,
        }
        with running(settings, folder, environment) as gateway:
            yield gateway, server, settings


def ask(gateway: Gateway, token: str, tool: str = "echo") -> Reply:
    return asyncio.run(exchange(gateway.url, modern("tools/call", {"name": tool, "arguments": {}}, key=token)))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, AuthorizationServer]]:
    with realm(tmp_path_factory.mktemp("gateway")) as (gateway, server, _):
        yield gateway, server


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_logs_in_with_nothing_but_the_url(public: tuple[Gateway, AuthorizationServer], mode: Any) -> None:
    async def story(url: str) -> list[str]:
        browser = Browser()
        metadata = OAuthClientMetadata(client_name="a client", redirect_uris=["http://localhost:3030/callback"])
        login = OAuthClientProvider(url, metadata, Storage(), browser.open, browser.result)
        http = httpx2.AsyncClient(auth=login, timeout=20)
        async with http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            listed = sorted(tool.name for tool in (await client.list_tools()).tools)
            assert listed == ["deploy", "echo"]
            results = [await client.call_tool(name, {}) for name in ("echo", "deploy", "echo")]
        return [result.content[0].text for result in results]  # type: ignore[union-attr]

    gateway, server = public
    before = [server.asked.get(path, 0) for path in ("/register", "/token")]
    assert asyncio.run(story(gateway.url)) == ["here"] * 3
    # One login, and a second for the scope that `deploy` takes.
    assert [server.asked[path] for path in ("/register", "/token")] == [before[0] + 1, before[1] + 2]


@pytest.mark.node_client
@pytest.mark.parametrize(("line", "mode"), [("1", "legacy"), ("2", "auto"), ("2", "legacy")])
def test_so_do_the_clients_of_typescript(public: tuple[Gateway, AuthorizationServer], line: str, mode: str) -> None:
    packages = Path(given("FASTGW_NODE_CLIENTS", "folder with Node and the clients"))
    program = [str(packages / "node"), str(CLIENTS / "login.mjs"), str(packages), line]
    order = [*program, public[0].url, mode, "echo", "deploy", "echo"]
    done = subprocess.run(order, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"listed": ["deploy", "echo"], "answers": ["here"] * 3, "logins": 2}


def test_tokens_outlive_their_issuer_and_the_gateway_but_not_their_place_in_the_configuration(tmp_path: Path) -> None:
    with realm(tmp_path) as (gateway, server, settings):
        token = server.token("alice", gateway.url)
        assert ask(gateway, token).status == 200
        server.away = True
        # Its keys are known: other tokens by them are as good. Of a key that nobody knows it cannot be said what it is.
        assert ask(gateway, server.token("bob", gateway.url)).status == 200
        server.rotate()
        reply = ask(gateway, server.token("carol", gateway.url))
        assert (reply.status, reply.json()["error"]["code"]) == (503, -31004)
        assert gateway.stop() == 0
        gateway.start_again()
        gateway.wait_until_ready()
        assert ask(gateway, token).status == 200
        server.away = False

        others = {"identity": {"other": {"issuer": "https://login.example.com/"}}}
        gateway.configure({**settings, **others})
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.logs("read again")
        statuses = [ask(gateway, token).status for _ in range(8)]
        assert statuses == [401] * 8

        gateway.configure(settings)
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.logs("read again(.|\n)*read again")
        assert [ask(gateway, token).status for _ in range(8)] == [200] * 8


def test_expiry_and_rotation_under_load(public: tuple[Gateway, AuthorizationServer]) -> None:
    gateway, server = public
    statuses: list[int] = []

    async def agent(number: int) -> None:
        for turn in range(ROTATIONS * 6):
            if number == 0 and turn % 6 == 5:
                server.rotate(forget=turn % 12 == 5)
            token = server.token(f"agent-{number}", gateway.url, exp=int(time.time()) + 2)
            asked = modern("tools/call", {"name": "echo", "arguments": {}}, key=token)
            statuses.append((await exchange(gateway.url, asked)).status)

    async def story() -> None:
        await asyncio.gather(*map(agent, range(8)))

    before = server.asked["/jwks"]
    asyncio.run(story())
    # A token that was signed just before its key was forgotten is the only one that may be refused.
    assert len(statuses) == 8 * ROTATIONS * 6
    assert set(statuses) <= {200, 401}
    assert statuses.count(401) <= 8 * ROTATIONS
    assert server.asked["/jwks"] <= before + ROTATIONS


def test_what_a_withdrawn_key_has_signed_counts_no_more(public: tuple[Gateway, AuthorizationServer]) -> None:
    gateway, server = public
    old = server.token("alice", gateway.url)
    assert ask(gateway, old).status == 200
    server.rotate(forget=True)
    assert ask(gateway, server.token("alice", gateway.url)).status == 200  # by which the new key is found
    assert [ask(gateway, old).status for _ in range(6)] == [401] * 6


def test_the_controller_may_die_and_come_back(tmp_path: Path) -> None:
    policies = [*POLICIES, {"name": "support", "match": {"claims": {"team": "support"}}, "allow": ["echo"]}]
    with realm(tmp_path, policies=policies) as (gateway, server, _):
        tokens = [server.token(f"agent-{turn}", gateway.url) for turn in range(10)]
        assert ask(gateway, tokens[0]).status == 200
        before = gateway.child("controller")
        os.kill(before, signal.SIGKILL)
        # Workers have the issuer's keys and the class: agents that nobody has seen come in without a controller.
        assert [ask(gateway, token).status for token in tokens] == [200] * 10
        # Of another class the next controller makes the lists, and it makes those of the first one again.
        others = [server.token("helper", gateway.url, team="support"), server.token("alice", gateway.url)]
        assert [ask(gateway, token).status for token in others * 4] == [200] * 8
        asyncio.run(until(lambda: _is_back(gateway, before)))
        assert [ask(gateway, token).status for token in [*tokens, *others]] == [200] * 12


async def _is_back(gateway: Gateway, before: int) -> bool:
    return gateway.child("controller") not in (0, before)


def test_no_token_and_no_secret_is_written_down(tmp_path: Path) -> None:
    with realm(tmp_path, {"SECRET": INTROSPECTING[1]}, log={"level": "debug"}) as (gateway, server, settings):
        asking = {"url": f"{server.url}introspect", "client_id": INTROSPECTING[0], "client_secret": "${env:SECRET}"}
        login = {"issuer": server.url, "claims": {"team": "team"}, "user_id": "email", "introspection": asking}
        gateway.configure({**settings, "identity": {"login": login}})
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.logs("read again")
        server.claims["email"] = "canary@example.com"
        good, opaque = server.token("alice", gateway.url), server.opaque_token("bob", gateway.url)
        head, payload, signature = good.split(".")
        shown = [good, opaque, f"{head}.{payload}.{signature[:-8]}AAAAAAAA", f"{opaque}-not", server.token("a", "b")]
        answers = [ask(gateway, token) for token in shown]
        server.away = True
        server.rotate()
        shown += [server.token("carol", gateway.url), "never-heard-of-opaque-token"]
        answers += [ask(gateway, token) for token in shown[-2:]]
        assert [reply.status for reply in answers] == [200, 200, 401, 401, 401, 503, 503]
        asyncio.run(until(lambda: _written(gateway, 2)))
        pages = [
            gateway.ask_admin(page)[1] for page in ("/metrics", "/config", "/config/effective", "/backends", "/stats")
        ]
        files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
        said = b"\n".join([*pages, *files, *[reply.body + repr(reply.headers).encode() for reply in answers]])
        assert b"fastgw_issuer_keys" in said
        for secret in [*shown, head, payload, signature, INTROSPECTING[1], "canary@example.com"]:
            assert secret.encode() not in said, secret


async def _written(gateway: Gateway, count: int) -> bool:
    return len(gateway.events()) == count
