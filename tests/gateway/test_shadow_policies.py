"""What policies in shadow would change is counted each time, and logged once in a while."""

from __future__ import annotations

import logging

import pytest

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import modern
from fastgw.gateway.shadow_policies import MOST, QUIET, ShadowCounts
from fastgw.policy.authorise import FREE
from fastgw.policy.match import Principal
from fastgw.policy.shadow import ShadowRules, ShadowVerdict
from fastgw.protocol.call import Call
from fastgw.telemetry.counters import Counters
from tests.snapshot.compiling import compiled

SNAPSHOT = compiled({"a": ["x"]})
SHADOW = ShadowRules(tools={"x": ShadowVerdict(None, "stop"), "y": ShadowVerdict(FREE, "wide")})


def context(tool: str = "x", now: float = 0.0, agent: str = "bot", method: str = "tools/call") -> RequestContext:
    found = RequestContext("req_1", SNAPSHOT, SNAPSHOT.endpoints["/mcp"], modern.DIALECT, {}, frozenset(), now)
    found.call, found.principal, found.method = Call(b"1", method, "", tool), Principal(agent), method
    return found


def counted(counters: Counters) -> dict[tuple[str, ...], float]:
    return {tuple(key): count for key, count in counters.counts.items() if count and "shadow" in key[0]}


def test_each_call_is_counted_and_the_same_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastgw")
    counters = Counters()
    counts = ShadowCounts(counters)
    for now in (0.0, 1.0, QUIET - 1, QUIET, QUIET + 1):
        counts.note_allowed(context(now=now), SHADOW)
    counts.note_allowed(context(agent="other\n"), SHADOW)
    assert counted(counters) == {("fastgw_policy_shadow_calls_total", "stop", "refuse"): 6}
    assert len(caplog.messages) == 3
    assert "would refuse tools/call of 'x' by agent 'other\\n'" in caplog.messages[-1]


def test_more_agents_than_are_remembered_are_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastgw")
    counters = Counters()
    counts = ShadowCounts(counters)
    for number in range(MOST + 50):
        counts.note_allowed(context(agent=f"a{number}"), SHADOW)
    assert len(caplog.messages) == MOST
    counts.note_allowed(context(agent="late", now=QUIET), SHADOW)
    assert len(caplog.messages) == MOST + 1, "the others are forgotten by then"
    assert sum(counted(counters).values()) == MOST + 51


def test_what_is_refused_for_other_reasons_would_not_be_let_through() -> None:
    counters = Counters()
    counts = ShadowCounts(counters)
    for kind in (Kind.BAD_PARAMS, Kind.RATE_LIMITED, Kind.UNKNOWN_METHOD):
        counts.note_refused(context("y"), SHADOW, Fault(kind))
    for tool in ("x", "z"):
        counts.note_refused(context(tool), SHADOW, Fault(Kind.UNKNOWN_NAME))
    no_arm = context("y")
    no_arm.grant = SNAPSHOT.endpoints["/mcp"].views[0].grants["x"]
    counts.note_refused(no_arm, SHADOW, Fault(Kind.UNKNOWN_NAME))
    counts.note_refused(context("y", method="completion/complete"), SHADOW, Fault(Kind.UNKNOWN_NAME))
    assert counted(counters) == {}
    counts.note_refused(context("y"), SHADOW, Fault(Kind.UNKNOWN_NAME))
    assert counted(counters) == {("fastgw_policy_shadow_calls_total", "wide", "allow"): 1}
