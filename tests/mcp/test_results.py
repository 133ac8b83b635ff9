"""Results on their way down: each revision gets what it knows, and payloads keep every byte."""

from __future__ import annotations

import pytest

from fastgw.mcp import results
from fastgw.mcp.envelope import members
from fastgw.mcp.results import Unusable

OURS = b'{"name":"fastgw","version":"0"}'
NUMBER = b"[123456789012345678901234567890, 1E400]"


def test_a_result_of_an_older_server_gets_what_the_modern_agent_needs() -> None:
    found = members(results.modern(results.read(b'{"content":' + NUMBER + b"}"), OURS))
    assert found["resultType"] == b'"complete"'
    assert found["content"] == NUMBER
    assert members(found["_meta"]) == {"io.modelcontextprotocol/serverInfo": OURS}


def test_a_modern_result_loses_what_older_revisions_do_not_know() -> None:
    text = (
        b'{"resultType":"complete","content":[],"ttlMs":1,"cacheScope":"public",'
        b'"_meta":{"io.modelcontextprotocol/serverInfo":{},"own":1},"structuredContent":{"a":1}}'
    )
    found = members(results.legacy(results.read(text), "2025-11-25"))
    assert found == {"content": b"[]", "_meta": b'{"own":1}', "structuredContent": b'{"a":1}'}


@pytest.mark.parametrize("structured", [b"[1]", b"1", b'"x"', b"null"])
def test_structured_content_that_is_no_object_is_for_modern_agents_only(structured: bytes) -> None:
    text = b'{"content":[],"structuredContent":' + structured + b"}"
    assert "structuredContent" not in members(results.legacy(results.read(text), "2025-11-25"))
    assert members(results.modern(results.read(text), OURS))["structuredContent"] == structured


def test_links_become_text_before_there_were_links() -> None:
    text = b'{"content":[{"type":"resource_link","uri":"a://b","name":"n"},{"type":"text","text":"\\u0041"}]}'
    found = members(results.legacy(results.read(text), "2025-03-26"))
    assert found["content"] == b'[{"type":"text","text":"a://b"},{"type":"text","text":"\\u0041"}]'
    assert members(results.legacy(results.read(text), "2025-06-18"))["content"] == members(text)["content"]


@pytest.mark.parametrize("text", [b"[]", b"1", b'{"content":[],"content":[1]}', b'{"Content":[]}', b'{"_meta":[]}'])
def test_a_result_that_breaks_the_protocol_is_unusable(text: bytes) -> None:
    with pytest.raises(Unusable):
        results.read(text)


def test_is_error() -> None:
    assert results.read(b'{"isError":true}').is_error
    assert not results.read(b'{"isError":false}').is_error
