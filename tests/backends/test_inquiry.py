"""The gateway's own questions: only a server's last word is an answer to one."""

from __future__ import annotations

import pytest

from fastgw.backends.inquiry import refuse_unfinished
from fastgw.backends.lower_modern import question
from fastgw.faults import Fault, Kind
from fastgw.mcp.names import TOOLS_LIST
from tests.backends.fakes import OURS, FakeWire, Sent, asker, registry, result, run

ID = b'"q-1"'


def asked(answer: object) -> object:
    """What comes of a question to a modern server that answers so."""

    async def play() -> object:
        wire = FakeWire(lambda request: result(request, answer))
        async with registry() as found:
            headers, body = question(TOOLS_LIST, {}, ID, OURS)
            return await asker(wire, found.spawn).ask(headers, body, ID)

    return run(play())


def test_a_server_that_wants_something_first_has_not_answered() -> None:
    assert asked({"tools": []}).message.result == b'{"tools": []}'
    with pytest.raises(Fault) as wrong:
        asked({"resultType": "input_required", "requestState": "x"})
    assert (wrong.value.kind, wrong.value.sent) == (Kind.INTERNAL, True)


def test_nothing_is_offered_to_a_server_on_the_gateways_own_behalf() -> None:
    body = question(TOOLS_LIST, {}, ID, OURS)[1]
    params = Sent("POST", {}, body).json["params"]
    assert params["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}


@pytest.mark.parametrize(
    "text",
    [
        b'{"content":[]}',
        b'{"resultType":"complete","content":[]}',
        b'{"content":[],"resultType":"complete"}',
        b'{ "content":[], "resultType" : "\\u0063omplete", "_meta":{} }',
        b'{"content":[{"type":"text","text":"resultType input_required"}]}',
    ],
)
def test_a_complete_result_passes(text: bytes) -> None:
    refuse_unfinished(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'{"resultType":"input_required","inputRequests":{}}', Kind.INTERNAL),
        (b'{"a":1,"resultType":"input\\u005frequired"}', Kind.INTERNAL),
        (b'{"resultType":"task"}', Kind.INTERNAL),
        (b'{"resultType":"input_required","structuredContent":{"a":1,"resultType":"complete"}}', Kind.INTERNAL),
        (b'{"resultType":1}', Kind.LOST),
        (b'{"a":1,"resultType":"input_required","resultType":"complete","b":1}', Kind.LOST),
        (b"[]", Kind.LOST),
    ],
)
def test_a_result_that_is_not_the_last_word_is_refused(text: bytes, kind: Kind) -> None:
    with pytest.raises(Fault) as wrong:
        refuse_unfinished(text)
    assert (wrong.value.kind, wrong.value.sent) == (kind, True)
