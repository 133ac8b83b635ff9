"""The complete configuration as users write it, served: what each of its agents gets, and what every server hears.

Replaced are its ports alone, and the number of workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from fastgw.cli.main import main
from fastgw.config.composer import compose
from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, Agent, agent
from tests.e2e.gateway import Gateway, launch, until
from tests.e2e.http import Asked, Reply, exchange
from tests.e2e.library import Library
from tests.e2e.library import said as prompted
from tests.e2e.library import text as contents
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Got, Server, failure, serving
from tests.e2e.token_endpoint import TokenEndpoint, issuing

CONTRACT = Path(__file__).parents[1] / "config" / "contract.yaml"
SECRETS = {
    "DEPLOYMENT_TOKEN": "token-of-deployment",
    "CUSTOMER_DATA_SECRET": "secret-of-customer-data",
    "DB_KEY": "key-of-databases",
    "FASTGW_SECRET": "what seals sessions, 32 bytes long",
}
ENGINEERING, SUPPORT, SUPPORT_OLD = "fgw_contract_engineering", "fgw_contract_support", "fgw_contract_support_old"
KEYS = (ENGINEERING, SUPPORT, SUPPORT_OLD)
UNKNOWN, TIMEOUT = -32602, -31002
EVENT = json.loads("""{
  "schema": 1, "requestId": "req_abc123def456", "timestamp": "2026-02-26T14:32:01.445Z", "gateway": "gw-1",
  "endpoint": "/mcp", "agentId": "agent-engineering-deploy-bot", "userId": null, "credential": "key:f784e848",
  "team": "engineering", "project": "checkout", "billingAccount": "acme-eng", "labels": {"tier": "internal"},
  "method": "tools/call", "tool": "generate-code", "mcpServer": "codegen-openai", "instance": "127.0.0.1:9006",
  "outcome": "ok", "statusCode": 200, "errorCode": null, "refusedBy": null, "attempts": 1, "failover": false,
  "cached": false, "latencyMs": 342.118, "overheadMs": 0.211, "bytesIn": 391, "bytesOut": 142, "tokensIn": 1250,
  "tokensOut": 487, "cost": 0.012055, "currency": "USD", "rateLimitRemaining": 87, "protocolVersion": "2026-07-28",
  "traceId": null
}""")
"""A usage event as it is promised."""
UNPRICED = [
    f'fastgw.yaml:{place}: has no price, and the quota "support-monthly" counts its calls as free'
    for place in ("74:3", "92:3", "93:3")
]


# -- the servers ----------------------------------------------------------------------------------------------------


async def echo(call: Call) -> None:
    """Say which tool was run with which arguments."""
    await call.text(json.dumps([call.name, call.arguments]))


async def write(call: Call) -> None:
    """The same, and how many tokens that took."""
    text = json.dumps(json.dumps([call.name, call.arguments]))
    usage = '{"usage":{"input_tokens":1250,"output_tokens":487}}'
    await call.result(f'{{"content":[{{"type":"text","text":{text}}}],"_meta":{usage}}}'.encode())


async def query(call: Call) -> None:
    """The same, but never where it is asked to be slow."""
    if call.arguments.get("sql") == "slow":
        await call.left()
    else:
        await echo(call)


def takes(argument: str, described: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"description": described, "inputSchema": schema}


def tools(*names: str) -> dict[str, Any]:
    return {name: {"query": query, "generate_code": write}.get(name, echo) for name in names}


@dataclass
class Guarded(Library):
    """A server that answers nobody who does not show the header it `wants`, or a token of its `endpoint`, and counts
    them; and none of ours.
    """

    wants: tuple[str, str] = ("authorization", "")
    endpoint: TokenEndpoint | None = None
    refused: int = 0

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        name, value = self.wants
        shown = got.header(name) or ""
        if self.endpoint is not None:
            value = shown if self.endpoint.good(shown.removeprefix("Bearer ")) else "a token"
        if shown != value:
            self.refused += 1
            writer.write(failure(None, -32600, "Who are you?", "401 Unauthorized"))
        else:
            await super().handle(got, writer)


def boxes(*, openai: tuple[str, ...] = ("generate_code",)) -> dict[int, Guarded]:
    """A server for each port of the contract."""
    bearer = ("authorization", f"Bearer {SECRETS['DEPLOYMENT_TOKEN']}")
    found = {
        9001: Guarded(
            "legacy",
            tools("deploy-service", "deploy-status", "rollback", "drop-database", "status", "customer-data-dump"),
            prompts={"release-notes": prompted()},
            resources={uri: contents(uri, "deployment") for uri in ("help://runbook", "file:///etc/secret")},
            wants=bearer,
        ),
        9004: Guarded("modern", tools("query", "db-write", "drop-database"), wants=("x-api-key", SECRETS["DB_KEY"])),
        9005: Guarded(
            "legacy", tools("query", "ticket-list", "status"),
            resources={"help://tickets": contents("help://tickets", "sandbox")}, templates=["help://page/{number}"],
            unlisted=lambda uri: contents(uri, "sandbox") if uri.startswith("help://page/") else None,
        ),
        9006: Guarded("modern", tools(*openai), {"generate_code": takes("prompt", "By openai.")}),
        9007: Guarded("legacy", tools("write_code", "code-search"), {"write_code": takes("instructions", "Another.")}),
    }  # fmt: skip
    for port in (9002, 9003):
        found[port] = Guarded("modern", tools("customer-data-read", "customer-data-write", "ticket-create"))
    return found


@dataclass
class Scene:
    """The contract's gateway, its servers by the port they have in the contract, and the ports they have here."""

    gateway: Gateway
    boxes: dict[int, Guarded]
    ports: dict[int, int]
    loop: Aside

    def called(self) -> list[tuple[int, str]]:
        """Port and tool of every call since the last look."""
        found = [(port, tool) for port, box in self.boxes.items() for _, tool in box.ledger]
        for box in self.boxes.values():
            box.ledger.clear()
        return found

    def events(self) -> list[dict[str, Any]]:
        """Usage events on stdout: nothing else is there."""
        return [json.loads(line) for line in (self.gateway.folder / "stdout.log").read_text().splitlines()]


