"""The quick readers and the careful ones agree: what the quick ones take, the careful ones take for the same."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from fastgw.errors import Fault
from fastgw.gateway import entry_points
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import legacy, modern
from fastgw.gateway.dialects.agent_sessions import AgentSessions
from fastgw.gateway.dialects.dialect import Dialect, ParsedRequest
from fastgw.policy.match import ANONYMOUS
from fastgw.protocol import names, results
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson, members, read_reply
from fastgw.protocol.quick import read_request, read_result
from fastgw.snapshot.model import Endpoint, Snapshot, View

ENDPOINT = Endpoint("/mcp", {}, (View(),), {}, True, 0.0, (), "")
SNAPSHOT = Snapshot(1, {}, {}, {}, frozenset(), frozenset(), 1, 1, (b"s",), "fastgw", "0", "gw")
SESSIONS = AgentSessions((b"secret",))
TOKEN = SESSIONS.begin(Call(b"1", "initialize", "2025-11-25", client=b'{"name":"c"}'), ANONYMOUS.agent, "/mcp").encode()
META = b'{"%s":"%s","%s":{"name":"c","version":"1"},"%s":{}}' % tuple(
    text.encode() for text in (names.META_VERSION, names.MODERN_VERSION, names.META_CLIENT, names.META_CAPABILITIES)
)
MODERN = {b"mcp-protocol-version": b"2026-07-28", b"mcp-method": b"tools/call", b"mcp-name": b"buy"}
SESSION = {b"mcp-protocol-version": b"2025-11-25", b"mcp-session-id": TOKEN}
USUAL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"buy","arguments":{"n":1},"_meta":%b}}' % META
BARE = b'{"method":"tools/call","params":{"name":"buy","arguments":{"n":1}},"jsonrpc":"2.0","id":1}'
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":%b}}' % META
LISTS = {**MODERN, b"mcp-method": b"tools/list"}
ROUNDS = int(os.environ.get("FASTGW_READER_ROUNDS", "20000"))
"""Messages that are generated; 1,000,000 were, once."""

Outcome = tuple[Any, ...]


def read(body: bytes, fields: dict[bytes, bytes], *, quick: bool) -> Outcome | None:
    """What one of the readers makes of a message: the call, or the refusal; None where the quick one hands it on."""
    context = RequestContext("req_1", SNAPSHOT, ENDPOINT, modern.DIALECT, fields, frozenset(), 0.0)
    try:
        found: Any = entry_points.quick(context, body, SESSIONS) if quick else _careful(context, body)
    except Fault as fault:
        return "refused", fault.kind, context.reply_to
    if not isinstance(found, ParsedRequest):
        return None if quick else ("batch",)
    call = structs.asdict(found.call)
    call["params"] = {name: bytes(value) for name, value in call["params"].items()}
    return found.kind, call, found.dialect, context.reply_to, context.method


def _careful(context: RequestContext, body: bytes) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_points, "quick", lambda *_: None)
        return entry_points.MESSAGES.recognise(context, body, SESSIONS)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (USUAL, MODERN),
        (BARE, SESSION),
        (USUAL.replace(b'"id":1', b'"id":"a\\"b"'), MODERN),
        (USUAL.replace(b'{"n":1}', b'{"n":"\xc3\xa4","n":2}'), MODERN),
        (USUAL.replace(b',"arguments":{"n":1}', b""), MODERN),
        (BARE.replace(b',"arguments":{"n":1}', b""), SESSION),
        (LIST, LISTS),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', SESSION),
        (b'{"jsonrpc":"2.0","id":1,"method":"prompts/list","params":{}}', SESSION),
        (LIST.replace(b"tools", b"resources"), {**LISTS, b"mcp-method": b"resources/list"}),
    ],
)
def test_the_usual_shapes_are_taken(body: bytes, fields: dict[bytes, bytes]) -> None:
    found = read(body, fields, quick=True)
    assert found is not None
    assert found == read(body, fields, quick=False)


HANDED_ON = [
    USUAL.replace(b'"id":1', b'"id":null'),
    USUAL.replace(b'"id":1', b'"id":1.5'),
    USUAL.replace(b'"id":1,', b""),
    USUAL.replace(b'"name":"buy"', b'"name":"sell","name":"buy"'),
    USUAL.replace(b'"name":"buy"', b'"Name":"sell","name":"buy"'),
    USUAL.replace(b'"name":"buy"', b'"n\\u0061me":"buy"'),
    USUAL.replace(b'"name":"buy"', b'"name":"b\\u0075y"'),
    USUAL.replace(b'"name":"buy"', b'"name": "buy"'),
    USUAL.replace(b'"arguments":{"n":1}', b'"arguments":null'),
    USUAL.replace(b'"arguments":{"n":1}', b'"arguments":[1]'),
    USUAL.replace(b'"_meta"', b'"task":{},"_meta"'),
    USUAL.replace(b"2026-07-28", b"2026-07-29"),
    USUAL.replace(b'"_meta":{', b'"_meta":{"progressToken":1,'),
    USUAL.replace(b'{"n":1}', b'{"n":"\xff"}'),
    USUAL + b" ",
    b"[" + USUAL + b"]",
    USUAL.replace(b'"2.0"', b'"2.1"'),
    USUAL.replace(b"tools/call", b"tools/CALL"),
    USUAL.replace(b'"name":"buy",', b""),
    USUAL.replace(b'"name":"buy"', b'"name":""'),
    LIST,
    LIST.replace(b'"_meta"', b'"cursor":"x","_meta"'),
    LIST.replace(b'"_meta"', b'"name":"buy","_meta"'),
    LIST.replace(b'"_meta"', b'"arguments":{},"_meta"'),
    # Shorter by what another member is longer: the sum fits, the frame does not.
    USUAL.replace(b'"jsonrpc":"2.0",', b'"jsonrpc":"2.0","x":0,').replace(b'"n":1', b""),
]


@pytest.mark.parametrize("body", HANDED_ON)
def test_everything_else_is_handed_on(body: bytes) -> None:
    assert read(body, MODERN, quick=True) is None
    assert read(body, {**MODERN, b"mcp-protocol-version": b"2025-11-25", b"mcp-session-id": TOKEN}, quick=True) is None


@pytest.mark.parametrize(
    "change",
    [
        {b"mcp-name": b"sell"},
        {b"mcp-name": b"=?base64?YnV5?="},
        {b"mcp-method": b"tools/list"},
        {b"mcp-protocol-version": b"2025-11-25"},
        {b"mcp-param-region": b"eu"},
    ],
)
def test_headers_that_ask_for_care_are_handed_on(change: dict[bytes, bytes]) -> None:
    assert read(USUAL, {**MODERN, **change}, quick=True) is None


def _messages(rolls: random.Random) -> Iterator[bytes]:
    """Messages like those of clients, and like those with something hidden in them."""
    spelt = ["name", "Name", "arguments", "_meta", "_Meta", "id", "method", "jsonrpc", "params", "x", "n\\u0061me"]
    values = [
        b"1",
        b'"1"',
        b"null",
        b'"buy"',
        b'"b\\u0075y"',
        b'"tools/call"',
        b'"2.0"',
        b"{}",
        b'{"n":1}',
        META,
        b"[]",
    ]
    values += [META[:-1] + b',"progressToken":7}', b'{"a":{"b":[1,2,{"c":null}]}}', b'"\xc3\xa4"', b'"\xff"', b"01"]

    def member() -> bytes:
        gap = rolls.choice([b"", b"", b"", b" "])
        return b'"%b":%b%b' % (rolls.choice(spelt).encode(), gap, rolls.choice(values))

    while True:
        params = [b'"name":"buy"', b'"arguments":{"n":%d}' % rolls.randrange(99), b'"_meta":' + META]
        method = b'"method":"tools/list"' if rolls.random() < 0.2 else b'"method":"tools/call"'
        outer = [b'"jsonrpc":"2.0"', b'"id":%d' % rolls.randrange(-5, 99), method]
        if rolls.random() < 0.2:
            params = params[2:]
        for parts in (params, outer):
            for _ in range(rolls.choice([0, 0, 0, 1, 2])):
                if rolls.random() < 0.5:
                    parts.insert(rolls.randrange(len(parts) + 1), member())
                else:
                    parts[rolls.randrange(len(parts))] = member()
            rolls.shuffle(parts)
        outer.insert(rolls.randrange(len(outer) + 1), b'"params":{%b}' % b",".join(params))
        body = b"{%b}" % b",".join(outer)
        if rolls.random() < 0.1:
            at = rolls.randrange(len(body))
            body = body[:at] + bytes((rolls.randrange(256),)) + body[at + rolls.randrange(2) :]
        yield body


def test_generated_messages_are_read_alike() -> None:
    taken = 0
    for number, body in zip(range(ROUNDS), _messages(random.Random(7)), strict=False):
        fields = (SESSION, MODERN, MODERN, LISTS)[number % 4]
        found = read(body, fields, quick=True)
        if found is not None:
            taken += 1
            assert found == read(body, fields, quick=False), body
    assert taken > ROUNDS / 20


# -- replies --------------------------------------------------------------------------------------------------------

CONTENT = b'"content":[{"type":"text","text":"x \\u00e4"}]'
REPLIES = [
    b"{%b}" % CONTENT,
    b'{"resultType":"complete",%b,"isError":false}' % CONTENT,
    b'{%b,"isError":true,"structuredContent":{"a":1.50}}' % CONTENT,
    b'{"_meta":{"x":1},%b}' % CONTENT,
    b'{%b,"_meta":{"x":1,"%b":{"name":"s"}},"resultType":"complete"}' % (CONTENT, names.META_SERVER.encode()),
    b'{%b,"_meta":null}' % CONTENT,
    b'{%b,"structuredContent":[1]}' % CONTENT,
]
DIALECTS = [modern.DIALECT, *legacy.DIALECTS.values()]


def reply(result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":7,"result":%b}' % result


def _parts(body: bytes) -> dict[str, Any]:
    """The result in a response: member to JSON text, `_meta` likewise."""
    found: dict[str, Any] = members(members(body)["result"])
    if "_meta" in found:
        found["_meta"] = members(found["_meta"])
    return found


def carefully(body: bytes, dialect: Dialect) -> bytes:
    message = read_reply(body)
    result = results.read(message.result or b"")
    return dialect.reply(b"1", dialect.result(result, SNAPSHOT.server_info))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.version)
@pytest.mark.parametrize("result", REPLIES)
def test_the_usual_results_are_taken_and_become_the_same(result: bytes, dialect: Dialect) -> None:
    body = reply(result)
    found = read_result(body, b"7")
    assert found is not None
    quick = dialect.quick_reply(b"1", found, SNAPSHOT.server_info)
    expected = carefully(body, dialect)
    if quick is not None:
        assert _parts(quick) == _parts(expected)
    text = results.read(found.text)
    assert _parts(dialect.reply(b"1", dialect.result(text, SNAPSHOT.server_info))) == _parts(expected)


@pytest.mark.parametrize(
    "body",
    [
        reply(b"{%b}" % CONTENT).replace(b'"id":7', b'"id":"7"'),
        reply(b"{%b}" % CONTENT).replace(b'"id":7', b'"id":8'),
        reply(b"{%b,%b}" % (CONTENT, CONTENT)),
        reply(b'{%b,"Content":[]}' % CONTENT),
        reply(b'{%b,"ttlMs":0}' % CONTENT),
        reply(b'{%b,"isError":null}' % CONTENT),
        reply(b'{%b,"resultType":"input_required"}' % CONTENT),
        reply(b'{"structuredContent":{}}'),
        reply(b"{ %b}" % CONTENT),
        reply(b"{%b}" % CONTENT).replace(b"\\u00e4", b"\xff"),
        reply(b"{%b}" % CONTENT)[:-1] + b',"error":null}',
        reply(b"{%b}" % CONTENT)[:-1] + b',"result":{}}',
    ],
)
def test_every_other_reply_is_handed_on(body: bytes) -> None:
    assert read_result(body, b"7") is None


def _replies(rolls: random.Random) -> Iterator[bytes]:
    values = [b"[]", b"{}", b"null", b"true", b"false", b'"complete"', b'"x"', b"1", b'{"a":1,"a":2}', b'"\xff"']
    spelt = [
        b"content",
        b"Content",
        b"_meta",
        b"isError",
        b"resultType",
        b"structuredContent",
        b"ttlMs",
        b"c\\u006fntent",
    ]
    while True:
        parts = [CONTENT, b'"isError":false', b'"resultType":"complete"', b'"_meta":{"x":1}']
        parts = rolls.sample(parts, rolls.randrange(1, 5))
        for _ in range(rolls.choice([0, 0, 1, 2])):
            parts.insert(rolls.randrange(len(parts) + 1), b'"%b":%b' % (rolls.choice(spelt), rolls.choice(values)))
        outer = [
            b'"jsonrpc":"2.0"',
            b'"id":%b' % rolls.choice([b"7", b"7", b'"7"', b"null"]),
            b'"result":{%b}' % b",".join(parts),
        ]
        rolls.shuffle(outer)
        yield b"{%b}" % b",".join(outer)


def test_generated_replies_are_read_alike() -> None:
    taken = 0
    rolls = random.Random(9)
    for _, body in zip(range(ROUNDS), _replies(rolls), strict=False):
        found = read_result(body, b"7")
        if found is None:
            continue
        taken += 1
        dialect = rolls.choice(DIALECTS)
        assert _said(partial(_quickly, found, dialect)) == _said(partial(carefully, body, dialect)), body
    assert taken > ROUNDS / 20


def _quickly(found: Any, dialect: Dialect) -> bytes:
    quick = dialect.quick_reply(b"1", found, SNAPSHOT.server_info)
    if quick is not None:
        return quick
    return dialect.reply(b"1", dialect.result(results.read(found.text), SNAPSHOT.server_info))


def _said(work: Callable[[], bytes]) -> Any:
    try:
        body = work()
    except (results.UnusableResult, NotAMessage, NotJson):
        return "refused"
    json.loads(body)
    return _parts(body)


def test_a_call_is_taken_apart_as_it_is_written() -> None:
    assert read_request(USUAL) == (b"1", "tools/call", "buy", b'{"n":1}', META)
    assert read_request(BARE) == (b"1", "tools/call", "buy", b'{"n":1}', b"")
