"""What a server may ask in the middle of a call, and the state it gets back."""

from __future__ import annotations

import pytest

from fastgw.protocol import rounds
from fastgw.protocol.envelope import NotAMessage, NotJson
from fastgw.protocol.links import MOST_QUOTES
from fastgw.protocol.results import UnusableResult
from fastgw.protocol.rounds import NotOffered, RoundState
from fastgw.protocol.sealing import NONCE, Sealer

SEALER = Sealer((b"secret",), "state")
BOND = rounds.bond("/mcp", "agent-a", "tools/call", "shop__buy")
STATE = RoundState("shop", "shop|http://a/mcp", 1000, b'"it\\u0073 own \xc3\xa9"')
NOTHING = b"\0" * NONCE


def result(**members: str) -> dict[str, bytes]:
    return {"resultType": b'"input_required"', **{name: text.encode() for name, text in members.items()}}


def asking(*requests: str) -> str:
    return "{" + ",".join(f'"k{n}":{request}' for n, request in enumerate(requests)) + "}"


# -- capabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "offered"),
    [
        (b"{}", b"{}"),
        (b'{"extensions":{"x":{}},"experimental":{"y":1},"tasks":{}}', b"{}"),
        (b'{"roots":{ "a" : 1.50}, "sampling":{"tools":{}}}', b'{"sampling":{"tools":{}},"roots":{ "a" : 1.50}}'),
        (b'{"elicitation":{"url":{}}}', b'{"elicitation":{"url":{}}}'),
        (b'{"elicitation":null,"roots":true,"sampling":[]}', b"{}"),
    ],
)
def test_only_what_lets_a_server_ask_is_offered(declared: bytes, offered: bytes) -> None:
    assert rounds.offered(declared) == offered


@pytest.mark.parametrize(
    "declared",
    [
        b'{"roots":{},"roots":{}}',
        b'{"elicitation":{"form":{},"form":{}}}',
        b'{"Sampling":{}}',
        b'{"elicitation":{"URL":{}}}',
        b"[]",
        b"{",
    ],
)
def test_what_can_be_read_in_two_ways_is_no_declaration(declared: bytes) -> None:
    for _ in range(2):
        with pytest.raises((NotAMessage, NotJson)):
            rounds.offered(declared)


def test_a_long_declaration_is_read_like_any_other_and_not_remembered() -> None:
    before = rounds._remembered.cache_info().currsize
    assert rounds.offered(b'{"x":"%s","roots":{}}' % (b"y" * 5000)) == b'{"roots":{}}'
    assert rounds._remembered.cache_info().currsize == before


# -- questions ------------------------------------------------------------------------------------------------------

FORM = '{"method":"elicitation/create","params":{"message":"m","requestedSchema":{}}}'
PAGE = '{"method":"elicitation/create","params":{"mode":"url","message":"m","url":"https://x"}}'
SAMPLE = '{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}'
TOOLS = '{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"tools":[]}}'
CHOICE = '{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"toolChoice":{"mode":"none"}}}'
CONTEXT = '{"method":"sampling/createMessage","params":{"messages":[],"includeContext":"thisServer"}}'
NO_CONTEXT = '{"method":"sampling/createMessage","params":{"messages":[],"includeContext":"none"}}'
ROOTS = '{"method":"roots/list"}'


@pytest.mark.parametrize(
    ("request_", "declared"),
    [
        (FORM, b'{"elicitation":{}}'),
        (FORM, b'{"elicitation":{"form":{}}}'),
        (FORM.replace('"message"', '"mode":"form","message"', 1), b'{"elicitation":{"form":{},"url":{}}}'),
        (PAGE, b'{"elicitation":{"url":{}}}'),
        (SAMPLE, b'{"sampling":{}}'),
        (NO_CONTEXT, b'{"sampling":{}}'),
        (CONTEXT, b'{"sampling":{"context":{}}}'),
        (TOOLS, b'{"sampling":{"tools":{}}}'),
        (CHOICE, b'{"sampling":{"tools":{}}}'),
        (ROOTS, b'{"roots":{}}'),
        ('{"method":"roots/list","params":{"_meta":{"a":1}}}', b'{"roots":{}}'),
    ],
)
def test_what_the_agent_declared_may_be_asked(request_: str, declared: bytes) -> None:
    rounds.check(result(inputRequests=asking(request_)), declared)


