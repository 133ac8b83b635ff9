"""Conditions on calls: keys by and, values by or, and arguments that cannot be judged."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fastgw.policy.match import ArgumentTest, Bound, Match
from fastgw.policy.patterns import Patterns
from fastgw.policy.principal import Principal

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
    assert match.static_holds(BOT, "/mcp") is holds
    assert (match.for_class(BOT, "/mcp") is not None) is holds


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
        (ArgumentTest(bounds=(Bound(less_than=Decimal(100)),)), b'{"n":99.999}', True),
        (ArgumentTest(bounds=(Bound(less_than=Decimal(100)),)), b'{"n":100}', False),
        (ArgumentTest(bounds=(Bound(less_than=Decimal(100)),)), b'{"n":1E400}', False),
        (ArgumentTest(bounds=(Bound(less_than=Decimal(100)),)), b'{"n":"50"}', True),
        (ArgumentTest(bounds=(Bound(less_than=Decimal(100)),)), b'{"n":" 5_0"}', None),
        (ArgumentTest(bounds=(Bound(less_than=Decimal(100)),)), b'{"n":true}', None),
        (ArgumentTest(bounds=(Bound(more_than=Decimal(LONG)),)), b'{"n":%s.0}' % LONG.encode(), False),
        (ArgumentTest(bounds=(Bound(more_than=Decimal(LONG)),)), b'{"n":%s.1}' % LONG.encode(), True),
        (ArgumentTest(bounds=(Bound(Decimal(9), Decimal(1)),)), b'{"n":1}', False),
    ],
)
def test_arguments(test: ArgumentTest, arguments: bytes, judgement: bool | None) -> None:
    match = about(test)
    assert match.judge(arguments) is judgement
    assert match.arguments_hold(arguments) is (judgement is True)
    assert match.arguments_may_hold(arguments) is (judgement is not False)


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
