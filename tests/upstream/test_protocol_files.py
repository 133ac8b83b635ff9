from __future__ import annotations

import json
import tracemalloc

import pytest

from fastgw.catalog.route import Target
from fastgw.errors import Fault, Kind
from fastgw.protocol.headers import ParamHeader
from fastgw.upstream import legacy as lower_legacy
from fastgw.upstream import modern as lower_modern
from fastgw.upstream.controller import UpstreamSession
from tests.upstream.fakes import OURS, TARGET, backend, call, head

ID = b"12"
V = "io.modelcontextprotocol/"


def test_a_modern_request_says_everything_about_itself() -> None:
    found = call(meta={"traceparent": b'"00-1"'}, log_level="info", token=b"5", client=b'{"name":"agent"}')
    headers, body = lower_modern.request(found, TARGET, ID, backend().headers, OURS)
    assert json.loads(body) == {
        "jsonrpc": "2.0",
        "id": 12,
        "method": "tools/call",
        "params": {
            "name": "buy",
            "arguments": {"n": 1},
            "_meta": {
                "traceparent": "00-1",
                V + "protocolVersion": "2026-07-28",
                V + "clientInfo": {"name": "agent"},
                V + "clientCapabilities": {},
                V + "logLevel": "info",
                "progressToken": 12,
            },
        },
    }
    assert head(headers) == {
        "authorization": "Bearer s3cret",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "buy",
    }


def test_an_agent_without_a_name_goes_under_ours_and_wants_no_progress() -> None:
    _, body = lower_modern.request(call(capabilities=b'{"roots":{}}'), TARGET, ID, backend().headers, OURS)
    meta = json.loads(body)["params"]["_meta"]
    assert meta[V + "clientInfo"]["name"] == "fastgw"
    assert meta[V + "clientCapabilities"] == {}
    assert "progressToken" not in meta


@pytest.mark.parametrize(
    "raw", [b'{ "n" : 1e400, "s":"\\u00e9\\n" ,\n"z":123456789012345678901234567890}', b"[1]", b"null"]
)
def test_arguments_travel_byte_for_byte_in_both_eras(raw: bytes) -> None:
    found = call(params={"arguments": raw, "other": b"1.50"})
    for body in (
        lower_modern.request(found, TARGET, ID, backend().headers, OURS)[1],
        lower_legacy.request(found, TARGET, ID, backend().headers, UpstreamSession("s", "2025-11-25"))[1],
    ):
        assert b'"arguments":' + raw + b',"other":1.50' in body


def test_a_name_no_header_can_hold_is_encoded() -> None:
    headers, _ = lower_modern.request(
        call(), Target("shop", "kö\r\n", b'"k\\u00f6\\r\\n"'), ID, backend().headers, OURS
    )
    assert head(headers)["mcp-name"] == "=?base64?a8O2DQo=?="


def test_arguments_are_renamed_and_mirrored_under_the_servers_own_names() -> None:
    target = Target(
        "shop", "buy", b'"buy"', (ParamHeader("mcp-param-place", ("place",), "string"),), (("city", "place"),)
    )
    found = call(params={"arguments": b'{"n": 1.0, "city": "K\\u00f6ln"}'})
    headers, body = lower_modern.request(found, target, ID, backend().headers, OURS)
    assert b'"arguments":{"n":1.0,"place":"K\\u00f6ln"}' in body
    assert head(headers)["mcp-param-place"] == "=?base64?S8O2bG4=?="
    _, body = lower_legacy.request(found, target, ID, backend().headers, UpstreamSession("s", "2025-11-25"))
    assert b'"arguments":{"n":1.0,"place":"K\\u00f6ln"}' in body


def test_two_arguments_can_change_places() -> None:
    assert lower_modern.renamed(b'{"a":1,"b":2}', (("a", "b"), ("b", "a"))) == b'{"b":1,"a":2}'


@pytest.mark.parametrize("arguments", [b'{"place":"x"}', b'{"city":1,"place":2}', b'{"city":1,"PLACE":2}',
                                       b'{"city":1,"city":2}', b"[]"])  # fmt: skip
def test_no_way_round_a_renamed_argument(arguments: bytes) -> None:
    target = Target("shop", "buy", b'"buy"', (), (("city", "place"),))
    found = call(params={"arguments": arguments})
    with pytest.raises(Fault) as modern:
        lower_modern.request(found, target, ID, backend().headers, OURS)
    with pytest.raises(Fault) as legacy:
        lower_legacy.request(found, target, ID, backend().headers, UpstreamSession("s", "2025-11-25"))
    assert modern.value.kind is legacy.value.kind is Kind.BAD_PARAMS