def written(folder: Path, ports: dict[int, int]) -> Path:
    """The contract in this folder, with other ports and two workers."""
    text = re.sub(
        r"(127\.0\.0\.1|localhost):(\d{4})\b", lambda at: f"{at[1]}:{ports[int(at[2])]}", CONTRACT.read_text()
    )
    assert "\nworkers: 1 " in text
    file = folder / "fastgw.yaml"
    file.write_text(text.replace("\nworkers: 1 ", "\nworkers: 2 "))
    return file


def launched(file: Path, ports: dict[int, int]) -> Gateway:
    process = launch(file.parent, SECRETS)
    return Gateway(f"http://127.0.0.1:{ports[8080]}/mcp", f"http://127.0.0.1:{ports[8081]}", file.parent, process)


@asynccontextmanager
async def scene(folder: Path, loop: Aside, found: dict[int, Guarded]) -> AsyncIterator[Scene]:
    """The contract, served, with the catalogues of all servers on both workers."""
    async with AsyncExitStack() as stack:
        ports = {8080: free_port(), 8081: free_port()}
        endpoint = TokenEndpoint(SECRETS["CUSTOMER_DATA_SECRET"], "fastgw")
        await stack.enter_async_context(issuing(endpoint))
        ports[9000] = int(endpoint.url.removesuffix("/token").rpartition(":")[2])
        found[9002].endpoint = found[9003].endpoint = endpoint
        for port, box in found.items():
            server: Server = await stack.enter_async_context(serving(box))
            ports[port] = server.port
        gateway = launched(written(folder, ports), ports)
        stack.callback(gateway.kill)
        await asyncio.to_thread(gateway.wait_until_ready)
        engineer, helper = Agent(gateway.url, ENGINEERING), Agent(gateway.url, SUPPORT)

        async def whole() -> bool:
            """Whether several fresh connections, so both workers, list what each of the catalogues brings."""
            seen = [await who.tools() for who in (engineer, helper) for _ in range(4)]
            names = [{tool["name"] for tool in one} for one in seen]
            code = [tool.get("description") for one in seen for tool in one if tool["name"] == "generate-code"]
            return (
                all({"rollback", "code-search"} <= one for one in names[:4])
                and all({"customer-data-read", "ticket-list"} <= one for one in names[4:])
                and all(code)
            )

        await until(whole)
        yield Scene(gateway, found, ports, loop)
        code = await asyncio.to_thread(gateway.stop)
        assert code == 0, gateway.log()
        assert {one.form["scope"] for one in endpoint.given} == {"customers.read"}
        assert "Traceback" not in gateway.log()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("contract"), loop, boxes()))


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: no server has seen an agent's key, or a secret that is not its own."""
    yield
    if "stage" not in request.fixturenames:
        return
    found: Scene = request.getfixturevalue("stage")
    owners = {"DEPLOYMENT_TOKEN": (9001,), "DB_KEY": (9004,), "CUSTOMER_DATA_SECRET": (), "FASTGW_SECRET": ()}
    for port, box in found.boxes.items():
        heard = "\n".join(f"{got.headers} {got.body!r}" for got in box.got)
        assert heard, f"nobody has talked to {port}"
        assert box.refused == 0, f"{port} was not shown its credential"
        assert "fgw_contract" not in heard
        for name, ports in owners.items():
            assert (SECRETS[name] in heard) is (port in ports), (port, name)


