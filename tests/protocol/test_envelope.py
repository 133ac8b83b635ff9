"""The envelope: what is refused, and that everything else survives byte for byte."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest
from msgspec import structs

from fastgw.protocol.envelope import NotAMessage, NotJson, emit, is_id, members, quote, read, read_reply

REFUSED_AS_JSON = [
    b"",
    b"{",
    b'{"jsonrpc":"2.0"',
    b"\xef\xbb\xbf{}",
    b'{"a":01}',
    b'{"a":NaN}',
    b'{"a":[1,]}',
    b'{"a":"\n"}',
    b'{"a":"\\x"}',
    b'{"a":"\\ud800"}',
    b'{"a":1}x',
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"\xff"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"\xed\xa0\x80"}}',
]

REFUSED_AS_MESSAGE = [
    b"[]",
    b"1",
    b'"x"',
    b"null",
    b"{}",
    b'{"jsonrpc":"1.0","id":1,"method":"a"}',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
    b'{"jsonrpc":"2.0","id":1,"method":"a","result":{}}',
    b'{"jsonrpc":"2.0","id":1,"method":"a","error":{}}',
    b'{"jsonrpc":"2.0","id":1,"method":5}',
    b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}',
    b'{"jsonrpc":"2.0","id":1,"method":"a","method":"a"}',
    b'{"jsonrpc":"2.0","id":12,"id":1,"method":"a"}',
    b'{"jsonrpc":"2.0", "id":1, "method":"a", "me\\u0074hod":"a"}',
    b'{"jsonrpc":"2.0","id":1,"method":"a","Params":{}}',
    '{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}'.encode(),
]


@pytest.mark.parametrize("body", REFUSED_AS_JSON, ids=range(len(REFUSED_AS_JSON)))
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        read(body)


@pytest.mark.parametrize("body", REFUSED_AS_MESSAGE, ids=range(len(REFUSED_AS_MESSAGE)))
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(NotAMessage):
        read(body)


def test_values_stay_as_they_were_written() -> None:
    text = b'{ "jsonrpc" : "2.0",\n "id" : "1" , "method":"a","params":{"n":123456789012345678901234567890,"e":1E400} }'
    message = read(text)
    assert message.id == b'"1"'
    assert message.params == b'{"n":123456789012345678901234567890,"e":1E400}'


def test_a_member_is_found_by_its_meaning_not_its_spelling() -> None:
    assert members(b'{"na\\u006de":1}') == {"name": b"1"}


def test_what_is_emitted_reads_back() -> None:
    parts = {'quo"te': b"[1, 2]", "\u00e4": b'"x"', "": b"null"}
    assert members(emit(parts)) == parts


def test_a_twin_is_found_wherever_it_hides() -> None:
    """Random objects, written with random spaces; one member in two is written a second time."""
    dice = random.Random(20260728)
    values = [b"1", b"12", b'"a"', b"{}", b'{"a":1}', b"[1,1]", b"true", b'"},{"', b"-0.5e-7"]
    for _ in range(2_000):
        names = dice.sample(["a", "b", "id", "name", "na\u00efve", 'q"', "\\", ""], dice.randint(1, 5))
        twin = dice.random() < 0.5
        written = [*names, dice.choice(names)] if twin else names
        dice.shuffle(written)
        gap = lambda: b" " * dice.randint(0, 1)  # noqa: E731
        body = b",".join(
            gap() + json.dumps(name).encode() + gap() + b":" + gap() + dice.choice(values) + gap() for name in written
        )
        if twin:
            with pytest.raises(NotAMessage):
                members(b"{" + body + b"}")
        else:
            assert set(members(b"{" + body + b"}")) == set(names)


@pytest.mark.parametrize(
    ("text", "fits"),
    [(b"1", True), (b"-1", True), (b'"1"', True), (b"null", False), (b"1.5", False), (b"{}", False), (b"true", False)],
)
def test_ids(text: bytes, fits: bool) -> None:
    assert is_id(text) is fits


def test_quote_is_json() -> None:
    assert json.loads(quote('a"\u2028\n')) == 'a"\u2028\n'


@pytest.mark.parametrize("name", [b"a" * 2_000_000, b"\\n" * 1_000_000], ids=["plain", "escaped"])
def test_a_long_member_name_costs_no_more_than_its_length(name: bytes) -> None:
    text = b'{ "' + name + b'":1}'
    tracemalloc.start()
    try:
        assert list(members(text).values()) == [b"1"]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 * len(text)


@pytest.mark.parametrize(
    ("body", "same"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":1.50},"error":null}', b'{"jsonrpc":"2.0","id":1,"result":{"a":1.50}}'),
        (b'{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":1}}', b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}'),
        (b'{"id":1,"method":null,"params":null,"error":null,"result":{},"jsonrpc":"2.0"}',
         b'{"jsonrpc":"2.0","id":1,"result":{}}'),
        (b'{"jsonrpc":"2.0","id":null,"result":null,"error":{}}', b'{"jsonrpc":"2.0","id":null,"error":{}}'),
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":null}}', b'{"jsonrpc":"2.0","id":1,"result":{"a":null}}'),
    ],
)  # fmt: skip
def test_outer_fields_of_a_server_that_are_null_count_as_left_out(body: bytes, same: bytes) -> None:
    assert read_reply(body) == structs.replace(read(same), nulls=body != same)


@pytest.mark.parametrize(
    "body",
    [
        *REFUSED_AS_MESSAGE,
        b'{"jsonrpc":"2.0","id":1,"result":null,"error":null}',
        b'{"jsonrpc":null,"id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"result":null}',
        b'{"jsonrpc":"2.0","id":1,"error":null,"error":{}}',
    ],
)
def test_what_is_no_message_of_an_agent_is_none_of_a_server_either(body: bytes) -> None:
    with pytest.raises(NotAMessage):
        read_reply(body)


@pytest.mark.parametrize("body", REFUSED_AS_JSON)
def test_nor_is_what_is_no_json(body: bytes) -> None:
    with pytest.raises((NotJson, NotAMessage)):
        read_reply(body)
