"""Headers of agents that a server gets by `forward_headers`: those and no others, each request's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.gateway import KEY
from tests.e2e.hostile import Place, is_refused, shared
from tests.e2e.http import Asked, Reply, legacy, modern, open_session, send_raw
from tests.e2e.servers import Call, Got, Toolbox

FORWARDED = ["X-Tenant", "traceparent", "Accept-Language", "X-Word", "baggage"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"
NAMES = {"old": "echo", "new": "ping-back", "both": "repeat", "plain": "other"}


async def echo(call: Call) -> None:
    await call.text("here")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    eras = {"old": "legacy", "new": "modern", "both": "both", "plain": "modern"}
    boxes = {name: Toolbox(era, {NAMES[name]: echo}) for name, era in eras.items()}
    more = {"tools": {"repeat": {"cache": "1h", "repeatable": True}}}
    named = {"forward_headers": FORWARDED}
    with shared(tmp_path_factory.mktemp("gateway"), boxes, more, old=named, new=named, both=named) as found:
        yield found


def asked(place: Place, era: str, server: str, *headers: tuple[str, str]) -> Asked:
    params = {"name": NAMES[server], "arguments": {}}
    if era == "modern":
        found = modern("tools/call", params, key=KEY)
    else:
        session = asyncio.run(open_session(place.gateway.url, key=KEY))
        found = legacy("tools/call", params, key=KEY, session=session)
    return Asked(found.body, [*found.headers, *headers])


def got(place: Place, server: str, reply: Reply) -> Got:
    """The call as its server got it; the answer must be a good one."""
    assert reply.json()["result"]["content"][0]["text"] == "here", reply
    return next(one for one in reversed(place.boxes[server].got) if b"tools/call" in one.body)


def shown(found: Got, *names: str) -> dict[str, list[str]]:
    return {name: [value for key, value in found.headers if key == name] for name in names}


@pytest.mark.parametrize("server", ["old", "new"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_what_is_named_is_handed_on_and_nothing_else(place: Place, era: str, server: str) -> None:
    trace = TRACE.format(7)
    mine = [("x-tenant", "acme"), ("TraceParent", trace), ("X-Other", "no"), ("Cookie", "c=1"), ("X-Word", "")]
    found = got(place, server, place.ask(asked(place, era, server, *mine)))
    assert shown(found, "x-tenant", "traceparent", "x-word", "accept-language", "x-other", "cookie") == {
        "x-tenant": ["acme"], "traceparent": [trace], "x-word": [""],
        "accept-language": [], "x-other": [], "cookie": [],
    }  # fmt: skip
    assert not [value for _, value in found.headers if KEY in value]


def test_a_server_that_names_none_gets_none(place: Place) -> None:
    found = got(place, "plain", place.ask(asked(place, "modern", "plain", ("X-Tenant", "acme"))))
    assert found.header("x-tenant") is None


def test_each_request_of_a_session_brings_its_own(place: Place) -> None:
    session = asyncio.run(open_session(place.gateway.url, key=KEY))
    for value in ("first", "second", None):
        call = legacy("tools/call", {"name": "echo", "arguments": {}}, key=KEY, session=session)
        found = got(place, "old", place.ask(call if value is None else call.having("X-Tenant", value)))
        assert found.header("x-tenant") == value
    others = [one for one in place.boxes["old"].got if b"tools/call" not in one.body]
    assert others
    assert not [one for one in others if one.header("x-tenant")]


def test_values_of_several_lines_are_one_list(place: Place) -> None:
    mine = [("X-Tenant", "a"), ("X-Word", "w"), ("x-tenant", "b, c")]
    found = got(place, "new", place.ask(asked(place, "modern", "new", *mine)))
    assert shown(found, "x-tenant", "x-word") == {"x-tenant": ["a, b, c"], "x-word": ["w"]}


def test_letters_beyond_ascii_arrive_byte_for_byte(place: Place) -> None:
    found = got(place, "new", place.ask(asked(place, "modern", "new", ("X-Tenant", "caf\xe9 \xff"))))
    assert found.header("x-tenant") == "caf\xe9 \xff"


def test_what_is_too_long_refuses_the_call(place: Place) -> None:
    before = place.reached()
    for value in ("x" * 8192, "x" * 20_000):
        is_refused(place.ask(asked(place, "modern", "new", ("X-Tenant", value))), 400, -32600, 1)
    # Granian itself has no room for it, or we have not: no server hears of it.
    reply = asyncio.run(
        send_raw(
            place.gateway.url, asked(place, "modern", "new", ("X-Tenant", "x" * 65_536)).on_wire(place.gateway.url)
        )
    )
    assert reply.partition(b"\r\n")[0].split()[1][:1] == b"4"
    assert place.reached() == before
    found = got(place, "plain", place.ask(asked(place, "modern", "plain", ("X-Tenant", "x" * 8192))))
    assert found.header("x-tenant") is None


@pytest.mark.parametrize("value", [b"a\nX-Evil: b", b"a\rX-Evil: b", b"a\x00b", b"a\x7fb", b"a\r\n X-Evil: b"])
def test_a_value_does_not_leave_its_line(place: Place, value: bytes) -> None:
    wire = asked(place, "modern", "new", ("X-Tenant", "VALUE")).on_wire(place.gateway.url)
    before = len(place.boxes["new"].got)
    asyncio.run(send_raw(place.gateway.url, wire.replace(b"VALUE", value)))
    for found in place.boxes["new"].got[before:]:
        assert found.header("x-evil") is None
        assert not [one for one in found.header("x-tenant") or "" if ord(one) < 32 or ord(one) == 127]


def test_equal_calls_have_equal_headers(place: Place) -> None:
    def ask(tenant: str | None, trace: int) -> None:
        more = [("X-Tenant", tenant)] if tenant else []
        found = place.ask(asked(place, "modern", "both", ("traceparent", TRACE.format(trace)), *more))
        assert found.json()["result"]["content"][0]["text"] == "here"

    box = place.boxes["both"]
    for number in range(16):  # each of the two workers has a cache of its own
        for tenant in ("acme", "umbrella", None):
            ask(tenant, number)
    ran = [one.header("x-tenant") for one in box.got if b"tools/call" in one.body]
    assert set(ran) == {"acme", "umbrella", None}
    assert len(ran) <= 6


@pytest.mark.parametrize("server", ["old", "new"])
def test_what_fastgw_writes_of_traces_stands_there_once(place: Place, server: str) -> None:
    trace = TRACE.format(9)
    call = asked(place, "modern", server, ("traceparent", trace), ("baggage", "a=header"))
    assert shown(got(place, server, place.ask(call)), "traceparent", "baggage") == {
        "traceparent": [trace], "baggage": ["a=header"],
    }  # fmt: skip
    meta = {"traceparent": TRACE.format(8), "baggage": "a=meta"}
    both = modern("tools/call", {"name": NAMES[server], "arguments": {}}, key=KEY, meta=meta)
    both = Asked(both.body, [*both.headers, ("traceparent", trace), ("baggage", "a=header")])
    assert shown(got(place, server, place.ask(both)), "traceparent", "baggage") == {
        "traceparent": [meta["traceparent"]], "baggage": ["a=meta"],
    }  # fmt: skip


def test_pages_may_send_them(place: Place) -> None:
    asking = [("Origin", place.gateway.root), ("Access-Control-Request-Method", "POST")]
    wanted = ("Access-Control-Request-Headers", "x-tenant, x-other")
    reply = place.ask(Asked(b"", [*asking, wanted], "OPTIONS"))
    allowed = (reply.header("access-control-allow-headers") or "").split(", ")
    assert ("x-tenant" in allowed, "x-other" in allowed) == (True, False)
