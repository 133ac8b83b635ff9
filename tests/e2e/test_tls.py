"""Agents come by HTTPS: real clients of both eras, certificates that agents must show, and new ones under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from fastgw.cli.main import main
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import PATIENCE, connected, exchange, modern
from tests.e2e.load import loaded, tool, words
from tests.e2e.servers import Call, Toolbox, serving
from tests.e2e.test_reload import APPLIED, REFUSED
from tests.upstream.test_tls import Authority

EXPIRY = 'fastgw_listener_certificate_expiry_timestamp_seconds{kind="cert"}'
RATE = 40.0
"""Calls a second, each on a connection of its own."""


class Stage:
    """A gateway behind TLS, before one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "ca")
        self.entered, self.release = asyncio.Event(), asyncio.Event()
        self.gateway: Gateway

    @property
    def url(self) -> str:
        return self.gateway.url.replace("http:", "https:")

    def trusting(self, *client: str) -> ssl.SSLContext:
        """What an agent has that trusts our CA, and shows this certificate."""
        context = ssl.create_default_context(cafile=self.authority.path)
        if client:
            context.load_cert_chain(*client)
        return context

    def mount(self, name: str, key: str = "") -> None:
        """Have a link lead to this certificate, and to another's key, as secret stores do (Kubernetes, Secrets)."""
        version = self.folder / f"..{name}{key}"
        version.mkdir(exist_ok=True)
        for kind, of in (("pem", name), ("key", key or name)):
            (version / f"cert.{kind}").write_bytes((self.folder / f"ca-{of}.{kind}").read_bytes())
        (self.folder / "new").symlink_to(version)
        (self.folder / "new").rename(self.folder / "mount")

    async def shown(self) -> set[str]:
        """The names on the certificates that some new connections are shown."""
        found = set()
        for _ in range(6):
            async with connected(self.url, ssl=self.trusting()) as connection:
                subject = connection.writer.get_extra_info("peercert")["subject"]
                found.add(dict(one[0] for one in subject)["commonName"])
        return found

    async def metric(self, line: str) -> float:
        return await asyncio.to_thread(self.gateway.metric, line)

    async def reached(self, line: str, count: int) -> None:
        async def enough() -> bool:
            return await self.metric(line) >= count

        await until(enough)

    async def echo(self, call: Call) -> None:
        await call.text(call.arguments.get("nonce", "hello"))

    async def held(self, call: Call) -> None:
        self.entered.set()
        await self.release.wait()
        await call.text("held")


@asynccontextmanager
async def staged(folder: Path, client: tuple[str, str] | None = None) -> AsyncIterator[Stage]:
    """The stage; where the tester has a certificate, of the CA in `agents.pem`, agents must show one."""
    stage = Stage(folder)
    stage.authority.issue("first")
    stage.authority.issue("second", hours=48)
    stage.mount("first")
    async with AsyncExitStack() as stack:
        tools = {"echo": stage.echo, "held": stage.held}
        server = await stack.enter_async_context(serving(Toolbox("both", tools)))
        files = {"cert": "mount/cert.pem", "key": "mount/cert.key", **({"client_ca": "agents.pem"} if client else {})}
        more = {"servers": {"shop": {"url": server.url}}, "tls": files}
        stage.gateway = await stack.enter_async_context(running_beside(more, folder))
        agent = stage.trusting(*(client or ()))

        async def listed() -> bool:
            reply = await exchange(stage.url, modern("tools/list", key=KEY), ssl=agent)
            return len(reply.json()["result"]["tools"]) == len(tools)

        await until(listed)
        yield stage


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_clients_of_both_eras_call_by_https(tmp_path: Path, mode: Any) -> None:
    async def story() -> None:
        async with staged(tmp_path) as stage:
            http = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {KEY}"}, timeout=30, verify=stage.trusting(), http2=False
            )
            async with http, Client(streamable_http_client(stage.url, http_client=http), mode=mode) as client:
                assert [one.name for one in (await client.list_tools()).tools] == ["echo", "held"]
                assert (await client.call_tool("echo", {"nonce": "by TLS"})).content[0].text == "by TLS"
            assert stage.gateway.logs("agents: https://127.0.0.1")
            both, newer = stage.trusting(), stage.trusting()
            both.set_alpn_protocols(["h2", "http/1.1"])
            newer.set_alpn_protocols(["h2"])
            async with connected(stage.url, ssl=both) as connection:
                assert connection.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            with pytest.raises(ssl.SSLError):
                await exchange(stage.url, modern("tools/list", key=KEY), ssl=newer)
            with pytest.raises((OSError, EOFError)):
                await exchange(stage.gateway.url, modern("tools/list", key=KEY))

    asyncio.run(story())


