from __future__ import annotations

from base64 import b64encode

import pytest

from fastgw.protocol import headers as protocol_headers
from fastgw.protocol.headers import ParamHeader

REGION = ParamHeader("mcp-param-region", ("region",), "string")
COUNT = ParamHeader("mcp-param-count", ("filter", "count"), "integer")
DRY = ParamHeader("mcp-param-dry", ("dry",), "boolean")
HUGE = "123456789012345678901234567890"

# (text, header) as in the specification's table of examples, and the edges of each rule.
ENCODED = [
    ("us-west1", b"us-west1"),
    ("Hello, 世界", b"=?base64?SGVsbG8sIOS4lueVjA==?="),
    (" padded ", b"=?base64?IHBhZGRlZCA=?="),
    ("line1\nline2", b"=?base64?bGluZTEKbGluZTI=?="),
    ("=?base64?literal?=", b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ("two words", b"two words"),
    ("tab\there", b"=?base64?dGFiCWhlcmU=?="),
    ("x\r\nEvil: 1", b"=?base64?" + b64encode(b"x\r\nEvil: 1") + b"?="),
    ("=?BASE64?x?=", b"=?BASE64?x?="),
    ("=?base64?=", b"=?base64?="),
    ("=?base64?open", b"=?base64?open"),
    ("\x7f", b"=?base64?fw==?="),
    ("~", b"~"),
    ("", b""),
]


@pytest.mark.parametrize(("text", "header"), ENCODED)
def test_a_text_becomes_a_header_value_and_back(text: str, header: bytes) -> None:
    assert protocol_headers.encode_name(text) == header
    assert protocol_headers.decode_name(header) == text


@pytest.mark.parametrize(
    "header", [b"=?base64?###?=", b"=?base64?abc?=", b"=?base64?/w==?=", b"caf\xc3\xa9", b"a\x00b"]
)
def test_a_value_that_cannot_be_decoded_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"is not|holds"):
        protocol_headers.decode_name(header)


def test_spaces_around_a_header_value_do_not_count() -> None:
    assert protocol_headers.decode_name(b" \tus-west1 ") == "us-west1"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (b'{"region":"eu"}', b"mcp-param-region: eu\r\n"),
        (b'{ "region" : "\\u00e9" }', b"mcp-param-region: =?base64?w6k=?=\r\n"),
        (b'{"filter":{"count":%s}}' % HUGE.encode(), b"mcp-param-count: %s\r\n" % HUGE.encode()),
        (b'{"filter":{"count":-7},"dry":true}', b"mcp-param-count: -7\r\nmcp-param-dry: true\r\n"),
        (b'{"filter":{"count":42.0}}', b"mcp-param-count: 42\r\n"),
        (b'{"filter":{"count":4.2e1}}', b"mcp-param-count: 42\r\n"),
        (b'{"filter":{"count":1.5}}', b"mcp-param-count: 1.5\r\n"),
        (b'{"region":null,"filter":3,"dry":{}}', b""),
        (b'{"filter":[{"count":1}]}', b""),
        (b"{}", b""),
    ],
)
def test_headers_are_made_from_the_arguments(arguments: bytes, lines: bytes) -> None:
    assert protocol_headers.lines((REGION, COUNT, DRY), arguments) == lines


def test_an_argument_that_stands_twice_makes_no_header() -> None:
    with pytest.raises(protocol_headers.NotAMessage):
        protocol_headers.lines((REGION,), b'{"region":"a","region":"b"}')


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        (b'{"region":"eu"}', {b"mcp-param-region": b"eu"}),
        (b'{"region":"eu"}', {b"mcp-param-region": b"=?base64?ZXU=?="}),
        (b'{"filter":{"count":42}}', {b"mcp-param-count": b"42.0"}),
        (b'{"filter":{"count":42.0}}', {b"mcp-param-count": b"42"}),
        (b'{"filter":{"count":%s}}' % HUGE.encode(), {b"mcp-param-count": HUGE.encode()}),
        (b'{"dry":false}', {b"mcp-param-dry": b"false"}),
        (b'{"region":null}', {}),
        (b"{}", {b"mcp-param-other": b"ignored"}),
    ],
)
def test_headers_that_agree_pass(arguments: bytes, headers: dict[bytes, bytes]) -> None:
    assert protocol_headers.check((REGION, COUNT, DRY), arguments, headers) is None


@pytest.mark.parametrize(
    ("arguments", "headers", "said"),
    [
        (b'{"region":"eu"}', {}, "mcp-param-region is missing"),
        (b'{"region":"eu"}', {b"mcp-param-region": b"EU"}, "does not match"),
        (b'{"region":"eu"}', {b"mcp-param-region": b"=?base64?!?="}, "not Base64"),
        (b'{"region":"eu"}', {b"mcp-param-region": b"\xff"}, "must not hold"),
        (b'{"region":null}', {b"mcp-param-region": b"null"}, "left out"),
        (b"{}", {b"mcp-param-region": b""}, "left out"),
        (b'{"region":"42"}', {b"mcp-param-region": b"42.0"}, "does not match"),
        (b'{"filter":{"count":42}}', {b"mcp-param-count": b"42.5"}, "does not match"),
        (
            b'{"filter":{"count":%s}}' % HUGE.encode(),
            {b"mcp-param-count": HUGE[:-1].encode() + b"1"},
            "does not match",
        ),
        (b'{"filter":{"count":1}}', {b"mcp-param-count": b"1e999999999"}, "does not match"),
        (b'{"dry":true}', {b"mcp-param-dry": b"True"}, "does not match"),
        (b'{"region":"a","region":"b"}', {b"mcp-param-region": b"b"}, "cannot be compared"),
    ],
)
def test_headers_that_lie_are_named(arguments: bytes, headers: dict[bytes, bytes], said: str) -> None:
    wrong = protocol_headers.check((REGION, COUNT, DRY), arguments, headers)
    assert wrong is not None
    assert said in wrong


def test_headers_nobody_knows_travel_on() -> None:
    headers = {b"mcp-param-region": b"eu", b"mcp-param-trace": b"7", b"host": b"x", b"mcp-param-bad": b"\xff"}
    passed = protocol_headers.passable(headers)
    assert protocol_headers.others(passed, (REGION,)) == b"mcp-param-trace: 7\r\n"
    assert protocol_headers.others(passed, ()) == b"mcp-param-region: eu\r\nmcp-param-trace: 7\r\n"


def test_too_many_of_them_do_not() -> None:
    assert len(protocol_headers.passable({b"mcp-param-%d" % number: b"x" for number in range(100)})) == 16
    assert protocol_headers.passable({b"mcp-param-long": b"x" * 5_000}) == ()
