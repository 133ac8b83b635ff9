"""When an issuer's keys are fetched, from where, how often, and how long they are used without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fastgw.auth import issuer_keys
from fastgw.auth.guarded_http import Document, FetchFailed
from fastgw.auth.issuer_keys import AHEAD, MOST_ASKED, IssuerKeys, KeySource, metadata_urls
from fastgw.errors import Fault, Kind
from tests.auth.signing import ISSUER, document, jwk

JWKS = f"{ISSUER}jwks"
DAY = 86_400.0


class Clock:
    """The time, as the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


class Scene:
    """Keys of one issuer, fetched from what stands in `pages`: a document, or why there is none."""

    def __init__(self, folder: Path, clock: Clock, jwks_url: str | None = JWKS) -> None:
        self.source = KeySource("login", ISSUER, jwks_url, DAY)
        self.pages: dict[str, bytes | str] = {JWKS: document(jwk())}
        self.max_age: float | None = None
        self.asked: list[str] = []
        self.named: set[frozenset[str]] = set()
        self.counted: list[tuple[str, ...]] = []
        self.told: list[dict[str, bytes]] = []
        self.clock = clock
        self.gate = asyncio.Event()
        self.gate.set()
        self.tasks: list[asyncio.Task[None]] = []
        self.keys = IssuerKeys(folder, _write, self.spawn, lambda *series: self.counted.append(series), self.fetch)
        self.keys.on_change = self.told.append
        self.keys.watch([self.source])

    def spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    async def fetch(self, url: str, named: frozenset[str]) -> Document:
        self.asked.append(url)
        self.named.add(named)
        await self.gate.wait()
        found = self.pages.get(url, "status 404")
        if isinstance(found, str):
            raise FetchFailed(f"{url}: {found}")
        return Document(found, self.max_age)

    @property
    def known(self) -> bytes:
        return self.keys.documents()[ISSUER]

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Later by so much; what became due meanwhile happens now."""
        self.clock.now += seconds
        watch = self.keys._watches[ISSUER]
        if watch._due <= self.clock.now and watch._task is not None:
            await watch._fetch_once()
        await self.settle()


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def play(folder: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[Scene], Awaitable[None]], **more: Any) -> None:
    clock = Clock()
    monkeypatch.setattr(issuer_keys, "time", clock)

    async def run() -> None:
        scene = Scene(folder, clock, **more)
        try:
            await story(scene)
        finally:
            scene.keys.watch([])
            await asyncio.gather(*scene.tasks, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize(("max_age", "pause"), [(None, 3600), (60, 300), (0, 300), (600, 600), (10**9, 86400)])
def test_they_are_fetched_ahead_of_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_age: float | None, pause: float
) -> None:
    async def story(scene: Scene) -> None:
        scene.max_age = max_age
        scene.keys.begin()
        await scene.settle()
        assert (scene.asked, scene.known) == ([JWKS], document(jwk()))
        await scene.pass_time(pause * AHEAD - 1)
        assert scene.asked == [JWKS]
        scene.pages[JWKS] = document(jwk(), jwk(name="b"))
        await scene.pass_time(2)
        assert scene.asked == [JWKS] * 2
        assert [found[ISSUER] for found in scene.told] == [b'{"keys":[]}', document(jwk()), scene.known]
        assert scene.counted == [("fastgw_issuer_key_fetches_total", "login", "ok")] * 2

    play(tmp_path, monkeypatch, story)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_where_they_are_the_issuers_metadata_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    issuer = "https://login.example.com/realms/one"
    urls = metadata_urls(issuer)
    assert urls == [
        "https://login.example.com/.well-known/oauth-authorization-server/realms/one",
        "https://login.example.com/realms/one/.well-known/openid-configuration",
        "https://login.example.com/.well-known/openid-configuration/realms/one",
    ]

    async def story(scene: Scene) -> None:
        source = scene.source._replace(url=issuer)
        scene.pages[urls[place]] = json.dumps({"issuer": issuer, "jwks_uri": "https://keys.example/jwks"}).encode()
        scene.pages["https://keys.example/jwks"] = document(jwk())
        scene.keys.watch([source])
        scene.keys.begin()
        await scene.settle()
        assert scene.asked == [*urls[: place + 1], "https://keys.example/jwks"]
        assert scene.named == {frozenset(("https://login.example.com:443",))}
        assert scene.keys.documents() == {issuer: document(jwk())}

    play(tmp_path, monkeypatch, story, jwks_url=None)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://login.example.com", "jwks_uri": JWKS},
        {"issuer": ISSUER.upper(), "jwks_uri": JWKS},
        {"jwks_uri": JWKS},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": 7},
        [],
        "text",
        None,
    ],
)
def test_metadata_of_somebody_else_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: Any
) -> None:
    async def story(scene: Scene) -> None:
        for url in metadata_urls(ISSUER):
            scene.pages[url] = json.dumps(metadata).encode()
        scene.keys.begin()
        await scene.settle()
        assert JWKS not in scene.asked
        assert scene.known == b'{"keys":[]}'

    play(tmp_path, monkeypatch, story, jwks_url=None)


def test_an_issuer_that_is_away_costs_nothing_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        scene.keys.begin()
        await scene.settle()
        for trouble in ("status 500", b"<html>", b'{"keys":[]}'):
            scene.pages[JWKS] = trouble
            await scene.pass_time(4000)
            assert scene.known == document(jwk())
        tried = len(scene.asked)
        await scene.pass_time(1)
        assert len(scene.asked) == tried  # the pauses grow
        scene.pages[JWKS] = document(jwk())
        await scene.pass_time(400)
        scene.pages[JWKS] = "away"
        await scene.pass_time(DAY - 1)
        assert scene.known == document(jwk())
        await scene.pass_time(301)
        assert scene.known == b'{"keys":[]}'
        assert scene.keys.gauges()["fastgw_issuer_keys", "login"] == 0

    play(tmp_path, monkeypatch, story)


def test_an_unknown_key_is_asked_for_once_in_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        scene.keys.begin()
        await scene.settle()
        scene.gate.clear()
        waiting = [asyncio.ensure_future(scene.keys.look_for(ISSUER, "b")) for _ in range(50)]
        await scene.settle()
        waiting[0].cancel()  # an agent that leaves takes nothing from the others
        scene.pages[JWKS] = document(jwk(), jwk(name="b"))
        scene.gate.set()
        assert len(await asyncio.gather(*waiting[1:])) == 49
        assert (len(scene.asked), scene.known) == (2, scene.pages[JWKS])
        for _ in range(5):
            await scene.keys.look_for(ISSUER, "c")
        assert len(scene.asked) == 3
        scene.clock.now += 61
        await scene.keys.look_for(ISSUER, "c")
        assert len(scene.asked) == 4
        await scene.keys.look_for("https://unknown.example", "c")

    play(tmp_path, monkeypatch, story)


def test_made_up_keys_do_not_make_many_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        scene.keys.begin()
        await scene.settle()
        for at in range(1000):
            await scene.keys.look_for(ISSUER, f"made-up-{at}")
        assert len(scene.asked) == 1 + MOST_ASKED
        scene.clock.now += 61
        await scene.keys.look_for(ISSUER, "b")
        scene.pages[JWKS] = "away"
        for kid in ("c", "c", None):
            with pytest.raises(Fault) as fault:
                await scene.keys.look_for(ISSUER, kid)
            assert (fault.value.kind, fault.value.retry_after) == (Kind.FULL, 5)

    play(tmp_path, monkeypatch, story)


def test_what_was_fetched_outlives_a_restart_as_long_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(scene: Scene) -> None:
        assert scene.known == b'{"keys":[]}'
        scene.keys.begin()
        await scene.settle()

    async def again(scene: Scene) -> None:
        assert (scene.known, scene.asked) == (document(jwk()), [])
        # Of another place it is not known whose keys these are; nor is what is too old, or spoiled, used.
        scene.keys.watch([scene.source._replace(jwks_url=None)])
        assert scene.known == b'{"keys":[]}'
        scene.keys.watch([scene.source._replace(stale=1.0)])
        scene.clock.now += 2
        scene.keys.watch([scene.source._replace(stale=1.5)])
        assert scene.known == b'{"keys":[]}'
        [file] = tmp_path.glob("*.json")
        for text in (b"", b"{}", b'{"keys":"e30=","fetched":1000}', b"[]", b'{"keys":7,"fetched":"x"}'):
            file.write_bytes(text)
            scene.keys.watch([scene.source._replace(stale=DAY + len(text))])
            assert scene.known == b'{"keys":[]}'

    play(tmp_path, monkeypatch, first)
    play(tmp_path, monkeypatch, again)


def test_an_issuer_that_is_taken_out_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        scene.keys.begin()
        await scene.settle()
        scene.keys.watch([])
        assert (scene.told[-1], scene.keys.gauges()) == ({}, {})
        scene.keys.watch([scene.source])
        await scene.settle()
        assert scene.known == document(jwk())

    play(tmp_path, monkeypatch, story)


def test_a_worker_may_ask_before_anything_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await scene.keys.look_for(ISSUER, "a")
        assert scene.known == document(jwk())

    play(tmp_path, monkeypatch, story)
