"""`Server-Timing`: the steps by their names, in their order, where the endpoint has it; else no header and no clock."""

from __future__ import annotations

import re

import pytest

from fastgw.gateway.context import StepTimes
from tests.gateway.asking import INVOKE, ask, changed, sells
from tests.gateway.fakes import MODERN, MODERN_BUY, FakeAgent, bought, event, progress, request, staged
from tests.upstream.fakes import SSE, FakeAnswer, Sent, run

EARLY = ["accept", "identify", "read", "recognise"]
WHOLE = [*EARLY, "resolve", "authorise", "admit", "forward", "relay"]


def steps(agent: FakeAgent) -> dict[str, float]:
    """Of an answer: the step and its milliseconds."""
    entries = agent.headers[b"server-timing"].decode().split(", ")
    assert all(re.fullmatch(r"[a-z]+;dur=[0-9]+\.[0-9]{3}", entry) for entry in entries)
    return {name: float(took) for name, took in (entry.split(";dur=") for entry in entries)}


def test_every_step_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, MODERN)
            assert b"server-timing" not in agent.headers
            changed(stage, server_timing=True)
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, MODERN)
            assert list(steps(agent)) == WHOLE
            invoked = await ask(stage, INVOKE, b'{"n": 1}')
            assert list(steps(invoked)) == WHOLE
            unknown = FakeAgent(MODERN_BUY.replace(b'"buy"', b'"sell"'))
            await stage.ask(unknown, {**MODERN, "mcp-name": "sell"})
            assert list(steps(unknown)) == [*EARLY, "resolve"]
            wrong = FakeAgent(b"{")
            await stage.ask(wrong, MODERN)
            assert list(steps(wrong)) == EARLY
            listing = FakeAgent(request("tools/list"))
            await stage.ask(listing, await stage.initialize())
            assert list(steps(listing)) == [*EARLY, "resolve"]

    run(story())


def test_a_stream_says_what_was_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(sent: Sent) -> FakeAnswer:
        return FakeAnswer(headers=SSE, body=None, pieces=[progress(sent, 1), event(bought(sent))])

    async def story() -> None:
        async with staged(monkeypatch, handler) as stage:
            changed(stage, server_timing=True)
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, {**MODERN, "accept": "application/json, text/event-stream"})
            assert agent.headers[b"content-type"] == b"text/event-stream"
            assert list(steps(agent)) == WHOLE

    run(story())


def test_the_times_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0015, 10.002, 10.004, 10.0039])
    monkeypatch.setattr("fastgw.gateway.context.monotonic", lambda: next(clock))
    found = StepTimes(10.0)
    for step in ("identify", "read", "relay"):
        found.begin(step)
    assert found.header() == (
        b"server-timing",
        b"accept;dur=1.500, identify;dur=0.500, read;dur=2.000, relay;dur=0.000",
    )
