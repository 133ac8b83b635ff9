"""A hostile client: whatever it sends, it gets the answer of docs/errors.md, reaches no server and harms no worker.

Both eras send the same spoiled messages. Every request is on a connection of its own, before two workers.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.hostile import OTHER_KEY, Place, is_refused, shared
from tests.e2e.http import LEGACY, META, MODERN, Asked, initialize, legacy, modern, open_session, send_raw
from tests.e2e.servers import Call, Toolbox

Spoil = tuple[str, str]
TEXT = (
    '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"a":1},"_meta":'
    f'{{"{META}protocolVersion":"{MODERN}","{META}clientCapabilities":{{}},"progressToken":"t"}}}}}}'
)


async def echo(call: Call) -> None:
    await call.text(json.dumps(call.arguments))


def reaching(test: Any) -> Any:
    """Marks a test whose calls are good ones."""
    test.reaching = True
    return test


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    boxes = {"old": Toolbox("legacy", {"echo": echo}), "new": Toolbox("modern", {"ping-back": echo})}
    headed = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    boxes["new"].tools["headed"] = echo
    boxes["new"].definitions["headed"] = {"inputSchema": headed}
    more = {"timeout": "3s", "endpoints": {"/mcp": {}, "/mcp/ops": {}}}
    with shared(tmp_path_factory.mktemp("gateway"), boxes, more) as found:
        yield found


@pytest.fixture(scope="module")
def session(place: Place) -> str:
    return asyncio.run(open_session(place.gateway.url, key=KEY))


@pytest.fixture(scope="module")
def oldest(place: Place) -> str:
    """A session of the one revision that has batches."""
    return asyncio.run(open_session(place.gateway.url, key=KEY, version="2025-03-26"))


@pytest.fixture(autouse=True)
def unharmed(place: Place, request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test all processes live, nothing unexpected is in the log, and no server has heard of a call."""
    before = place.reached()
    with place.unharmed():
        yield
    if not hasattr(request.function, "reaching"):
        assert place.reached() == before


@pytest.fixture(params=["legacy", "modern"])
def speak(request: pytest.FixtureRequest, session: str) -> Callable[[str | bytes], Asked]:
    """Makes the request that carries this text as an agent of either era."""
    is_modern = request.param == "modern"

    def asked(text: str | bytes) -> Asked:
        params = {"name": "echo", "arguments": {}}
        old = legacy("tools/call", params, key=KEY, session=session)
        one = modern("tools/call", params, key=KEY) if is_modern else old
        return Asked(text.encode() if isinstance(text, str) else text, one.headers)

    asked.era = request.param  # type: ignore[attr-defined]
    return asked


def era(speak: Any) -> str:
    return str(speak.era)


# -- the control ----------------------------------------------------------------------------------------------------


@reaching
def test_the_unspoiled_message_reaches_its_server(place: Place, speak: Callable[[str], Asked]) -> None:
    before = place.reached()
    reply = place.ask(speak(TEXT))
    assert (reply.status, reply.json()["id"]) == (200, 7)
    assert "result" in reply.json(), (reply, place.gateway.log())
    assert reply.json()["result"]["content"][0]["text"] == '{"a": 1}'
    # White space around a message makes it neither a batch nor anything else.
    spaced = place.ask(speak(f" \r\n\t{TEXT} \n"))
    assert isinstance(spaced.json(), dict)
    assert spaced.json()["id"] == 7
    assert place.reached() == before + 2


# -- texts ----------------------------------------------------------------------------------------------------------