def text_of(reply: Reply) -> Any:
    """What `echo` was called with."""
    found = reply.json()
    assert "result" in found, found
    return json.loads(found["result"]["content"][0]["text"])


# -- what each agent has --------------------------------------------------------------------------------------------

HAS = {
    (ENGINEERING, "/mcp"): {"db-query", "generate-code", "deploy-service", "deploy-status", "rollback", "code-search"},
    (SUPPORT, "/mcp"): {"customer-data-read", "ticket-create", "ticket-list"},
    (SUPPORT_OLD, "/mcp"): {"customer-data-read", "ticket-create", "ticket-list"},
    (ENGINEERING, "/mcp/ops"): {"deploy-service", "deploy-status", "rollback"},
    (SUPPORT, "/mcp/ops"): set(),
    (SUPPORT_OLD, "/mcp/ops"): set(),
}
EVERYTHING = set().union(*(box.tools for box in boxes().values())) | set().union(*HAS.values())
EVERYTHING |= {"deployment__drop-database", "database-fast__drop-database", "database-fast__query"}
EVERYTHING |= {"deployment__status", "database-sandbox__status", "deployment/rollback", "deploy-*", "*"}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("key", "path"), HAS)
def test_each_agent_has_what_its_policies_give_it_and_nothing_else(stage: Scene, era: str, key: str, path: str) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.root + path, key)
        for _ in range(3):  # either worker
            assert set(await who.names()) == HAS[key, path]
        stage.called()
        for name in sorted(EVERYTHING):
            reply = (await who.call(name, {"prompt": "p", "sql": "s"})).json()
            if name in HAS[key, path]:
                assert "result" in reply, (name, reply)
                assert len(stage.called()) == 1
            else:
                assert reply["error"]["code"] == UNKNOWN, (name, reply)
                assert reply["error"]["message"] == f"Unknown tool: {name}"
        assert stage.called() == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_prompts_are_nobodys_and_help_is_for_support(stage: Scene, era: str) -> None:
    async def story() -> None:
        for path in ("/mcp", "/mcp/ops"):
            helped = ["help://runbook"] + (["help://tickets"] if path == "/mcp" else [])
            for key, expected in ((ENGINEERING, []), (SUPPORT, helped), (SUPPORT_OLD, helped)):
                who = await agent(era, stage.gateway.root + path, key)
                listed = (await who.ask("resources/list")).json()["result"]["resources"]
                assert [one["uri"] for one in listed] == expected
                templates = (await who.ask("resources/templates/list")).json()["result"]["resourceTemplates"]
                page = ["help://page/{number}"] if expected and path == "/mcp" else []
                assert [one["uriTemplate"] for one in templates] == page
                assert (await who.ask("prompts/list")).json()["result"]["prompts"] == []
                missing = (await who.ask("prompts/get", {"name": "release-notes"})).json()["error"]
                assert (missing["code"], missing["data"]["name"]) == (UNKNOWN, "release-notes")
                await reads(who, {*expected, *(["help://page/7"] if page else [])})

    stage.loop.run(story())


