"""What an answer says of the session it was asked in: one table, read by calls, lists and pings alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import Message
from fastgw.protocol.names import Era
from fastgw.upstream.classify import ReplyKind, about_session, classify
from tests.upstream.fakes import JSON, FakeAnswer

ID = b"12"
LOST_WORDS = "Session not found"
OTHER_WORDS = "nothing to say"
DEAD, REFUSED, SUSPECT, NOTHING = ReplyKind.SESSION_DEAD, ReplyKind.SESSION_REFUSED, ReplyKind.SESSION_SUSPECT, None


def about(status: int, ident: Any, code: int, words: str) -> ReplyKind | None:
    """Of a JSON-RPC error, under our id or another."""
    wrong = {"code": code, "message": words}
    body = json.dumps({"jsonrpc": "2.0", "id": ident, "error": wrong}).encode()
    if ident == 12:
        return about_session(status, Message(ID, None, None, None, json.dumps(wrong).encode()), b"")
    return about_session(status, None, body)


FOUR = (400, 401, 402, 403, 404, 405, 406, 409, 410, 412, 415, 418, 422, 426, 440, 451, 499)
PASSING = (408, 425, 429)
FIVE = (500, 501, 502, 503, 504, 520, 530)
SPEAKING = [
    "Session not found", "No valid session ID provided", "Unauthorized: Session not found", "MISSING SESSION",
    "expected initialize request", "Server not initialized", "unexpected message: must initialise first, session",
    "Mcp-Session-Id header is required", "Invalid or expired session.", "sessionId unknown",
]  # fmt: skip


@pytest.mark.parametrize("words", SPEAKING)
@pytest.mark.parametrize("form", ["plain", "html", "null id", "foreign id", "no id", "our id"])
@pytest.mark.parametrize("status", FOUR)
def test_a_refusal_that_speaks_of_sessions_is_one_whatever_its_status_and_form(
    status: int, form: str, words: str
) -> None:
    wrong = {"code": -32000, "message": words}
    whole = json.dumps({"jsonrpc": "2.0", "id": "server-error" if form == "foreign id" else None, "error": wrong})
    bodies = {
        "plain": words, "html": f"<html><body>{words}</body></html>", "null id": whole, "foreign id": whole,
        "no id": json.dumps({"detail": words}),
    }  # fmt: skip
    if form == "our id":
        assert about(status, 12, -32000, words) is DEAD
    else:
        assert about_session(status, None, bodies[form].encode()) is DEAD


@pytest.mark.parametrize("form", ["empty", "html", "null id", "our id"])
@pytest.mark.parametrize("status", FOUR)
def test_a_refusal_that_speaks_of_something_else_may_be_about_the_session(status: int, form: str) -> None:
    expected = DEAD if status == 404 else REFUSED
    if form in ("null id", "our id"):
        assert about(status, 12 if form == "our id" else None, -32000, OTHER_WORDS) is expected
    else:
        assert about_session(status, None, b"<html>" if form == "html" else b"") is expected


@pytest.mark.parametrize("words", [LOST_WORDS, OTHER_WORDS])
@pytest.mark.parametrize("ident", [12, None])
@pytest.mark.parametrize("status", PASSING)
def test_not_now_is_not_about_the_session(status: int, ident: Any, words: str) -> None:
    assert about(status, ident, -32000, words) is NOTHING


@pytest.mark.parametrize("code", [-32601, -32602, -32002, -32020, -32021, -32022])
@pytest.mark.parametrize("status", [200, *FOUR, *FIVE])
def test_an_error_about_the_call_is_the_calls_whatever_words_it_uses(status: int, code: int) -> None:
    assert about(status, 12, code, LOST_WORDS) is NOTHING


@pytest.mark.parametrize("code", [-32020, -32022])
def test_an_error_about_the_revision_is_not_about_the_session_under_any_id(code: int) -> None:
    assert about(400, None, code, LOST_WORDS) is NOTHING


@pytest.mark.parametrize("status", FIVE)
def test_what_failed_while_it_may_have_run_makes_the_session_suspect(status: int) -> None:
    for body in (b"", b"<html>", LOST_WORDS.encode()):
        assert about_session(status, None, body) is SUSPECT
    for code in (-32600, -32000, -32001):
        assert about(status, 12, code, LOST_WORDS) is SUSPECT
        assert about(status, None, code, LOST_WORDS) is DEAD
        assert about(status, None, code, OTHER_WORDS) is SUSPECT
        assert about(status, 12, code, OTHER_WORDS) is NOTHING
    assert about(status, 12, -32603, LOST_WORDS) is NOTHING
    # A tool that broke, told by a handler of last resort: it may have run.
    assert about(status, None, -32603, LOST_WORDS) is SUSPECT


@pytest.mark.parametrize("status", [400, 409, 422])
def test_an_error_of_the_call_with_a_status_of_its_own_is_the_calls(status: int) -> None:
    assert about(status, 12, -32603, "duplicate order") is NOTHING
    assert about(status, 12, 1234, "no stock") is NOTHING
    assert about(status, 12, -32603, LOST_WORDS) is DEAD
    assert about(status, None, -32603, "duplicate order") is not NOTHING


def test_what_an_error_inside_200_says() -> None:
    assert about(200, None, -32000, LOST_WORDS) is DEAD
    assert about(200, None, -32600, "Server not initialized") is DEAD
    assert about(200, 12, -32000, LOST_WORDS) is SUSPECT
    assert about(200, 12, -32603, LOST_WORDS) is NOTHING
    assert about(200, 12, 7, LOST_WORDS) is NOTHING
    assert about(200, None, -32000, OTHER_WORDS) is SUSPECT
    assert about(200, "another", -32000, LOST_WORDS) is SUSPECT


@pytest.mark.parametrize("status", [200, 202, 400, 404, 500])
def test_a_result_proves_the_session_whatever_it_speaks_of(status: int) -> None:
    found = Message(ID, None, None, b'{"content":[{"type":"text","text":"Session not found"}]}', None)
    assert about_session(status, found, b"") is NOTHING


@pytest.mark.parametrize("status", [200, 201, 202, 204, 300, 301, 302, 304, 307])
def test_what_is_no_response_and_no_refusal_makes_the_session_suspect(status: int) -> None:
    wordy = b'{"jsonrpc":"2.0","id":null,"error":{"message":"session"}}'
    for body in (b"", b"<html>", b'{"session":1}', LOST_WORDS.encode(), wordy):
        assert about_session(status, None, body) is SUSPECT


def test_words_are_looked_for_near_the_beginning() -> None:
    assert about_session(400, None, b"x" * 4000 + b" session") is DEAD
    assert about_session(400, None, b"x" * 5000 + b" session") is REFUSED


def answer(status: int, ident: Any = None, code: int = -32000, words: str = LOST_WORDS) -> FakeAnswer:
    wrong = {"code": code, "message": words}
    return FakeAnswer(status, JSON, json.dumps({"jsonrpc": "2.0", "id": ident, "error": wrong}).encode())


@pytest.mark.parametrize(
    ("given", "kind", "fault", "fallback"),
    [
        (lambda: answer(401), DEAD, Kind.NO_SERVER, ReplyKind.RELAY),
        (lambda: answer(403, words="no"), REFUSED, Kind.NO_SERVER, ReplyKind.RELAY),
        (lambda: answer(400), DEAD, Kind.LOST, ReplyKind.ERA_DOUBT),
        (lambda: answer(404), DEAD, Kind.LOST, ReplyKind.ERA_DOUBT),
        (lambda: answer(405, words="no"), REFUSED, Kind.LOST, ReplyKind.ERA_DOUBT),
        (lambda: answer(422, words="no"), REFUSED, Kind.LOST, ReplyKind.RELAY),
        (lambda: answer(500), DEAD, Kind.LOST, ReplyKind.RELAY),
        (lambda: answer(500, words="no"), SUSPECT, Kind.LOST, ReplyKind.RELAY),
        (lambda: answer(503, words="no"), SUSPECT, Kind.NO_SERVER, ReplyKind.RELAY),
        (lambda: answer(200, words="no"), SUSPECT, Kind.LOST, ReplyKind.RELAY),
        (lambda: FakeAnswer(200, body=b"<html>"), SUSPECT, Kind.LOST, ReplyKind.RELAY),
        (lambda: FakeAnswer(202), SUSPECT, Kind.LOST, ReplyKind.RELAY),
        (lambda: answer(200), DEAD, Kind.LOST, ReplyKind.RELAY),
        (lambda: answer(400, 12), DEAD, None, ReplyKind.RELAY),
        (lambda: answer(200, 12), SUSPECT, None, ReplyKind.RELAY),
    ],
)
def test_a_verdict_about_the_session_holds_what_it_is_otherwise(
    given: Any, kind: ReplyKind, fault: Kind | None, fallback: ReplyKind
) -> None:
    found = classify(given(), Era.LEGACY, ID, b"{}")
    assert (found.kind, found.fallback) == (kind, fallback)
    assert (found.fault.kind if found.fault is not None else None) is fault
    assert (found.message is None) is (fault is not None)


@pytest.mark.parametrize("status", [401, 403, 422, 500, 503])
def test_a_modern_server_has_no_session_to_lose(status: int) -> None:
    with pytest.raises(Fault):
        classify(answer(status), Era.MODERN, ID, b"{}")
    assert classify(answer(200, 12), Era.MODERN, ID, b"{}").kind is ReplyKind.RELAY