@pytest.mark.parametrize(
    ("request_", "declared"),
    [
        (FORM, b"{}"),
        (FORM, b'{"elicitation":{"url":{}}}'),
        (PAGE, b'{"elicitation":{}}'),
        (PAGE, b'{"elicitation":{"form":{}}}'),
        (PAGE.replace('"url",', '"spy",'), b'{"elicitation":{"form":{},"url":{},"spy":{}}}'),
        (PAGE.replace('"mode"', '"Mode"'), b'{"elicitation":{}}'),
        (PAGE.replace('"mode":', '"mode":"form","mode":'), b'{"elicitation":{}}'),
        (FORM.replace('"message"', '"mode":7,"message"', 1), b'{"elicitation":{}}'),
        (SAMPLE, b'{"elicitation":{},"roots":{}}'),
        (TOOLS, b'{"sampling":{"context":{}}}'),
        (CHOICE, b'{"sampling":{}}'),
        (CONTEXT, b'{"sampling":{"tools":{}}}'),
        (ROOTS, b'{"sampling":{}}'),
        ('{"method":"tools/call","params":{"name":"x"}}', b'{"roots":{},"sampling":{},"elicitation":{}}'),
        ('{"method":"ping"}', b'{"roots":{}}'),
        ('{"method":"roots/list","method":"ping"}', b'{"roots":{}}'),
        ("{}", b'{"roots":{}}'),
        ("[]", b'{"roots":{}}'),
        ('"x"', b'{"roots":{}}'),
    ],
)
def test_anything_else_may_not(request_: str, declared: bytes) -> None:
    with pytest.raises(NotOffered):
        rounds.check(result(inputRequests=asking(request_)), declared)


def test_one_among_many_is_enough_to_refuse_all() -> None:
    with pytest.raises(NotOffered):
        rounds.check(result(inputRequests=asking(FORM, ROOTS, FORM)), b'{"elicitation":{}}')


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"requestState": "7"},
        {"requestState": "null"},
        {"requestState": '{"a":1}'},
        {"inputRequests": "[]"},
        {"inputRequests": "null"},
        {"inputRequests": asking(FORM, FORM).replace("k1", "k0")},
        {"inputRequests": asking(*[FORM] * 65)},
        {"inputRequests": asking(FORM).replace("k0", "k" * 1025)},
        {"requestState": '"' + "x" * rounds.LARGEST_STATE + '"'},
        {"inputRequests": asking(FORM[:-1] + ',"x":{' + ",".join(f'"{n}":1' for n in range(MOST_QUOTES // 2)) + "}}")},
    ],
)
def test_a_result_that_breaks_the_protocol_or_bursts_is_unusable(members: dict[str, str]) -> None:
    with pytest.raises(UnusableResult):
        rounds.check(result(**members), b'{"elicitation":{}}')


def test_a_state_alone_asks_for_nothing() -> None:
    rounds.check(result(requestState='"later"'), b"{}")
    rounds.check(result(inputRequests="{}"), b"{}")


# -- the state ------------------------------------------------------------------------------------------------------


def test_a_state_comes_back_byte_for_byte_until_it_expires() -> None:
    text = rounds.seal_state(STATE, SEALER, BOND, NOTHING)
    assert b"own" not in text and text[:1] == text[-1:] == b'"'
    assert rounds.open_state(text, SEALER, BOND, 999.9) == STATE
    assert rounds.open_state(text, SEALER, BOND, 1000.0) is None


@pytest.mark.parametrize(
    "other",
    [
        rounds.bond("/mcp/ops", "agent-a", "tools/call", "shop__buy"),
        rounds.bond("/mcp", "agent-b", "tools/call", "shop__buy"),
        rounds.bond("/mcp", "agent-a", "prompts/get", "shop__buy"),
        rounds.bond("/mcp", "agent-a", "tools/call", "shop__sell"),
        rounds.bond("/mcp", "agent-", "atools/call", "shop__buy"),
        b"",
    ],
)
def test_it_opens_for_the_same_agent_asking_for_the_same_alone(other: bytes) -> None:
    assert rounds.open_state(rounds.seal_state(STATE, SEALER, BOND, NOTHING), SEALER, other, 0) is None


def test_a_tampered_state_does_not_open_wherever_it_was_touched() -> None:
    text = rounds.seal_state(STATE, SEALER, BOND, NOTHING)
    for at in range(1, len(text) - 1):
        touched = text[:at] + (b"A" if text[at : at + 1] != b"A" else b"B") + text[at + 1 :]
        assert rounds.open_state(touched, SEALER, BOND, 0) is None


@pytest.mark.parametrize("text", [b'""', b"7", b"null", b'"abc"', b'"%s"' % (b"A" * 400_000), b'"\\u00e9"'])
def test_what_never_was_a_state_does_not_open(text: bytes) -> None:
    assert rounds.open_state(text, SEALER, BOND, 0) is None


def test_a_seal_of_another_purpose_or_secret_is_none() -> None:
    for sealer in (Sealer((b"secret",), "cursor"), Sealer((b"other",), "state")):
        assert rounds.open_state(rounds.seal_state(STATE, sealer, BOND, NOTHING), SEALER, BOND, 0) is None
    turned = Sealer((b"new", b"secret"), "state")
    assert rounds.open_state(rounds.seal_state(STATE, SEALER, BOND, NOTHING), turned, BOND, 0) == STATE


def test_the_largest_state_that_is_sealed_opens() -> None:
    inner = b'"%s"' % (b"x" * (rounds.LARGEST_STATE - 2))
    rounds.check({"requestState": inner}, b"{}")
    text = rounds.seal_state(RoundState("s" * 64, "s|" + "u" * 2000, 1, inner), SEALER, BOND, NOTHING)
    assert rounds.open_state(text, SEALER, BOND, 0) is not None