async def reads(who: Agent, expected: set[str]) -> None:
    for uri in ("help://runbook", "help://tickets", "help://page/7", "file:///etc/secret", "help://../etc/secret"):
        found = (await who.ask("resources/read", {"uri": uri})).json()
        if uri in expected:
            [content] = found["result"]["contents"]
            title = "deployment" if uri == "help://runbook" else "sandbox"
            assert (content["uri"], content["text"]) == (uri, title)
        else:
            assert found["error"]["code"] == (-32002 if who.session else UNKNOWN), (uri, found)
            assert found["error"]["data"]["uri"] == uri


def test_strangers_and_other_ways_in(stage: Scene) -> None:
    public = stage.gateway.root.replace("127.0.0.1", "localhost")

    async def story() -> None:
        for key in ("fgw_contract_nobody", "eyJhbGciOiJSUzI1NiJ9.e30.x"):
            for path in ("/mcp", "/mcp/ops"):
                reply = await Agent(stage.gateway.root + path, key).ask("tools/list")
                login = f"{public}/.well-known/oauth-protected-resource{path}"
                challenge = f'Bearer error="invalid_token", resource_metadata="{login}"'
                assert (reply.status, reply.header("www-authenticate")) == (401, challenge)
        for path in ("/", "/mcp/other"):
            assert (await Agent(stage.gateway.root + path, ENGINEERING).ask("tools/list")).status == 404

    stage.loop.run(story())


# -- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
def test_calls_go_where_the_contract_says(stage: Scene, era: str) -> None:
    async def story() -> None:
        engineer = await agent(era, stage.gateway.url, ENGINEERING)
        helper = await agent(era, stage.gateway.url, SUPPORT)
        stage.called()
        for who, name, arguments, port, own in (
            (engineer, "db-query", {"sql": "select 1"}, 9004, "query"),
            (engineer, "generate-code", {"prompt": "sort"}, 9006, "generate_code"),
            (engineer, "code-search", {"q": 1}, 9007, "code-search"),
            (engineer, "deploy-service", {"environment": "production"}, 9001, "deploy-service"),
            (helper, "ticket-list", {}, 9005, "ticket-list"),
        ):
            assert text_of(await who.call(name, arguments)) == [own, arguments]
            assert stage.called() == [(port, own)]

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_instances_share_the_calls(stage: Scene, era: str) -> None:
    """They keep no sessions, so that each call may go to the one that has less to do."""

    async def story() -> None:
        stage.called()
        helper = await agent(era, stage.gateway.url, SUPPORT)
        for reply in await asyncio.gather(*(helper.call("customer-data-read") for _ in range(12))):
            assert text_of(reply) == ["customer-data-read", {}]
        assert {port for port, _ in stage.called()} == {9002, 9003}

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_generate_code_is_shown_as_its_first_target_describes_it(stage: Scene, era: str) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.url, ENGINEERING)
        shown = {tool["name"]: tool for tool in await who.tools()}
        assert shown["generate-code"]["description"] == "By openai."
        assert list(shown["generate-code"]["inputSchema"]["properties"]) == ["prompt"]

    stage.loop.run(story())


def test_a_query_ends_after_its_own_ten_seconds(stage: Scene) -> None:
    async def story() -> None:
        agents = [await agent(era, stage.gateway.url, ENGINEERING) for era in ERAS]
        late = await asyncio.gather(*(who.call("db-query", {"sql": "slow"}) for who in agents))
        for reply in late:
            error = reply.json()["error"]
            assert (error["code"], error["data"]["timeoutMs"], error["data"]["mayHaveRun"]) == (TIMEOUT, 10_000, True)

    stage.loop.run(story())


