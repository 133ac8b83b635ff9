"""What a result says it used, however oddly it says it, and what that costs to the last decimal."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from fastgw.catalog.metering import MOST_TOKENS, Meter, price_of

METER = Meter("s", "t", ("_meta", "usage", "in"), ("_meta", "usage", "out"))


def tokens(result: bytes, meter: Meter = METER) -> tuple[int | None, int | None]:
    members = {name: json.dumps(value).encode() for name, value in json.loads(result).items()}
    return meter.tokens(lambda name: members.get(name, b""))


def raw(number: bytes, meter: Meter = METER) -> int | None:
    text = b'{"other":[1,{"in":7}],"usage":{"model":"m","in":%b}}' % number
    return meter.tokens(lambda name: text if name == "_meta" else b"")[0]


def test_numbers_where_the_configuration_says() -> None:
    assert tokens(b'{"_meta":{"usage":{"in":1250,"out":487}}}') == (1250, 487)
    assert tokens(b'{"_meta":{"usage":{"out":0}}}') == (None, 0)
    assert tokens(b'{"tokens":5}', Meter("s", "t", ("tokens",))) == (5, None)
    deep = Meter("s", "t", ("structuredContent", "a b", "c'd", "e"))
    assert tokens(b'{"structuredContent":{"a b":{"c\'d":{"e":3}}}}', deep) == (3, None)


@pytest.mark.parametrize("result", [b"{}", b'{"_meta":{}}', b'{"_meta":{"usage":{}}}', b'{"_meta":{"usage":null}}'])
def test_places_that_do_not_exist(result: bytes) -> None:
    assert tokens(result) == (None, None)


@pytest.mark.parametrize("usage", [b"7", b"[7]", b'"7"', b"null", b"true"])
def test_a_place_that_is_no_object_says_nothing(usage: bytes) -> None:
    assert tokens(b'{"_meta":{"usage":%b}}' % usage) == (None, None)
    assert tokens(b'{"_meta":%b}' % usage) == (None, None)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (b"0", 0), (b"1250", 1250), (b"1250.0", 1250), (b" 12 ", 12),
        (b"-1", None), (b"1.5", None), (b'"12"', None), (b"1e400", None), (b"1e3", 1000), (b"true", None),
        (b"null", None), (b"[1]", None), (b"%d" % MOST_TOKENS, MOST_TOKENS), (b"%d" % (MOST_TOKENS + 1), None),
        (b"9" * 400, None),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_counts_are_unknown(number: bytes, expected: int | None) -> None:
    assert raw(number) == expected


def test_one_broken_place_does_not_cost_the_other() -> None:
    found = Meter("s", "t", ("structuredContent", "in"), ("_meta", "out"))
    assert tokens(b'{"structuredContent":[],"_meta":{"out":2}}', found) == (None, 2)


def test_what_is_large_is_opened_only_where_that_is_asked_for() -> None:
    result = json.dumps({"_meta": {"usage": {"in": 1, "out": 2}, "more": "x" * 2**20}}).encode()
    assert tokens(result) == (None, None)
    assert tokens(result, replace(METER, largest=2**21)) == (1, 2)


def test_deep_nesting_is_no_way_to_the_stack() -> None:
    assert raw(b"[" * 100_000 + b"]" * 100_000) is None


def money(value: int) -> Decimal:
    return Decimal(value).scaleb(-9)


def test_the_cost_of_the_contract() -> None:
    price = price_of(Decimal("0.001"), Decimal("3.00"), Decimal("15.00"))
    assert money(price.cost(1250, 487)) == Decimal("0.012055")
    assert price.cost(0, 0) == 1_000_000


def test_costs_are_those_of_decimals() -> None:
    dice = random.Random(7)

    def amount() -> Decimal:
        return Decimal(dice.randrange(10 ** dice.randrange(1, 13))).scaleb(-9)

    for _ in range(2000):
        prices: Any = [amount() for _ in range(3)]
        used = [dice.randrange(10 ** dice.randrange(1, 10)) for _ in range(2)]
        exact = prices[0] + prices[1] * used[0] / 10**6 + prices[2] * used[1] / 10**6
        expected = exact.quantize(Decimal("1e-9"), ROUND_HALF_UP)
        assert money(price_of(*prices).cost(*used)) == expected


def test_a_server_that_lies_about_tokens_makes_no_cost_that_a_column_cannot_hold() -> None:
    """`Decimal(18, 9)`: beyond it the archive would have none, and ClickHouse would refuse the whole batch."""
    dearest = price_of(Decimal(999_999_999), Decimal(10**14), Decimal(10**14))
    assert money(dearest.cost(MOST_TOKENS, MOST_TOKENS)) == Decimal("999999999.999999999")
    assert money(price_of(Decimal(999_999_999), Decimal(0), Decimal(0)).cost(5, 5)) == 999_999_999
