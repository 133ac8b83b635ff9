"""What an agent of the load tests sends, and which answers it takes for wrong, for errors, and for refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.messages import Target
from loadtests.conversation import Conversation

Answer = Callable[[dict[str, Any]], tuple[int, str, str]]


class Heard:
    """An answer as Locust hands it out, and what became of it."""

    def __init__(self, name: str, status: int, kind: str, text: str) -> None:
        self.status_code, self.text, self.headers = status, text, {"content-type": kind, "Mcp-Session-Id": "s-1"}
        self.request_meta = {"name": name, "response_time": 2005.0}
        self.verdict: str | None = "none"

    def __enter__(self) -> Heard:
        return self

    def __exit__(self, *_: object) -> None: ...

    def failure(self, words: str) -> None:
        self.verdict = words

    def success(self) -> None:
        self.verdict = None


class Client:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.heard: list[Heard] = []

    def post(self, path: str, data: str, headers: dict[str, str], name: str, catch_response: bool) -> Heard:
        message = json.loads(data)
        self.sent.append((message["method"], headers))
        self.heard.append(Heard(name, *self.answer(message)))
        return self.heard[-1]

    def delete(self, path: str, headers: dict[str, str], name: str) -> None:
        self.sent.append(("DELETE", headers))


def reply(message: dict[str, Any], **members: Any) -> tuple[int, str, str]:
    return 200, "application/json", json.dumps({"jsonrpc": "2.0", "id": message["id"], **members})


def echo(answer: Answer, seconds: float = 0.0) -> Heard:
    client = Client(answer)
    asked = {"name": "echo", "arguments": {"nonce": "n", "seconds": seconds}}
    Conversation(client, Target(1, key="k")).ask(
        "tools/call", asked, lambda result, _: result == {"nonce": "n"}, "echo"
    )
    return client.heard[0]


def test_the_right_answer_counts_less_the_time_it_was_told_to_take() -> None:
    heard = echo(lambda message: reply(message, result={"nonce": "n"}), seconds=2.0)
    assert heard.verdict is None
    assert heard.request_meta == {"name": "modern echo", "response_time": 5.0}


def events(*messages: dict[str, Any]) -> tuple[int, str, str]:
    return 200, "text/event-stream", "".join(f"data: {json.dumps(one)}\n\n" for one in messages)


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: reply({"id": message["id"] + 1}, result={"nonce": "n"}),
        lambda message: reply(message, result={"nonce": "another"}),
        lambda message: reply(message),
        lambda message: (502, "text/html", "<html>"),
        lambda message: (200, "application/json", ""),
        lambda message: (500, *reply(message, result={"nonce": "n"})[1:]),
        lambda message: events({"params": {"progressToken": 0}}, {"id": message["id"], "result": {"nonce": "n"}}),
    ],
)
def test_a_wrong_answer_is_told_from_an_error(answer: Answer) -> None:
    assert str(echo(answer).verdict).startswith("wrong answer: ")


def test_an_error_is_one_by_its_code_and_a_refusal_by_a_limit_none() -> None:
    assert echo(lambda message: reply(message, error={"code": -31001})).verdict == "error -31001"
    refused = echo(lambda message: reply(message, error={"code": -31029}))
    assert refused.verdict is None and refused.request_meta["name"] == "modern echo refused"


def test_a_stream_is_read_to_its_reply() -> None:
    def answer(message: dict[str, Any]) -> tuple[int, str, str]:
        note = {"method": "notifications/progress", "params": {"progressToken": message["id"]}}
        return events(note, note, {"id": message["id"], "result": {"nonce": "n"}})

    assert echo(answer).verdict is None


def test_a_modern_request_says_what_it_is_in_headers() -> None:
    client = Client(lambda message: reply(message, result={}))
    Conversation(client, Target(1, key="k")).ask("tools/call", {"name": "echo"}, lambda *_: True)
    method, lines = client.sent[0]
    assert (method, lines["Mcp-Method"], lines["Mcp-Name"]) == ("tools/call", "tools/call", "echo")
    assert lines["MCP-Protocol-Version"] == "2026-07-28" and "Mcp-Session-Id" not in lines


def test_a_legacy_conversation_has_a_session_from_initialize_to_delete() -> None:
    def answer(message: dict[str, Any]) -> tuple[int, str, str]:
        return reply(message, result={"protocolVersion": "2025-11-25"}) if "id" in message else (202, "", "")

    client = Client(answer)
    conversation = Conversation(client, Target(1, "legacy", key="k"))
    conversation.open()
    conversation.ask("tools/list", {}, lambda *_: True)
    conversation.close()
    sent = [(method, lines.get("Mcp-Session-Id")) for method, lines in client.sent]
    begun = [("initialize", None), ("notifications/initialized", "s-1")]
    assert sent == [*begun, ("tools/list", "s-1"), ("DELETE", "s-1")]
    assert [heard.verdict for heard in client.heard] == [None, None, None]
