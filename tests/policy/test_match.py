"""Conditions on calls: keys by and, values by or, and arguments that cannot be judged."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fastgw.policy.match import ArgumentTest, Match, Principal
from fastgw.policy.patterns import Patterns

BOT = Principal("login:bot-1", {"team": "qa", "groups": ("a", "b"), "level": "5"})


def one(*values: str) -> Patterns:
    return Patterns(values)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Match(), True),
        (Match(agent=one("login:*")), True),
        (Match(agent=one("other")), False),
        (Match(claims=(("team", one("ops", "qa")),)), True),
        (Match(claims=(("groups", one("b")),)), True),
        (Match(claims=(("groups", one("a,b")),)), False),
        (Match(claims=(("tier", one("*")),)), False),
        (Match(claims=(("team", one("qa")), ("level", one("6")))), False),
        (Match(endpoint=one("/mcp/*")), False),
        (Match(unless=Match(agent=one("login:bot-*"))), False),
        (Match(unless=Match(agent=one("login:bot-*"), claims=(("tier", one("x")),))), True),
    ],
)
def test_who_and_where(match: Match, holds: bool) -> None:
    trace: list[str] = []
    assert (match.for_class(BOT, "/mcp") is not None) is holds
    assert (match.for_class(BOT, "/mcp", trace) is not None) is holds
    assert (trace == []) is holds


def test_a_trace_takes_down_every_condition_that_fails() -> None:
    match = Match(agent=one("a", "b"), claims=(("team", one("qa")), ("groups", one("c"))), endpoint=one("/x"))
    trace: list[str] = []
    assert match.for_class(BOT, "/mcp", trace) is None
    assert trace == ["agent: login:bot-1 is not a or b", "claims.groups: a, b is not c", "endpoint: /mcp is not /x"]
    trace.clear()
    assert Match(unless=Match(agent=one("login:*"))).for_class(BOT, "/mcp", trace) is None
    assert trace == ["except takes it out"]


def about(test: ArgumentTest) -> Match:
    return Match(arguments=(("n", test),))


LONG = "123456789012345678901234567890"


@pytest.mark.parametrize(
    ("test", "arguments", "judgement"),
    [
        (ArgumentTest(one("staging")), b'{"n":"staging"}', True),
        (ArgumentTest(one("stag*")), b'{"n":"stag\\u0069ng"}', True),
        (ArgumentTest(one("staging")), b'{"n":"Staging"}', False),
        (ArgumentTest(one("staging")), b'{"m":1}', False),
        (ArgumentTest(one("staging")), b"", False),
        (ArgumentTest(one("null")), b'{"n":null}', False),
        (ArgumentTest(one("true")), b'{"n":true}', True),
        (ArgumentTest(one("3")), b'{"n":3.0}', True),
        (ArgumentTest(one("3")), b'{"n":30e-1}', True),
        (ArgumentTest(one("3")), b'{"n":"3"}', True),
        (ArgumentTest(one(LONG)), b'{"n":%s}' % LONG.encode(), True),
        (ArgumentTest(one(LONG)), b'{"n":%s}' % LONG[:-1].encode() + b"", False),
        (ArgumentTest(one("staging")), b'{"n":["staging"]}', None),
        (ArgumentTest(one("staging")), b'{"n":"staging","n":"production"}', None),
        (ArgumentTest(one("staging")), b'{"n":"staging","N":"production"}', None),
        (ArgumentTest(one("staging")), b'["staging"]', None),
        (ArgumentTest(one("staging")), b"null", None),
        (ArgumentTest(one("staging")), b'{"n":', None),
        (ArgumentTest(less_than=Decimal(100)), b'{"n":99.999}', True),
        (ArgumentTest(less_than=Decimal(100)), b'{"n":100}', False),
        (ArgumentTest(less_than=Decimal(100)), b'{"n":1E400}', False),
        (ArgumentTest(less_than=Decimal(100)), b'{"n":"50"}', True),
        (ArgumentTest(less_than=Decimal(100)), b'{"n":" 5_0"}', None),
        (ArgumentTest(less_than=Decimal(100)), b'{"n":true}', None),
        (ArgumentTest(more_than=Decimal(LONG)), b'{"n":%s.0}' % LONG.encode(), False),
        (ArgumentTest(more_than=Decimal(LONG)), b'{"n":%s.1}' % LONG.encode(), True),
        (ArgumentTest(less_than=Decimal(9), more_than=Decimal(1)), b'{"n":1}', False),
    ],
)
def test_arguments(test: ArgumentTest, arguments: bytes, judgement: bool | None) -> None:
    trace: list[str] = []
    assert about(test).judge(arguments) is judgement
    assert about(test).judge(arguments, trace) is judgement
    assert (trace == []) is (judgement is True)


def test_what_is_taken_out_again_may_look_at_arguments_too() -> None:
    match = Match(claims=(("team", one("qa")),), unless=about(ArgumentTest(one("production"))))
    left = match.for_class(BOT, "/mcp")
    assert left is not None and left.looks_at_arguments
    assert left.judge(b'{"n":"staging"}') is True
    assert left.judge(b'{"n":"production"}') is False
    assert left.judge(b'{"n":["production"]}') is None


def test_what_is_taken_out_of_others_only_is_forgotten() -> None:
    match = Match(unless=Match(agent=one("someone"), arguments=(("n", ArgumentTest(one("1"))),)))
    left = match.for_class(BOT, "/mcp")
    assert left is not None and not left.looks_at_arguments
