"""`fastgw keys new --for CLIENT`: each client's own form, with the key where that client finds it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fastgw.auth.keys import digest
from fastgw.cli.main import main
from fastgw.cli.snippets import BY_VARIABLE, CLIENTS
from fastgw.config.reader import read_settings

Said = pytest.CaptureFixture[str]
URL = "https://gw.example/mcp"


def made(capsys: Said, client: str, *options: str) -> tuple[str, str, str]:
    """The key, the entry, and what the client takes without the comments before it."""
    assert main(["keys", "new", "--for", client, *options]) == 0
    entry, _, rest = capsys.readouterr().out.partition("\n\n")
    key = re.search(r"fgw_\S+", entry)
    assert key
    return key[0], entry, re.sub(r"\A(#.*\n)+", "", rest)


def file_of(capsys: Said, client: str, url: str = URL) -> tuple[str, dict[str, Any]]:
    key, _, text = made(capsys, client, "--url", url)
    return key, json.loads(text)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_entry_stands_beside_it(client: str, tmp_path: Path, capsys: Said) -> None:
    key, entry, text = made(capsys, client, "--url", URL)
    file = tmp_path / "f.yaml"
    file.write_text(entry, encoding="utf-8")
    assert read_settings(file, {}).agents["my-agent"].key[0].sha256 == digest(key)
    assert URL in text
    if client in BY_VARIABLE or client == "vscode":
        assert key not in text


def test_the_files_of_clients(capsys: Said) -> None:
    bearer = {"type": "http", "url": URL, "headers": {"Authorization": "Bearer ${FASTGW_KEY}"}}
    assert file_of(capsys, "claude-code")[1] == {"mcpServers": {"fastgw": bearer}}
    cursor = file_of(capsys, "cursor")[1]["mcpServers"]["fastgw"]
    assert cursor == {"url": URL, "headers": {"Authorization": "Bearer ${env:FASTGW_KEY}"}}
    vscode = file_of(capsys, "vscode")[1]
    asked = re.fullmatch(r"Bearer \$\{input:(.+)\}", vscode["servers"]["fastgw"]["headers"]["Authorization"])
    assert asked and [(one["id"], one["password"]) for one in vscode["inputs"]] == [(asked[1], True)]


@pytest.mark.parametrize(
    ("url", "extra"), [(URL, []), ("http://localhost:8080/mcp", []), ("http://10.0.0.7/mcp", ["--allow-http"])]
)
def test_claude_desktop_goes_by_mcp_remote(capsys: Said, url: str, extra: list[str]) -> None:
    key, file = file_of(capsys, "claude-desktop", url)
    server = file["mcpServers"]["fastgw"]
    assert server["command"] == "npx"
    assert server["args"][:3] == ["-y", "mcp-remote", url] and server["args"][5:7] == [
        "--header",
        "Authorization:${AUTH_HEADER}",
    ]
    assert server["args"][7:] == extra
    assert server["env"] == {"AUTH_HEADER": f"Bearer {key}"}
    assert not any(" " in word for word in server["args"]), "some systems split words at spaces"


@pytest.mark.parametrize("client", ["curl", "inspector"])
def test_what_a_shell_takes(capsys: Said, client: str) -> None:
    key, _, text = made(capsys, client, "--url", "http://h/mcp?a=$(x)&b='")
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:2] == ["export", f"FASTGW_KEY={key}"]
    assert "http://h/mcp?a=$(x)&b='" in words and "Authorization: Bearer $FASTGW_KEY" in words


def test_python_compiles(capsys: Said) -> None:
    compile(made(capsys, "python")[2], "snippet", "exec")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("listen: 127.0.0.1:9\n", "http://127.0.0.1:9/mcp"),
        ("listen: '[::]:9'\n", "http://localhost:9/mcp"),
        ("public_url: [https://gw.example, http://h]\nendpoints: {/mcp/ops: {}, /mcp: {}}\n", URL),
        ("public_url: https://gw.example/\nendpoints: {/mcp/ops: {}}\n", "https://gw.example/mcp/ops"),
    ],
)
def test_the_address_of_a_configuration(tmp_path: Path, capsys: Said, text: str, url: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text, encoding="utf-8")
    found = json.loads(made(capsys, "cursor", "--config", str(file))[2])
    assert found["mcpServers"]["fastgw"]["url"] == url


def test_what_cannot_be_used_makes_no_key(tmp_path: Path, capsys: Said) -> None:
    assert main(["keys", "new", "--for", "curl", "--config", str(tmp_path / "none.yaml")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "none.yaml" in said.err
    for options in (["--for", "emacs"], ["--for", "curl", "--url", "gw.example"]):
        with pytest.raises(SystemExit):
            main(["keys", "new", *options])
    assert "must begin with http:// or https://" in capsys.readouterr().err
