from __future__ import annotations

import json
from typing import Any

import pytest

from fastgw.backends.inquiry import Reply
from fastgw.backends.probe import Found, probe, verdict
from fastgw.faults import Fault, Kind
from fastgw.mcp.envelope import Message
from fastgw.mcp.names import Era
from tests.backends.fakes import OURS, SSE, FakeAnswer, FakeWire, asker, error, event, registry, result, run

MODERN = Found(Era.MODERN, "2026-07-28")
LEGACY = Found(Era.LEGACY, "")
TELLS = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}, "completions": {}}}
TOLD = Found(Era.MODERN, "2026-07-28", ("toolsListChanged",), frozenset(("tools", "completions")))


def reply(status: int = 200, error: Any = None, result: Any = None, body: bytes = b"") -> Reply:
    if error is None and result is None:
        return Reply(status, {}, None, body)
    message = Message(
        b'"a"', None, None,
        json.dumps(result).encode() if result is not None else None,
        json.dumps(error).encode() if error is not None else None,
    )  # fmt: skip
    return Reply(status, {}, message, b"")


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
        (reply(result=[]), LEGACY),
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
        (reply(200, body=b"[1"), LEGACY),
        (reply(302), LEGACY),
    ],
)
def test_what_a_reply_says_of_the_era(given: Reply, found: Found) -> None:
    assert verdict(given) == found


@pytest.mark.parametrize("data", [{"supported": ["2030-01-01"]}, {"supported": 1}, None])
def test_a_modern_server_with_nothing_in_common_is_no_legacy_server(data: Any) -> None:
    with pytest.raises(Fault) as found:
        verdict(reply(400, wrong(-32022, data)))
    assert found.value.kind is Kind.NO_SERVER


def probed(answer: Any, override: str = "auto") -> tuple[Found, FakeWire]:
    wire = FakeWire(answer if callable(answer) else lambda request: answer)

    async def play() -> Found:
        async with registry() as found:
            return await probe(asker(wire, found.spawn), OURS, override)

    return run(play()), wire


def test_the_question_is_a_whole_modern_request() -> None:
    found, wire = probed(lambda request: result(request, TELLS))
    assert found.era is Era.MODERN
    sent = wire.sent[0]
    assert sent.headers["mcp-method"] == sent.json["method"] == "server/discover"
    assert sent.headers["authorization"] == "Bearer s3cret"
    assert sent.json["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


def test_the_answer_may_be_a_stream() -> None:
    def answer(request: Any) -> FakeAnswer:
        return FakeAnswer(200, SSE, None, [event({"jsonrpc": "2.0", "id": request.json["id"], "result": TELLS})])

    assert probed(answer)[0].era is Era.MODERN


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
def test_a_server_that_turns_us_away_tells_nothing(status: int) -> None:
    with pytest.raises(Fault) as found:
        probed(FakeAnswer(status, {}, b"session -32020"))
    assert found.value.kind is Kind.NO_SERVER


@pytest.mark.parametrize("kind", [Kind.NO_SERVER, Kind.TIMEOUT, Kind.LOST])
def test_no_answer_tells_nothing(kind: Kind) -> None:
    with pytest.raises(Fault) as found:
        probed(Fault(kind))
    assert found.value.kind is kind


def test_the_configurations_word_stands() -> None:
    found, wire = probed(FakeAnswer(500), "legacy")
    assert (found, wire.sent) == (LEGACY, [])
    assert probed(lambda request: error(request, -32601, 404), "modern")[0] == MODERN
    assert probed(lambda request: result(request, TELLS), "modern")[0] == TOLD
