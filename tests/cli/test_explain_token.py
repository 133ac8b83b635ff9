"""`fastgw explain --token`: what an access token would open, and why not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.main import main
from fastgw.upstream.discovery.kept import store
from tests.auth.signing import AUDIENCE, ISSUER, NOW, token
from tests.snapshot.compiling import catalogue

CONFIG = f"""
public_url: {AUDIENCE.removesuffix("/mcp")}
identity:
  login: {{issuer: "{ISSUER}", claims: {{team: team}}}}
  other: {{issuer: "https://other.example/"}}
policies:
  - {{name: test, match: {{agent: "login:*", claims: {{team: test}}}}, allow: ["*"]}}
servers:
  a: {{url: "https://h.example/mcp"}}
tools:
  go: {{to: a/x, scopes: [go, fast]}}
endpoints:
  /mcp: {{}}
  /other: {{auth: other}}
"""
Said = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "fastgw.yaml"
    found.write_text(CONFIG, encoding="utf-8")
    store(tmp_path / "data" / "catalogue", catalogue("a", "x", "y"), {})
    return found


def explained(file: Path, capsys: Said, shown: bytes, *words: str) -> Any:
    """Exit status, and the object that is printed or the complaint."""
    (file.parent / "token").write_bytes(shown)
    status = main(["explain", "--config", str(file), "--token", str(file.parent / "token"), "--json", *words])
    said = capsys.readouterr()
    assert shown.decode() not in said.out + said.err
    return status, json.loads(said.out) if said.out else said.err


def test_it_is_the_agent_that_the_token_names(file: Path, capsys: Said) -> None:
    for shown in (token(), b"Bearer " + token() + b"\n", token(kind="P-256", algorithm="ES256")):
        status, found = explained(file, capsys, shown, "--tool", "y")
        assert (status, found["agent"], found["claims"]) == (0, "login:alice", {"team": "test"})
        assert found["verdict"] == "sent to a as y"


def test_scopes(file: Path, capsys: Said) -> None:
    for scope, verdict in (
        (None, "refused: the access token lacks go, fast"),
        ("go", "refused: the access token lacks fast"),
        ("fast go", "sent to a as x"),
    ):
        _, found = explained(file, capsys, token({"scope": scope}), "--tool", "go")
        assert (found["verdict"], found["scopes"]) == (verdict, ["go", "fast"])


@pytest.mark.parametrize(
    ("change", "words", "why"),
    [
        ({"exp": NOW - 100}, (), "it has expired"),
        ({"aud": "x"}, (), "it is for another audience"),
        ({"sub": ""}, (), "it names no agent"),
        ({}, ("--endpoint", "/other"), "its issuer is no way in here, these are: other"),
    ],
)
def test_why_a_token_is_not_taken(file: Path, capsys: Said, change: Any, words: Any, why: str) -> None:
    status, found = explained(file, capsys, token(change), "--tool", "y", *words)
    assert (status, found["verdict"]) == (1, f"refused: the access token is not taken: {why}")


@pytest.mark.parametrize(
    ("shown", "words", "why"),
    [
        (b"opaque", (), "this is no JWT"),
        (token({"iss": "https://third.example/"}), (), "has https://login.example.com/, https://other.example/"),
        (token(), ("--endpoint", "/none"), "there is no endpoint /none"),
        (token(), ("--agent-name", "x"), "--agent-name goes with --claims"),
    ],
)
def test_what_cannot_be_told(file: Path, capsys: Said, shown: bytes, words: Any, why: str) -> None:
    status, said = explained(file, capsys, shown, "--tool", "y", *words)
    assert (status, why in said) == (2, True)


def test_by_standard_input(file: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(token())))
    assert main(["explain", "--config", str(file), "--token", "-", "--tool", "y"]) == 0
    assert "agent login:alice (team=test)" in capsys.readouterr().out
    assert main(["explain", "--config", str(file), "--token", str(file.parent / "none"), "--tool", "y"]) == 2
