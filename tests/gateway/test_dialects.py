"""The dialects as a dialogue: what an agent sends, and what it becomes or how it is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.agent_sessions import LIFETIME, AgentSessions
from fastgw.gateway.dialects.dialect import ParsedRequest, RequestKind
from fastgw.gateway.entry_points import MESSAGES
from fastgw.policy.match import Principal
from fastgw.snapshot.model import Endpoint, Snapshot, View

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SESSIONS = AgentSessions((b"secret",))
AGENT = Principal("agent-a")
Fields = dict[str, str]


def context(fields: Fields, agent: Principal = AGENT, path: str = "/mcp") -> RequestContext:
    endpoint = Endpoint(path, {}, (View(),), {agent.agent: 0}, False, 0.0, (), "")
    snapshot = Snapshot(1, {}, {}, {}, frozenset(), frozenset(), 1 << 22, 1 << 26, (b"secret",), "fastgw", "0", "gw")
    found = {name.lower().encode(): value.encode() for name, value in fields.items()}
    return RequestContext("req_1", snapshot, endpoint, MESSAGES.dialect, found, frozenset(), 0.0, principal=agent)


def parse(fields: Fields, message: Any, **where: Any) -> ParsedRequest:
    body = message if isinstance(message, bytes) else orjson.dumps(message)
    found = MESSAGES.recognise(context(fields, **where), body, SESSIONS)
    assert isinstance(found, ParsedRequest)
    return found


def refusal(fields: Fields, message: Any, **where: Any) -> tuple[Fault, RequestContext]:
    body = message if isinstance(message, bytes) else orjson.dumps(message)
    one = context(fields, **where)
    with pytest.raises(Fault) as caught:
        MESSAGES.recognise(one, body, SESSIONS)
    return caught.value, one


def modern(method: str, id: Any = 1, **params: Any) -> tuple[Fields, dict[str, Any]]:
    fields = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    if "name" in params:
        fields["Mcp-Name"] = params["name"]
    return fields, {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": META}}


def request(method: str, id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def initialize(version: str = "2025-11-25", **where: Any) -> str:
    found = parse(
        {}, request("initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "x", "version": "1"}),
        **where,
    )  # fmt: skip
    assert found.kind is RequestKind.INITIALIZE
    return dict(found.headers)[b"mcp-session-id"].decode()


# -- modern ---------------------------------------------------------------------------------------------------------


def test_a_modern_call_says_all_about_itself() -> None:
    fields, message = modern("tools/call", name="deploy", arguments={"a": 1})
    message["params"]["_meta"] = {**META, "progressToken": "t", "own/key": 7}
    call = parse(fields, message).call
    assert (call.name, call.id, call.token, call.session) == ("deploy", b"1", b'"t"', None)
    assert call.params == {"arguments": b'{"a":1}'}
    assert call.meta == {"own/key": b"7"}


def test_an_id_keeps_its_type() -> None:
    assert parse(*modern("server/discover", id="1")).call.id == b'"1"'
    assert parse(*modern("server/discover", id=1)).call.id == b"1"


@pytest.mark.parametrize("missing", list(META))
def test_a_missing_required_key_is_judged_before_the_headers(missing: str) -> None:
    fields, message = modern("server/discover", id=102)
    message["params"]["_meta"] = {key: value for key, value in META.items() if key != missing}
    fault, one = refusal(fields, message)
    assert (fault.kind, one.reply_to) == (Kind.BAD_PARAMS, b"102")


def test_header_and_body_must_agree_before_the_version_is_judged() -> None:
    fields, message = modern("server/discover")
    message["params"]["_meta"] = {**META, "io.modelcontextprotocol/protocolVersion": "v999.0.0"}
    assert refusal(fields, message)[0].kind is Kind.HEADER_MISMATCH
    fields["MCP-Protocol-Version"] = "v999.0.0"
    fault, _ = refusal(fields, message)
    assert fault.kind is Kind.UNSUPPORTED_VERSION
    assert fault.data["requested"] == "v999.0.0"
    assert fault.data["supported"][0] == MODERN


def test_modern_metadata_without_the_header_is_a_mismatch() -> None:
    _, message = modern("server/discover")
    assert refusal({"Mcp-Method": "server/discover"}, message)[0].kind is Kind.HEADER_MISMATCH


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Mcp-Method", "tools/list"),
        ("Mcp-Method", "TOOLS/CALL"),
        ("Mcp-Method", None),
        ("Mcp-Name", "other"),
        ("Mcp-Name", "DEPLOY"),
        ("Mcp-Name", None),
        ("Mcp-Name", "=?base64?!!!?="),
        ("Mcp-Name", "=?base64?b3RoZXI=?="),
    ],
)
def test_lying_headers_are_refused(header: str, value: str | None) -> None:
    fields, message = modern("tools/call", name="deploy")
    if value is None:
        del fields[header]
    else:
        fields[header] = value
    assert refusal(fields, message)[0].kind is Kind.HEADER_MISMATCH


@pytest.mark.parametrize("value", ["deploy", "  deploy ", "=?base64?ZGVwbG95?="])
def test_a_name_may_be_padded_or_encoded(value: str) -> None:
    fields, message = modern("tools/call", name="deploy")
    fields["Mcp-Name"] = value
    assert parse(fields, message).call.name == "deploy"


def test_a_routing_header_that_came_twice_is_refused() -> None:
    fields, message = modern("tools/call", name="deploy")
    one = context(fields)
    one.twice = frozenset((b"mcp-name",))
    with pytest.raises(Fault) as caught:
        MESSAGES.recognise(one, orjson.dumps(message), SESSIONS)
    assert caught.value.kind is Kind.HEADER_MISMATCH


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "x/y"]
)
def test_what_the_revision_does_not_have_is_unknown(method: str) -> None:
    assert refusal(*modern(method))[0].kind is Kind.UNKNOWN_METHOD


@pytest.mark.parametrize("params", [{"name": 5}, {"arguments": {}}, {"name": "x", "arguments": []}])
def test_bad_parameters(params: dict[str, Any]) -> None:
    fields, message = modern("tools/call", name="x")
    message["params"] = {**params, "_meta": META}
    assert refusal(fields, message)[0].kind in (Kind.BAD_PARAMS, Kind.HEADER_MISMATCH)


def test_responses_and_batches_are_not_messages_of_a_modern_agent() -> None:
    fields, message = modern("server/discover")
    assert refusal(fields, {"jsonrpc": "2.0", "id": 1, "result": {}})[0].kind is Kind.NOT_ONE_MESSAGE
    assert refusal(fields, [message])[0].kind is Kind.NOT_ONE_MESSAGE


@pytest.mark.parametrize("id", [None, 1.5, {}, [], True])
def test_an_id_must_be_an_id(id: Any) -> None:
    fields, message = modern("server/discover", id=id)
    fault, one = refusal(fields, message)
    assert (fault.kind, one.reply_to) == (Kind.NOT_ONE_MESSAGE, b"null")


def test_a_second_name_is_refused() -> None:
    fields, _ = modern("tools/call", name="allowed")
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"denied","name":"allowed","_meta":%s}}'
        % orjson.dumps(META)
    )
    assert refusal(fields, body)[0].kind is Kind.BAD_PARAMS


@pytest.mark.parametrize("method", ["prompts/list", "resources/list", "resources/templates/list", "tools/list"])
def test_all_four_lists_are_asked_alike(method: str) -> None:
    found = parse(*modern(method, cursor="c"))
    assert (found.kind, found.call.params) == (RequestKind.LIST, {"cursor": b'"c"'})
    for version in ("2025-11-25", "2025-06-18", "2025-03-26"):
        assert parse({"Mcp-Session-Id": initialize(version)}, request(method)).kind is RequestKind.LIST


NAMED = {
    "prompts/get": ({"name": "greet", "arguments": {"a": "b"}}, "greet", {"arguments": b'{"a":"b"}'}),
    "resources/read": ({"uri": "file:///x y"}, "file:///x y", {}),
    "completion/complete": (
        {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": "b"}, "context": {}},
        None,
        {
            "ref": b'{"type":"ref/prompt","name":"greet"}',
            "argument": b'{"name":"a","value":"b"}',
            "context": b"{}",
        },
    ),
}


@pytest.mark.parametrize("method", list(NAMED))
def test_prompts_resources_and_completions_are_calls(method: str) -> None:
    params, name, kept = NAMED[method]
    fields, message = modern(method, **params)
    if name is not None:
        fields["Mcp-Name"] = name
    new = parse(fields, message)
    old = parse({"Mcp-Session-Id": initialize("2025-03-26")}, request(method, **params))
    for found in (new, old):
        assert (found.kind, found.call.name, found.call.params) == (RequestKind.CALL, name, kept)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", {}),
        ("prompts/get", {"name": 7}),
        ("prompts/get", {"name": "x", "arguments": []}),
        ("resources/read", {}),
        ("resources/read", {"uri": None}),
        ("resources/read", {"uri": ["a"]}),
        ("resources/read", {"uri": "a:b", "URI": "c:d"}),
        ("completion/complete", {"argument": {}}),
        ("completion/complete", {"ref": {}}),
        ("completion/complete", {"ref": "x", "argument": {}}),
        ("completion/complete", {"ref": {}, "argument": []}),
    ],
)
def test_what_they_need_must_be_there(method: str, params: dict[str, Any]) -> None:
    fields, message = modern(method)
    message["params"].update(params)
    fields["Mcp-Name"] = str(params.get("name", params.get("uri")))
    assert refusal(fields, message)[0].kind is Kind.BAD_PARAMS
    assert refusal({"Mcp-Session-Id": initialize()}, request(method, **params))[0].kind is Kind.BAD_PARAMS


def test_the_uri_in_the_header_must_be_the_one_in_the_body() -> None:
    fields, message = modern("resources/read", uri="file:///secret")
    assert refusal({**fields, "Mcp-Name": "file:///public"}, message)[0].kind is Kind.HEADER_MISMATCH
    assert refusal(fields, message)[0].kind is Kind.HEADER_MISMATCH


def test_of_what_a_modern_agent_declares_servers_are_offered_what_can_be_relayed() -> None:
    fields, message = modern("tools/call", name="deploy")
    assert parse(fields, message).call.offered == b"{}"
    declared = {"roots": {}, "elicitation": {"url": {}}, "extensions": {"x": {}}}
    message["params"]["_meta"] = {**META, "io.modelcontextprotocol/clientCapabilities": declared}
    assert parse(fields, message).call.offered == b'{"elicitation":{"url":{}},"roots":{}}'
    text = orjson.dumps(message).replace(b'"roots":{}', b'"roots":{},"roots":{}')
    assert refusal(fields, text)[0].kind is Kind.BAD_PARAMS


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
def test_a_modern_agent_answers_and_brings_its_state_back(method: str) -> None:
    params = {"uri" if method == "resources/read" else "name": "x:y", "inputResponses": {"k": {}}, "requestState": "s"}
    fields, message = modern(method, **params)
    call = parse({**fields, "Mcp-Name": "x:y"}, message).call
    assert (call.params, call.request_state) == ({"inputResponses": b'{"k":{}}'}, b'"s"')
    old = parse({"Mcp-Session-Id": initialize()}, request(method, **params)).call
    assert (old.params, old.request_state, old.offered) == ({}, None, b"{}")


def test_no_other_request_has_rounds() -> None:
    params, _, kept = NAMED["completion/complete"]
    call = parse(*modern("completion/complete", **params, inputResponses={}, requestState="s")).call
    assert (call.params, call.request_state, call.offered) == (kept, None, b"{}")


@pytest.mark.parametrize("params", [{"requestState": 7}, {"requestState": None}, {"inputResponses": []}])
def test_answers_and_states_must_be_what_they_are(params: dict[str, Any]) -> None:
    assert refusal(*modern("tools/call", name="deploy", **params))[0].kind is Kind.BAD_PARAMS


def test_a_modern_agent_names_its_level_on_the_call_itself() -> None:
    fields, message = modern("tools/call", name="deploy")
    call = parse(fields, message).call
    assert (call.log_level, call.log_level_set) == (None, 0)
    message["params"]["_meta"] = {**META, "io.modelcontextprotocol/logLevel": "debug"}
    call = parse(fields, message).call
    assert (call.log_level, call.log_level_set) == ("debug", 1)


# -- sessions -------------------------------------------------------------------------------------------------------


def test_a_session_supplies_what_the_message_lacks() -> None:
    token = initialize("2025-06-18")
    call = parse({"Mcp-Session-Id": token}, request("tools/call", name="deploy", arguments={})).call
    assert (call.name, call.version, call.client) == ("deploy", "2025-06-18", b'{"name":"x","version":"1"}')
    assert call.session is not None and call.session not in token


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-03-26"),
        ("1.0", "2025-03-26"),
        ("2025-09-01", "2025-06-18"),
        (MODERN, "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
        ("DRAFT-2026-v1", "2025-11-25"),
    ],
)
@pytest.mark.parametrize("header", [None, "2024-11-05", "1.0", "", "2025-06-18", MODERN, "2099-01-01"])
def test_initialize_settles_on_a_revision_whatever_is_asked_for(asked: str, offered: str, header: str | None) -> None:
    fields = {} if header is None else {"MCP-Protocol-Version": header}
    message = request("initialize", protocolVersion=asked, capabilities={}, clientInfo={"name": "x", "version": "1"})
    found = parse(fields, message)
    assert (found.kind, found.call.version, found.dialect.version) == (RequestKind.INITIALIZE, offered, offered)
    token = dict(found.headers)[b"mcp-session-id"].decode()
    assert parse({"Mcp-Session-Id": token}, request("ping")).call.version == offered


def test_a_revision_named_twice_does_not_keep_initialize_from_settling_on_one() -> None:
    one = context({"MCP-Protocol-Version": MODERN})
    one.twice = frozenset((b"mcp-protocol-version",))
    message = request("initialize", protocolVersion="2024-11-05", capabilities={}, clientInfo={})
    found = MESSAGES.recognise(one, orjson.dumps(message), SESSIONS)
    assert isinstance(found, ParsedRequest)
    assert found.kind is RequestKind.INITIALIZE


@pytest.mark.parametrize("version", ["2024-11-05", "1.0", "2099-01-01"])
def test_an_unknown_revision_elsewhere_is_told_what_is_served(version: str) -> None:
    served = [MODERN, "2025-11-25", "2025-06-18", "2025-03-26"]
    fields = {"MCP-Protocol-Version": version}
    for sent in (request("tools/list"), [request("ping")], request("tools/call", name="x", _meta={"a": 1})):
        for more in ({}, {"Mcp-Session-Id": initialize()}):
            fault, one = refusal({**fields, **more}, sent)
            assert (fault.kind, fault.data) == (Kind.UNSUPPORTED_VERSION, {"supported": served, "requested": version})
            assert all(word in fault.message for word in (version, *served))
            assert one.dialect.status(fault) == 400
    assert parse(fields, {"jsonrpc": "2.0", "method": "notifications/initialized"}).kind is RequestKind.NOTHING


def test_mcp_headers_mean_nothing_in_a_session() -> None:
    token = initialize()
    fields = {"Mcp-Session-Id": token, "MCP-Protocol-Version": "2025-11-25", "Mcp-Name": "other", "Mcp-Method": "ping"}
    assert parse(fields, request("tools/call", name="deploy")).call.name == "deploy"


def test_no_session_and_a_wrong_session_differ() -> None:
    assert refusal({}, request("tools/list"))[0].kind is Kind.NOT_ONE_MESSAGE
    assert refusal({"Mcp-Session-Id": "nonsense"}, request("tools/list"))[0].kind is Kind.SESSION_UNKNOWN


def test_a_session_is_its_agents_at_its_endpoint_until_it_ends() -> None:
    token = initialize()
    fields = {"Mcp-Session-Id": token}
    assert refusal(fields, request("ping"), agent=Principal("agent-b"))[0].kind is Kind.SESSION_UNKNOWN
    assert refusal(fields, request("ping"), path="/mcp/ops")[0].kind is Kind.SESSION_UNKNOWN
    call = parse(fields, request("ping")).call
    assert call.session is not None
    SESSIONS.end(call.session, LIFETIME)
    assert refusal(fields, request("ping"))[0].kind is Kind.SESSION_UNKNOWN


def test_cancelled_names_the_call() -> None:
    token = initialize()
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "7", "reason": "x"}}
    found = parse({"Mcp-Session-Id": token}, note)
    assert (found.kind, found.call.id) == (RequestKind.CANCEL, b'"7"')


@pytest.mark.parametrize("request_id", [None, True, 1.5, {"a": 1}, [7]])
def test_what_is_no_id_cancels_nothing(request_id: Any) -> None:
    token = initialize()
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
    assert parse({"Mcp-Session-Id": token}, note).kind is RequestKind.NOTHING


@pytest.mark.parametrize("params", [b"[]", b"null", b'{"a":1,"a":2}', b'{"_meta":[]}'])
def test_a_bad_notification_says_nothing_and_is_not_answered(params: bytes) -> None:
    note = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":%s}' % params
    assert parse({"Mcp-Session-Id": initialize()}, note).kind is RequestKind.NOTHING
    assert parse({"MCP-Protocol-Version": MODERN}, note).kind is RequestKind.NOTHING


def test_bad_parameters_are_told_in_the_manner_of_the_era() -> None:
    """The status of a refusal goes by its dialect, and bad parameters are found before the session is."""
    for fields, spoken in (({}, "2025-03-26"), ({"MCP-Protocol-Version": "2025-06-18"}, "2025-06-18")):
        fault, one = refusal(fields, {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []})
        assert one.dialect is not None
        assert (one.dialect.version, one.dialect.status(fault)) == (spoken, 200)
    fault, one = refusal({"MCP-Protocol-Version": MODERN}, {"jsonrpc": "2.0", "id": 1, "method": "x", "params": []})
    assert one.dialect is not None
    assert (one.dialect.version, one.dialect.status(fault)) == (MODERN, 400)


@pytest.mark.parametrize("last", [MODERN, "2025-11-25"])
def test_a_revision_that_came_twice_belongs_to_no_session(last: str) -> None:
    fields, message = modern("server/discover")
    one = context({**fields, "MCP-Protocol-Version": last})
    one.twice = frozenset((b"mcp-protocol-version",))
    with pytest.raises(Fault) as caught:
        MESSAGES.recognise(one, orjson.dumps(message), SESSIONS)
    assert caught.value.kind is Kind.HEADER_MISMATCH


@pytest.mark.parametrize("space", [b" ", b"\r\n\t"])
def test_white_space_before_a_message_makes_no_batch(space: bytes) -> None:
    fields, message = modern("server/discover")
    assert parse(fields, space + orjson.dumps(message)).kind is RequestKind.DISCOVER


def test_the_answer_to_a_request_nobody_made_is_taken_and_dropped() -> None:
    token = initialize()
    assert parse({"Mcp-Session-Id": token}, {"jsonrpc": "2.0", "id": 4, "result": {}}).kind is RequestKind.NOTHING


def test_batches_are_for_the_one_revision_that_has_them() -> None:
    items = [request("ping", id=1), request("nothing/known", id=2), {"jsonrpc": "2.0", "id": 3}]
    old = {"Mcp-Session-Id": initialize("2025-03-26")}
    found = MESSAGES.recognise(context(old), orjson.dumps(items), SESSIONS)
    assert isinstance(found, list)
    assert isinstance(found[0], ParsedRequest) and found[0].kind is RequestKind.PING
    assert found[1].fault is not None and (found[1].call.id, found[1].fault.kind) == (b"2", Kind.UNKNOWN_METHOD)
    assert found[2].fault is not None and found[2].call.id == b"null"
    new = {"Mcp-Session-Id": initialize("2025-06-18")}
    assert refusal(new, items)[0].kind is Kind.NOT_ONE_MESSAGE
    assert refusal(old, [])[0].kind is Kind.NOT_ONE_MESSAGE
    assert refusal(old, [request("ping", id=n) for n in range(1001)])[0].kind is Kind.NOT_ONE_MESSAGE


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"protocolVersion": 1, "capabilities": {}, "clientInfo": {}},
        {"protocolVersion": "2025-11-25", "capabilities": []},
        {"protocolVersion": "2025-11-25", "capabilities": {}},
    ],
)
def test_a_broken_initialize_opens_nothing(params: dict[str, Any]) -> None:
    assert refusal({}, request("initialize", **params))[0].kind is Kind.BAD_PARAMS


def test_a_session_gets_the_log_messages_it_asked_for() -> None:
    fields = {"Mcp-Session-Id": initialize()}
    call = parse(fields, request("tools/call", name="deploy")).call
    assert (call.log_level, call.log_level_set, call.session is not None) == ("info", 0, True)
    found = parse(fields, request("logging/setLevel", level="error"))
    assert (found.kind, found.call.log_level, found.call.session) == (RequestKind.LEVEL, "error", call.session)
    for level, times in (("error", 1), ("error", 1), ("debug", 2), ("error", 3)):
        SESSIONS.set_level(call.session or "", level)
        again = parse(fields, request("tools/call", name="deploy")).call
        assert (again.log_level, again.log_level_set) == (level, times)


@pytest.mark.parametrize("params", [{}, {"level": "loud"}, {"level": 3}])
def test_a_level_must_be_one(params: dict[str, Any]) -> None:
    fields = {"Mcp-Session-Id": initialize()}
    assert refusal(fields, request("logging/setLevel", **params))[0].kind is Kind.BAD_PARAMS
