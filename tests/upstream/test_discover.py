from __future__ import annotations

import json
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import Message
from fastgw.upstream.discovery import probe as probing
from fastgw.upstream.discovery.probe import discover, discovered
from fastgw.upstream.discovery.status import ProbeResult
from fastgw.upstream.rpc import Declared, RpcReply
from fastgw.upstream.transports import down
from tests.upstream.fakes import OURS, SSE, FakeAnswer, FakeWire, client, error, event, registry, result, run

MODERN = ProbeResult("modern", "2026-07-28")
LEGACY = ProbeResult("legacy", "")
TELLS = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}, "completions": {}},
    "instructions": "Ask twice.",
}
TOLD = ProbeResult(
    "modern", "2026-07-28", Declared(frozenset(("tools", "completions")), "Ask twice.", ("toolsListChanged",))
)


def failing(what: str | int) -> ProbeResult:
    """Legacy for now, since discover failed: looked at again each round."""
    return ProbeResult("legacy", "", failure=f"status {what} without an answer" if isinstance(what, int) else what)


def reply(status: int = 200, error: Any = None, result: Any = None, body: bytes = b"") -> RpcReply:
    if error is None and result is None:
        return RpcReply(status, {}, None, body)
    message = Message(
        b'"a"', None, None,
        json.dumps(result).encode() if result is not None else None,
        json.dumps(error).encode() if error is not None else None,
    )  # fmt: skip
    return RpcReply(status, {}, message, b"")


def wrong(code: int, data: Any = None) -> dict[str, Any]:
    return {"code": code, "message": "no", "data": data}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (reply(result={"supportedVersions": ["2026-07-28", "2025-11-25"]}), MODERN),
        (reply(result=TELLS), TOLD),
        (reply(result={"supportedVersions": ["2025-11-25"]}), LEGACY),
        (reply(result={"supportedVersions": "2026-07-28"}), LEGACY),
        (reply(result={}), LEGACY),
        (reply(result=[]), failing(200)),
        (reply(result="ok"), failing(200)),
        (reply(400, wrong(-32020)), MODERN),
        (reply(400, wrong(-32021)), MODERN),
        (reply(400, wrong(-32022, {"supported": ["2026-07-28"]})), MODERN),
        (reply(400, wrong(-32022, {"supported": ["2025-11-25"]})), LEGACY),
        (reply(400, body=b'{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"x"}}'), MODERN),
        (reply(400, wrong(-32600)), LEGACY),
        (reply(404, wrong(-32601)), LEGACY),
        (reply(200, wrong(-32601)), LEGACY),
        (reply(400, body=b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x"}}'), LEGACY),
        (reply(400), LEGACY),
        (reply(404, body=b"<html>"), LEGACY),
        (reply(405), LEGACY),
        (reply(406), LEGACY),
        (reply(200, body=b"[1"), failing(200)),
        (reply(415), LEGACY),
        (reply(422), LEGACY),
        (reply(400, wrong(-32022)), LEGACY),
        (reply(400, wrong(-32022, {"supported": ["2030-01-01"]})), LEGACY),
        (reply(400, wrong(-32022, {"supported": "2026-07-28"})), LEGACY),
        (reply(400, body=b'{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"x"}}'), LEGACY),
        (reply(302), failing(302)),
        (reply(401), failing(401)),
        (reply(403), failing(403)),
        (reply(404, wrong(-32000)), LEGACY),
        (reply(429), failing(429)),
        (reply(500, body=b"<html>-32020</html>"), failing(500)),
        (reply(500, wrong(-32603)), LEGACY),
        (reply(502), failing(502)),
        (reply(503), failing(503)),
        (reply(504), failing(504)),
        (reply(500, wrong(-32020)), MODERN),
    ],
)
def test_what_a_reply_says_of_the_era(given: RpcReply, found: ProbeResult) -> None:
    assert discovered(given) == found


def probed(answer: Any, override: str = "auto") -> tuple[ProbeResult, FakeWire]:
    transport = FakeWire(answer if callable(answer) else lambda request: answer)

    async def play() -> ProbeResult:
        async with registry() as found:
            return await discover(client(transport, found.spawn), OURS, override)

    return run(play()), transport


def test_the_question_is_a_whole_modern_request() -> None:
    found, transport = probed(lambda request: result(request, TELLS))
    assert found.era == "modern"
    sent = transport.sent[0]
    assert sent.headers["mcp-method"] == sent.json["method"] == "server/discover"
    assert sent.headers["authorization"] == "Bearer s3cret"
    assert sent.json["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


def test_the_answer_may_be_a_stream() -> None:
    def answer(request: Any) -> FakeAnswer:
        return FakeAnswer(200, SSE, None, [event({"jsonrpc": "2.0", "id": request.json["id"], "result": TELLS})])

    assert probed(answer)[0].era == "modern"


@pytest.mark.parametrize("status", [302, 401, 403, 429, 500, 502, 503, 504])
def test_a_failure_at_discover_leaves_initialize_to_tell(status: int) -> None:
    found, transport = probed(FakeAnswer(status, {}, b"session -32020"))
    assert found == failing(status)
    assert transport.methods() == ["server/discover"]


@pytest.mark.parametrize(
    ("kind", "sent"), [(Kind.TIMEOUT, True), (Kind.LOST, True), (Kind.INTERNAL, True), (Kind.NO_SERVER, False)]
)
def test_silence_a_reset_and_a_refused_redirect_leave_initialize_to_tell_too(kind: Kind, sent: bool) -> None:
    assert probed(Fault(kind, sent=sent, detail="reset"))[0] == failing("reset")


def test_a_server_that_wants_something_before_it_answers_has_not_said_that_it_is_modern() -> None:
    found, _ = probed(lambda request: result(request, {"resultType": "input_required", "requestState": "x"}))
    assert found.era == "legacy"


def test_a_server_that_never_answers_discover_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "DISCOVER_WITHIN", 0.01)
    found, _ = probed(FakeAnswer(200, SSE, None))
    assert (found.era, bool(found.failure)) == ("legacy", True)


def test_a_server_that_is_not_there_tells_nothing() -> None:
    for override in ("auto", "modern"):
        with pytest.raises(Fault) as found:
            probed(down("refused"), override)
        assert found.value.kind is Kind.NO_SERVER


def test_the_configurations_word_stands() -> None:
    found, transport = probed(FakeAnswer(500), "legacy")
    assert (found, transport.sent) == (LEGACY, [])
    assert probed(lambda request: error(request, -32601, 404), "modern")[0] == MODERN
    assert probed(FakeAnswer(500), "modern")[0] == MODERN
    assert probed(Fault(Kind.LOST, sent=True), "modern")[0] == MODERN
    assert probed(lambda request: result(request, TELLS), "modern")[0] == TOLD
