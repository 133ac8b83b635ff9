"""Who may use what: every policy that matches applies, one deny beats every allow."""

from __future__ import annotations

from fastgw.policy.authorise import FREE, Decision, Policy, Rules, refused_by
from fastgw.policy.match import ArgumentTest, Match, Principal
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import ANY_URI

ANN = Principal("ann", {"team": "qa"})
QA = Match(claims=(("team", Patterns(["qa"])),))


def staging(value: str = "staging") -> Match:
    return Match(arguments=(("environment", ArgumentTest(Patterns([value]))),))


def verdict(
    policies: list[Policy] | None, name: str = "deploy", sources: tuple[str, ...] = ("s/dep",)
) -> Decision | None:
    rules = Rules(policies)
    known = (name, *sources, *(source.partition("/")[2] for source in sources))
    return rules.judge(rules.about(name, sources, known), sources, rules.applying(ANN, "/mcp"))


def allow(*patterns: str, match: Match | None = None) -> Policy:
    return Policy("yes", match, patterns, ())


def deny(*patterns: str, match: Match | None = None) -> Policy:
    return Policy("no", match, (), patterns)


def test_without_policies_everything_with_none_nothing() -> None:
    assert verdict(None) is FREE
    assert verdict([]) is None


def test_an_allow_is_tried_on_the_exposed_name() -> None:
    assert verdict([allow("dep*", match=QA)]) is FREE
    assert verdict([allow("dep")]) is None
    assert verdict([allow("prompt:deploy", "resource:*")]) is None
    assert verdict([allow("*", match=Match(agent=Patterns(["bob"])))]) is None


def test_an_allow_with_a_slash_must_fit_every_target() -> None:
    assert verdict([allow("s/*")]) is FREE
    assert verdict([allow("s/*")], sources=("s/dep", "t/dep")) is None
    assert verdict([allow("s/*"), allow("t/dep")], sources=("s/dep", "t/dep")) is FREE


def test_a_deny_is_tried_on_every_name_and_beats_every_allow() -> None:
    for pattern in ("deploy", "s/*", "dep", "d?p"):
        assert verdict([allow("*"), deny(pattern)]) is None
    assert verdict([allow("*"), deny("prompt:*")]) is FREE


def test_a_shadow_policy_is_not_enforced() -> None:
    shadow = Policy("soon", None, (), ("*",), shadow=True)
    assert verdict([allow("*"), shadow]) is FREE
    assert verdict([Policy("soon", None, ("*",), (), shadow=True), allow("other")]) is None


def test_where_all_policies_are_in_shadow_everything_is_allowed() -> None:
    rules = Rules([Policy("soon", None, ("other", "resource:x:*"), ("deploy",), shadow=True)])
    assert verdict(list(rules.policies or ())) is FREE
    assert rules.uri_rules(rules.applying(ANN, "/mcp")) is ANY_URI


def granted(found: Decision | None) -> Decision:
    assert found is not None
    return found


def test_an_allow_with_arguments_lists_the_tool_and_waits() -> None:
    grant = granted(verdict([allow("*", match=staging())]))
    assert refused_by(grant, b'{"environment":"staging"}') is None
    for arguments in (
        b'{"environment":"production"}',
        b"{}",
        b"",
        b"[]",
        b'{"environment":"staging","environment":"p"}',
    ):
        assert refused_by(grant, arguments) == "yes"


def test_a_deny_with_arguments_keeps_it_listed_and_fails_closed() -> None:
    grant = granted(verdict([allow("*"), deny("dep", match=staging("production"))]))
    assert grant.allowed
    assert refused_by(grant, b'{"environment":"staging"}') is None
    assert refused_by(grant, b"{}") is None
    for arguments in (b'{"environment":"production"}', b'"x"', b'{"environment":"a","environment":"production"}'):
        assert refused_by(grant, arguments) == "no"


def test_an_outright_allow_needs_no_other() -> None:
    assert verdict([allow("*"), allow("*", match=staging())]) is FREE


def test_a_deny_with_arguments_alone_allows_nothing() -> None:
    assert verdict([deny("*", match=staging())]) is None


def test_prompts_have_patterns_of_their_own() -> None:
    policies = [allow("*"), allow("prompt:sum*", "prompt:s/own"), deny("prompt:t/*")]
    rules, applying = Rules(policies, "prompt:"), Rules(policies).applying(ANN, "/mcp")

    def judged(name: str, source: str) -> Decision | None:
        known = (name, source, source.partition("/")[2])
        return rules.judge(rules.about(name, (source,), known), (source,), applying)

    assert judged("summary", "s/summary") is FREE
    assert judged("moved", "s/own") is FREE
    assert judged("summary", "t/summary") is None
    assert judged("other", "s/other") is None


def test_resources_have_rules_by_class_and_equal_classes_have_equal_ones() -> None:
    policies = [
        allow("*", "resource:help://*"),
        deny("resource:help://secret*", match=QA),
        allow("resource:x:1", match=QA),
    ]
    rules = Rules(policies)
    anyone, qa = (rules.uri_rules(rules.applying(who, "/mcp")) for who in (Principal("bob"), ANN))
    assert anyone.permit("help://secret", "s", "help://secret")
    assert not anyone.permit("x:1", "s", "x:1")
    assert not qa.permit("help://secret", "s", "help://secret")
    assert qa.permit("x:1", "s", "x:1")
    assert rules.uri_rules(rules.applying(Principal("eve", {"team": "x"}), "/mcp")) == anyone


def test_without_policies_every_resource_and_with_none_about_them_not_one() -> None:
    applying = Rules(None).applying(ANN, "/mcp")
    assert Rules(None).uri_rules(applying) is ANY_URI
    rules = Rules([allow("*"), deny("x")])
    assert not rules.uri_rules(rules.applying(ANN, "/mcp")).permit("x:1", "s", "x:1")


def test_a_policy_that_looks_at_arguments_says_nothing_of_resources() -> None:
    rules = Rules([allow("resource:*", match=staging()), deny("resource:*", match=staging()), allow("resource:x:*")])
    found = rules.uri_rules(rules.applying(ANN, "/mcp"))
    assert found.permit("x:1", "s", "x:1")
    assert not found.permit("y:1", "s", "y:1")


def test_a_shadow_policy_says_nothing_of_resources() -> None:
    rules = Rules([allow("resource:*"), Policy("soon", None, (), ("resource:*",), shadow=True)])
    assert rules.uri_rules(rules.applying(ANN, "/mcp")).permit("x:1", "s", "x:1")