DEEP = 100_000
NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "cut": TEXT[:-1].encode(),
    "two messages": (TEXT + TEXT).encode(),
    "a comment": TEXT.encode() + b"//",
    "single quotes": TEXT.replace('"', "'").encode(),
    "a trailing comma": TEXT.replace('"a":1', '"a":1,').encode(),
    "a leading zero": TEXT.replace('"a":1', '"a":01').encode(),
    "NaN": TEXT.replace('"a":1', '"a":NaN').encode(),
    "a raw line break in a string": TEXT.replace('"a":1', '"a":"\n"').encode(),
    "a raw NUL in a string": TEXT.replace('"a":1', '"a":"\0"').encode(),
    "NUL after the message": TEXT.encode() + b"\0",
    "a byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "not UTF-8 in the payload": TEXT.encode().replace(b'"a":1', b'"a":"\xff"'),
    "not UTF-8 in a name": TEXT.encode().replace(b'"echo"', b'"\xc3"'),
    "an overlong form": TEXT.encode().replace(b'"a":1', b'"a":"\xc0\xaf"'),
    "a surrogate in UTF-8": TEXT.encode().replace(b'"a":1', b'"a":"\xed\xa0\x80"'),
    "half a surrogate pair": TEXT.replace('"a":1', '"a":"\\ud800"').encode(),
    "half a surrogate pair as a key": TEXT.replace('"a":1', '"\\udc00":1').encode(),
    "half a surrogate pair as the name": TEXT.replace('"echo"', '"\\ud83d"').encode(),
    "half a surrogate pair as the id": TEXT.replace('"id":7', '"id":"\\ud800"').encode(),
    "deep arrays": TEXT.replace('"a":1', f'"a":{"[" * DEEP}{"]" * DEEP}').encode(),
    "deep objects": TEXT.replace('"a":1', '"a":{' * DEEP + '"a":1' + "}" * DEEP).encode(),
    "deep arrays that never end": b"[" * DEEP,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json(place: Place, speak: Callable[[bytes], Asked], body: bytes) -> None:
    is_refused(place.ask(speak(body)), 400, -32700)


NO_MESSAGE: dict[str, Spoil] = {
    "a number": (TEXT, "5"),
    "null": (TEXT, "null"),
    "a string": (TEXT, '"x"'),
    "true": (TEXT, "true"),
    "an empty object": (TEXT, "{}"),
    "an empty batch": (TEXT, "[]"),
    "no jsonrpc": ('"jsonrpc":"2.0",', ""),
    "jsonrpc 1.0": ('"2.0"', '"1.0"'),
    "jsonrpc as a number": ('"2.0"', "2.0"),
    "jsonrpc twice": ('"jsonrpc":"2.0"', '"jsonrpc":"2.0","jsonrpc":"2.0"'),
    "id null": ('"id":7', '"id":null'),
    "id true": ('"id":7', '"id":true'),
    "id a fraction": ('"id":7', '"id":7.5'),
    "id with an exponent": ('"id":7', '"id":1e3'),
    "id an array": ('"id":7', '"id":[7]'),
    "id an object": ('"id":7', '"id":{"a":7}'),
    "id of 257 digits": ('"id":7', f'"id":{"9" * 257}'),
    "id of 257 bytes": ('"id":7', f'"id":"{"x" * 255}"'),
    "id twice": ('"id":7', '"id":7,"id":8'),
    "id twice, once escaped": ('"id":7', '"id":7,"\\u0069d":8'),
    "ID beside id": ('"id":7', '"id":7,"ID":8'),
    "method twice": ('"method":', '"method":"ping","method":'),
    "Method beside method": ('"method":', '"Method":"ping","method":'),
    "Method in place of method": ('"method":', '"Method":'),
    "method a number": ('"method":"tools/call"', '"method":5'),
    "method null": ('"method":"tools/call"', '"method":null'),
    "no method": ('"method":"tools/call",', ""),
    "params twice": ('"params":', '"params":{},"params":'),
    "PARAMS beside params": ('"params":', '"PARAMS":{},"params":'),
    "params in Kelvin and long s": ('"params":', '"param\u017f":{},"params":'),
    "method and result": ('"id":7', '"id":7,"result":{}'),
    "method and error": ('"id":7', '"id":7,"error":{"code":1,"message":"x"}'),
}


@pytest.mark.parametrize("spoil", NO_MESSAGE.values(), ids=NO_MESSAGE)
def test_what_is_not_one_message(place: Place, speak: Callable[[str], Asked], spoil: Spoil) -> None:
    assert spoil[0] in TEXT
    is_refused(place.ask(speak(TEXT.replace(*spoil))), 400, -32600)


