"""REST through the whole gateway: every status that can be provoked, names, lists, events, browsers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.gateway import KEY, until
from tests.e2e.hostile import OTHER_KEY, Place, shared
from tests.e2e.http import Asked, Reply, connected, modern, send_raw
from tests.e2e.servers import Call, Toolbox, failure

SCHEMA = {
    "type": "object",
    "properties": {"word": {"$ref": "#/$defs/word"}},
    "$defs": {"word": {"type": "string"}},
}
STRANGE = ("files/read", "v1.2", "a%2Fb", "..", "grüße", "x y", "tools/echo/invoke")
"""Names that a path could take for something else."""


async def echo(call: Call) -> None:
    await call.result(b'{"content":[],"structuredContent":{"got":%s}}' % raw_arguments(call))


async def fails(call: Call) -> None:
    await call.result(b'{"content":[{"type":"text","text":"no"}],"isError":true}')


async def breaks(call: Call) -> None:
    await call.send(failure(call.id, -32050, "broken", "200 OK", {"requestId": "forged"}))


async def hangs_up(call: Call) -> None:
    call.writer.close()


async def stuck(call: Call) -> None:
    await call.left()


def raw_arguments(call: Call) -> bytes:
    """The arguments as they came: they are the last member that the gateway writes, or followed by `_meta`."""
    text = call.got.body
    start = text.index(b'"arguments":') + len(b'"arguments":')
    return json.dumps(text[start:].decode()).encode()


TOOLS = {"echo": echo, "fails": fails, "breaks": breaks, "hangs_up": hangs_up, "stuck": stuck, "deploy": echo}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    boxes = {era: Toolbox(era, {f"{era}-{name}": tool for name, tool in TOOLS.items()}) for era in ("modern", "legacy")}
    boxes["strange"] = Toolbox("modern", dict.fromkeys(STRANGE, echo))
    for era in ("modern", "legacy"):
        boxes[era].definitions[f"{era}-echo"] = {"inputSchema": SCHEMA, "description": "Says it again."}
    more = {
        "timeout": "3s",
        "endpoints": {"/mcp": {}, "/mcp/ops": {"servers": ["strange"]}, "/open": {"auth": "none"}},
        "policies": [
            {"name": "all", "allow": ["*"], "except": {"agent": ["other", "anonymous"]}},
            {"name": "few", "match": {"agent": "other"}, "allow": ["modern-echo"]},
            {"name": "not-there", "match": {"arguments": {"where": "production"}}, "deny": ["*-deploy"]},
        ],
    }
    with shared(tmp_path_factory.mktemp("gateway"), boxes, more) as found:
        yield found


@pytest.fixture(autouse=True)
def unharmed(place: Place) -> Iterator[None]:
    with place.unharmed():
        yield


def invoke(place: Place, tool: str, body: bytes = b"{}", key: str = KEY, **more: str) -> Reply:
    """Call a tool, its name as it stands in the path."""
    return place.ask(asked(body, key, **more), f"/mcp/tools/{tool}/invoke")


def asked(body: bytes = b"{}", key: str = KEY, verb: str = "POST", **more: str) -> Asked:
    """A request; further headers have `_` for `-`, an empty one is left out."""
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in more.items()}
    return Asked(body, [(name, value) for name, value in given.items() if value], verb)


def get(place: Place, path: str, key: str = KEY, verb: str = "GET", **more: str) -> Reply:
    return place.ask(asked(b"", key, verb, Content_Type="", **more), path)


def refused(reply: Reply, status: int, code: int, **data: Any) -> None:
    """It was refused so, in the one form that refusals have here."""
    told = reply.json()
    assert reply.status == status, (reply, told)
    assert told.pop("requestId") == reply.header("x-request-id")
    assert told.pop("error")
    assert told == {"code": code, "mayHaveRun": False, **data}


# -- what is answered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_tools_of_both_eras(place: Place, era: str) -> None:
    for _ in range(4):  # either worker
        reply = invoke(place, f"{era}-echo", b'{"n": 123456789012345678901234567890.10, "n": 2}')
        assert (reply.status, reply.header("content-type")) == (200, "application/json")
        assert set(reply.json()) == {"content", "structuredContent"}
        assert reply.json()["structuredContent"]["got"].startswith('{"n": 123456789012345678901234567890.10, "n": 2}')
    failed = invoke(place, f"{era}-fails", b"")
    assert (failed.status, failed.json()["isError"]) == (200, True)


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_can_be_called(place: Place, name: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    before = place.reached()
    assert invoke(place, encoded).status == 200
    assert place.boxes["strange"].ledger[-1][1] == name
    assert place.reached() == before + 1


def test_an_anonymous_endpoint(place: Place) -> None:
    assert place.ask(asked(Authorization=""), "/open/tools/modern-echo/invoke").status == 404, "no policy lets it"
    assert get(place, "/open/tools", Authorization="").status == 200


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"[]", -32602), (b"null", -32602), (b'"{}"', -32602), (b"[{}, {}]", -32602), (b"{", -32700), (b"\xff", -32700)],
)
def test_bodies_that_are_no_object(place: Place, body: bytes, code: int) -> None:
    refused(invoke(place, "modern-echo", body), 400, code)


def test_heads_that_are_wrong(place: Place) -> None:
    refused(invoke(place, "modern-echo", key="fgw_nobody"), 401, -32600)
    without = invoke(place, "modern-echo", Authorization="")
    refused(without, 401, -32600)
    assert without.header("www-authenticate") == "Bearer"
    refused(invoke(place, "modern-echo", Origin="http://evil.example"), 403, -32600)
    refused(invoke(place, "modern-echo", Host="evil.example"), 421, -32600)
    refused(invoke(place, "modern-echo", verb="PUT"), 405, -32600)
    refused(invoke(place, "modern-echo", Accept="text/event-stream"), 406, -32600)
    refused(invoke(place, "modern-echo", Content_Type="text/plain"), 415, -32600)
    refused(invoke(place, "modern-echo", b"{}" + b" " * 5_000_000), 413, -32600, limitBytes=4 * 2**20)


def test_a_body_that_does_not_come(place: Place) -> None:
    async def story() -> Reply:
        async with connected(place.gateway.root + "/mcp/tools/modern-echo/invoke") as connection:
            connection.send(asked(b"{").having("Content-Length", "9"))
            return await (await connection.answer()).rest()

    refused(asyncio.run(story()), 408, -32600)


def test_names_that_are_not_there_or_not_for_this_caller(place: Place) -> None:
    before = place.reached()
    for key, name, shown in (
        (KEY, "nothing", "nothing"),
        (OTHER_KEY, "modern-fails", "modern-fails"),
        (KEY, "%FF", "\ufffd"),
        (KEY, "x" * 9000, "x" * 128),
        (KEY, "..%2F..%2Fops%2Ftools%2Fv1.2", "../../ops/tools/v1.2"),
        (KEY, "modern-echo%00", "modern-echo\0"),
    ):
        refused(invoke(place, name, key=key), 404, -32602, name=shown)
    for path in ("/mcp%2Fops/tools/v1.2/invoke", "/mcp/tools/modern-echo", "/mcp/tools/", "/mcp%2Fops"):
        assert place.ask(asked(), path).status == 404
    assert place.reached() == before


def test_arguments_that_are_not_for_this_caller(place: Place) -> None:
    refused(invoke(place, "modern-deploy", b'{"where":"production"}'), 403, -31040)
    refused(invoke(place, "modern-deploy", b'{"where":"test","where":"production"}'), 403, -31040)
    assert invoke(place, "modern-deploy", b'{"where":"test"}').status == 200


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_servers_that_fail(place: Place, era: str) -> None:
    own = invoke(place, f"{era}-breaks")
    told = own.json()
    assert (own.status, told["error"], told["code"], told["mayHaveRun"]) == (502, "broken", -32050, True)
    assert (told["data"], told["requestId"]) == ({"requestId": "forged"}, own.header("x-request-id"))
    refused(invoke(place, f"{era}-hangs_up"), 502, -31003, mayHaveRun=True)
    late = invoke(place, f"{era}-stuck")
    refused(late, 504, -31002, mayHaveRun=True, timeoutMs=late.json()["timeoutMs"])


def test_events_say_what_callers_heard(place: Place) -> None:
    replies = [
        invoke(place, "modern-echo"),
        invoke(place, "modern-fails"),
        invoke(place, "modern-breaks"),
        invoke(place, "nothing"),
        invoke(place, "modern-deploy", b'{"where":"production"}'),
        invoke(place, "modern-echo", b"[]"),
    ]

    async def written() -> dict[str, Any]:
        events = {event["requestId"]: event for event in place.gateway.events()}
        return events if all(str(reply.header("x-request-id")) in events for reply in replies) else {}

    events = asyncio.run(until(written))
    for reply in replies:
        event = events[str(reply.header("x-request-id"))]
        assert event["statusCode"] == reply.status
        assert (event["method"], event["protocolVersion"], event["agentId"]) == ("tools/call", "rest", "tester")
        assert event["bytesOut"] in (0, len(reply.body))


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_who_leaves_withdraws_the_call(place: Place, era: str) -> None:
    box = place.boxes[era]

    async def story() -> None:
        before, told = len(box.ledger), len(box.cancelled)
        async with connected(f"{place.gateway.root}/mcp/tools/{era}-stuck/invoke") as connection:
            connection.send(asked())

            async def arrived() -> bool:
                return len(box.ledger) > before

            await until(arrived)

        async def withdrawn() -> bool:
            return era == "modern" or len(box.cancelled) > told

        await until(withdrawn, within=2.5)

        async def written() -> bool:
            last = [event for event in place.gateway.events() if event["tool"] == f"{era}-stuck"][-1:]
            return bool(last) and last[0]["outcome"] == "cancelled" and last[0]["statusCode"] == 499

        await until(written, within=2.5)  # the server itself would be given 3 s

    asyncio.run(story())


# -- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_the_list_is_what_agents_see(place: Place, key: str) -> None:
    seen = place.ask(modern("tools/list", key=key)).json()["result"]["tools"]
    reply = get(place, "/mcp/tools", key)
    assert reply.json() == {"tools": seen}
    assert reply.header("cache-control") == "private, no-cache"
    document = get(place, "/mcp/openapi.json", key).json()
    assert [path["post"]["operationId"] for path in document["paths"].values()] == [tool["name"] for tool in seen]
    head = asyncio.run(send_raw(place.gateway.url, asked(b"", key, "HEAD").on_wire(place.gateway.url + "/tools")))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")
    assert b"\r\ncontent-length: %d\r\n" % len(reply.body) in head
    refused(get(place, "/mcp/tools?cursor=x", key), 400, -32602)
    refused(get(place, "/mcp/tools", key="fgw_nobody"), 401, -32600)
    refused(get(place, "/mcp/openapi.json", Authorization=""), 401, -32600)


def test_every_described_path_can_be_called(place: Place) -> None:
    document = get(place, "/mcp/openapi.json").json()
    [server] = document["servers"]
    called = [
        path
        for path in document["paths"]
        if path.endswith(("echo/invoke", "v1.2/invoke", "read/invoke", "invoke/invoke"))
    ]
    assert len(called) == 5
    for path in called:
        assert place.ask(asked(), server["url"] + path).status == 200, path


# -- browsers -------------------------------------------------------------------------------------------------------


def test_a_page_of_this_machine(place: Place) -> None:
    origin = place.gateway.root.replace("127.0.0.1", "localhost")
    path = "/mcp/tools/modern-echo/invoke"
    first = place.ask(
        Asked(b"", [("Origin", origin), ("Access-Control-Request-Method", "POST"),
                    ("Access-Control-Request-Headers", "authorization,content-type")], "OPTIONS"), path)  # fmt: skip
    assert (first.status, first.body, first.header("access-control-allow-methods")) == (204, b"", "POST")
    for reply in (invoke(place, "modern-echo", Origin=origin), invoke(place, "nothing", Origin=origin)):
        assert reply.header("access-control-allow-origin") == origin
        assert reply.header("vary") == "Origin"
    assert first.header("access-control-allow-origin") == origin
    evil = Asked(b"", [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")], "OPTIONS")
    assert place.ask(evil, path).status == 403
    assert place.ask(Asked(b"", [], "OPTIONS"), path).status == 401, "no page asks: a stranger, like any other"
