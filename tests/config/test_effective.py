"""The configuration as operators may see it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fastgw.config.effective import HIDDEN, shown_settings
from fastgw.config.reader import read_settings

MANUAL = Path(__file__).resolve().parent.parent.parent / "config" / "fastgw.yaml"


def shown(folder: Path, text: str, **environment: str) -> dict[str, Any]:
    file = folder / "fastgw.yaml"
    file.write_text(text)
    return shown_settings(read_settings(file, environment))


def test_defaults_stand_there_too(tmp_path: Path) -> None:
    found = shown(tmp_path, "listen: 127.0.0.1:1")
    assert found["listen"] == "127.0.0.1:1"
    assert found["health"]["interval"] == 10.0
    assert found["failed_credentials"] == "100/minute"
    json.dumps(found)


def test_no_secret_is_shown_and_what_came_by_reference_stands_as_in_the_file(tmp_path: Path) -> None:
    text = """
secret: ${env:S}
admin: {listen: "127.0.0.1:0", token: "${env:S}"}
agents:
  bot:
    key: sha256:f784e848445d5ffd302633e9ae952fae8b287401dbc163ff89c7270c8749efa8
    claims: {who: "${env:CLAIM}"}
servers:
  a:
    url: ["https://a.example/${env:PART}/mcp", "https://b.example/mcp?key=hush-query"]
    credential: {header: {X-Key: "${env:S}"}}
    headers: {X-Plain: hush-plain}
    maintenance: ${env:WORDS}
tools:
  t: {to: a/x, fixed: {password: hush-fixed}}
alerts: {webhook: "https://hooks.example/hush-hook"}
usage: {sinks: [{url: "https://sink.example/in?token=hush-sink"}]}
"""
    secrets = {"S": "hush-1 and 32 bytes of a long text", "CLAIM": "hush-2", "PART": "hush-3", "WORDS": "hush-4"}
    found = shown(tmp_path, text, **secrets)
    assert "hush" not in json.dumps(found)
    assert found["secret"] == found["admin"]["token"] == found["alerts"]["webhook"] == HIDDEN
    server = found["servers"]["a"]
    assert [one["url"] for one in server["url"]] == ["https://a.example/${env:PART}/mcp", "https://b.example/mcp"]
    assert server["credential"] == [{"header": {"X-Key": HIDDEN}}]
    assert server["headers"] == {"X-Plain": HIDDEN}
    assert server["maintenance"] == "${env:WORDS}"
    assert found["tools"]["t"]["fixed"] == {"password": HIDDEN}
    assert found["agents"]["bot"]["key"] == [{"sha256": "f784e848445d..."}]
    assert found["agents"]["bot"]["claims"] == {"who": "${env:CLAIM}"}


def test_the_whole_manual_can_be_shown_without_any_of_its_secrets() -> None:
    environment = {name: f"hush-{name}-of-32-bytes-or-more-here" for name in references(MANUAL.read_text())}
    text = json.dumps(shown_settings(read_settings(MANUAL, environment)))
    assert "hush" not in text
    assert HIDDEN in text


def references(text: str) -> set[str]:
    return set(re.findall(r"\$\{env:(\w+)\}", text))