@pytest.mark.parametrize(
    ("session", "more"),
    [
        (UpstreamSession("s1", "2025-11-25"), {"mcp-session-id": "s1", "mcp-protocol-version": "2025-11-25"}),
        (UpstreamSession("s1", "2025-06-18"), {"mcp-session-id": "s1", "mcp-protocol-version": "2025-06-18"}),
        (UpstreamSession("s1", "2025-03-26"), {"mcp-session-id": "s1"}),
        (UpstreamSession("", "2025-06-18"), {"mcp-protocol-version": "2025-06-18"}),
    ],
)
def test_a_legacy_request_stands_in_its_session(session: UpstreamSession, more: dict[str, str]) -> None:
    found = call(meta={"traceparent": b'"00-1"'}, log_level="info", token=b'"t"', client=b"{}")
    headers, body = lower_legacy.request(found, TARGET, ID, backend().headers, session)
    assert json.loads(body)["params"] == {
        "name": "buy",
        "arguments": {"n": 1},
        "_meta": {"traceparent": "00-1", "progressToken": 12},
    }
    assert head(headers) == {
        "authorization": "Bearer s3cret",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        **more,
    }


def test_without_anything_to_say_there_is_no_meta() -> None:
    _, body = lower_legacy.request(call(), TARGET, ID, backend().headers, UpstreamSession("s", "2025-11-25"))
    assert body == b'{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"name":"buy","arguments":{"n":1}}}'


def test_the_small_messages() -> None:
    opening = json.loads(lower_legacy.initialize(ID, OURS, b'{"roots":{}}'))
    assert opening["params"] == {
        "protocolVersion": "2025-11-25",
        "capabilities": {"roots": {}},
        "clientInfo": json.loads(OURS),
    }
    ping = json.loads(lower_modern.message("ping", {}, ID))
    assert ping == {"jsonrpc": "2.0", "id": 12, "method": "ping", "params": {}}
    assert json.loads(lower_legacy.cancelled(ID, "gone")) == {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 12, "reason": "gone"},
    }
    assert json.loads(lower_legacy.response("ping", b"3")) == {"jsonrpc": "2.0", "id": 3, "result": {}}
    refused = json.loads(lower_legacy.response("sampling/createMessage", b'"3"'))
    assert (refused["id"], refused["error"]["code"]) == ("3", -32601)
    resumed = head(lower_legacy.stream_headers(backend().headers, UpstreamSession("s", "2025-11-25"), "e9"))
    assert (resumed["last-event-id"], resumed["accept"]) == ("e9", "text/event-stream")
    assert resumed["accept-encoding"] == "identity"


def test_a_resource_goes_by_its_uri_and_a_completion_by_no_name() -> None:
    found = call(method="resources/read", params={})
    target = Target("shop", "file:///x", b'"file:///x"', member="uri")
    headers, body = lower_modern.request(found, target, ID, backend().headers, OURS)
    assert json.loads(body)["params"]["uri"] == "file:///x"
    assert (head(headers)["mcp-method"], head(headers)["mcp-name"]) == ("resources/read", "file:///x")
    _, body = lower_legacy.request(found, target, ID, backend().headers, UpstreamSession("s", "2025-11-25"))
    assert json.loads(body)["params"] == {"uri": "file:///x"}
    ref = {"ref": b'{"type":"ref/prompt","name":"p"}', "argument": b'{"name":"a","value":""}'}
    found, target = call(method="completion/complete", params=ref), Target("shop", "p", b'"p"', member="")
    headers, body = lower_modern.request(found, target, ID, backend().headers, OURS)
    assert "mcp-name" not in head(headers)
    assert set(json.loads(body)["params"]) == {"ref", "argument", "_meta"}
    _, body = lower_legacy.request(found, target, ID, backend().headers, UpstreamSession("s", "2025-11-25"))
    assert set(json.loads(body)["params"]) == set(found.params) == {"ref", "argument"}


def test_a_modern_server_is_offered_what_the_agent_can_be_asked_and_gets_its_answers() -> None:
    answers = {"inputResponses": b'{"k":{ "roots":[]}}', "requestState": b'"it\\u0073"'}
    found = call(offered=b'{"roots":{ }}', params={"arguments": b"{}", **answers})
    _, body = lower_modern.request(found, TARGET, ID, backend().headers, OURS)
    assert b'"inputResponses":{"k":{ "roots":[]}},"requestState":"it\\u0073"' in body
    assert b'clientCapabilities":{"roots":{ }}' in body
    _, body = lower_legacy.request(found, TARGET, ID, backend().headers, UpstreamSession("s", "2025-11-25"))
    assert json.loads(body)["params"] == {"name": "buy", "arguments": {}}


def test_a_session_is_told_a_level() -> None:
    assert json.loads(lower_legacy.set_level("debug", ID)) == {
        "jsonrpc": "2.0",
        "id": 12,
        "method": "logging/setLevel",
        "params": {"level": "debug"},
    }


def test_what_agents_say_of_themselves_is_remembered_only_where_it_is_short() -> None:
    def ask(number: int) -> None:
        client = b'{"name":"%d %s"}' % (number, b"x" * 100_000)
        lower_modern.request(call(client=client), TARGET, ID, b"", OURS)

    ask(0)
    tracemalloc.start()
    try:
        for number in range(1, 100):
            ask(number)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
