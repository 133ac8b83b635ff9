"""Fixed and default arguments: filled in, and nothing of the agent's own touched."""

from __future__ import annotations

import pytest

from fastgw.catalog.route import filled
from fastgw.protocol.envelope import NotAMessage, NotJson

EU = (("region", b'"eu"'),)
LIMIT = (("limit", b"10"),)


@pytest.mark.parametrize("nothing", [b"", b"null", b"{}", b"{ }"])
def test_a_call_without_arguments_gets_both(nothing: bytes) -> None:
    assert filled(nothing, EU, LIMIT) == b'{"limit":10,"region":"eu"}'


def test_the_agents_own_values_stay_byte_for_byte() -> None:
    given = b'{"n":123456789012345678901234567890.10,"t":"\\u00e9\\/","o":{ "a" : [ 1 ] }}'
    assert filled(given, EU, ()) == given[:-1] + b',"region":"eu"}'


def test_a_default_gives_way_even_to_null() -> None:
    assert filled(b'{"limit":99}', (), LIMIT) == b'{"limit":99}'
    assert filled(b'{"limit":null}', (), LIMIT) == b'{"limit":null}'


def test_fixed_beats_default() -> None:
    assert filled(b"{}", EU, (("region", b'"us"'),)) == b'{"region":"eu"}'


@pytest.mark.parametrize("name", ["region", "Region", "REGION", "\\u0072egion"])
def test_a_fixed_argument_is_no_argument(name: str) -> None:
    with pytest.raises(NotAMessage, match="there is no argument"):
        filled(f'{{"{name}":"us"}}'.encode(), EU, ())


@pytest.mark.parametrize("twice", [b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}'])
def test_twins_are_refused(twice: bytes) -> None:
    with pytest.raises(NotAMessage, match="twice"):
        filled(twice, EU, ())


@pytest.mark.parametrize("strange", [b"[]", b'"x"', b"5"])
def test_what_is_no_object_is_refused(strange: bytes) -> None:
    with pytest.raises(NotAMessage):
        filled(strange, (), LIMIT)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(NotJson):
        filled(b'{"a":', EU, ())
