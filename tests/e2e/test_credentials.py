"""How an agent shows its key, and what it hears before it has shown a good one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.hostile import OTHER_KEY, Place, is_refused, shared
from tests.e2e.http import MODERN, Asked, Reply, initialize, legacy, modern, open_session
from tests.e2e.servers import Call, Toolbox

WRONG = "fgw_test_nobody"
BEARER, BARE, NAMED = ("Authorization", "Bearer {}"), ("Authorization", "{}"), ("X-API-Key", "{}")
WANTED = "A valid credential is needed: Authorization: Bearer <key>"
CALL = {"name": "echo", "arguments": {}}


async def echo(call: Call) -> None:
    await call.text("here")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    boxes = {"old": Toolbox("legacy", {"echo": echo}), "new": Toolbox("modern", {"ping-back": echo})}
    more = {"failed_credentials": "off", "endpoints": {"/mcp": {}, "/mcp/ops": {}}}
    with shared(tmp_path_factory.mktemp("gateway"), boxes, more) as found:
        yield found


def showing(asked: Asked, *shown: tuple[str, str]) -> Asked:
    """The request with these headers in place of its credential."""
    bare = asked.without("Authorization")
    return Asked(bare.body, [*bare.headers, *shown], bare.verb)


def said(form: tuple[str, str], key: str) -> tuple[str, str]:
    return form[0], form[1].format(key)


def refused(reply: Reply) -> str:
    """The words of a 401."""
    is_refused(reply, 401, -32600)
    assert reply.header("www-authenticate")
    return str(reply.json()["error"]["message"])


@pytest.mark.parametrize("form", [BEARER, BARE, NAMED])
@pytest.mark.parametrize("tool", ["echo", "ping-back"])
def test_each_form_of_a_key(place: Place, form: tuple[str, str], tool: str) -> None:
    call = {**CALL, "name": tool}
    opened = place.ask(showing(initialize(), said(form, KEY)))
    session = opened.header("mcp-session-id")
    assert (opened.status, bool(session)) == (200, True)
    for asked in (modern("tools/call", call), legacy("tools/call", call, session=session)):
        reply = place.ask(showing(asked, said(form, KEY)))
        assert reply.json()["result"]["content"][0]["text"] == "here"
        assert refused(place.ask(showing(asked, said(form, WRONG)))) == WANTED
    for box in place.boxes.values():
        assert box.got
        assert not [name for got in box.got for name, _ in got.headers if name in ("x-api-key", "authorization")]


def test_two_headers_must_show_the_same_key(place: Place) -> None:
    asked, other = modern("tools/list"), said(NAMED, OTHER_KEY)
    for first in (BEARER, BARE):
        assert place.ask(showing(asked, said(first, KEY), said(NAMED, KEY))).status == 200
        assert "different keys" in refused(place.ask(showing(asked, said(first, KEY), other)))
        assert "different keys" in refused(place.ask(showing(asked, said(first, WRONG), said(NAMED, KEY))))
    for form in (BEARER, NAMED):
        assert refused(place.ask(showing(asked, said(form, KEY), said(form, KEY)))) == WANTED


@pytest.mark.parametrize("verb", ["GET", "DELETE", "PUT", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/ops", "/mcp/tools/echo/invoke"])
def test_the_key_is_asked_for_before_the_method(place: Place, verb: str, path: str) -> None:
    asked = Asked(b"", [("MCP-Protocol-Version", MODERN)], verb)
    for shown in ([], [said(BEARER, WRONG)], [said(NAMED, WRONG)], [said(BARE, WRONG)]):
        reply = place.ask(showing(asked, *shown), path)
        assert (reply.status, reply.header("allow")) == (401, None)
    for form in (BEARER, BARE, NAMED):
        reply = place.ask(showing(asked, said(form, KEY)), path)
        assert (reply.status, reply.header("allow")) == (405, "POST")


def test_a_session_is_ended_with_a_key_alone(place: Place) -> None:
    session = asyncio.run(open_session(place.gateway.url, key=KEY))
    ending = Asked(b"", [("Mcp-Session-Id", session)], "DELETE")
    assert refused(place.ask(ending)) == WANTED
    assert place.ask(legacy("ping", key=KEY, session=session)).status == 200
    assert place.ask(showing(ending, said(NAMED, KEY))).status == 200
    assert place.ask(legacy("ping", key=KEY, session=session)).status == 404


def test_a_slash_at_the_end_of_an_endpoint_changes_nothing(place: Place) -> None:
    for path in ("/mcp/", "/mcp/ops/"):
        assert place.ask(modern("tools/call", CALL, key=KEY), path).json()["result"]["content"][0]["text"] == "here"
        session = asyncio.run(open_session(place.gateway.root + path, key=KEY))
        for same in (path, path.rstrip("/")):
            reply = place.ask(legacy("tools/call", CALL, key=KEY, session=session), same)
            assert reply.json()["result"]["content"][0]["text"] == "here"
        assert refused(place.ask(modern("tools/list"), path)) == WANTED
    for path in ("/mcp//", "//mcp/", "/mcp/x/", "/mcp/tools/", "/mcp%2F", "/"):
        is_refused(place.ask(modern("tools/list", key=KEY), path), 404, -32600)


@pytest.mark.parametrize(
    "path", ["/.well-known/oauth-protected-resource/mcp", "/mcp/.well-known/openid-configuration", "/register"]
)
def test_who_looks_for_a_login_is_told_of_keys(place: Place, path: str) -> None:
    reply = place.ask(Asked(b"", [], "GET"), path)
    is_refused(reply, 404, -32600)
    assert "Authorization: Bearer <key>" in reply.json()["error"]["message"]


def test_pages_may_send_the_other_header(place: Place) -> None:
    asking = [("Origin", place.gateway.root), ("Access-Control-Request-Method", "POST")]
    reply = place.ask(Asked(b"", [*asking, ("Access-Control-Request-Headers", "x-api-key")], "OPTIONS"), "/mcp/")
    assert reply.status == 204
    assert "x-api-key" in (reply.header("access-control-allow-headers") or "").split(", ")


def test_one_worker_counts_each_wrong_key_whatever_the_method(tmp_path: Path) -> None:
    more = {"failed_credentials": "5/day", "workers": 1}
    with shared(tmp_path, {"new": Toolbox("modern", {"echo": echo})}, more) as found:
        wrong = [said(form, WRONG) for form in (BEARER, BARE, NAMED)]
        asked = [showing(Asked(b"", [], verb), *[wrong[at % 3]]) for at, verb in enumerate(("GET", "DELETE") * 4)]
        assert [found.ask(one).status for one in asked] == [401] * 5 + [429] * 3
        assert found.ask(showing(modern("tools/list"), wrong[2])).status == 429
        assert found.ask(showing(Asked(b"", [], "GET"), said(NAMED, KEY))).status == 405
        assert found.ask(Asked(b"", [], "GET")).status == 401
