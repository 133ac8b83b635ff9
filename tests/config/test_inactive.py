"""Keys that nothing acts on yet: told with their place; those that restrict are marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.config.error_messages import valid_keys
from fastgw.config.inactive import HARMLESS, RESTRICTING, inactive
from fastgw.config.reader import read

URL = "url: http://h/mcp"
OAUTH = "credential: {oauth: {token_url: http://t/, client_id: c, client_secret: '${env:T}'"


def notices(folder: Path, text: str) -> list[tuple[int, int, str, bool]]:
    file = folder / "fastgw.yaml"
    file.write_text(text, encoding="utf-8")
    reading = read(file, {"T": "sixteen letters."})
    found = inactive(reading.root)
    return [(one.position.line, one.position.column, one.key, one.restricts) for one in found]


@pytest.mark.parametrize(
    ("text", "line", "column", "key"),
    [
        ("identity: {a: {certificate: {ca: c}}}\n", 1, 16, "identity.a.certificate"),
        ("servers:\n  a: {command: [uvx, x]}\n", 2, 7, "servers.a.command"),
        (f"servers:\n  a: {{{URL}, {OAUTH}, grant: id_jag}}}}}}\n", 2, 117, "servers.a.credential.oauth.grant"),
    ],
)
def test_restricting(tmp_path: Path, text: str, line: int, column: int, key: str) -> None:
    assert notices(tmp_path, text) == [(line, column, key, True)]


@pytest.mark.parametrize(
    "text",
    [
        "store: auto\nusage: {sinks: [stdout, 'file:u', 'otlp://h', {url: 'https://h/x'}]}\nlimits: []\nidentity: {}\n",
        f"servers:\n  a: {{{URL}, on_change: hold, credential: {{bearer: '${{env:T}}'}}, maintenance: x}}\n",
        f"servers:\n  a:\n    {URL}\n    credential: [{{bearer: '${{env:T}}', match: {{agent: a}}}}]\n",
        f"servers:\n  a: {{{URL}, tools: [x]}}\nendpoints:\n  /a: {{tools: [x]}}\n",
        "identity: {login: {issuer: https://i/}}\nendpoints:\n  /mcp: {auth: [keys, login]}\n",
        "identity: {a: {header: {name: X-Agent, from: 10.0.0.0/8}}}\ntrusted_proxies: 10.0.0.1\n",
        "tools:\n  a: {scopes: [x]}\n",
        "endpoints:\n  /a: {auth: keys}\n  /b: {auth: [keys]}\n  /c: {auth: none}\n",
        "tools:\n  a: {title: x, annotations: {readOnlyHint: true}}\n",
        "tools:\n  a: {hidden: true, timeout: 1s}\npolicies: [{name: a, allow: [x], mode: shadow}]\n",
        "endpoints:\n  /mcp: {origins: [https://o]}\n",
        f"servers:\n  a: {{{URL}, {OAUTH}, grant: client_credentials}}}}}}\n",
        f"servers:\n  a: {{{URL}, {OAUTH}, grant: token_exchange}}}}}}\n",
        "tools:\n  a: {validate: [arguments, results], fixed: {x: 1}, defaults: {y: [2]}}\n",
        "x-limits: [{name: a}]\n",
        "limits: [{name: a, rate: 1/minute, mode: shadow, on_store_failure: deny}]\ntools:\n  a: {weight: 0}\n",
        "store: memory\nfailed_credentials: off\n",
        "workers: 2\nstore: {url: embedded}\n",
        "secret: '${env:T}'\nstore: redis://h/0\n",
        "secret: '${env:T}'\nstore: {url: 'redis+sentinel://h/n', password: '${env:T}'}\n",
    ],
)
def test_nothing_to_tell(tmp_path: Path, text: str) -> None:
    assert notices(tmp_path, text) == []


def test_every_row_names_a_key_that_exists() -> None:
    for row in (*RESTRICTING, *HARMLESS):
        path = row.path.split(".")
        filled = tuple("any" if step == "*" else step for step in path)
        # In lists the models count positions; the rows leave them out.
        parents = [filled[:-1], *[(*filled[:at], 0, *filled[at:-1]) for at in range(1, len(filled))]]
        assert any(path[-1] in valid_keys(parent) for parent in parents), row.path