def test_by_rest(stage: Scene) -> None:
    async def ask(key: str, path: str, body: bytes = b"", verb: str = "POST") -> Reply:
        fields = [("Authorization", f"Bearer {key}"), ("Content-Type", "application/json")]
        return await exchange(stage.gateway.root + path, Asked(body, fields, verb))

    async def story() -> None:
        for (key, path), names in HAS.items():
            listed = await ask(key, f"{path}/tools", verb="GET")
            assert {tool["name"] for tool in listed.json()["tools"]} == names
            paths = (await ask(key, f"{path}/openapi.json", verb="GET")).json()["paths"]
            assert set(paths) == {f"/tools/{name}/invoke" for name in names}
        done = await ask(ENGINEERING, "/mcp/tools/db-query/invoke", b'{"sql":"x"}')
        assert (done.status, json.loads(done.json()["content"][0]["text"])) == (200, ["query", {"sql": "x"}])
        for key, path in ((SUPPORT, "/mcp/tools/db-query"), (ENGINEERING, "/mcp/ops/tools/db-query")):
            assert (await ask(key, f"{path}/invoke")).status == 404

    stage.loop.run(story())


# -- what is written down -------------------------------------------------------------------------------------------


def test_events_have_every_field_that_is_promised(stage: Scene) -> None:
    async def told(who: Agent, name: str) -> dict[str, Any]:
        reply = await who.call(name, {"prompt": "p"})
        number = reply.header("x-request-id")

        async def there() -> list[dict[str, Any]]:
            return [event for event in stage.events() if event["requestId"] == number]

        [event] = await until(there)
        assert (event["bytesIn"] > 100, event["bytesOut"]) == (True, len(reply.body))
        return dict(event)

    async def story() -> None:
        event = await told(Agent(stage.gateway.url, ENGINEERING), "generate-code")
        assert list(event) == list(EVENT)
        same = {name: value for name, value in EVENT.items() if not isinstance(value, float)}
        for name in ("requestId", "timestamp", "gateway", "instance", "bytesIn", "bytesOut", "rateLimitRemaining"):
            assert isinstance(event[name], type(same.pop(name))), name
        assert {name: event[name] for name in same} == same
        assert event["instance"] == f"127.0.0.1:{stage.ports[9006]}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"])
        assert 0 < event["overheadMs"] <= event["latencyMs"]
        assert 0 <= event["rateLimitRemaining"] < 100  # of per-agent; how many is left depends on the tests before
        assert (event["tokensIn"], event["tokensOut"], event["cost"]) == (1250, 487, EVENT["cost"])
        for key, credential in ((SUPPORT, "key:91b5ed38"), (SUPPORT_OLD, "key:aacf3972")):
            for session in ("", (await agent("legacy", stage.gateway.url, key)).session):
                event = await told(Agent(stage.gateway.url, key, session), "ticket-create")
                about = [event[name] for name in ("agentId", "credential", "team", "project", "billingAccount")]
                assert about == ["agent-support-helper", credential, "support", "helpdesk", "acme-support"]
                assert (event["labels"], event["tool"], event["outcome"]) == (
                    {"tier": "external"},
                    "ticket-create",
                    "ok",
                )
        refused = await told(Agent(stage.gateway.url, SUPPORT), "db-query")
        assert set(refused) == set(EVENT)
        assert (refused["tool"], refused["outcome"], refused["statusCode"]) == (None, "unknown", 404)

    stage.loop.run(story())


def test_no_secret_is_printed_or_kept(stage: Scene) -> None:
    """What an operator can read: the log, the events, the admin port, the kept catalogues."""
    folder = stage.gateway.folder
    files = {file.name: file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()}
    assert {"stderr.log", "stdout.log"} < set(files)
    assert any("customer-data-read" in text for name, text in files.items() if name != "stdout.log"), "no catalogue"
    for path in ("/", "/metrics", "/backends", "/catalogue", "/readyz"):
        status, body = stage.gateway.ask_admin(path)
        files[path] = body.decode()
        assert status in (200, 404)
    for place, text in files.items():
        assert not [name for name, secret in SECRETS.items() if secret in text], place
        assert place == "fastgw.yaml" or not [key for key in KEYS if f'"{key}"' in text or f"Bearer {key}" in text]