PARAMS = TEXT[TEXT.index('"params":') + 9 : -1]
BAD_PARAMS: dict[str, Spoil] = {
    "params an array": (PARAMS, "[]"),
    "params null": (PARAMS, "null"),
    "params a string": (PARAMS, '"name"'),
    "name twice": ('"name":"echo"', '"name":"hidden","name":"echo"'),
    "name twice, the same": ('"name":"echo"', '"name":"echo","name":"echo"'),
    "name twice, once escaped": ('"name":"echo"', '"n\\u0061me":"hidden","name":"echo"'),
    "Name beside name": ('"name":"echo"', '"Name":"hidden","name":"echo"'),
    "Name in place of name": ('"name":', '"NAME":'),
    "name a number": ('"name":"echo"', '"name":5'),
    "name null": ('"name":"echo"', '"name":null'),
    "name an array": ('"name":"echo"', '"name":["echo"]'),
    "no name": ('"name":"echo",', ""),
    "arguments twice": ('"arguments":', '"arguments":{},"arguments":'),
    "Arguments beside arguments": ('"arguments":', '"Arguments":{},"arguments":'),
    "arguments an array": ('"arguments":{"a":1}', '"arguments":[1]'),
    "arguments a string": ('"arguments":{"a":1}', '"arguments":"{}"'),
    "_meta twice": ('"_meta":', '"_meta":{},"_meta":'),
    "_META beside _meta": ('"_meta":', '"_META":{},"_meta":'),
    "_meta an array": (PARAMS, '{"name":"echo","_meta":[]}'),
    "_meta null": (PARAMS, '{"name":"echo","_meta":null}'),
    "a progress token twice": ('"progressToken":"t"', '"progressToken":"t","progressToken":"u"'),
    "ProgressToken beside progressToken": ('"progressToken":"t"', '"progressToken":"t","ProgressToken":"u"'),
    "a progress token that is an object": ('"progressToken":"t"', '"progressToken":{}'),
    "a progress token that is null": ('"progressToken":"t"', '"progressToken":null'),
    "the revision twice": (f'"{META}protocolVersion":', f'"{META}protocolVersion":"x","{META}protocolVersion":'),
    "the capabilities in another case": (f'"{META}clientCap', f'"{META}ClientCapabilities":{{}},"{META}clientCap'),
}


