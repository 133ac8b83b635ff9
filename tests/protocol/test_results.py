"""Results on their way down: each revision gets what it knows, and payloads keep every byte."""

from __future__ import annotations

from math import inf

import pytest

from fastgw.protocol import results
from fastgw.protocol.envelope import members
from fastgw.protocol.links import MOST_QUOTES
from fastgw.protocol.results import UnusableResult

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
    with pytest.raises(UnusableResult):
        results.read(text)


def test_null_in_place_of_what_a_server_may_leave_out_counts_as_left_out() -> None:
    found = results.read(b'{"_meta":null,"isError":null,"resultType":null,"content":[],"other":null}')
    assert (found.is_error, found.kind, found.meta) == (False, "complete", {})
    assert found.members == {"content": b"[]", "other": b"null"}


@pytest.mark.parametrize(
    ("said", "fresh"),
    [
        (b"", inf),
        (b',"ttlMs":null,"cacheScope":null', inf),
        (b',"cacheScope":"private"', inf),
        (b',"ttlMs":1500', 1.5),
        (b',"ttlMs":1500,"cacheScope":"public"', 1.5),
        (b',"ttlMs":0', 0.0),
        (b',"ttlMs":-1', 0.0),
        (b',"ttlMs":1e3', 0.0),
        (b',"ttlMs":"1500"', 0.0),
        (b',"ttlMs":1234567890123', 0.0),
        (b',"ttlMs":1500,"cacheScope":"nobody"', 0.0),
        (b',"cacheScope":1', 0.0),
    ],
)
def test_how_long_a_result_may_be_kept_is_its_server_s_to_say(said: bytes, fresh: float) -> None:
    assert results.read(b'{"content":[]' + said + b"}").fresh == fresh


def test_is_error() -> None:
    assert results.read(b'{"isError":true}').is_error
    assert not results.read(b'{"isError":false}').is_error


def test_a_prompts_links_become_text_before_there_were_links() -> None:
    text = (
        b'{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a://b","name":"n"}},'
        b'{"role": "user", "content": {"type":"text","text":"resource_link"}},7]}'
    )
    found = members(results.legacy(results.read(text), "2025-03-26"))
    assert found["messages"] == (
        b'[{"role":"user","content":{"type":"text","text":"a://b"}},'
        b'{"role":"user","content":{"type":"text","text":"resource_link"}},7]'
    )
    assert members(results.legacy(results.read(text), "2025-06-18"))["messages"] == members(text)["messages"]


def test_a_reply_full_of_links_is_left_alone_before_it_costs_seconds() -> None:
    link = b'{"type":"resource_link","uri":"a:b"}'
    for count in (MOST_QUOTES // 8, MOST_QUOTES // 8 + 1):
        text = b'{"content":[' + b",".join([link] * count) + b"]}"
        found = members(results.legacy(results.read(text), "2025-03-26"))["content"]
        assert found.count(b'"text":"a:b"') == (count if count == MOST_QUOTES // 8 else 0)


def test_what_was_read_is_for_one_agent_alone() -> None:
    for text, fresh in ((b'{"contents":[]}', b"0"), (b'{"contents":[],"ttlMs":50,"cacheScope":"public"}', b"50")):
        found = results.read(text)
        results.keep_private(found)
        told = members(results.modern(found, OURS))
        assert (told["ttlMs"], told["cacheScope"]) == (fresh, b'"private"')
        assert not {"ttlMs", "cacheScope"} & set(members(results.legacy(found, "2025-11-25")))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"{}", "complete"),
        (b'{"resultType":"complete"}', "complete"),
        (b'{"resultType":"\\u0063omplete"}', "complete"),
        (b'{"resultType":"input_required"}', "input_required"),
        (b'{"a":{"resultType":"input_required"}}', "complete"),
    ],
)
def test_the_kind_of_a_result(text: bytes, kind: str) -> None:
    assert results.read(text).kind == kind


@pytest.mark.parametrize("kind", [b"5", b"{}"])
def test_a_kind_that_is_no_string_is_unusable(kind: bytes) -> None:
    with pytest.raises(UnusableResult):
        _ = results.read(b'{"resultType":' + kind + b"}").kind
