"""`fastgw tools` and `fastgw call` as they are typed: at a gateway of two workers, and at servers themselves."""

from __future__ import annotations

import io
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.client import Place, request
from fastgw.cli.main import main
from fastgw.cli.terminal import CommandFailed, plain
from tests.e2e import asking, servers
from tests.e2e.aside import Aside, aside
from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Got, Toolbox, answer, scripted, serving

Said = pytest.CaptureFixture[str]
OTHER = "fgw_test_other"
SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


async def echo(call: Call) -> None:
    await call.text(json.dumps(call.arguments))


async def fail(call: Call) -> None:
    await call.result(b'{"content":[{"type":"text","text":"no luck"}],"isError":true}')


async def paint(call: Call) -> None:
    text = json.dumps("red \x1b[31m\x1b]0;owned\x07 \u202etxt.exe \x9b2J\r!")
    await call.result(f'{{"content":[{{"type":"text","text":{text}}}],"structuredContent":{{"n":1}}}}'.encode())


async def work(call: Call) -> None:
    """Two notifications, one with a terminal's commands in it, then the result."""
    token = call.params["_meta"]["progressToken"]
    note = {"progressToken": token, "progress": 1, "total": 2, "message": "half\x1b[2J"}
    await call.send(servers.STREAM)
    await call.send(servers.event(message("notifications/progress", note)))
    await call.send(servers.event(message("notifications/message", {"level": "info", "data": {"step": 1}})))
    await call.send(servers.event(call.envelope(b'{"content":[{"type":"text","text":"done"}]}')))
    await call.send(servers.STREAM_END)


def message(method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


TOOLS = {"echo": echo, "fail": fail, "paint": paint, "work": work}
DEFINITIONS = {"echo": {"description": "Say it again.\nAnd more.", "inputSchema": SCHEMA}}


@asynccontextmanager
async def scene(folder: Path) -> Any:
    boxes = {era: Toolbox(era, dict(TOOLS), dict(DEFINITIONS)) for era in ("modern", "legacy")}
    async with serving(boxes["modern"]) as new, serving(boxes["legacy"]) as old:
        settings = {
            "servers": {"new": {"url": new.url}, "old": {"url": old.url}},
            "agents": {"tester": {"key": fingerprint(KEY)}, "other": {"key": fingerprint(OTHER)}},
            "policies": [{"name": "all", "match": {"agent": "tester"}, "allow": "*"},
                         {"name": "some", "match": {"agent": "other"}, "allow": "new__fail"}],
        }  # fmt: skip
        async with running_beside(settings, folder) as gateway:
            await asking.listed(gateway, "new__echo", "old__echo")
            yield gateway, new.url, old.url, boxes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str, str, dict[str, Toolbox]]]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("gateway")))


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGW_KEY", KEY)


@pytest.fixture
def beside() -> Iterator[Aside]:
    with aside() as loop:
        yield loop


def fastgw(world: Any, *words: str) -> int:
    return main([words[0], "--url", world[0].url, *words[1:]])


# -- at the gateway -----------------------------------------------------------------------------------------------


def test_tools_are_listed(world: Any, capsys: Said) -> None:
    assert fastgw(world, "tools") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert any(line.split() == ["new__echo", "Say", "it", "again."] for line in lines)
    assert fastgw(world, "tools", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found} == {f"{server}__{tool}" for server in ("new", "old") for tool in TOOLS}


