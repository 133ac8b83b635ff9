"""What policies in shadow would change: the enforced ones beside all of them."""

from __future__ import annotations

import random

import pytest

from fastgw.policy.authorise import Policy, Rules, refused_by
from fastgw.policy.match import ArgumentTest, Match, Principal
from fastgw.policy.patterns import Patterns
from fastgw.policy.shadow import NONE_ALLOWS, judge_shadow, shadow_uris

ANN = Principal("ann", {"team": "qa"})
BOB = Match(agent=Patterns(["bob"]))
STAGING = Match(arguments=(("env", ArgumentTest(Patterns(["staging"]))),))
STAGED, OTHER = b'{"env":"staging"}', b'{"env":"x"}'
NAME, SOURCE = "deploy", "s/dep"
KNOWN = (NAME, SOURCE, "dep")


def allow(pattern: str, match: Match | None = None, *, shadow: bool = False, name: str = "yes") -> Policy:
    return Policy(name, match, (pattern,), (), shadow)


def deny(pattern: str, match: Match | None = None, *, shadow: bool = False, name: str = "no") -> Policy:
    return Policy(name, match, (), (pattern,), shadow)


def is_allowed(policies: list[Policy], arguments: bytes) -> bool:
    """As calls are decided where these policies are written."""
    rules = Rules(policies)
    decision = rules.judge(rules.about(NAME, (SOURCE,), KNOWN), (SOURCE,), rules.applying(ANN, "/mcp"))
    return decision is not None and refused_by(decision, arguments) is None


def otherwise(policies: list[Policy], arguments: bytes = b"{}") -> str | None:
    rules = Rules(policies)
    speaking, enforced = rules.about(NAME, (SOURCE,), KNOWN), rules.applying(ANN, "/mcp")
    verdict = judge_shadow(rules, speaking, (SOURCE,), enforced, rules.applying_with_shadow(ANN, "/mcp"))
    return None if verdict is None else verdict.otherwise(arguments, allowed=is_allowed(policies, arguments))


@pytest.mark.parametrize(
    ("policies", "arguments", "policy"),
    [
        ([allow("*"), deny("dep", shadow=True)], b"{}", "no"),
        ([allow("*"), deny("other", shadow=True)], b"{}", None),
        ([allow("*"), deny("*", BOB, shadow=True)], b"{}", None),
        ([deny("x"), allow("*"), deny("*", STAGING, shadow=True, name="late")], STAGED, "late"),
        ([allow("*"), deny("*", STAGING, shadow=True)], OTHER, None),
        ([allow("*"), deny("*", STAGING, shadow=True)], b"[]", "no"),
        ([allow("*", STAGING), deny("deploy", shadow=True)], STAGED, "no"),
        ([allow("*", STAGING), deny("deploy", shadow=True)], OTHER, None),
        # a wider allow
        ([allow("x"), allow("s/*", shadow=True, name="wide")], b"{}", "wide"),
        ([allow("x"), allow("*", STAGING, shadow=True, name="wide")], STAGED, "wide"),
        ([allow("x"), allow("*", STAGING, shadow=True)], OTHER, None),
        ([allow("*", STAGING), allow("*", shadow=True, name="wide")], OTHER, "wide"),
        ([allow("*", STAGING), allow("*", shadow=True)], STAGED, None),
        ([allow("*"), deny("*"), allow("*", shadow=True)], b"{}", None),
        ([allow("*"), allow("deploy", shadow=True)], b"{}", None),
        # nothing enforced: everything is allowed
        ([allow("deploy", shadow=True)], b"{}", None),
        ([allow("other", shadow=True)], b"{}", NONE_ALLOWS),
        ([allow("*", BOB, shadow=True)], b"{}", NONE_ALLOWS),
        ([allow("*", shadow=True), deny("dep", shadow=True)], b"{}", "no"),
        ([allow("*", STAGING, shadow=True)], OTHER, "yes"),
    ],
)  # fmt: skip
def test_who_would_decide_otherwise(policies: list[Policy], arguments: bytes, policy: str | None) -> None:
    assert otherwise(policies, arguments) == policy


def test_it_is_what_enforcing_all_of_them_would_do() -> None:
    dice, differing = random.Random(5), 0
    for _ in range(3000):
        policies = [
            dice.choice([allow, allow, deny])(
                dice.choice(["*", "deploy", "s/*", "dep", "other"]),
                dice.choice([None, None, STAGING, BOB, Match(unless=STAGING)]),
                shadow=dice.random() < 0.5,
                name=f"p{at}",
            )
            for at in range(dice.randint(1, 4))
        ]
        everything = [Policy(one.name, one.match, one.allow, one.deny) for one in policies]
        for arguments in (b"", STAGED, OTHER, b"[]"):
            named = otherwise(policies, arguments)
            assert (named is not None) == (is_allowed(policies, arguments) != is_allowed(everything, arguments))
            if named is not None:
                differing += 1
                assert named == NONE_ALLOWS or next(one for one in policies if one.name == named).shadow
    assert differing > 500


@pytest.mark.parametrize(
    ("policies", "uri", "policy"),
    [
        ([allow("resource:*"), deny("resource:x:*", shadow=True)], "x:1", "no"),
        ([allow("resource:*"), deny("resource:x:*", shadow=True)], "y:1", None),
        ([allow("resource:x:*"), allow("resource:y:*", shadow=True, name="wide")], "y:1", "wide"),
        ([allow("resource:x:*"), allow("resource:y:*", STAGING, shadow=True)], "y:1", None),
        ([allow("resource:x:*", shadow=True)], "y:1", NONE_ALLOWS),
        ([allow("resource:x:*", shadow=True)], "x:1", None),
        ([allow("resource:*", shadow=True), deny("resource:y:*", shadow=True)], "y:1", "no"),
    ],
)  # fmt: skip
def test_who_would_decide_otherwise_of_a_uri(policies: list[Policy], uri: str, policy: str | None) -> None:
    rules = Rules(policies)
    enforced, every = rules.applying(ANN, "/mcp"), rules.applying_with_shadow(ANN, "/mcp")
    allowed, found = rules.uri_rules(enforced).permit(uri, "s", uri), shadow_uris(rules, enforced, every)
    assert (found and found.otherwise(lambda some: some.permit(uri, "s", uri), allowed=allowed)) == policy
