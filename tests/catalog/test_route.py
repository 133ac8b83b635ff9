"""The first arm whose match holds takes the call."""

from __future__ import annotations

from fastgw.catalog.route import Arm, Target, arm_for, arms_for
from fastgw.policy.match import ArgumentTest, Match, Principal
from fastgw.policy.patterns import Patterns

FAST, SAFE, REST = ((Target(name, "query", b'"query"'),) for name in ("fast", "safe", "rest"))
INTERNAL = Match(claims=(("tier", Patterns(["internal"])),))
STAGING = Match(arguments=(("env", ArgumentTest(Patterns(["staging"]))),))
ARMS = (Arm(INTERNAL, FAST), Arm(STAGING, SAFE), Arm(None, REST))


def test_an_arm_for_all_calls_ends_the_row() -> None:
    insider = arms_for(ARMS, Principal("a", {"tier": "internal"}), "/mcp")
    assert [arm.targets for arm in insider] == [FAST]
    assert arms_for(ARMS[:1], Principal("b"), "/mcp") == ()


def test_arguments_choose_when_the_call_comes() -> None:
    arms = arms_for(ARMS, Principal("b"), "/mcp")
    taken = [
        arm_for(arms, text) for text in (b'{"env":"staging"}', b'{"env":"x"}', b"", b'{"env":"x","env":"staging"}')
    ]
    assert [arm and arm.targets for arm in taken] == [SAFE, REST, REST, None]


def test_an_arm_looks_at_what_it_would_send() -> None:
    pinned = (Arm(STAGING, SAFE, fixed=(("env", b'"staging"'),)), Arm(None, REST))
    assert arm_for(pinned, b"{}") is pinned[0]
    assert arm_for(pinned, b'{"env":"x"}') is None  # no way round it: the argument is not the agent's to send
    usual = (Arm(STAGING, SAFE, defaults=(("env", b'"staging"'),)), Arm(None, REST))
    assert [arm_for(usual, text) for text in (b"", b'{"env":"x"}')] == list(usual)


def test_a_trace_says_of_each_arm_that_was_looked_at_why_it_is_not_taken() -> None:
    trace: list[list[str]] = []
    arms = arms_for((*ARMS, Arm(None, REST)), Principal("b"), "/mcp", trace)
    assert trace == [["claims.tier: it has no such claim"], [], []]
    assert arms_for((Arm(None, ()), Arm(None, REST)), Principal("b"), "/mcp", trace) == ()
    assert [len(why) for why in trace[3:]] == [1]
    for arguments, why in (
        (b"", [["arguments.env: does not match, or is missing"], []]),
        (b'{"env":"staging"}', [[]]),
        (b"[]", [["arguments: cannot be judged"]]),
    ):
        trace = []
        assert arm_for(arms, arguments, trace) is arm_for(arms, arguments)
        assert trace == why


def test_what_is_fixed_is_not_printed() -> None:
    assert "hunter2" not in repr(Arm(None, REST, fixed=(("key", b'"hunter2"'),)))