def test_agents_must_show_a_certificate_of_client_ca(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path, "agents"), Authority(tmp_path, "others")

    async def story() -> None:
        async with staged(tmp_path, ours.issue("tester")) as stage:
            asked = modern("tools/list", key=KEY)
            reply = await exchange(stage.url, asked, ssl=stage.trusting(*ours.issue("bot")))
            assert reply.status == 200
            cert, key = ours.issue("operator")
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("SSL_CERT_FILE", stage.authority.path)
                patched.setenv("FASTGW_KEY", KEY)
                order = ["--url", stage.url, "--cert", cert, "--key", key]
                assert await asyncio.to_thread(main, ["call", "echo", *order]) == 0
                assert await asyncio.to_thread(main, ["tools", "--url", stage.url]) == 3
                load = ["bench", "--tool", "echo", "--rate", "20", "--seconds", "0.4", *order]
                assert await asyncio.to_thread(main, load) == 0
            # A certificate does not name the agent: it needs its key all the same.
            nameless = await exchange(stage.url, modern("tools/list"), ssl=stage.trusting(*ours.issue("bot")))
            assert nameless.status == 401
            for client in ((), others.issue("bot"), ours.issue("old", hours=-0.5)):
                with pytest.raises((OSError, EOFError)):
                    await exchange(stage.url, asked, ssl=stage.trusting(*client))

    asyncio.run(story())


def test_a_new_certificate_is_served_and_no_call_is_lost(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path) as stage:
            agent = stage.trusting()
            held = asyncio.create_task(
                exchange(stage.url, modern("tools/call", {"name": "held", "arguments": {}}, key=KEY), ssl=agent)
            )
            async with asyncio.timeout(PATIENCE):
                await stage.entered.wait()
            expires = await stage.metric(EXPIRY)
            load = loaded(stage.url, RATE, tool("echo"), ssl=agent)
            async with connected(stage.url, ssl=agent) as kept, load as calls:
                asked = tool("echo")("kept").having("Connection", "keep-alive")
                assert (await (await kept.ask(asked)).rest()).header("connection") is None
                for number, name in enumerate(["second", "first", "second"], 1):
                    stage.mount(name)
                    await stage.reached(APPLIED, number)
                    assert await stage.shown() == {name}
                # On a connection of the one before: answered, and told to connect anew.
                assert (await (await kept.ask(asked)).rest()).header("connection") == "close"
            assert len(calls.outcomes) > RATE
            assert not calls.wrong, words(calls.wrong)
            stage.release.set()
            assert (await held).status == 200
            assert await stage.metric(EXPIRY) > expires + 3600

    asyncio.run(story())


def test_what_does_not_load_leaves_the_one_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with staged(tmp_path) as stage:
            stage.mount("second", "first")  # not its key
            await stage.reached(REFUSED, 1)
            assert await stage.shown() == {"first"}
            refused = json.loads((await asyncio.to_thread(stage.gateway.ask_admin, "/config"))[1])["refused"]
            assert "mount/cert.key is not the key of this certificate" in refused["error"]
            assert (await exchange(stage.url, modern("tools/list", key=KEY), ssl=stage.trusting())).status == 200
            # Whoever is started again has the one before as well.
            for role in ("controller", "worker-1", "worker-2"):
                os.kill(stage.gateway.child(role), signal.SIGKILL)
            await stage.reached("fastgw_worker_restarts_total", 2)
            await asyncio.to_thread(stage.gateway.wait_until_ready)
            assert await stage.shown() == {"first"}
            stage.mount("second")
            await stage.reached(APPLIED, 1)
            assert await stage.shown() == {"second"}
            assert await stage.metric("fastgw_worker_restarts_total") == 2

    asyncio.run(story())
