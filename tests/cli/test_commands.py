"""`check`, `keys` and `schema` as they are typed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fastgw.auth.keys import digest
from fastgw.catalog.definitions import DefinitionKind, parse_definition, parse_definitions
from fastgw.catalog.tools import Catalogue
from fastgw.cli.main import COMMANDS, main
from fastgw.config.reader import read_settings
from fastgw.upstream.discovery.kept import store

CONTRACT = Path(__file__).resolve().parents[1] / "config" / "contract.yaml"
AGENTS = f"agents: {{a: {{key: 'sha256:{'0' * 64}'}}}}\n"
ENVIRON = {"DEPLOYMENT_TOKEN": "d", "CUSTOMER_DATA_SECRET": "c", "DB_KEY": "k", "FASTGW_SECRET": "sixteen letters."}


def with_environment(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
    monkeypatch.setattr(os, "environ", dict(environ))


def test_check_says_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("endpoints: {/mcp: {refusals: result}}\n", encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{file}: ok\nnote: {file}:1:30: endpoints./mcp.refusals is not active")


def test_check_says_what_traces_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"{AGENTS}traces: {{url: http://h/}}\n", encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    monkeypatch.setattr("fastgw.config.lint.can_export", lambda: False)
    assert main(["check", "--config", str(file)]) == 0
    assert capsys.readouterr().out.endswith(
        f"note: {file}:2:1: no span is sent: its packages are missing. pip install 'fastgw[otel]'\n"
    )


def test_check_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("timeout: 5s\nworkres: 2\n", encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f'{file}:2:1: unknown key "workres" (did you mean "workers"?)\n'


def test_check_says_what_the_kept_catalogues_make_of_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "servers:\n  a: {url: http://h/}\n  b: {url: http://h/b}\n  c: {url: http://h/c}\n", encoding="utf-8"
    )
    for server, names in (("a", ["search", "x" * 70]), ("b", ["search"])):
        tools = json.dumps([{"name": name, "inputSchema": {"type": "object"}} for name in names])
        store(
            tmp_path / "data" / "catalogue",
            Catalogue(server, parse_definitions(DefinitionKind.TOOL, server, tools.encode())[0]),
            {},
        )
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{file}: ok"
    assert {"note: /mcp: a/search: is called a__search here", "note: /mcp: b/search: is called b__search here"} < set(
        said
    )
    assert any(f"note: /mcp: a/{'x' * 70}: is called " in line for line in said)
    assert any(line.endswith("clients that add a prefix may refuse it") for line in said)


def test_check_says_what_becomes_of_prompts_and_resources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("servers:\n  a: {url: http://h/}\n  b: {url: http://h/b}\n", encoding="utf-8")
    prompt = parse_definition(DefinitionKind.PROMPT, "a", b'{"name":"greet"}')
    resource = parse_definition(DefinitionKind.RESOURCE, "a", b'{"uri":"https://h/x","name":"x"}')
    for server in ("a", "b"):
        prompts, resources = (replace(prompt, server=server),), (replace(resource, server=server),)
        kept = Catalogue(server, (), prompts=prompts, resources=resources, capabilities=frozenset({"resources"}))
        store(tmp_path / "data" / "catalogue", kept, {})
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert "note: /mcp: prompt:a/greet: is called a__greet here" in said.splitlines()
    assert re.search(r"^note: /mcp: .*b.*https://h/x", said, re.MULTILINE)


def test_check_says_what_is_hardly_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "listen: 0.0.0.0:8080\nservers:\n  a: {url: http://h}\npolicies: [{name: p, allow: b/get}]\n", encoding="utf-8"
    )
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].removeprefix(f"{file}:") for line in said[1:]] == ["1:1", "1:9", "3:12", "4:29"]


def test_check_says_which_target_a_kept_catalogue_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(AGENTS + "servers:\n  a: {url: http://h/}\ntools:\n  x: {to: a/nope}\n", encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    tools = parse_definitions(DefinitionKind.TOOL, "a", b'[{"name":"get","inputSchema":{"type":"object"}}]')[0]
    store(tmp_path / "data" / "catalogue", Catalogue("a", tools), {})
    assert main(["check", "--config", str(file)]) == 0
    assert "a/nope is passed over: the server does not bring it" in capsys.readouterr().out


def test_check_says_nothing_of_names_where_nothing_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(AGENTS + "servers:\n  a: {url: http://h/}\n", encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    assert not (tmp_path / "data").exists()


def test_check_refuses_what_would_fail_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(AGENTS + "servers:\n  a: {command: [uvx, x]}\n", encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 1
    assert re.search(r"^\S+:\d+:7: servers.a.command is not active", capsys.readouterr().out, re.MULTILINE)
    assert main(["check", "--config", str(file), "--allow-inactive"]) == 0
    assert re.search(r"^note: \S+:\d+:7: servers.a.command is not active", capsys.readouterr().out, re.MULTILINE)


def test_a_new_key_opens_what_its_entry_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--agent", "bot"]) == 0
    said = capsys.readouterr().out
    key = re.search(r"fgw_[A-Za-z0-9_-]{43}\b", said)
    assert key
    file = tmp_path / "f.yaml"
    file.write_text(said, encoding="utf-8")
    assert read_settings(file, {}).agents["bot"].key[0].sha256 == digest(key[0])


@pytest.mark.parametrize("name", ["5", "true", "o'neill", "#x", "{a}", "ä"])
def test_any_name_makes_a_good_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["keys", "new", "--agent", name]) == 0
    file = tmp_path / "f.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert list(read_settings(file, {}).agents) == [name]


def test_a_name_that_agents_cannot_have(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "new", "--agent", "login:bob"])
    assert "no spaces, colons" in capsys.readouterr().err


def test_two_keys_differ(capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "new"])
    first = capsys.readouterr().out
    main(["keys", "new"])
    assert capsys.readouterr().out != first


@pytest.mark.parametrize(
    ("listen", "words"), [("127.0.0.1", "must be host:port"), ("[::1]:99999", "must be host:port"), ("taken", "in use")]
)
def test_a_demo_that_cannot_listen_there_says_so(listen: str, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}" if listen == "taken" else listen
        order = [sys.executable, "-m", "fastgw", "demo", "--listen", place]
        ended = subprocess.run(order, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode in (1, 2) and words in ended.stderr


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_command_has_its_page_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert re.search(rf"^\| `{command}( new)?` \|", page, re.MULTILINE), command
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: fastgw {command} ")


def test_what_the_readme_says_of_explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its own configuration: `drop-*` is refused, and why is said."""
    root = Path(__file__).resolve().parents[2]
    found = re.search(r"```yaml\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    file = tmp_path / "fastgw.yaml"
    file.write_text(found[1], encoding="utf-8")
    tools = parse_definitions(
        DefinitionKind.TOOL, "search", b'[{"name":"drop-index","inputSchema":{"type":"object"}}]'
    )[0]
    store(tmp_path / "data" / "catalogue", Catalogue("search", tools), {})
    monkeypatch.setenv("DEPLOYMENT_TOKEN", "x")
    assert main(["explain", "--config", str(file), "--agent", "deploy-bot", "--tool", "drop-index"]) == 1
    assert "  engineering: denies by drop-*; allows by *" in capsys.readouterr().out.splitlines()
