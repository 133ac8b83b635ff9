"""How an issuer is asked about opaque tokens, and how often."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp import web

from fastgw.auth import introspection
from fastgw.auth.introspection import KNOWN_FOR, MOST_AT_ONCE, REFUSED_FOR, Introspection, IntrospectionSource
from fastgw.errors import Fault, Kind
from tests.auth.test_guarded_http import serving

ISSUER = "https://login.example.com/"


class Issuer:
    """Answers `answer` to each question, once `gate` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: Any = {"active": True, "sub": "alice"}
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.headers["authorization"], form))
        await self.gate.wait()
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer, status=self.status)
        return web.json_response(self.answer, status=self.status)


def play(monkeypatch: pytest.MonkeyPatch, story: Callable[[Issuer, Introspection], Awaitable[None]]) -> list[Any]:
    """What was counted."""
    clock = SimpleNamespace(time=lambda: clock.now, monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(introspection, "time", clock)
    counted: list[Any] = []
    made: list[Issuer] = []

    async def handle(request: web.Request) -> web.Response:
        return await made[0].handle(request)

    async def run(url: str) -> None:
        made.append(Issuer())
        asking = Introspection(
            lambda work, _: asyncio.get_running_loop().create_task(work), lambda *series: counted.append(series)
        )
        asking.watch([IntrospectionSource("login", ISSUER, url, "fast gw", "s/ecret%")])
        await story(made[0], asking)

    serving(handle, run)
    return counted


def later(seconds: float) -> None:
    introspection.time.now += seconds  # type: ignore[attr-defined]


def test_what_is_asked_and_for_how_long_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(issuer: Issuer, asking: Introspection) -> None:
        said = orjson.loads(await asking.ask(ISSUER, b"opaque"))
        assert said == {"active": True, "sub": "alice", "known_until": 1000.0 + KNOWN_FOR}
        shown, form = issuer.asked[0]
        assert base64.b64decode(shown.removeprefix("Basic ")) == b"fast+gw:s%2Fecret%25"
        assert form == {"token": "opaque", "token_type_hint": "access_token"}
        later(KNOWN_FOR - 1)
        await asking.ask(ISSUER, b"opaque")
        assert len(issuer.asked) == 1
        later(1)
        issuer.answer = {"active": "true", "sub": "alice", "said": "x" * 1000}  # no boolean
        until = 1000.0 + KNOWN_FOR + REFUSED_FOR
        assert orjson.loads(await asking.ask(ISSUER, b"opaque")) == {"active": False, "known_until": until}
        later(REFUSED_FOR - 1)
        await asking.ask(ISSUER, b"opaque")
        assert len(issuer.asked) == 2
        asking.watch([])
        with pytest.raises(Fault):
            await asking.ask(ISSUER, b"opaque")

    counted = play(monkeypatch, story)
    assert counted == [("fastgw_introspections_total", "login", outcome) for outcome in ("active", "inactive")]


def test_one_question_is_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(issuer: Issuer, asking: Introspection) -> None:
        issuer.gate.clear()
        waiting = [asyncio.ensure_future(asking.ask(ISSUER, b"opaque")) for _ in range(20)]
        others = [asyncio.ensure_future(asking.ask(ISSUER, b"%d" % at)) for at in range(MOST_AT_ONCE)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        issuer.gate.set()
        assert len({*await asyncio.gather(*waiting[1:])}) == 1
        found = await asyncio.gather(*others, return_exceptions=True)
        assert [getattr(one, "kind", None) for one in found] == [None] * (MOST_AT_ONCE - 1) + [Kind.FULL]
        assert len(issuer.asked) == MOST_AT_ONCE

    play(monkeypatch, story)


def test_what_is_said_by_who_is_asked_no_more_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(issuer: Issuer, asking: Introspection) -> None:
        issuer.gate.clear()
        waiting = asyncio.ensure_future(asking.ask(ISSUER, b"opaque"))
        while not issuer.asked:
            await asyncio.sleep(0)
        asking.watch([IntrospectionSource("login", ISSUER, "http://127.0.0.1:9/", "a", "b")])
        issuer.gate.set()
        with pytest.raises(Fault) as fault:
            await waiting
        assert fault.value.kind is Kind.FULL

    play(monkeypatch, story)


@pytest.mark.parametrize(
    ("status", "answer"),
    [(500, {}), (401, {"active": True}), (302, b""), (200, b"<html>"), (200, []), (200, b"x" * 70_000)],
)
def test_an_issuer_that_does_not_answer_has_said_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, answer: Any
) -> None:
    async def story(issuer: Issuer, asking: Introspection) -> None:
        issuer.status, issuer.answer = status, answer
        with pytest.raises(Fault) as fault:
            await asking.ask(ISSUER, b"opaque")
        assert "s/ecret" not in caplog.text + str(fault.value)
        assert (fault.value.kind, fault.value.retry_after) == (Kind.FULL, 5)
        issuer.status, issuer.answer = 200, {"active": True}
        assert orjson.loads(await asking.ask(ISSUER, b"opaque"))["active"]

    assert ("fastgw_introspections_total", "login", "failed") in play(monkeypatch, story)
