"""Which bucket a call counts in: by what is known of an agent, and never the same one for two different agents."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from fastgw.policy.bucket import BucketRate, bucket_rate
from fastgw.policy.limits import (
    LONGEST,
    CallSubject,
    Limit,
    Override,
    Subject,
    ToolPatterns,
    applying,
    override_table,
    shown,
)
from fastgw.policy.match import ArgumentTest, Claim, Match, Principal
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import UriRules

BOT = Principal("bot", {"team": "qa"}, user="ann")
CALL = CallSubject("tool", "deploy", "a", "own")
FEW, MORE, MOST = (bucket_rate(calls, 60, calls) for calls in (1, 2, 3))


def subject(*by: str, principal: Principal = BOT, call: CallSubject = CALL) -> Subject:
    return Limit("l", by).subject_reader("/mcp", call)(principal)


def of_claims(*values: Claim | None) -> Subject:
    """The bucket of somebody with these claims, by all of them."""
    keys = [f"c{at}" for at in range(len(values))]
    claims = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
    return subject(*(f"claims.{key}" for key in keys), principal=Principal("bot", claims))


# -- which bucket -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ((), ()),
        (("agent",), "bot"),
        (("tool",), "deploy"),
        (("server",), "a"),
        (("endpoint",), "/mcp"),
        (("user",), "ann"),
        (("claims.team",), "qa"),
        (("claims.none",), None),
        (("agent", "tool"), ("bot", "deploy")),
        (("tool", "agent", "claims.none"), ("deploy", "bot", None)),
    ],
)
def test_each_key(by: tuple[str, ...], found: Subject) -> None:
    assert subject(*by) == found


def test_whom_nobody_stands_behind_shares_a_bucket() -> None:
    assert subject("user", principal=Principal("x")) is None


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (CallSubject("tool", "x", "a", "x"), "x"),
        (CallSubject("prompt", "x", "a", "x"), "prompt:x"),
        (CallSubject("resource", "docs://1", "a", "docs://1"), None),
    ],
)
def test_what_a_tool_is_here(call: CallSubject, part: str | None) -> None:
    assert subject("tool", call=call) == part


def test_a_missing_claim_is_a_bucket_of_its_own() -> None:
    assert of_claims(None) is None
    assert len({of_claims(None), of_claims(""), of_claims("None"), of_claims("-")}) == 4


def test_a_list_counts_as_its_values_joined_with_commas() -> None:
    assert of_claims(("a", "b")) == of_claims("a,b") == "a,b"
    assert of_claims(("a",)) == "a"
    assert of_claims(("a", "b")) != of_claims(("b", "a"))


STRANGE: list[Claim | None] = [
    None, "", " ", "a", "b", "a b", "a,b", "{a}", "a}", "{", "a\n", "\na", "a\nb", "a\0", "a\\n", "ä", "a\u0308",
    "\uff41", "\ud800", '"a"', "'a'", ("a", "a"), "a:b", "a|b", "a/b", "a\x1f", "*", "x" * LONGEST, "x" * (LONGEST + 1),
    "x" * LONGEST + "y", "x" * 10_240, "x" * 10_239 + "y",
]  # fmt: skip


def test_no_two_values_meet_in_one_bucket() -> None:
    found = [of_claims(value) for value in STRANGE]
    assert len(set(found)) == len(STRANGE)


def test_no_two_pairs_meet_in_one_bucket() -> None:
    values = STRANGE[:12]
    pairs = [of_claims(one, other) for one in values for other in values]
    assert len(set(pairs)) == len(values) ** 2
    assert of_claims("a b", None) != of_claims("a", "b")
    assert of_claims("a", "b") != of_claims("b", "a")
    assert all(one != other for one, other in combinations([of_claims("a b"), of_claims("a", "b")], 2))


def test_ten_kilobytes_do_not_become_a_key() -> None:
    found = of_claims("x" * 10_240)
    assert isinstance(found, str) and len(found) <= LONGEST + 65
    assert found == of_claims("x" * 10_240), "the same on every worker"
    assert of_claims("x" * LONGEST) == "x" * LONGEST, "what is short is itself"
    name = subject("agent", principal=Principal("y" * 10_240))
    assert isinstance(name, str) and len(name) <= LONGEST + 65


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ("bot", "bot"),
        (None, "-"),
        ((), ""),
        (("a", None, "b"), "a - b"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
    ],
)
def test_it_is_shown_on_one_line(found: Subject, text: str) -> None:
    assert shown(found) == text


# -- which calls --------------------------------------------------------------------------------------------------


def only(*texts: str) -> Patterns:
    return Patterns(texts)


def reading(uri: str, own: str | None = None, *known_as: str) -> CallSubject:
    return CallSubject("resource", uri, "a", own or uri, known_as)


URIS = ToolPatterns((only(), only()), uris=UriRules(None, only("docs://secret/*", "b/docs://other")))


@pytest.mark.parametrize(
    ("call", "taken"),
    [
        (reading("docs://secret/1"), True),
        (reading("DOCS://secret/1"), True),
        (reading("docs://%73ecret/1"), True),
        (reading("docs://%2573ecret/1"), True),
        (reading("docs://secret/x/../1"), True),
        (reading("docs://secret/1#part"), True),
        (reading("docs://secret/1?x=1"), True),
        (reading("a+docs://secret/1", "docs://secret/1"), True),
        (reading("other://1", "other://1", "docs://secret/1"), True),
        (reading("docs://x", "docs://x", "docs://y"), False),
        (reading("docs://other"), False),
        (CallSubject("resource", "docs://other", "b", "docs://other"), True),
        (reading("docs://%" + "25" * 9 + "41"), True),
        (reading("docs://" + "x" * 9000), True),
        (reading("docs://secre\0t"), True),
        (reading("docs://public/%00"), True),
        (CallSubject("tool", "docs://secret/1", "a", "docs://secret/1"), False),
        (CallSubject("prompt", "docs://secret/1", "a", "docs://secret/1"), False),
    ],
)
def test_resources_in_every_spelling(call: CallSubject, taken: bool) -> None:
    """As hard to walk round as a deny: what cannot be told counts."""
    assert URIS.take(call) is taken


def test_patterns_of_tools_say_nothing_of_the_rest() -> None:
    tools = ToolPatterns((only("*"), only("*/*")))
    assert tools.take(CALL)
    assert not tools.take(CallSubject("prompt", "x", "a", "x"))
    assert not tools.take(reading("docs://x"))
    prompts = ToolPatterns((only(), only()), (only("x"), only("a/y")))
    assert prompts.take(CallSubject("prompt", "x", "b", "z"))
    assert prompts.take(CallSubject("prompt", "z", "a", "y"))
    assert not prompts.take(CallSubject("tool", "x", "a", "y"))


# -- whose calls --------------------------------------------------------------------------------------------------


def about(value: str) -> Match:
    return Match(arguments=(("env", ArgumentTest(only(value))),))


def rate(limit: Limit, arguments: bytes = b"", principal: Principal = BOT) -> BucketRate | None:
    """At what rate the call counts; None where it does not."""
    for one in applying([limit], principal, "/mcp"):
        if one.counts(arguments):
            return one.table_for(arguments).rate
    return None


def limited(match: Match | None = None, *overrides: tuple[Match, BucketRate]) -> Limit:
    return Limit(
        "l", match=match, rate=FEW, overrides=tuple(Override(*one, str(at)) for at, one in enumerate(overrides))
    )


@pytest.mark.parametrize(
    ("match", "counts"),
    [
        (None, True),
        (Match(agent=only("b*")), True),
        (Match(agent=only("x")), False),
        (Match(claims=(("team", only("qa")),)), True),
        (Match(claims=(("tier", only("*")),)), False),
        (Match(endpoint=only("/mcp/ops")), False),
        (Match(unless=Match(agent=only("bot"))), False),
        (Match(unless=Match(claims=(("tier", only("*")),))), True),
    ],
)
def test_match_and_except(match: Match | None, counts: bool) -> None:
    assert (rate(limited(match)) is not None) is counts


@pytest.mark.parametrize(
    ("match", "arguments", "counts"),
    [
        (about("prod"), b'{"env":"prod"}', True),
        (about("prod"), b'{"env":"test"}', False),
        (about("prod"), b"", False),
        (about("prod"), b'{"env":["prod"]}', True),
        (about("prod"), b'{"env":"test","env":"prod"}', True),
        (Match(unless=about("test")), b'{"env":"test"}', False),
        (Match(unless=about("test")), b'{"env":"prod"}', True),
        (Match(unless=about("test")), b"", True),
        (Match(unless=about("test")), b'{"env":["test"]}', True),
    ],
)
def test_what_cannot_be_judged_counts(match: Match, arguments: bytes, counts: bool) -> None:
    assert (rate(limited(match), arguments) is not None) is counts


def test_the_first_override_that_holds_is_taken() -> None:
    everybody, nobody = Match(agent=only("*")), Match(agent=only("x"))
    assert rate(limited()) == FEW
    assert rate(limited(None, (nobody, MORE))) == FEW
    assert rate(limited(None, (nobody, MORE), (everybody, MOST))) == MOST
    assert rate(limited(None, (everybody, MORE), (everybody, MOST))) == MORE


def test_where_it_cannot_be_judged_which_override_holds_the_slowest_of_all_counts() -> None:
    limit = limited(None, (about("prod"), MORE), (Match(agent=only("bot")), MOST))
    assert rate(limit, b'{"env":"prod"}') == MORE
    assert rate(limit, b'{"env":"test"}') == MOST
    for unclear in (b'{"env":["prod"]}', b'{"env":"test","env":"prod"}', b'{"env":"prod","Env":"x"}'):
        assert rate(limit, unclear) == MORE, "MORE may hold, else MOST: nobody gets the faster one by confusion"
        assert rate(limit, unclear, Principal("x")) == FEW, "MORE may hold, else FEW"


def test_a_name_holds_for_servers_own_names_too_so_that_no_collision_lifts_it() -> None:
    tools = ToolPatterns((Patterns(("echo",)), Patterns(())))
    assert tools.take(CallSubject("tool", "echo", "main", "echo"))
    assert tools.take(CallSubject("tool", "main__echo", "main", "echo"))
    assert not tools.take(CallSubject("tool", "other", "main", "other"))


def test_an_override_has_buckets_of_its_own() -> None:
    limit = limited(None, (about("prod"), MORE), (Match(agent=only("bot")), MOST))

    def table(arguments: bytes, agent: str) -> str:
        return applying([limit], Principal(agent), "/mcp")[0].table_for(arguments).table

    tables = [table(b'{"env":"prod"}', "bot"), table(b"", "bot"), table(b"", "x")]
    assert tables == [*(override_table(limit, one) for one in limit.overrides), "l"]
    assert len(set(tables)) == 3


def test_they_stay_in_order_and_those_of_others_fall_out() -> None:
    rows: list[dict[str, Any]] = [{}, {"match": Match(agent=only("x"))}, {"in_flight": 3}]
    found = applying([Limit(f"l{at}", **row) for at, row in enumerate(rows)], BOT, "/mcp")
    assert [one.limit.name for one in found] == ["l0", "l2"]
    assert found[0].match is None, "nothing is left to ask"