def test_another_key_sees_other_tools(world: Any, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGW_KEY", OTHER + "\n")
    assert fastgw(world, "tools") == 0
    assert capsys.readouterr().out == "new__fail\n"


@pytest.mark.parametrize("server", ["new", "old"])
def test_a_call(world: Any, capsys: Said, server: str) -> None:
    """With the header that the tool's definition asks for, which is found out by itself."""
    given = '{"region":"eu","n":123456789012345678901234567890}'
    assert fastgw(world, "call", f"{server}__echo", given) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(given)
    assert fastgw(world, "call", f"{server}__echo") == 0
    assert capsys.readouterr().out == "{}\n"


def test_arguments_from_stdin(world: Any, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"b": 2}')))
    assert fastgw(world, "call", "new__echo", "-") == 0
    assert json.loads(capsys.readouterr().out) == {"b": 2}


def test_what_a_tool_says_of_its_own_failure(world: Any, capsys: Said) -> None:
    assert fastgw(world, "call", "new__fail") == 1
    assert capsys.readouterr().out == "no luck\n"
    assert fastgw(world, "call", "new__fail", "--json") == 1
    assert json.loads(capsys.readouterr().out)["isError"] is True


def test_nothing_commands_the_terminal(world: Any, capsys: Said) -> None:
    assert fastgw(world, "call", "new__paint") == 0
    out = capsys.readouterr().out
    assert out == "red \\x1b[31m\\x1b]0;owned\\x07 \\u202etxt.exe \\x9b2J\\r!\n"
    assert fastgw(world, "call", "new__paint", "--json") == 0
    out = capsys.readouterr().out
    assert out.isascii() and "\x1b" not in out
    assert json.loads(out)["structuredContent"] == {"n": 1}
    assert plain("a\tb\nc é 日 😀") == "a\tb\nc é 日 😀"
    assert plain("\ud800\u2066\x7f") == "\\ud800\\u2066\\x7f"


@pytest.mark.parametrize("server", ["new", "old"])
def test_progress_and_log_go_to_stderr(world: Any, capsys: Said, server: str) -> None:
    assert fastgw(world, "call", f"{server}__work") == 0
    said = capsys.readouterr()
    assert said.out == "done\n"
    assert "progress 1/2 half\\x1b[2J\n" in said.err and '{"step": 1}' in said.err


def test_refusals_come_with_their_data(world: Any, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastgw(world, "call", "no-such-tool") == 1
    said = capsys.readouterr()
    assert said.out == "" and "refused (-32602)" in said.err and '"name": "no-such-tool"' in said.err
    monkeypatch.setenv("FASTGW_KEY", "fgw_wrong")
    assert fastgw(world, "tools") == 1
    assert "A valid credential is needed" in capsys.readouterr().err
    monkeypatch.delenv("FASTGW_KEY")
    assert fastgw(world, "tools") == 1


def test_explain_foretells_what_a_call_comes_to(world: Any, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the gateway has kept under its `data`, for both agents and every tool."""
    config = str(world[0].folder / "fastgw.yaml")
    monkeypatch.setenv("FASTGW_SECRET", "a secret for tests, 32 bytes long")
    told = set()
    for agent, key in (("tester", KEY), ("other", OTHER)):
        monkeypatch.setenv("FASTGW_KEY", key)
        for tool in ("new__echo", "new__fail", "echo", "nothing"):
            foretold = main(["explain", "--config", config, "--agent", agent, "--tool", tool])
            capsys.readouterr()
            fastgw(world, "call", tool, "--json")
            assert (foretold == 0) == (capsys.readouterr().out != ""), (agent, tool)
            told.add(foretold)
    assert told == {0, 1}


# -- at servers themselves ----------------------------------------------------------------------------------------


def test_a_server_itself(world: Any, capsys: Said) -> None:
    assert main(["tools", "--url", world[1]]) == 0
    assert main(["call", "--url", world[1], "echo", '{"a":1}']) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '{"a": 1}'


def test_a_server_of_an_older_revision_is_refused(world: Any, capsys: Said) -> None:
    assert main(["tools", "--url", world[2]]) == 1
    assert capsys.readouterr().out == ""


def test_cursors_are_followed(beside: Aside, capsys: Said) -> None:
    async def handle(got: Got, writer: Any) -> None:
        cursor = got.json()["params"].get("cursor")
        page = {"resultType": "complete", "tools": [{"name": f"t{cursor or 0}"}]}
        page |= {"nextCursor": str(int(cursor or 0) + 1)} if cursor != "4" else {}
        writer.write(answer(json.dumps({"jsonrpc": "2.0", "id": got.json()["id"], "result": page}).encode()))

    server = beside.enter(scripted(handle))
    assert main(["tools", "--url", server.url]) == 0
    assert capsys.readouterr().out.split() == ["t0", "t1", "t2", "t3", "t4"]


def test_prompts_and_resources(beside: Aside, capsys: Said) -> None:
    offers = {
        "prompts/list": {"prompts": [{"name": "greet", "description": "Say hello."}]},
        "resources/list": {"resources": [{"uri": "help://one", "name": "n", "title": "One"}]},
    }

    async def handle(got: Got, writer: Any) -> None:
        asked = got.json()
        result = offers.get(asked["method"])
        if result is None:
            writer.write(servers.failure(asked["id"], -32601, "Method not found", "404 Not Found"))
        else:
            writer.write(servers.success(asked["id"], {"resultType": "complete", **result}))

    url = beside.enter(scripted(handle)).url
    assert main(["tools", "--url", url, "--prompts"]) == 0
    assert capsys.readouterr().out == "greet  Say hello.\n"
    assert main(["tools", "--url", url, "--resources"]) == 0
    assert capsys.readouterr().out == "help://one  One\n"
    assert main(["tools", "--url", url]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{broken}\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: {}\n",
        b"no HTTP at all\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_mcp_ends_with_3(beside: Aside, capsys: Said, reply: bytes) -> None:
    async def handle(_got: Got, writer: Any) -> None:
        writer.write(reply)
        writer.close()

    server = beside.enter(scripted(handle))
    assert main(["tools", "--url", server.url]) == 3
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1


def test_who_does_not_answer_ends_with_3(beside: Aside, capsys: Said) -> None:
    async def silent(_got: Got, _writer: Any) -> None:
        return

    server = beside.enter(scripted(silent))
    assert main(["call", "--url", server.url, "x", "--timeout", "0.2"]) == 3
    assert "does not answer within 0.2 s" in capsys.readouterr().err
    assert main(["call", "--url", f"http://127.0.0.1:{free_port()}/mcp", "x"]) == 3
    assert "Connection refused" in capsys.readouterr().err


def test_a_server_that_asks_back_is_told_apart_from_a_result(beside: Aside) -> None:
    async def handle(got: Got, writer: Any) -> None:
        result = {"resultType": "input_required", "inputRequests": {}}
        writer.write(answer(json.dumps({"jsonrpc": "2.0", "id": got.json()["id"], "result": result}).encode()))

    place = Place(beside.enter(scripted(handle)).url)
    with pytest.raises(CommandFailed, match="ask back"):
        request(place, "tools/call", {"name": b'"x"'})


def test_certificates_are_verified(
    beside: Aside, capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    order = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days"]
    order += ["2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run([*order, "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    port = beside.enter(tls_toolbox(context))
    assert main(["tools", "--url", f"https://localhost:{port}/mcp"]) == 3
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert main(["tools", "--url", f"https://localhost:{port}/mcp"]) == 0
    assert main(["tools", "--url", f"https://127.0.0.1:{port}/mcp"]) == 3
    assert "not trusted" in capsys.readouterr().err


@asynccontextmanager
async def tls_toolbox(context: ssl.SSLContext) -> Any:
    import asyncio

    box = Toolbox("modern", dict(TOOLS))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if got := await servers.read_request(reader):
            await box.handle(got, writer)
        writer.close()

    server = await asyncio.start_server(connection, "localhost", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


# -- typed wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["call", "x", "[1]"],
        ["call", "x", "{"],
        ["call", "x", '{"a":1,"a":2}'],
        ["tools", "--url", "ftp://h/"],
        ["tools", "--url", "http://me:secret@h/"],
        ["tools", "--url", "nonsense"],
        ["tools", "--url", "http://h/\nx"],
        ["tools", "--timeout", "0"],
        ["tools", "--prompts", "--resources"],
        ["call"],
    ],
)
def test_what_is_typed_wrong_ends_with_2(capsys: Said, words: list[str]) -> None:
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(str(ended.code))
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert said.err and "secret" not in said.err


def test_a_key_that_is_none_is_not_repeated(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGW_KEY", "two words")
    assert main(["tools"]) == 2
    said = capsys.readouterr().err
    assert "FASTGW_KEY" in said and "two words" not in said


def test_the_commands_start_without_the_gateway() -> None:
    """What takes a second to import is not needed to call a tool."""
    code = "import fastgw.cli.call, sys; print(*sys.modules)"
    order = [sys.executable, "-c", code]
    done = subprocess.run(order, capture_output=True, text=True, check=True, env={**os.environ})
    assert not {"pydantic", "aiohttp", "granian", "cryptography", "uvloop"} & set(done.stdout.split())