@pytest.mark.parametrize("spoil", BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_bad_parameters(place: Place, speak: Callable[[str], Asked], spoil: Spoil) -> None:
    assert spoil[0] in TEXT
    is_refused(place.ask(speak(TEXT.replace(*spoil))), 200 if era(speak) == "legacy" else 400, -32602, 7)


@pytest.mark.parametrize("identity", [0, -1, 7, 2**53 + 1, 2**64, 10**63, "", "7", "a b", "ü\n\"'", "x" * 254])
def test_an_id_comes_back_with_its_type(place: Place, speak: Callable[[str], Asked], identity: Any) -> None:
    text = TEXT.replace('"id":7', f'"id":{json.dumps(identity)}').replace('"name":"echo"', '"name":5')
    is_refused(place.ask(speak(text)), 200 if era(speak) == "legacy" else 400, -32602, identity)


def test_an_unknown_method_and_an_unknown_tool(place: Place, session: str) -> None:
    nothing = {"name": "no-such-tool"}
    is_refused(place.ask(modern("no/such", {}, key=KEY, id="m")), 404, -32601, "m")
    is_refused(place.ask(legacy("no/such", {}, key=KEY, id="l", session=session)), 200, -32601, "l")
    is_refused(place.ask(modern("tools/call", nothing, key=KEY, id="m")), 400, -32602, "m", **nothing)
    is_refused(place.ask(legacy("tools/call", nothing, key=KEY, id="l", session=session)), 200, -32602, "l", **nothing)


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list"])
def test_methods_the_modern_revision_does_not_have_here(place: Place, method: str) -> None:
    is_refused(place.ask(modern(method, {}, key=KEY)), 404, -32601, 1)


@pytest.mark.parametrize("cursor", ["x", "", "A" * 64, 5, {}, "é"])
def test_a_cursor_of_nobodys(place: Place, session: str, cursor: Any) -> None:
    is_refused(place.ask(modern("tools/list", {"cursor": cursor}, key=KEY)), 400, -32602, 1)
    is_refused(place.ask(legacy("tools/list", {"cursor": cursor}, key=KEY, session=session)), 200, -32602, 1)


def test_a_bad_notification_is_dropped_like_a_good_one(place: Place, session: str) -> None:
    for params in ('{"requestId":1}', '{"requestId":{"a":[]}}', "[]", '{"requestId":1,"requestId":2}', "null"):
        text = f'{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}'.encode()
        for like in (modern("notifications/cancelled", {}, key=KEY), legacy("x", {}, key=KEY, session=session)):
            reply = place.ask(Asked(text, like.headers))
            assert (reply.status, reply.body) == (202, b"")
            assert reply.header("x-request-id")


# -- headers of 2026-07-28 ------------------------------------------------------------------------------------------

CALL = modern("tools/call", {"name": "echo", "arguments": {}}, key=KEY)
PLACED = modern("tools/call", {"name": "headed", "arguments": {"region": "eu"}}, key=KEY)
REGION = PLACED.having("Mcp-Param-Region", "eu")
NOWHERE = modern("tools/call", {"name": "headed", "arguments": {}}, key=KEY)


def sentinel(text: bytes) -> str:
    return f"=?base64?{base64.b64encode(text).decode()}?="


LYING: dict[str, Asked] = {
    "no revision": CALL.without("MCP-Protocol-Version"),
    "another revision": CALL.having("MCP-Protocol-Version", "2026-07-29"),
    "an empty revision": CALL.having("MCP-Protocol-Version", ""),
    "the revision twice": Asked(CALL.body, [*CALL.headers, ("MCP-Protocol-Version", MODERN)]),
    "an older revision first": Asked(CALL.body, [("MCP-Protocol-Version", LEGACY), *CALL.headers]),
    "an older revision last": Asked(CALL.body, [*CALL.headers, ("MCP-Protocol-Version", LEGACY)]),
    "no method": CALL.without("Mcp-Method"),
    "another method": CALL.having("Mcp-Method", "tools/list"),
    "the method in another case": CALL.having("Mcp-Method", "Tools/Call"),
    "the method twice": Asked(CALL.body, [*CALL.headers, ("Mcp-Method", "tools/call")]),
    "no name": CALL.without("Mcp-Name"),
    "another name": CALL.having("Mcp-Name", "ping-back"),
    "the name in another case": CALL.having("Mcp-Name", "ECHO"),
    "the name twice": Asked(CALL.body, [*CALL.headers, ("mcp-name", "echo")]),
    "a name that is not ASCII": CALL.having("Mcp-Name", "\xe9cho"),
    "a name of 64 KiB": CALL.having("Mcp-Name", "e" * 65_536),
    "another name in base64": CALL.having("Mcp-Name", sentinel(b"ping-back")),
    "base64 that is none": CALL.having("Mcp-Name", "=?base64?!!!?="),
    "base64 without its padding": CALL.having("Mcp-Name", "=?base64?ZWNobw?="),
    "base64 of no UTF-8": CALL.having("Mcp-Name", sentinel(b"\xff\xfe")),
    "no parameter": REGION.without("Mcp-Param-Region"),
    "another parameter": REGION.having("Mcp-Param-Region", "us"),
    "a parameter twice": Asked(REGION.body, [*REGION.headers, ("Mcp-Param-Region", "eu")]),
    "a parameter that does not decode": REGION.having("Mcp-Param-Region", "=?base64?*?="),
    "a parameter that has no value": NOWHERE.having("Mcp-Param-Region", "eu"),
}


@pytest.mark.parametrize("asked", LYING.values(), ids=LYING)
def test_headers_that_lie(place: Place, asked: Asked) -> None:
    is_refused(place.ask(asked), 400, -32020, 1)


@pytest.mark.parametrize("version", ["1900-01-01", "2026-07-29", "DRAFT-2026", "x" * 100])
def test_an_unknown_revision(place: Place, version: str) -> None:
    asked = modern("server/discover", {}, key=KEY, meta={f"{META}protocolVersion": version})
    reply = place.ask(asked.having("MCP-Protocol-Version", version))
    served = [MODERN, LEGACY, "2025-06-18", "2025-03-26"]
    is_refused(reply, 400, -32022, 1, supported=served, requested=version[:64])


@pytest.mark.parametrize("version", ["2024-11-05", "1.0", "2099-01-01"])
def test_an_unknown_revision_may_open_a_session_and_is_told_what_is_served_elsewhere(
    place: Place, version: str
) -> None:
    opened = place.ask(initialize(key=KEY, version=version).having("MCP-Protocol-Version", version))
    assert opened.status == 200
    settled, session = opened.json()["result"]["protocolVersion"], opened.header("mcp-session-id")
    assert settled in (LEGACY, "2025-03-26")
    served = [MODERN, LEGACY, "2025-06-18", "2025-03-26"]
    for strange in (legacy("tools/list", key=KEY), legacy("tools/list", key=KEY, session=session, version=version)):
        reply = place.ask(strange.having("MCP-Protocol-Version", version))
        is_refused(reply, 400, -32022, 1, supported=served, requested=version)
        assert all(word in reply.json()["error"]["message"] for word in (version, *served))
    assert place.ask(legacy("tools/list", key=KEY, session=session, version=settled)).json()["result"]["tools"]


@pytest.mark.parametrize("missing", ["protocolVersion", "clientCapabilities"])
def test_a_modern_request_without_its_envelope(place: Place, missing: str) -> None:
    body = json.loads(CALL.body)
    del body["params"]["_meta"][META + missing]
    is_refused(place.ask(Asked(json.dumps(body).encode(), CALL.headers)), 400, -32602, 1)


def test_a_stray_session_means_nothing_to_a_modern_request(place: Place) -> None:
    reply = place.ask(modern("server/discover", {}, key=KEY).having("Mcp-Session-Id", "whatever"))
    assert reply.status == 200
    assert reply.header("mcp-session-id") is None


# -- sessions -------------------------------------------------------------------------------------------------------


def altered(session: str, at: int) -> str:
    return session[:at] + ("A" if session[at] != "A" else "B") + session[at + 1 :]


def test_a_session_that_is_nobodys(place: Place, session: str) -> None:
    tokens = ["x", "é", "A" * 100, "A" * 65_000, session[:-4], session + "AAAA", session + "=", session + "\xff"]
    tokens += [altered(session, at) for at in (0, 10, 20, len(session) // 2, len(session) - 6)]
    for token in tokens:
        is_refused(place.ask(legacy("ping", {}, key=KEY, session=token)), 404, -32600, 1)


def test_a_session_of_another_agent_or_endpoint_is_as_unknown_as_nobodys(place: Place, session: str) -> None:
    asked = legacy("ping", {}, key=KEY, session=session)
    foreign = place.ask(legacy("ping", {}, key=OTHER_KEY, session=session))
    elsewhere = place.ask(asked, "/mcp/ops")
    unknown = place.ask(legacy("ping", {}, key=KEY, session="x"))
    texts = set()
    for reply in (foreign, elsewhere, unknown):
        is_refused(reply, 404, -32600, 1)
        texts.add(reply.body.replace(str(reply.header("x-request-id")).encode(), b""))
    assert len(texts) == 1
    assert place.ask(asked).json() == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_no_session_or_two(place: Place, session: str) -> None:
    is_refused(place.ask(legacy("tools/list", {}, key=KEY)), 400, -32600, 1)
    twice = legacy("tools/list", {}, key=KEY, session=session)
    twice.headers.append(("Mcp-Session-Id", session))
    is_refused(place.ask(twice), 400, -32600, 1)
    bare = Asked(b"", [("Authorization", f"Bearer {KEY}")], "DELETE")
    is_refused(place.ask(bare), 400, -32600)
    is_refused(place.ask(bare.having("Mcp-Session-Id", "x")), 404, -32600)


def test_an_ended_session_is_unknown_to_every_worker(place: Place) -> None:
    session = asyncio.run(open_session(place.gateway.url, key=KEY))
    end = Asked(b"", [("Authorization", f"Bearer {KEY}"), ("Mcp-Session-Id", session)], "DELETE")
    assert place.ask(end).status == 200
    is_refused(place.ask(end), 404, -32600)
    for _ in range(8):
        is_refused(place.ask(legacy("ping", {}, key=KEY, session=session)), 404, -32600, 1)


INITIALIZE: dict[str, Any] = {
    "nothing": {},
    "a revision that is a number": {"protocolVersion": 1, "capabilities": {}, "clientInfo": {}},
    "capabilities that are a list": {"protocolVersion": LEGACY, "capabilities": [], "clientInfo": {}},
    "no client": {"protocolVersion": LEGACY, "capabilities": {}},
}


@pytest.mark.parametrize("params", INITIALIZE.values(), ids=INITIALIZE)
def test_a_broken_initialize_opens_nothing(place: Place, params: dict[str, Any]) -> None:
    reply = place.ask(legacy("initialize", params, key=KEY, id="i"))
    is_refused(reply, 200, -32602, "i")
    assert reply.header("mcp-session-id") is None


NEAREST = {"2024-11-05": "2025-03-26", "": "2025-03-26", "2099-01-01": LEGACY, "x" * 5000: LEGACY}


@pytest.mark.parametrize("asked", NEAREST, ids=repr)
def test_initialize_with_an_unknown_revision_gets_the_nearest(place: Place, asked: str) -> None:
    reply = place.ask(initialize(key=KEY, version=asked))
    assert reply.status == 200
    assert reply.json()["result"]["protocolVersion"] == NEAREST[asked]
    session = reply.header("mcp-session-id")
    assert session is not None
    assert session.isascii()
    assert len(session) < 4096


def test_capabilities_too_large_to_travel_are_left_out(place: Place) -> None:
    reply = place.ask(initialize(key=KEY, capabilities={"x": "y" * 100_000}))
    assert reply.status == 200
    assert len(str(reply.header("mcp-session-id"))) < 4096


# -- batches --------------------------------------------------------------------------------------------------------


def batch(session: str, *messages: Any, version: str = "2025-03-26") -> Asked:
    like = legacy("ping", {}, key=KEY, session=session, version=version)
    return Asked(json.dumps(messages).encode(), like.headers)


def ping(identity: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "method": "ping"}


NOTE = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def test_other_revisions_have_no_batches(place: Place, oldest: str) -> None:
    for version in (LEGACY, "2025-06-18"):
        session = asyncio.run(open_session(place.gateway.url, key=KEY, version=version))
        is_refused(place.ask(batch(session, ping(1), version=version)), 400, -32600)
        is_refused(place.ask(batch(session, ping(1))), 400, -32600)
    is_refused(place.ask(batch(oldest, ping(1), version=LEGACY)), 400, -32600)
    message = json.loads(CALL.body)
    is_refused(place.ask(Asked(json.dumps([message]).encode(), CALL.headers)), 400, -32600)
    is_refused(place.ask(Asked(json.dumps([message]).encode(), initialize(key=KEY).headers)), 400, -32600)
    is_refused(place.ask(batch("x", ping(1))), 404, -32600)


def test_a_batch_of_good_and_bad(place: Place, oldest: str) -> None:
    opening = json.loads(initialize(key=KEY).body)
    unknown = {"jsonrpc": "2.0", "id": "u", "method": "no/such"}
    hidden = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "nobody"}}
    bad = {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": []}
    silent = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": []}
    asked = batch(oldest, ping(1), ping("1"), NOTE, opening, unknown, hidden, bad, silent, 5, {}, [], ping(None))
    reply = place.ask(asked)
    assert reply.status == 200
    assert reply.header("mcp-session-id") is None
    told = [(one["id"], one.get("error", {}).get("code")) for one in reply.json()]
    assert told == [
        (1, None), ("1", None), ("open", -32600), ("u", -32601), (3, -32602), (4, -32602),
        (None, -32600), (None, -32600), (None, -32600), (None, -32600),
    ]  # fmt: skip
    for one in reply.json():
        assert "error" not in one or one["error"]["data"]["mayHaveRun"] is False


def test_the_size_of_a_batch(place: Place, oldest: str) -> None:
    reply = place.ask(batch(oldest, *map(ping, range(1000))))
    assert [one["id"] for one in reply.json()] == list(range(1000))
    is_refused(place.ask(batch(oldest, *map(ping, range(1001)))), 400, -32600)
    is_refused(place.ask(batch(oldest)), 400, -32600)
    quiet = place.ask(batch(oldest, NOTE, NOTE))
    assert (quiet.status, quiet.body) == (202, b"")
    one = place.ask(Asked(b" " + batch(oldest, ping(1)).body, batch(oldest).headers))
    assert [answer["id"] for answer in one.json()] == [1]


@pytest.mark.parametrize("text", [b"[1,]", b"[", b"[\xff]", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}', b"[" * DEEP])
def test_a_batch_that_is_not_json(place: Place, oldest: str, text: bytes) -> None:
    is_refused(place.ask(Asked(text, batch(oldest).headers)), 400, -32700)


# -- credentials ----------------------------------------------------------------------------------------------------


CREDENTIALS = ["Bearer", "Bearer ", "Bearer x", f"Basic {KEY}", "x", f"{KEY} x", f"Bearer {KEY} x", "\xff"]


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_bad_credential(place: Place, credential: str) -> None:
    reply = place.ask(CALL.having("Authorization", credential))
    is_refused(reply, 401, -32600)
    challenge = reply.header("www-authenticate")
    assert challenge is not None
    assert challenge.startswith("Bearer")


def test_no_credential_or_two(place: Place) -> None:
    nobody = place.ask(CALL.without("Authorization"))
    is_refused(nobody, 401, -32600)
    assert nobody.header("www-authenticate") == "Bearer"
    is_refused(place.ask(Asked(CALL.body, [*CALL.headers, ("Authorization", f"Bearer {OTHER_KEY}")])), 401, -32600)


def test_a_stranger_is_turned_away_before_its_body_is_read(place: Place) -> None:
    asked = CALL.without("Authorization").having("Content-Length", "4000000")
    is_refused(place.ask(Asked(b"", asked.headers)), 401, -32600)


# -- the head of the request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost.evil.example", "https://"])
def test_a_foreign_origin(place: Place, speak: Callable[[str], Asked], origin: str) -> None:
    is_refused(place.ask(speak(TEXT).having("Origin", origin)), 403, -32600)
    is_refused(place.ask(Asked(b"", [("Origin", origin)], "GET")), 403, -32600)


def test_two_origins(place: Place) -> None:
    ours = place.gateway.root
    is_refused(place.ask(Asked(CALL.body, [*CALL.headers, ("Origin", ours), ("Origin", ours)])), 403, -32600)


HOSTS = ["evil.example", "localhost.evil.example", "127.0.0.1:1", "localhost:", "", "@localhost"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_foreign_host(place: Place, speak: Callable[[str], Asked], host: str) -> None:
    is_refused(place.ask(speak(TEXT).having("Host", host)), 421, -32600)


def raw(place: Place, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and all else of the answer to these very bytes."""
    answer = asyncio.run(send_raw(place.gateway.url, head.replace("\n", "\r\n").encode("latin-1") + body))
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


USUAL = f"Content-Type: application/json\nAuthorization: Bearer {KEY}\nConnection: close\n"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_no_host_at_all(place: Place, version: str) -> None:
    status, answer = raw(place, f"POST /mcp HTTP/{version}\n{USUAL}Content-Length: 2\n\n", b"{}")
    assert status == 421
    assert body_of(answer)["error"]["code"] == -32600


def test_two_hosts(place: Place) -> None:
    host = place.gateway.root.removeprefix("http://")
    for second in (host, "evil.example"):
        hosts = f"Host: {host}\nHost: {second}\n"
        status, answer = raw(place, f"POST /mcp HTTP/1.1\n{hosts}{USUAL}Content-Length: 2\n\n", b"{}")
        assert status == 421, answer
        assert body_of(answer)["error"]["code"] == -32600


def test_a_target_with_an_authority_of_its_own(place: Place) -> None:
    host = place.gateway.root.removeprefix("http://")
    status, _ = raw(place, f"POST http://evil.example/mcp HTTP/1.1\nHost: {host}\n{USUAL}Content-Length: 2\n\n", b"{}")
    assert status in (400, 421)


@pytest.mark.parametrize("path", ["/", "//mcp", "/mcp//", "/mcp/x", "/MCP", "/mcp%2f", "/mcp%00", "/../mcp", "/mcp;x"])
def test_other_paths(place: Place, path: str) -> None:
    is_refused(place.ask(CALL, path), 404, -32600)


@reaching
@pytest.mark.parametrize("path", ["/mcp?x=1", "/mcp?", "/%6dcp", "/mcp/", "/mcp/?x=1"])
def test_the_same_path_written_otherwise(place: Place, path: str) -> None:
    assert place.ask(CALL, path).status == 200


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(place: Place, verb: str) -> None:
    kept = [("Authorization", f"Bearer {KEY}")]
    old = place.ask(Asked(b"", kept, verb))
    is_refused(old, 405, -32600)
    assert old.header("allow") == "POST, DELETE"
    new = place.ask(Asked(b"", [*kept, ("MCP-Protocol-Version", MODERN)], verb))
    is_refused(new, 405, -32600)
    assert new.header("allow") == "POST"


def test_a_head_has_no_body_and_a_modern_delete_is_not_allowed(place: Place) -> None:
    status, answer = raw(place, f"HEAD /mcp HTTP/1.1\nHost: localhost\n{USUAL}\n")
    assert status == 405
    assert answer.endswith(b"\r\n\r\n")
    deleted = place.ask(Asked(b"", [("Authorization", f"Bearer {KEY}"), ("MCP-Protocol-Version", MODERN)], "DELETE"))
    is_refused(deleted, 405, -32600)
    assert deleted.header("allow") == "POST"


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "application/json;q=0", "", "json", "image/*"])
def test_an_accept_without_json(place: Place, speak: Callable[[str], Asked], accept: str) -> None:
    is_refused(place.ask(speak(TEXT).having("Accept", accept)), 406, -32600)


WELCOME = ["*/*", "application/*", "application/json;q=0.1", "TEXT/event-stream, Application/JSON"]


@reaching
@pytest.mark.parametrize("accept", WELCOME)
def test_an_accept_with_json(place: Place, speak: Callable[[str], Asked], accept: str) -> None:
    assert place.ask(speak(TEXT).having("Accept", accept)).status == 200


KINDS = ["text/plain", "", "application/jsonp", "application/json, application/json", "a" * 65_536]


@pytest.mark.parametrize("kind", KINDS)
def test_another_media_type(place: Place, speak: Callable[[str], Asked], kind: str) -> None:
    is_refused(place.ask(speak(TEXT).having("Content-Type", kind)), 415, -32600)
    is_refused(place.ask(speak(TEXT).without("Content-Type")), 415, -32600)


@reaching
def test_a_media_type_with_parameters(place: Place, speak: Callable[[str], Asked]) -> None:
    assert place.ask(speak(TEXT).having("Content-Type", "Application/JSON ; charset=utf-8")).status == 200


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\nTransfer-Encoding: chunked\n",
        "Content-Length: 2\nContent-Length: 3\n",
        "Content-Length: -1\n",
        "Content-Length: 2x\n",
        "Content-Length: 99999999999999999999999\n",
        "Transfer-Encoding: gzip\n",
        "Transfer-Encoding: chunked, chunked\n",
        "Transfer-Encoding: chunked\nTransfer-Encoding: identity\n",
        "Bad Header: x\nContent-Length: 2\n",
        "NoColon\nContent-Length: 2\n",
        " Folded: x\nContent-Length: 2\n",
    ],
)
def test_framing_that_two_readers_could_read_in_two_ways(place: Place, framing: str) -> None:
    smuggled = b"0\r\n\r\nPOST /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"
    status, answer = raw(place, f"POST /mcp HTTP/1.1\nHost: localhost\n{USUAL}{framing}\n", smuggled)
    assert 400 <= status < 500, answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer


@pytest.mark.parametrize("line", ["GARBAGE", "POST /mcp HTTP/9.9", "POST  /mcp HTTP/1.1", "\x16\x03\x01\x02\x00", ""])
def test_what_is_not_http(place: Place, line: str) -> None:
    status, answer = raw(place, f"{line}\nHost: localhost\n\n")
    assert status == 0 or 400 <= status < 500 or status == 505, answer


@reaching
def test_requests_in_one_go_are_answered_in_order(place: Place) -> None:
    asked = [modern("tools/call", {"name": "echo", "arguments": {"n": n}}, key=KEY, id=n) for n in range(5)]
    data = b"".join(one.having("Connection", "keep-alive").on_wire(place.gateway.url) for one in asked[:-1])
    answer = asyncio.run(send_raw(place.gateway.url, data + asked[-1].on_wire(place.gateway.url)))
    found = [json.loads(b"{" + part.rpartition(b"\r\n\r\n{")[2]) for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert [one["id"] for one in found] == list(range(5))


@pytest.mark.parametrize(("count", "status"), [(80, 200), (2000, 431)])
def test_many_headers(place: Place, count: int, status: int) -> None:
    asked = modern("server/discover", {}, key=KEY)
    asked.headers.extend((f"X-{n}", "y") for n in range(count))
    assert raw(place, "", asked.on_wire(place.gateway.url))[0] == status


def test_a_head_without_end(place: Place) -> None:
    status, answer = raw(place, "POST /mcp HTTP/1.1\nHost: localhost\nX-Long: " + "x" * 2_000_000)
    assert status in (0, 431), answer[:200]
