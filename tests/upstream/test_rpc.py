"""The gateway's own questions to servers."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.protocol.names import TOOLS_LIST
from fastgw.snapshot.model import Address
from fastgw.upstream import rpc
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.modern import question
from fastgw.upstream.rpc import RpcReply, is_alive
from tests.upstream.fakes import (
    OURS,
    SSE,
    FakeAnswer,
    FakeWire,
    Sent,
    backend,
    client,
    error,
    registry,
    result,
    run,
)

ID = b"12"


def test_a_server_is_asked_as_by_an_agent_that_can_do_everything() -> None:
    """Some list certain tools to such an agent only."""
    body = question(TOOLS_LIST, {}, ID, OURS)[1]
    params = Sent("POST", {}, body).json["params"]
    declared = params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert declared == {"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}}


SESSION = UpstreamSession("s1", "2025-11-25")


@pytest.mark.parametrize(
    ("answer", "alive"),
    [
        (lambda request: result(request, {}), True),
        (lambda request: error(request, -32601), True),  # it does not know ping, so it knows the session
        (lambda request: error(request, -32601, 404), True),
        (lambda request: error(request, -32602, 400, "session_id is missing"), True),
        (lambda request: error(request, -32000, 200, "busy"), True),
        (lambda request: error(request, -32000, 200, "Session not found"), False),
        (lambda request: error(request, -32000, 400, "what"), False),
        (lambda request: error(request, -32600, 404, "no"), False),
        (lambda request: error(request, -32603, 500, "no such session"), True),  # a code no refusal of sessions has
        (lambda request: error(None, -32000, 400, "no"), False),
        (FakeAnswer(401, body=b"Unauthorized: Session not found"), False),
        (FakeAnswer(404), False),
        (FakeAnswer(500), False),
        (FakeAnswer(202), False),
        (FakeAnswer(200, body=b"<html>"), False),
        (Fault(Kind.NO_SERVER), False),
        (Fault(Kind.LOST, sent=True), False),
        (Fault(Kind.TIMEOUT, sent=True), False),
    ],
)
def test_whether_a_session_is_alive_is_what_its_ping_is_answered(answer: Any, alive: bool) -> None:
    transport = FakeWire(lambda request: answer(request) if callable(answer) else answer)

    async def play() -> bool:
        async with registry() as found:
            return await is_alive(client(transport, found.spawn), SESSION)

    assert run(play()) is alive
    asked, *_ = transport.sent
    assert (asked.method, asked.headers["mcp-session-id"]) == ("ping", "s1")


def test_a_session_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "ALIVE_WITHIN", 0.01)
    transport = FakeWire(lambda request: FakeAnswer(200, SSE, None))

    async def play() -> bool:
        async with registry() as found:
            return await is_alive(client(transport, found.spawn), SESSION)

    assert run(play()) is False


def test_a_question_within_a_time_is_never_more_patient_than_before() -> None:
    patient = client(FakeWire(None), None)
    assert patient.within(1.0).deadlines.total == 1.0
    assert patient.within(60.0).deadlines.total == patient.deadlines.total


def test_what_a_server_repeats_of_secrets_is_not_shown() -> None:
    secret = Address("shop|x", "shop", "http://a/s/t0ps3cret/mcp?key=k3yk3y", None, "", "http://a/s/${env:S}/mcp")
    of = backend(instances=(secret,), headers=b"authorization: Bearer b34rer\r\n")
    body = b'{"error":{"message":"Cannot POST /s/t0ps3cret/mcp?key=k3yk3y with b34rer"}}'
    said = RpcReply(404, {}, None, body).shown_error(of)
    assert said == ", 'Cannot POST /s/***/mcp?*** with ***'"
