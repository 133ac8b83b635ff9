"""A secret in every credential, argument, header, query and result of a gateway that meets all kinds of trouble is
heard nowhere but where it belongs: in no log, metric, trace, event, error answer, page, command's output or file.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiohttp import web

from fastgw.cli.main import main
from fastgw.usage.archive import Archive
from tests.e2e.authorization_server import INTROSPECTING, AuthorizationServer, authorizing
from tests.e2e.canaries import Heard
from tests.e2e.gateway import Gateway, fingerprint, launch, until
from tests.e2e.gateway import settings as with_usual
from tests.e2e.http import META, Asked, Reply, exchange, legacy, modern, open_session, streaming
from tests.e2e.library import Library, said
from tests.e2e.ports import free_port
from tests.e2e.servers import STREAM, Call, answer, event, failure, serving
from tests.e2e.token_endpoint import TokenEndpoint, issuing
from tests.limits.valkeys import Valkey

ERAS = {"new": "modern", "old": "legacy"}
ALLOWED = {
    # What an agent is told by the server that it has called, and what it has itself said.
    "answer": {
        "result",
        "error",
        "form",
        "log message",
        "progress",
        "progress token",
        "link",
        "own argument",
        "forwarded",
        "baggage",
    },
}
ROUTES = re.compile(r"^GET +(\S+)", re.MULTILINE)


@dataclass
class Receiver:
    """Takes whatever is sent to it: spans, usage events, alerts."""

    url: str = ""
    got: dict[str, bytes] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.got[request.path] = self.got.get(request.path, b"") + body
        if request.path in ("/", "/echo"):  # a sink that repeats what it was shown
            return web.Response(status=500, text=str(dict(request.headers)))
        return web.Response(body=b"", content_type="application/x-protobuf")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/{any:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Troubles:
    """Tools of a server that go wrong in all kinds of ways, and say a secret and what they were shown in each."""

    def __init__(self, heard: Heard) -> None:
        self.secret = heard.secret

    def shown(self, call: Call) -> str:
        return " ".join(f"{name}={value}" for name, value in call.got.headers if name not in ("host", "accept"))

    async def fine(self, call: Call) -> None:
        link = f"docs://user:{self.secret('link')}@host/x?token={self.secret('link')}"
        content = [{"type": "text", "text": self.secret("result")}, {"type": "resource_link", "uri": link, "name": "l"}]
        result = {"content": content, "structuredContent": {"a": self.secret("result")}, "isError": False}
        await call.result(json.dumps(result).encode())

    async def noisy(self, call: Call) -> None:
        token = call.params.get("_meta", {}).get("progressToken", 0)
        for method, params in (
            ("notifications/message", {"level": "error", "data": self.secret("log message"), "logger": "l"}),
            ("notifications/progress", {"progressToken": token, "progress": 1, "message": self.secret("progress")}),
        ):
            note = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
            await call.send((STREAM if method.endswith("message") else b"") + event(note))
        reply = call.envelope(b'{"content":[],"isError":true}')
        await call.send(event(reply) + b"0\r\n\r\n")

    async def error(self, call: Call) -> None:
        words = f"{self.secret('error')} was shown {self.shown(call)}"
        await call.send(failure(call.id, -32050, words, data={"why": words}))

    async def asks(self, call: Call) -> None:
        form = {"mode": "form", "message": self.secret("form"), "requestedSchema": {"type": "object", "properties": {}}}
        request = {"method": "elicitation/create", "params": form}
        result = {"resultType": "input_required", "inputRequests": {"a": request}, "requestState": self.secret("state")}
        await call.send(answer(json.dumps({"jsonrpc": "2.0", "id": call.id, "result": result}).encode()))

    async def fails(self, call: Call) -> None:
        words = f"{self.secret('status 500')} {self.shown(call)}".encode()
        headers = {
            "WWW-Authenticate": f'Bearer realm="{self.secret("challenge")}"',
            "X-Trace": self.secret("header back"),
        }
        await call.send(answer(words, status="500 " + self.secret("reason"), headers=headers))

    async def turned_away(self, call: Call) -> None:
        headers = {"WWW-Authenticate": f'Bearer resource_metadata="http://x/{self.secret("challenge")}"'}
        await call.send(answer(self.secret("status 401").encode(), status="401 No", headers=headers))

    async def moved(self, call: Call) -> None:
        headers = {"Location": f"http://u:{self.secret('location')}@127.0.0.1:9/?t={self.secret('location')}"}
        await call.send(answer(b"", status="307 Moved", headers=headers))

    async def garbled(self, call: Call) -> None:
        await call.send(
            answer(f'{{"jsonrpc":"2.0","id":{json.dumps(call.id)},"result":{{"{self.secret("garbled")}'.encode())
        )

    async def nonsense(self, call: Call) -> None:
        words = self.secret("nonsense").encode()
        await call.send(answer(words, headers={"Content-Type": f"text/{self.secret('media type')}"}))

    async def no_http(self, call: Call) -> None:
        await call.send(f"HTTP/1.1 {self.secret('no http')}\r\n{self.secret('no http')}\r\n\r\n".encode())
        call.writer.close()

    async def breaks(self, call: Call) -> None:
        await call.send(STREAM + event(b'{"jsonrpc":"2.0","method":"' + self.secret("half a stream").encode() + b'"'))
        call.writer.transport.abort()

    async def slow(self, call: Call) -> None:
        await call.left()

    def tools(self, server: str) -> dict[str, Any]:
        """All of them, named after the server; beside two servers one is enough."""
        names = ["fine", "noisy", "error", "asks", "fails", "turned_away", "moved", "garbled", "nonsense", "no_http"]
        names += ["breaks", "slow"]
        if server not in ERAS:
            names = ["error"]
        return {f"{server}-{name}": getattr(self, name) for name in names if server != "old" or name != "asks"}


def agents(heard: Heard) -> dict[str, Any]:
    return {"tester": {"key": fingerprint(key(heard)), "claims": {"team": "test"}}}


def key(heard: Heard) -> str:
    return f"fgw_{heard.secret('API key')}"


REFERENCED = (
    "bearer", "header", "password", "client secret", "other client secret", "URL", "admin token", "secret", "store",
    "webhook",
    "webhook secret",
    "sink password", "broken value", "server header", "fixed argument",
)  # fmt: skip
"""Places of secrets that the configuration refers to."""


def environment(heard: Heard) -> dict[str, str]:
    made = {name.upper().replace(" ", "_"): heard.secret(name) for name in REFERENCED}
    heard.watch("introspection secret", INTROSPECTING[1])
    return {**made, "INTROSPECTION": INTROSPECTING[1], "FASTGW_SECRET": f"{made['SECRET']} {made['SECRET']}"}


def settings(
    urls: dict[str, str],
    endpoints: dict[str, TokenEndpoint],
    login: AuthorizationServer,
    receiver: Receiver,
    store: Valkey,
) -> dict[str, Any]:
    """All of it, but for the agents."""
    asking = {"url": f"{login.url}introspect", "client_id": INTROSPECTING[0], "client_secret": "${env:INTROSPECTION}"}

    def oauth(endpoint: TokenEndpoint, **more: Any) -> dict[str, Any]:
        usual = {"token_url": endpoint.url, "client_id": endpoint.client, "client_secret": "${env:CLIENT_SECRET}"}
        return {"oauth": {name: value for name, value in {**usual, **more}.items() if value is not None}}

    good, evil = endpoints["good"], endpoints["evil"]
    credentials: dict[str, Any] = {
        "new": {"bearer": "${env:BEARER}"},
        "old": {"header": {"X-Key": "${env:HEADER}"}},
        "basic": {"basic": {"username": "u", "password": "${env:PASSWORD}"}},
        "client": oauth(good),
        "posted": oauth(good, client_auth="post", client_id="somebody else"),
        "signed": oauth(good, client_secret=None, private_key="${file:key.pem}"),
        "exchange": oauth(good, grant="token_exchange"),
        "evil": oauth(evil, client_secret="${env:OTHER_CLIENT_SECRET}", client_auth="post"),
        "dead": {"bearer": "${env:BEARER}"},
    }
    servers = {
        name: {"url": f"{urls[name]}?key=${{env:URL}}", "credential": credential, "timeout": "1s",
               "forward_headers": ["X-Tenant", "baggage"], "headers": {"X-Server": "${env:SERVER_HEADER}"}}
        for name, credential in credentials.items()
    }  # fmt: skip
    return {
        "servers": servers,
        "tools": {
            **{f"try-{name}": {"to": f"{name}/{name}-error"} for name in credentials if name not in ERAS},
            "new-fine": {"validate": "arguments", "cache": "1h", "repeatable": True},
            "new-noisy": {"fixed": {"fixed": "${env:FIXED_ARGUMENT}"}},
        },
        "identity": {"login": {"issuer": login.url, "user_id": "email", "introspection": asking}},
        "limits": [
            {"name": "few", "by": ["agent"], "rate": "100000/minute"},
            {"name": "one", "by": ["agent"], "tools": "new-slow", "rate": "1/hour"},
        ],
        "store": {"url": store.url, "password": "${env:STORE}"},
        "alerts": {"webhook": "${env:WEBHOOK}", "secret": "${env:WEBHOOK_SECRET}"},
        "usage": {"sinks": [
            "file:usage.jsonl",
            {"url": f"{receiver.url}/usage", "username": "u", "password": "${env:SINK_PASSWORD}"},
            {"url": f"{receiver.url}/echo", "username": "u", "password": "${env:SINK_PASSWORD}"},
            {"url": f"{receiver.url.replace('http', 'clickhouse')}/echo", "password": "${env:SINK_PASSWORD}"},
        ]},
        "traces": {"url": receiver.url},
        "log": {"level": "debug"},
        "failed_credentials": "off",
        "breaker": {"failures": 10_000},
        "quotas": [
            {"name": "month", "by": ["agent"], "per": "month", "calls": 1000, "warn_at": "1%", "mode": "shadow"},
        ],
    }  # fmt: skip


@dataclass
class Scene:
    """The gateway, what is around it, and what has been heard of it."""

    gateway: Gateway
    login: AuthorizationServer
    endpoint: TokenEndpoint
    store: Valkey
    heard: Heard

    async def ask(self, where: str, asked: Asked, path: str = "/mcp") -> Reply:
        """One request, with secrets wherever an agent may have some besides; its answer is heard."""
        secret = self.heard.secret
        more = [
            ("X-Tenant", secret("forwarded")),
            ("Cookie", f"s={secret('cookie')}"),
            ("X-Other", secret("other header")),
        ]
        reply = await exchange(
            f"{self.gateway.root}{path}?token={secret('query')}", Asked(asked.body, [*asked.headers, *more], asked.verb)
        )
        self.heard.add(f"answer of {where}", reply.body + repr(reply.headers).encode())
        return reply

    async def call(self, tool: str, key: str, session: str | None = None) -> Reply:
        """A call of a tool in either era."""
        params = {"name": tool, "arguments": {"a": self.heard.secret("argument"), "n": 1}}
        meta = {
            "own": self.heard.secret("own meta"), "progressToken": self.heard.secret("progress token"),
            f"{META}clientCapabilities": {"elicitation": {}}, "baggage": f"k={self.heard.secret('baggage')}",
        }  # fmt: skip
        asked = modern("tools/call", params, key=key, meta=meta)
        if session is not None:
            asked = legacy("tools/call", {**params, "_meta": {"own": meta["own"]}}, key=key, session=session)
        return await self.ask(tool, asked)

    async def calls(self) -> None:
        """Every tool by every way in; and what is refused before it is a call."""
        own = key(self.heard)
        session = await open_session(self.gateway.url, key=own)
        tools = [
            tool["name"] for tool in (await self.ask("list", modern("tools/list", key=own))).json()["result"]["tools"]
        ]
        assert {"new-fine", "old-fine", "try-evil"} <= set(tools)
        await asyncio.gather(*[self.call(tool, own, of) for tool in tools for of in (None, session)])
        token, opaque = self.tokens()
        await asyncio.gather(
            *[self.call(tool, one) for one in (token, opaque) for tool in ("try-exchange", "new-fine")]
        )
        await self.refused(own, session)

    def tokens(self) -> tuple[str, str]:
        """Access tokens of somebody, one of either kind."""
        self.login.claims["email"] = self.heard.secret("person")
        token, opaque = self.login.token("alice", self.gateway.url), self.login.opaque_token("bob", self.gateway.url)
        for part, text in zip(("head", "payload", "signature"), token.split("."), strict=True):
            if part != "head":
                self.heard.watch(f"{part} of {token[-8:]}", text)
        self.heard.watch(f"opaque token {opaque[:4]}", opaque)
        return token, opaque

    async def is_whole(self) -> bool:
        """Whether all that the servers have is listed."""
        reply = await exchange(self.gateway.url, modern("tools/list", key=key(self.heard)))
        return {"new-fine", "old-fine", "try-exchange"} <= {tool["name"] for tool in reply.json()["result"]["tools"]}

    async def refused(self, own: str, session: str) -> None:
        secret, call = (
            self.heard.secret,
            modern("tools/call", {"name": "new-fine", "arguments": {"a": self.heard.secret("argument")}}, key=own),
        )
        wrong = [("Bearer {}", "wrong key"), ("Bearer fgw_{}", "wrong key"), ("Basic dTp{}", "wrong key"),
                 ("DPoP {}", "wrong key"), ("Bearer eyJhbGciOiJub25lIn0.e30.{}", "wrong token"),
                 ("{}", "wrong key")]  # fmt: skip
        for form, place in wrong:
            assert (await self.ask("strangers", call.having("Authorization", form.format(secret(place))))).status in (
                401,
                503,
            )
        await self.ask("strangers", Asked(call.body, [*call.headers, ("X-API-Key", secret("wrong key"))]))
        bad = secret("bad request")
        for body in (
            b"{%b" % bad.encode(),
            b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % bad.encode(),
            call.body.replace(b'"a"', b'"n": "%b", "a"' % bad.encode()),
        ):
            for like in (call, legacy("ping", key=own, session=session)):
                await self.ask("bad requests", Asked(body, like.headers))
        await self.ask("bad requests", call.having("Mcp-Name", bad))
        await self.ask("bad requests", call, f"/mcp/{bad}")
        await self.ask("unknown", modern("tools/call", {"name": secret("own argument")}, key=own))
        await self.ask("REST", Asked(call.body, [*call.headers[:3]]), "/mcp/tools/new-error/invoke")
        await self.ask(
            "resources", modern("resources/read", {"uri": f"docs://u:{secret('own argument')}@host/x?key=1"}, key=own)
        )
        await self.ask(
            "prompts", modern("prompts/get", {"name": "talk", "arguments": {"word": secret("argument")}}, key=own)
        )

    # -- operators ---------------------------------------------------------------------------------------------------

    async def operate(self, path: str, shown: str | None = None, **how: Any) -> Reply:
        token = self.heard.secrets["admin token"] if shown is None else shown
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
        return await exchange(self.gateway.admin + path, Asked(headers=headers, **{"verb": "GET", **how}))

    async def look_around(self) -> None:
        """Every page of the admin port."""
        index = (await self.operate("/")).body.decode()
        routes = [path for path in ROUTES.findall(index) if path != "/live"]
        assert {"/metrics", "/config/effective", "/backends", "/usage"} <= set(routes)
        asked = {"/explain": "/explain?agent=tester&tool=new-fine", "/page/history": "/page/history?tool=new-fine"}
        for path in [*routes, "/session", "/nothing"]:
            reply = await self.operate(asked.get(path, path))
            self.heard.add(f"page {path}", reply.body + repr(reply.headers).encode())
            assert reply.status in (200, 404, 503), (path, reply)  # a worker or the store may be away
        own = [("Authorization", f"Bearer {self.heard.secrets['admin token']}")]
        async with streaming(f"{self.gateway.admin}/live", Asked(headers=own, verb="GET")) as live:
            first = await live.event()
            assert first is not None
            self.heard.add("page /live", first.data)
        for shown in (self.heard.secret("wrong admin token"), "x"):
            for path, how in (
                ("/metrics", {}),
                ("/login", {"verb": "POST", "body": json.dumps({"token": shown}).encode()}),
            ):
                reply = await self.operate(path, shown, **how)
                self.heard.add(f"page {path} for others", reply.body + repr(reply.headers).encode())
                assert reply.status == 401

    def command(self, *words: str) -> None:
        """What a command prints."""
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out), suppress(SystemExit):
            main(words)
        self.heard.add(f"command {words[0]}", out.getvalue())
        assert out.getvalue().strip(), words

    def commands(self) -> None:
        file = str(self.gateway.folder / "fastgw.yaml")
        asked = ("explain", "--agent", "tester", "--tool", "new-fine")
        for words in (
            ("check",), asked, (*asked, "--json"), ("diff",), ("stats",), ("backends",), ("limits",), ("quota",),
            ("top", "--json"), ("top",), ("usage",), ("keys", "list"), ("keys", "used"),
        ):  # fmt: skip
            self.command(*words, "--config", file)

    # -- trouble -----------------------------------------------------------------------------------------------------

    async def reload(self, text: str, says: str) -> None:
        since = len(self.gateway.log())
        (self.gateway.folder / "fastgw.yaml").write_text(text)
        self.gateway.process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(self.gateway.logs, says, since, 20.0), self.gateway.log()[since:]
        reply = await self.operate("/config")
        self.heard.add("page /config", reply.body)

    async def reload_broken(self) -> None:
        """Configurations that are refused, for a secret in them."""
        good = (self.gateway.folder / "fastgw.yaml").read_text()
        whole, broken = json.loads(good), self.heard.secret("broken value")
        for wrong in (
            {**whole, "timeout": "${env:BROKEN_VALUE}"},
            {**whole, "secret": broken},
            {**whole, "alerts": {"webhook": "${env:BROKEN_VALUE}"}},
            {**whole, "store": {"url": "${env:BROKEN_VALUE}"}},
            {**whole, "servers": {"x": {"url": "http://127.0.0.1:9/", "credential": {"bearer": broken}}}},
            {**whole, "agents": {"x": {"key": f"fgw_{broken}"}}},
            {**whole, "servers": {"x": {"url": f"http://u:{broken}@127.0.0.1:9/"}}},
        ):
            await self.reload(json.dumps(wrong), "refused|not applied|stays")
            self.heard.add("command check", "")
            await asyncio.to_thread(self.command, "check", "--config", str(self.gateway.folder / "fastgw.yaml"))
        await self.reload(good[:-2] + f', "x": "{broken}', "refused|not applied|stays")
        (self.gateway.folder / "fastgw.yaml").write_text(good)

    async def lose_a_worker(self) -> None:
        """One dies by a signal that leaves a dump, in the middle of a call."""
        before = self.gateway.child("worker-1")
        slow = [asyncio.ensure_future(self.call("old-slow", key(self.heard))) for _ in range(8)]
        os.kill(before, signal.SIGABRT)
        await asyncio.gather(*slow, return_exceptions=True)
        await until(lambda: self.is_another("worker-1", before))

    async def is_another(self, role: str, before: int) -> bool:
        return self.gateway.child(role) not in (0, before)

    def files(self) -> None:
        """Everything that was written down, but what operators wrote; the gateway has ended."""
        usage = self.gateway.folder / "data" / "usage"
        Archive(usage).convert(sorted((usage / "spool").glob("*.jsonl")))
        self.command("usage", "--by", "agent", "--config", str(self.gateway.folder / "fastgw.yaml"))
        assert list(usage.rglob("*.parquet"))
        for file in self.gateway.folder.rglob("*"):
            if file.is_file() and file.name not in ("fastgw.yaml", "key.pem"):
                name = str(file.relative_to(self.gateway.folder))
                self.heard.add(f"file {name}", file.read_bytes())
                if file.suffix == ".parquet":
                    rows = duckdb.execute("SELECT * FROM read_parquet($1)", [str(file)]).fetchall()
                    self.heard.add(f"file {name}", repr(rows))


@asynccontextmanager
async def scene(folder: Path, heard: Heard, around: dict[str, str]) -> AsyncIterator[tuple[Scene, Receiver]]:
    """Everything, started, and all tools listed."""
    async with AsyncExitStack() as stack:
        login, receiver = stack.enter_context(authorizing()), await stack.enter_async_context(receiving())
        store = stack.enter_context(Valkey(requirepass=around["STORE"]))
        endpoints = {
            "good": TokenEndpoint(secret=around["CLIENT_SECRET"], padding=f".{heard.secret('issued token')}"),
            "evil": TokenEndpoint(),
        }
        for endpoint in endpoints.values():
            await stack.enter_async_context(issuing(endpoint))
        shown = {"error": heard.secret("endpoint's error"), "error_description": around["OTHER_CLIENT_SECRET"]}
        endpoints["evil"].instead = web.json_response(shown, status=400)
        (folder / "key.pem").write_text(endpoints["good"].pem)
        heard.watch("private key", endpoints["good"].pem.split("\n")[1])
        urls = {"dead": f"http://127.0.0.1:{free_port()}/mcp"}
        for name in ("new", "old", "basic", "client", "posted", "signed", "exchange", "evil"):
            tools = Troubles(heard).tools(name)
            box = Library(
                ERAS.get(name, "modern"), tools, prompts={"talk": said(heard.secret("result"))} if name == "new" else {}
            )
            box.definitions["new-fine"] = {"inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
            urls[name] = (await stack.enter_async_context(serving(box))).url
        around["WEBHOOK"] = f"{receiver.url}/hook/{around['WEBHOOK']}"
        more = {**settings(urls, endpoints, login, receiver, store), "agents": agents(heard)}
        listen, admin = free_port(), free_port()
        more["admin"] = {"listen": f"127.0.0.1:{admin}", "token": "${env:ADMIN_TOKEN}"}
        (folder / "fastgw.yaml").write_text(json.dumps(with_usual(more, listen, admin)))
        process = launch(folder, around)
        gateway = Gateway(f"http://127.0.0.1:{listen}/mcp", f"http://127.0.0.1:{admin}", folder, process)
        stack.callback(gateway.kill)
        await asyncio.to_thread(gateway.wait_until_ready)
        yield Scene(gateway, login, endpoints["good"], store, heard), receiver
        assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()


def test_no_secret_is_heard_where_it_does_not_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    around = environment(heard)

    async def story() -> None:
        async with scene(tmp_path, heard, around) as (stage, receiver):
            for name, value in around.items():
                monkeypatch.setenv(name, value)
            await until(stage.is_whole)
            await stage.calls()
            await stage.look_around()
            await stage.reload_broken()
            good = json.loads((tmp_path / "fastgw.yaml").read_text())
            await stage.reload(json.dumps({**good, "log": {"level": "debug", "format": "json"}}), "read again")
            stage.login.away = True
            stage.store.kill()
            await stage.lose_a_worker()
            await stage.calls()
            assert stage.endpoint.given
            for number, issued in enumerate(stage.endpoint.given):
                heard.watch(f"issued token {number}", issued.token.partition(".")[0])

            async def all_sent() -> bool:
                return {"/v1/traces", "/usage"} <= receiver.got.keys() and any("/hook" in path for path in receiver.got)

            await until(all_sent, 60)
            await stage.look_around()
            await asyncio.to_thread(stage.commands)
            for path, body in receiver.got.items():
                heard.add(f"sent to {path.partition('hook')[1] or path}", body)
        stage.files()

    asyncio.run(story())
    assert len(heard.texts) > 60
    found = heard.found(ALLOWED)
    assert not found, "\n".join(found)