# -- what operators are told ----------------------------------------------------------------------------------------


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One command on the file of this folder."""
    file = () if words[0] == "schema" else ("--config", str(folder / "fastgw.yaml"))
    return subprocess.run(
        [sys.executable, "-m", "fastgw", *words, *file],
        env={**os.environ, **SECRETS},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_all_of_it_is_active(tmp_path: Path) -> None:
    (tmp_path / "fastgw.yaml").write_text(CONTRACT.read_text())
    found = command(tmp_path, "check")
    assert (found.returncode, found.stderr) == (0, "")
    notes = [f"note: {tmp_path}/{line}" for line in UNPRICED]
    assert found.stdout.splitlines() == [f"{tmp_path}/fastgw.yaml: ok", *notes]


def test_the_schema_accepts_it(tmp_path: Path) -> None:
    found = command(tmp_path, "schema")
    assert found.returncode == 0
    by = jsonschema_rs.validator_for(json.loads(found.stdout))
    whole = json.loads(json.dumps(compose(CONTRACT.read_text(), "f").plain()))
    assert [error.message for error in by.iter_errors(whole)] == []


def test_explain_tells_what_has_been_served(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)

    def explained(*words: str) -> dict[str, Any]:
        main(["explain", "--config", str(stage.gateway.folder / "fastgw.yaml"), *words, "--json"])
        printed, complained = capsys.readouterr()
        assert complained == ""
        answer: dict[str, Any] = json.loads(printed)
        return answer

    notes = command(stage.gateway.folder, "check").stdout.splitlines()
    about_names = [line for line in notes if "is not active" not in line and "has no price" not in line][1:]
    assert about_names == [
        f"note: /mcp: {server}/status: is called {server}__status here" for server in ("deployment", "database-sandbox")
    ]
    bot, helper = ("--agent", "agent-engineering-deploy-bot"), ("--agent", "agent-support-helper")
    outsider = ("--claims", "team=engineering,tier=external")
    for who, what, verdict in (
        (bot, ("--tool", "db-query"), "sent to database-fast as query"),
        (outsider, ("--tool", "db-query"), "sent to database-sandbox as query"),
        (bot, ("--tool", "generate-code"), "sent to codegen-openai as generate_code"),
        (helper, ("--tool", "drop-database"), "refused: there is no such tool here"),
        (helper, ("--resource", "help://page/3"), "sent to database-sandbox as help://page/3"),
    ):
        found = explained(*who, *what)
        assert found["verdict"] == verdict
        if what[1] == "db-query":
            assert found["seconds"] == {"total": 10.0, "max": 600.0, "attempt": 10.0, "idle": 10.0}
        if what[1] == "generate-code":
            assert found["seconds"] == {"total": 50.0, "max": 600.0, "attempt": 20.0, "idle": 20.0}
            assert [goal["renamed"] for goal in found["goals"]] == [{}, {"prompt": "instructions"}]


# -- the second target ----------------------------------------------------------------------------------------------


def test_where_the_first_target_is_not_brought_the_second_has_our_names_of_arguments(tmp_path: Path) -> None:
    async def story(stage: Scene) -> None:
        for era in ERAS:
            who = await agent(era, stage.gateway.url, ENGINEERING)
            shown = {tool["name"]: tool for tool in await who.tools()}["generate-code"]
            assert shown["description"] == "Another."
            assert (list(shown["inputSchema"]["properties"]), shown["inputSchema"]["required"]) == (
                ["prompt"],
                ["prompt"],
            )
            stage.called()
            assert text_of(await who.call("generate-code", {"prompt": "p"})) == ["write_code", {"instructions": "p"}]
            assert stage.called() == [(9007, "write_code")]
            reply = (await who.call("generate-code", {"prompt": "p", "instructions": "round policies"})).json()
            assert "there is no argument 'instructions'" in reply["error"]["message"]
            assert stage.called() == []

    with aside() as loop:
        stage = loop.enter(scene(tmp_path, loop, boxes(openai=("other",))))
        loop.run(story(stage))
        status, told = stage.gateway.ask_admin("/catalogue")
        assert status == 200
        assert b"codegen-openai/generate_code is passed over: the server does not bring it" in told
