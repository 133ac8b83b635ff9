"""From `limits`, `failed_credentials` and `weight` in the file to what requests look up."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from fastgw.config.rules import failed_credentials_of, limits_of
from fastgw.config.schema.settings import Settings
from fastgw.policy.bucket import bucket_rate
from fastgw.policy.limits import CallSubject, Limit, ToolPatterns, applying
from fastgw.policy.match import Principal
from fastgw.snapshot.codec import EncodedSnapshot, SnapshotDecoder
from fastgw.snapshot.model import Snapshot
from tests.snapshot.compiling import compiled, prompts, view

MINUTE, HOUR = 60, 3600


def limit(**keys: Any) -> Limit:
    found = limits_of(Settings.model_validate({"limits": [{"name": "l", **keys}]}))
    assert len(found) == 1
    return found[0]


def taking(*texts: str) -> ToolPatterns:
    tools = limit(rate="1/minute", tools=list(texts)).tools
    assert tools is not None
    return tools


# -- rate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "calls", "seconds", "burst"),
    [
        ({"rate": "100/minute"}, 100, MINUTE, 100),
        ({"rate": "6/hour", "burst": 2}, 6, HOUR, 2),
        ({"rate": "7/second", "burst": 700}, 7, 1, 700),
        ({"rate": "1/day"}, 1, 86400, 1),
        ({"rate": "1000000/second", "burst": 1_000_000_000}, 1_000_000, 1, 1_000_000_000),
    ],
)
def test_rate_and_burst(keys: dict[str, Any], calls: int, seconds: int, burst: int) -> None:
    found = limit(**keys)
    assert found.rate == bucket_rate(calls, seconds, burst)
    assert found.rate is not None and found.rate.burst == burst


def test_what_is_not_said() -> None:
    assert limit(rate="5/minute") == Limit("l", rate=bucket_rate(5, MINUTE, 5))
    assert limit(in_flight=3) == Limit("l", in_flight=3)


def test_what_is_said() -> None:
    found = limit(
        rate="5/minute", in_flight=2, by=["agent", "claims.team"], exact=True, on_store_failure="deny", mode="shadow"
    )
    assert (found.by, found.in_flight, found.exact) == (("agent", "claims.team"), 2, True)
    assert (found.on_failure, found.shadow) == ("deny", True)
    assert limit(rate="5/minute", by="agent").by == ("agent",)


def test_overrides_keep_what_they_do_not_say() -> None:
    overrides = [
        {"match": {"agent": "a"}, "rate": "200/minute"},
        {"match": {"agent": "b"}, "burst": 7},
        {"match": {"agent": "c"}, "rate": "3/hour", "burst": 9},
    ]
    found = limit(rate="100/minute", burst=20, overrides=overrides)
    assert [one.rate for one in found.overrides] == [
        bucket_rate(200, MINUTE, 200),
        bucket_rate(100, MINUTE, 7),
        bucket_rate(3, HOUR, 9),
    ]
    assert [one.match.for_class(Principal("b"), "/mcp") is not None for one in found.overrides] == [False, True, False]


def test_wrong_credentials() -> None:
    assert failed_credentials_of(Settings()) == bucket_rate(100, MINUTE, 100)
    assert failed_credentials_of(Settings.model_validate({"failed_credentials": "5/hour"})) == bucket_rate(5, HOUR, 5)
    assert failed_credentials_of(Settings.model_validate({"failed_credentials": "off"})) is None


# -- whose calls, and which ---------------------------------------------------------------------------------------


def test_match_and_except() -> None:
    found = limit(rate="1/minute", match={"claims": {"team": "qa"}}, **{"except": {"agent": "x"}})

    def counts(agent: str, team: str) -> bool:
        return bool(applying([found], Principal(agent, {"team": team}), "/mcp"))

    assert [counts("y", "qa"), counts("x", "qa"), counts("y", "ops")] == [True, False, False]


def tool(name: str, server: str = "a", own: str | None = None) -> CallSubject:
    return CallSubject("tool", name, server, own or name)


@pytest.mark.parametrize(
    ("texts", "subject", "taken"),
    [
        (["export-*"], tool("export-all"), True),
        (["export-*"], tool("all", own="export-all"), True),
        (["export-*"], tool("all", own="all"), False),
        (["a/*"], tool("anything"), True),
        (["a/*"], tool("anything", "b"), False),
        (["a/own"], tool("shown", own="own"), True),
        (["*"], tool("x"), True),
        (["*"], CallSubject("prompt", "x", "a", "x"), False),
        (["*"], CallSubject("resource", "docs://x", "a", "docs://x"), False),
        (["prompt:re*"], CallSubject("prompt", "report", "a", "report"), True),
        (["prompt:re*"], tool("report"), False),
        (["prompt:a/*"], CallSubject("prompt", "b__report", "b", "report"), False),
        (["prompt:a/*"], CallSubject("prompt", "a__report", "a", "report"), True),
        (["resource:docs://*"], CallSubject("resource", "docs://x", "a", "docs://x"), True),
        (["resource:a/docs://*"], CallSubject("resource", "a+docs://x", "a", "docs://x"), True),
        (["resource:a/docs://*"], CallSubject("resource", "b+docs://x", "b", "docs://x"), False),
        (["resource:docs://*"], tool("docs://x"), False),
    ],
)
def test_tools(texts: Sequence[str], subject: CallSubject, taken: bool) -> None:
    assert taking(*texts).take(subject) is taken


def test_without_tools_everything_counts() -> None:
    assert limit(rate="1/minute").tools is None


# -- weights ------------------------------------------------------------------------------------------------------


def weights(snapshot: Snapshot) -> dict[str, list[int]]:
    return {name: [arm.weight for arm in grant.arms] for name, grant in view(snapshot).grants.items()}


def test_the_nearest_weight_holds() -> None:
    tools = {
        "*": {"weight": 2},
        "b*": {"weight": 3},
        "bb": {"weight": 4},
        "s/bc": {"weight": 0},
        "bd": {"timeout": "1s"},
    }
    assert weights(compiled({"s": ["a", "bb", "bc", "bd"]}, tools=tools)) == {"bb": [4], "bd": [3], "a": [2], "bc": [0]}
    assert weights(compiled({"s": ["a"]})) == {"a": [1]}


def test_each_arm_weighs_what_its_own_tool_does() -> None:
    route = [{"match": {"arguments": {"x": 1}}, "to": "s/a"}, {"to": "s/b"}]
    tools: dict[str, Any] = {"go": {"route": route}, "s/a": {"weight": 9}}
    assert weights(compiled({"s": ["a", "b"]}, tools=tools)) == {"go": [9, 1]}


def test_what_else_is_said_of_a_tool_leaves_its_weight() -> None:
    tools = {"a": {"weight": 5, "fixed": {"x": 1}, "defaults": {"y": 2}, "validate": "arguments"}}
    found = compiled({"s": ["a"]}, tools=tools)
    arm = view(found).grants["a"].arms[0]
    assert (arm.weight, arm.fixed, arm.checks is not None) == (5, (("x", b"1"),), True)


def test_prompts_weigh_one() -> None:
    found = compiled({"s": {"prompts": ["p"], "capabilities": ["prompts"]}}, tools={"*": {"weight": 7}})
    assert prompts(found) == ["p"]
    assert [arm.weight for arm in view(found).prompts["p"].arms] == [1]


# -- the snapshot -------------------------------------------------------------------------------------------------

LIMITS = [
    {"name": "all", "rate": "7/minute", "overrides": {"match": {"agent": "x", "arguments": {"n": 1}}, "burst": 3}},
    {"name": "some", "in_flight": 2, "tools": ["a/*", "x", "prompt:y", "resource:docs://*"], "by": ["agent", "tool"]},
]


def test_the_snapshot_has_them_and_travels_with_them() -> None:
    snapshot = compiled({"s": ["a"]}, limits=LIMITS, failed_credentials="5/minute")
    assert [one.name for one in snapshot.limits] == ["all", "some"]
    assert snapshot.failed_credentials == bucket_rate(5, MINUTE, 5)
    copy = pickle.loads(pickle.dumps(snapshot))
    assert (copy.limits, copy.failed_credentials) == (snapshot.limits, snapshot.failed_credentials)
    assert copy.limits[1].tools.take(CallSubject("resource", "docs://%61", "s", "docs://a"))


def test_the_parts_bring_them() -> None:
    before = EncodedSnapshot(1, compiled({"s": ["a"]}))
    after = EncodedSnapshot(2, compiled({"s": ["a"]}, limits=LIMITS, failed_credentials="off"), before)
    decoder, found = SnapshotDecoder(), []
    for encoded in (before, after):
        for key, text in encoded.lacked(decoder.parts):
            list(decoder.take(key, text))
        found.append(decoder.whole(encoded.root, ())[0])
    assert [len(one.limits) for one in found] == [0, 2]
    assert [one.failed_credentials is None for one in found] == [False, True]
    assert found[1].limits == compiled({"s": ["a"]}, limits=LIMITS, failed_credentials="off").limits


def test_an_override_keeps_its_buckets_wherever_it_stands() -> None:
    gold, bot = ({"match": {"claims": {"tier": "gold"}}, "burst": 9}, {"match": {"agent": "bot"}, "rate": "9/hour"})
    alone, behind = (limit(rate="1/minute", overrides=rows).overrides for rows in ([gold], [bot, gold]))
    assert alone[0].key == behind[1].key != behind[0].key
    slower = limit(rate="1/minute", overrides=[{**gold, "burst": 3}]).overrides
    assert slower[0].key == alone[0].key, "a reload that changes its rate keeps what is left in its buckets"
