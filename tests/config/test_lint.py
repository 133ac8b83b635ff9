"""What is accepted and hardly meant: each remark with its place; nothing of what is usual, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.config.lint import at_start, lint
from fastgw.config.reader import read

KEY = "key: 'sha256:" + "0" * 64 + "'"
AGENTS = (
    f"agents:\n  helper: {{{KEY}, claims: {{team: support, site: [a, b]}}}}\n"
    f"  deploy-bot: {{{KEY.replace('0', '1')}, claims: {{team: engineering}}}}\n"
)
ISSUER = "identity: {login: {issuer: https://i/}}\n"
SECRET = "hunter2"


def told(folder: Path, text: str, secret: str = SECRET) -> list[str]:
    """`line:column: message` of every remark; what is said at start is part of it."""
    file = folder / "f.yaml"
    file.write_text(text, encoding="utf-8")
    reading = read(file, {"T": secret})
    found = [str(one).removeprefix(f"{file}:") for one in lint(reading.settings, reading.root)]
    assert {str(one).removeprefix(f"{file}:") for one in at_start(reading.settings, reading.root)} <= set(found)
    assert SECRET not in "".join(found)
    return found


def server(**settings: str) -> str:
    given = {"url": "http://h/mcp", **settings}
    return AGENTS + "servers:\n  data: {" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}\n"


@pytest.mark.parametrize(
    "text",
    [
        AGENTS,
        AGENTS + "listen: 127.0.0.1:8080\n",
        AGENTS + "listen: 0.0.0.0:8080\npublic_url: [http://gw:8080, http://10.0.0.7:8080]\n",
        "endpoints: {/mcp: {auth: none}}\n",
        ISSUER + "policies: [{name: p, match: {agent: 'login:x', claims: {team: x}}, allow: '*'}]\n",
        server(url="[http://h/mcp, 'http://h/?x', http://h/sse/mcp]"),
        server(url="http://h/", credential="{bearer: '${env:T}'}", headers="{X-Api-Key: '${env:T}'}"),
        server(credential="{header: {Authorization: 'Bearer ${env:T}', Cookie: 'a=${env:T}; b=${env:T}'}}"),
        AGENTS + "policies: [{name: p, match: {agent: 'help*', claims: {site: b, team: sup*}}, allow: '*'}]\n",
        AGENTS
        + "policies: [{name: p, match: {agent: [helper, anonymous]}, allow: [deploy-*, 'resource:docs://*/x']}]\n",
        server(credential="{oauth: {token_url: 'http://localhost/t', client_id: c, client_secret: '${env:T}'}}"),
        server(credential="{oauth: {token_url: 'https://t/t', client_id: c, client_secret: '${env:T}'}}"),
        server() + "policies: [{name: p, allow: ['data/*', 'd?ta/x', '*/get', 'resource:data/help://x']}]\n",
    ],
)
def test_what_is_usual_is_no_remark(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text) == []


def test_a_token_url_that_others_can_read(tmp_path: Path) -> None:
    oauth = "{oauth: {token_url: 'http://t.example/t', client_id: c, client_secret: '${env:T}'}}"
    [said] = told(tmp_path, server(credential=oauth))
    assert "is http: the client's secret and the tokens travel where others can read them" in said


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "'[::]:8080'"])
def test_every_address_without_a_public_url(tmp_path: Path, listen: str) -> None:
    [said] = told(tmp_path, f"listen: {listen}\n{AGENTS}")
    assert said.startswith("1:9: is every address of this machine")
    assert "localhost, 127.0.0.1 and [::1] only" in said and said.endswith("public_url: http://NAME:8080")


@pytest.mark.parametrize(
    ("text", "why"),
    [("servers: {}\n", "there are no agents"), ("endpoints: {/a: {auth: none}, /b: {}}\n", "no agents")],
)
def test_no_agents(tmp_path: Path, text: str, why: str) -> None:
    [said] = told(tmp_path, text)
    assert said.startswith("1:1: ") and why in said and "`fastgw keys new" in said


@pytest.mark.parametrize("network", ["0.0.0.0/0", "'::/0'"])
def test_a_proxy_that_is_everybody(tmp_path: Path, network: str) -> None:
    [said] = told(tmp_path, f"identity: {{proxy: {{header: {{name: X-Agent, from: [10.0.0.1, {network}]}}}}}}\n")
    assert said.startswith("1:61: is everybody: whoever reaches this port can be any agent")


def test_disabled_agents_alone(tmp_path: Path) -> None:
    [said] = told(tmp_path, f"agents:\n  a: {{{KEY}, disabled: true}}\n")
    assert said.startswith("1:1: all agents are disabled")


@pytest.mark.parametrize(
    ("url", "place", "words"),
    [
        ("http://127.0.0.1:9001", "5:15", "the usual path is /mcp"),
        (f"http://h?key={SECRET}", "5:15", "the usual path is /mcp"),
        ("http://h/sse", "5:15", "usually speaks Streamable HTTP at /mcp"),
        (f"[http://h/mcp, http://h/{SECRET}/sse/]", "5:30", "usually speaks Streamable HTTP at /mcp"),
        ("{url: http://h}", "5:21", "the usual path is /mcp"),
    ],
)
def test_addresses(tmp_path: Path, url: str, place: str, words: str) -> None:
    [said] = told(tmp_path, server(url=url))
    assert said.startswith(f"{place}: ") and words in said


@pytest.mark.parametrize(
    ("setting", "secret", "words"),
    [
        ("credential: {bearer: '${env:T}'}", f"Bearer {SECRET}", "fastgw writes one before it"),
        ("credential: {bearer: '${env:T}'}", f"{SECRET} {SECRET}", "two values"),
        ("credential: {header: {Authorization: 'Bearer ${env:T}'}}", f"bearer {SECRET}", "another before it"),
        ("credential: {header: {Authorization: 'Basic ${env:T}'}}", f"Basic {SECRET}", "another before it"),
        ("credential: {header: {Authorization: 'Bearer ${env:T}'}}", f"{SECRET} {SECRET}", "two values"),
        ("credential: {header: {X-Api-Key: '${env:T}'}}", f"{SECRET}\t{SECRET}", "two values"),
        ("headers: {X-Auth-Token: '${env:T}'}", f"{SECRET} x", "two values"),
    ],
)
def test_two_values_in_one_secret(tmp_path: Path, setting: str, secret: str, words: str) -> None:
    key, _, value = setting.partition(": ")
    [said] = told(tmp_path, server(**{key: value}), secret)
    assert said.startswith("5:") and words in said


def test_a_line_break_in_the_admin_token(tmp_path: Path) -> None:
    [said] = told(tmp_path, AGENTS + "admin: {listen: 0.0.0.0:8081, token: '${env:T}'}\n", f"{SECRET}\n{SECRET}")
    assert said == "4:38: has a space or a line break in it: are these two values?"


@pytest.mark.parametrize(
    ("match", "remarks"),
    [
        ("{agent: helpr}", ['4:37: no agent is called "helpr" (did you mean "helper"?)']),
        ("{agent: [helper, 'x*']}", ['4:46: no agent is called "x*"']),
        ("{claims: {tema: support}}", ['4:39: no agent has a claim "tema" (did you mean "team"?)']),
        ("{claims: {team: [support, ops]}}", ['4:55: no agent has "ops" in its claim "team"']),
        ("{claims: {team: engineering, site: a}}", ["4:22: is about nobody: no agent has all of this"]),
        ("{agent: helper, claims: {team: engineering}}", ["4:22: is about nobody: no agent has all of this"]),
    ],
)
def test_policies_that_name_nobody(tmp_path: Path, match: str, remarks: list[str]) -> None:
    assert told(tmp_path, f"{AGENTS}policies: [{{name: p, match: {match}, allow: '*'}}]\n") == remarks


def test_policies_that_are_all_in_shadow(tmp_path: Path) -> None:
    shadow, enforced = "{name: p, mode: shadow, allow: '*'}", "{name: q, deny: x}"
    assert told(tmp_path, f"{AGENTS}policies: [{shadow}]\n") == [
        "4:1: all are in shadow: who is let in may use everything"
    ]
    assert told(tmp_path, f"{AGENTS}policies: [{shadow}, {enforced}]\n") == []


def test_routes_and_limits_that_name_nobody(tmp_path: Path) -> None:
    text = server() + (
        "tools:\n  x: {route: [{match: {agent: a}, to: data/x}]}\n"
        "limits: [{name: l, rate: 1/minute, except: {agent: b}}]\n"
    )
    assert told(tmp_path, text) == ['7:31: no agent is called "a"', '8:52: no agent is called "b"']


def test_patterns_of_servers_that_are_not_there(tmp_path: Path) -> None:
    text = server() + (
        "policies: [{name: p, allow: ['repo/get', 'x*/y'], deny: ['prompt:dta/*']}]\n"
        "limits: [{name: l, rate: 1/minute, tools: 'repo/*'}]\nendpoints: {/mcp: {tools: ['resource:repo/help://x']}}\n"
    )
    assert told(tmp_path, text) == [
        '6:30: fits nothing: there is no server "repo"',
        '6:42: fits nothing: there is no server "x*"',
        '6:58: fits nothing: there is no server "dta" (did you mean "data"?)',
        '7:43: fits nothing: there is no server "repo"',
        '8:28: fits nothing: there is no server "repo"',
    ]


def test_an_entry_that_leads_to_a_backup_is_noted(tmp_path: Path) -> None:
    servers = "servers: {shop: {url: http://h/1, backup: more}, more: {url: http://h/2}}\n"
    found = told(tmp_path, AGENTS + servers + "tools:\n  buy: {to: [shop/buy, more/buy]}\n")
    assert [one.partition(": ")[2] for one in found] == [
        "is a backup of shop: it is passed over on endpoints that have shop"
    ]
