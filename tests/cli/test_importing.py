"""`fastgw import`: what comes out is a configuration, and nothing that could be a secret stands in it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastgw.cli.main import main
from fastgw.config.importer import imported
from fastgw.config.inactive import inactive
from fastgw.config.reader import ReadConfig, read

Said = pytest.CaptureFixture[str]


def read_back(text: str, variables: list[str], folder: Path, value: str = "set-later") -> ReadConfig:
    """The configuration as `check` and `run` read it, every variable it asks for set."""
    file = folder / "imported.yaml"
    file.write_text(text, encoding="utf-8")
    return read(file, dict.fromkeys(variables, value))


def servers(document: dict[str, Any], folder: Path, value: str = "set-later") -> dict[str, Any]:
    found = imported({"mcpServers": document})
    return dict(read_back(found.text, found.variables, folder, value).settings.servers)


def run(document: Any, folder: Path, *more: str) -> int:
    file = folder / "mcp.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return main(["import", str(file), *more])


def test_a_clients_file_becomes_a_configuration(tmp_path: Path, capsys: Said) -> None:
    headers = {"Authorization": "Bearer ghp_1234567890abcdef", "X-Team": "web"}
    entry = {"type": "http", "url": "https://h.example/mcp", "headers": headers}
    assert run({"mcpServers": {"github": entry}}, tmp_path) == 0
    said = capsys.readouterr()
    assert "ghp_" not in said.out + said.err
    assert said.err.splitlines()[-1] == "  GITHUB_TOKEN"
    found = read_back(said.out, ["GITHUB_TOKEN"], tmp_path).settings.servers["github"]
    assert (found.url[0].url, found.credential[0].bearer) == ("https://h.example/mcp", "set-later")
    assert found.headers == {"X-Team": "web"}


def test_what_it_writes_passes_check(tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "fastgw.yaml"
    entry = {"url": "http://127.0.0.1:9/mcp", "headers": {"X-Api-Key": "hunter2"}}
    assert run({"mcpServers": {"a": entry}}, tmp_path, "--out", str(out)) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("A_X_API_KEY", "v")
    assert main(["check", "--config", str(out)]) == 0
    assert run({"mcpServers": {}}, tmp_path, "--out", str(out)) == 1
    assert "File exists" in capsys.readouterr().err
    assert "A_X_API_KEY" in out.read_text(encoding="utf-8")


def test_a_command_is_taken_over_and_told_to_be_inactive(tmp_path: Path) -> None:
    args = ["-y", "server-files", "--token=abc", "--api-key", "def", "--header", "Authorization: Bearer ghi", "/srv"]
    entry = {"command": "npx", "args": args, "env": {"API_KEY": "jkl", "LOG": "debug", "not-a-name": "m"}}
    found = imported({"mcpServers": {"files": entry}})
    assert not [one for one in ("abc", "def", "ghi", "jkl", '"debug"') if one in found.text]
    assert {"FILES_TOKEN", "FILES_API_KEY", "FILES_AUTHORIZATION", "API_KEY", "LOG"} < set(found.variables)
    reading = read_back(found.text, found.variables, tmp_path)
    server = reading.settings.servers["files"]
    assert server.command[:3] == ("npx", "-y", "server-files") and server.command[3] == "--token=set-later"
    assert server.command[-1] == "/srv"
    assert server.env == {"API_KEY": "set-later", "LOG": "set-later", "not-a-name": "set-later"}
    assert [one.key for one in inactive(reading.root)] == ["servers.files.command"]


def test_what_cannot_be_a_server_is_left_out_and_told(tmp_path: Path) -> None:
    document = {
        "sse": {"type": "sse", "url": "http://h/x", "headers": {"X-Key": "se-cret"}},
        "sse-by-path": {"url": "http://h/sse"},
        "ws": {"type": "ws", "url": "http://h/x"},
        "off": {"url": "http://h/off", "disabled": True},
        "off-too": {"url": "http://h/off", "enabled": False},
        "empty": {},
        "list": [],
        "no-address": {"url": "se-cret"},
        "two-ways": {"url": "http://h/x", "headers": {"X-A": "se-cret", "x-a": "se-cret"}},
        "no-map": {"command": "x", "env": "se-cret"},
    }
    found = imported({"mcpServers": document})
    assert (found.variables, "se-cret" in found.text + "".join(found.notes)) == ([], False)
    assert read_back(found.text, [], tmp_path).settings.servers == {}
    for name in document:
        assert any(note.startswith(f"{name}: left out: ") for note in found.notes)


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("postgresql://me:pw0rd@h/db", "${env:A_ARGUMENT}"),
        ("c2VjcmV0dG9rZW4=", "${env:A_ARGUMENT}"),
        ("API_KEY=pw0rd", "API_KEY=${env:A_API_KEY}"),
        ("Authorization: Bearer pw0rd", "Authorization: ${env:A_AUTHORIZATION}"),
        ("https://h/mcp?token=pw0rd", "${env:A_ARGUMENT}"),
        ("https://auth.example/keys", "https://auth.example/keys"),
        ("@scope/server-postgres@2025.11.25", "@scope/server-postgres@2025.11.25"),
        ("--port=8080", "--port=8080"),
        ("${workspaceFolder}/${", "${env:workspaceFolder}/$${"),
    ],
)
def test_arguments_that_could_be_secrets(word: str, written: str) -> None:
    found = imported({"mcpServers": {"a": {"command": "x", "args": [word]}}})
    assert yaml.safe_load(found.text)["servers"]["a"]["command"] == ["x", written]


@pytest.mark.parametrize(
    "headers", [{"Cookie": "a=pw0rd"}, {"X-Odd": "Bearer pw0rd"}, {"X-Odd": "token=pw0rd"}, {"Host": "pw0rd"}]
)
def test_headers_that_could_be_secrets(headers: dict[str, str]) -> None:
    assert "pw0rd" not in str(imported({"mcpServers": {"a": {"url": "http://h/mcp", "headers": headers}}}))


def test_names_are_made_legal_and_stay_apart(tmp_path: Path) -> None:
    entry = {"url": "http://h/mcp"}
    given = ["My Server", "My  Server", "My-Server", "ü", "日本", "", "a.b", "x" * 200]
    found = servers(dict.fromkeys(given, entry), tmp_path)
    assert len(found) == len(given)
    assert list(found)[:4] == ["My-Server", "My-Server-2", "My-Server-3", "server"]


@pytest.mark.parametrize(
    "url", ["https://me:pw0rd@h/mcp", "https://h/s/8a7b6c5d4e3f2a1b0c9d/mcp", "https://h/mcp?api_key=pw0rd"]
)
def test_secrets_in_addresses_are_not_written(tmp_path: Path, url: str) -> None:
    found = imported({"mcpServers": {"a": {"url": url}}})
    assert "pw0rd" not in found.text and "8a7b6c5d" not in found.text
    read_back(found.text, found.variables, tmp_path, "http://h/")


def test_references_of_clients_are_taken_over(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer ${TOKEN:-fallback}", "X-Key": "${input:my key}", "X-Odd": "a ${ b"}
    found = imported({"mcpServers": {"a": {"url": "https://h/mcp?api_key=${env:KEY}", "headers": headers}}})
    assert found.variables == ["KEY", "TOKEN", "MY_KEY", "A_X_ODD"] or found.variables == ["KEY", "TOKEN", "MY_KEY"]
    assert "fallback" not in found.text
    header = read_back(found.text, found.variables, tmp_path).settings.servers["a"].credential[0].header
    assert header == {"Authorization": "Bearer set-later", "X-Key": "set-later"} | (
        {"X-Odd": "set-later"} if "A_X_ODD" in found.variables else {}
    )


def test_one_variable_never_stands_for_two_values(tmp_path: Path) -> None:
    def entry(value: str) -> dict[str, Any]:
        return {"command": "x", "env": {"API_KEY": value}}

    found = imported({"mcpServers": {"a": entry("1"), "b": entry("2"), "c": entry("1"), "d": entry("${B_API_KEY}")}})
    assert found.variables == ["API_KEY", "B_API_KEY_2", "B_API_KEY"]
    read_back(found.text, found.variables, tmp_path)


def test_files_of_editors(tmp_path: Path, capsys: Said) -> None:
    text = '{ // a comment\n "servers": {"a": {"type": "http", "url": "http://h//x",},}, /* , } */ }'
    assert run(text, tmp_path) == 0
    assert "url: http://h//x\n" in capsys.readouterr().out
    assert run({"mcp": {"servers": {"b": {"url": "http://h"}}}}, tmp_path) == 0
    assert "\n  b:\n" in capsys.readouterr().out


def test_the_projects_of_claude_code(tmp_path: Path, capsys: Said) -> None:
    plain, other = {"type": "http", "url": "http://h/mcp"}, {"type": "http", "url": "http://h/other"}
    projects = {
        "/home/me/a": {"mcpServers": {"docs": plain, "tickets": plain}, "history": []},
        "/home/me/b": {"mcpServers": {"docs": other, "tickets": plain}},
        "/home/me/c": {"mcpServers": {}},
        "odd": 7,
    }
    assert run({"numStartups": 3, "mcpServers": {"docs": plain}, "projects": projects}, tmp_path) == 0
    said = capsys.readouterr()
    found = read_back(said.out, [], tmp_path).settings.servers
    assert {name: one.url[0].url for name, one in found.items()} == {
        "docs": plain["url"],
        "tickets": plain["url"],
        "docs-2": other["url"],
    }
    assert said.err.splitlines() == [
        "note: tickets: of the project /home/me/a",
        "note: docs-2: it was called docs",
        "note: docs-2: of the project /home/me/b",
    ]


def test_the_forms_of_windsurf_cursor_and_vscode(tmp_path: Path, capsys: Said) -> None:
    document = {
        "inputs": [{"type": "promptString", "id": "ticket-key", "password": True}],
        "servers": {
            "windsurf": {"serverUrl": "http://h/w", "headers": {"Authorization": "Bearer ${env:W_TOKEN}"}},
            "cursor": {"url": "http://h/c", "headers": {"X-Api-Key": "${env:C_KEY}"}, "envFile": "/x/.env"},
            "vscode": {"type": "http", "url": "http://h/v", "headers": {"Authorization": "Bearer ${input:ticket-key}"}},
            "gemini": {"httpUrl": "http://h/g", "trust": True},
        },
    }
    assert run(document, tmp_path) == 0
    said = capsys.readouterr()
    assert [line.strip() for line in said.err.splitlines()] == [
        "note: cursor: not taken over: envFile",
        "note: gemini: not taken over: trust",
        "set these variables before `fastgw check` and `fastgw run`:",
        "W_TOKEN",
        "C_KEY",
        "TICKET_KEY",
    ]
    found = read_back(said.out, ["W_TOKEN", "C_KEY", "TICKET_KEY"], tmp_path).settings.servers
    assert [one.url[0].url for one in found.values()] == ["http://h/w", "http://h/c", "http://h/v", "http://h/g"]
    assert found["vscode"].credential[0].bearer == found["windsurf"].credential[0].bearer == "set-later"


URL = "https://h.example/mcp"
STARTED = [
    ("npx", ["mcp-remote"]),
    ("npx", ["-y", "mcp-remote@latest"]),
    ("/usr/bin/npx", ["--yes", "mcp-remote@0.1.29"]),
    ("cmd", ["/c", "npx", "-y", "mcp-remote"]),
    ("C:\\node\\npx.cmd", ["-y", "mcp-remote"]),
    ("bunx", ["mcp-remote"]),
    ("pnpm", ["dlx", "mcp-remote"]),
    ("mcp-remote", []),
]


@pytest.mark.parametrize(("command", "args"), STARTED)
def test_mcp_remote_is_unwrapped(tmp_path: Path, capsys: Said, command: str, args: list[str]) -> None:
    options = ["--header", "Authorization: Bearer ghp_1234567890abcdef", "--header", "X-Team:web", "--allow-http"]
    assert run({"mcpServers": {"a": {"command": command, "args": [*args, URL, *options]}}}, tmp_path) == 0
    said = capsys.readouterr()
    assert "ghp_" not in said.out + said.err
    found = read_back(said.out, ["A_TOKEN"], tmp_path).settings.servers["a"]
    assert (found.url[0].url, found.command, found.env) == (URL, (), {})
    assert (found.credential[0].bearer, found.headers) == ("set-later", {"X-Team": "web"})
    assert [line for line in said.err.splitlines() if "not taken over" in line] == []


def remote(*args: str, **more: Any) -> dict[str, Any]:
    return {"command": "npx", "args": ["-y", "mcp-remote", *args], **more}


@pytest.mark.parametrize(
    ("header", "env", "variable"),
    [
        ("Authorization:${AUTH}", {"AUTH": "Bearer ghp_1234567890abcdef"}, "A_TOKEN"),
        ("Authorization: Bearer ${TOKEN}", {"TOKEN": "ghp_1234567890abcdef"}, "A_TOKEN"),
        ("Authorization: Bearer ${TOKEN}", {"TOKEN": "${input:my-token}"}, "MY_TOKEN"),
        ("Authorization: Bearer ${env:TOKEN}", {}, "TOKEN"),
    ],
)
def test_its_headers_by_variables(tmp_path: Path, header: str, env: dict[str, str], variable: str) -> None:
    found = imported({"mcpServers": {"a": remote("--header", header, URL, env=env)}})
    assert found.variables == [variable] and "ghp_" not in found.text
    server = read_back(found.text, found.variables, tmp_path).settings.servers["a"]
    assert (server.url[0].url, server.credential[0].bearer) == (URL, "set-later")


def test_what_of_mcp_remote_is_not_taken_over(tmp_path: Path) -> None:
    entry = remote(
        URL, "9696", "--ignore-tool", "delete*", "--debug", "--header-file", "/x", env={"HTTPS_PROXY": "http://p"}
    )
    found = imported({"mcpServers": {"a": entry}})
    assert read_back(found.text, [], tmp_path).settings.servers["a"].url[0].url == URL
    assert found.notes == [
        "a: mcp-remote is not needed: fastgw asks its server itself",
        "a: not taken over: --ignore-tool, --header-file, HTTPS_PROXY",
        "a: no credential: where one is needed, mcp-remote signs a person in, and fastgw does not",
    ]


@pytest.mark.parametrize(
    ("args", "taken"),
    [
        ([f"{URL}/sse"], False),
        ([f"{URL}/sse", "--transport", "http-only"], True),
        ([URL, "--transport", "sse-only"], False),
        ([URL, "--transport", "sse-first"], True),
    ],
)
def test_its_transport(tmp_path: Path, args: list[str], taken: bool) -> None:
    found = imported({"mcpServers": {"a": remote(*args)}})
    assert ("a" in read_back(found.text, [], tmp_path).settings.servers) is taken
    assert any("left out" in note for note in found.notes) is not taken


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "npx", "args": ["-y", "mcp-remote-client", URL]},
        {"command": "npx", "args": ["-y", "mcp-remote"]},
        {"command": "npx", "args": ["-y"]},
    ],
)
def test_what_is_not_mcp_remote_stays_a_command(entry: dict[str, Any]) -> None:
    text = imported({"mcpServers": {"a": entry}}).text
    assert yaml.safe_load(text)["servers"]["a"]["command"] == [entry["command"], *entry["args"]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"mcpServers": 1}',
        '{"projects": {"/a": {"mcpServers": 1}}}',
        '{"mcpServers": {"a": {"url": "http://h/\\ud800"}}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_such_file(tmp_path: Path, capsys: Said, text: str) -> None:
    assert run(text, tmp_path) == 1
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert main(["import", str(tmp_path / "none.json")]) == 1


HOSTILE = ["\n", "\r\n  agents:\n    x: {}\n", '"', "'", ": ", " #", "\\", "\\n", "${env:HOME}", "$${", "${", "{a: b}",
           "- x", "&a *a", "!!python/object", "\x1b[2J", "\x85", "\u2028", "\ufeff", "\x7f", "😀", "%", "@", "|", "\t",
           "---", "...", "<<", "null", "true", "x" * 300]  # fmt: skip


def test_no_name_and_no_value_breaks_out(tmp_path: Path) -> None:
    dice = random.Random(7)

    def word() -> str:
        return "".join(dice.choices(HOSTILE, k=dice.randint(1, 3)))

    for _ in range(300):
        document: dict[str, Any] = {
            word(): {
                "url": f"http://h/{word()}",
                "headers": {word(): word(), "X-A": word(), "Authorization": f"Bearer {word()}"},
                word(): word(),
            },
            "remote": {"url": "http://h/mcp", "headers": {"X-Plain": word(), "X-Key" + word(): word()}},
            "local" + word(): {
                "command": "c" + word(),
                "args": [word(), f"--{word()}={word()}"],
                "env": {word(): word()},
                "disabled": dice.random() < 0.3,
            },
        }
        found = imported({"mcpServers": document})
        values = dict.fromkeys(found.variables, "set")
        file = tmp_path / "f.yaml"
        file.write_text(found.text, encoding="utf-8")
        settings = read(file, values).settings
        assert found.text.isascii()
        assert settings.model_fields_set <= {"servers", "public_url", "data"}
        assert len(settings.servers) <= len(document)
        for name, server in settings.servers.items():
            if server.command and "${" not in document.get(name, {}).get("command", "${"):
                assert server.command[0] == document[name]["command"]
