"""Who calls, by an access token: what is remembered of it, and what changes while it is being found out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastgw.config.schema.settings import Settings
from fastgw.errors import Fault, Kind
from fastgw.gateway.admission import Limiter
from fastgw.gateway.context import RequestContext
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.pipeline import identify
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.policy.match import Principal
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from tests.auth.signing import ISSUER, NOW, document, jwk, token
from tests.snapshot.compiling import HASH

POLICIES = [{"name": "red", "match": {"claims": {"team": ["test", "red"]}}, "allow": ["*"]}]
IDENTITY = {"login": {"issuer": ISSUER, "claims": {"team": "team"}}}


class Scene:
    """A worker's gateway, and the controller that its questions go to."""

    def __init__(self) -> None:
        tasks, counters = BackgroundTasks(), Counters()
        self.gateway = Gateway(self, counters, tasks, Limiter(MemoryBuckets(), counters))  # type: ignore[arg-type]
        self.asked: list[Any] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.generation = 0
        self.strangers: list[Principal] = []
        self.gateway.issuer_keys({ISSUER: document(jwk())})

    def load(self, **keys: Any) -> Snapshot:
        usual = {"public_url": "http://localhost:8080", "identity": IDENTITY, "policies": POLICIES}
        settings = Settings.model_validate({**usual, **keys})
        self.generation += 1
        cache = CompileCache(settings)
        cache.strangers = {"/mcp": self.strangers}
        made = compile_snapshot(settings, Learned(seal_keys=(b"k" * 32,)), self.generation, cache)[0]
        self.gateway.load(made)
        self.gateway.activate(self.generation)
        return made

    def alert(self, *_: Any) -> None:
        """Nobody is warned."""

    async def look_for_key(self, issuer: str, kid: str | None) -> None:
        self.asked.append(kid)
        self.meanwhile()

    async def meet(self, path: str, principal: Principal) -> None:
        self.asked.append(principal.agent)
        self.strangers.append(principal)
        self.meanwhile()

    async def show(self, shown: bytes, now: float = NOW) -> RequestContext:
        return await self.come([(b"authorization", b"Bearer " + shown)], now=now)

    async def come(self, lines: list[tuple[bytes, bytes]], peer: str = "", now: float = NOW) -> RequestContext:
        """A request with these headers, from this address."""
        scope = {"headers": [(b"host", b"localhost"), *lines], "client": (peer, "1") if peer else None}
        context = self.gateway.begin(scope)
        try:
            context.endpoint, context.timestamp = context.snapshot.endpoints["/mcp"], now
            waiting = identify(self.gateway, context)
            if waiting is not None:
                await waiting
        finally:
            self.gateway.end(context)
        return context


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        scene = Scene()
        try:
            await story(scene)
        finally:
            await scene.gateway.close()

    asyncio.run(run())


def test_the_first_of_a_class_waits_for_it_and_is_remembered() -> None:
    async def story(scene: Scene) -> None:
        scene.load()
        scene.meanwhile = scene.load
        first = await scene.show(token())
        assert (first.principal.agent, first.snapshot.generation) == ("login:alice", 2)
        assert first.view is first.snapshot.endpoints["/mcp"].view_for(first.principal)
        again = await scene.show(token())
        assert again.access is first.access
        other = await scene.show(token({"sub": "bob"}))
        assert (other.principal.agent, other.view) == ("login:bob", first.view)
        assert scene.asked == ["login:alice"]
        assert scene.gateway.listed(other) is other.view

    play(story)


def test_what_was_found_out_of_an_older_configuration_is_not_remembered() -> None:
    async def story(scene: Scene) -> None:
        scene.load()

        def changed() -> None:
            scene.gateway.issuer_keys({ISSUER: document(jwk(), jwk(name="new"))})
            scene.load(identity={"other": {"issuer": "https://other.example/"}})

        scene.strangers.append(Principal("login:x", {"team": "test"}, "login", None, frozenset()))
        scene.load()
        scene.meanwhile = changed
        context = await scene.show(token(name="new"))
        assert context.principal.agent == "login:alice"  # it came while that was in force
        assert not scene.gateway.known_agents
        with pytest.raises(Fault) as fault:
            await scene.show(token(name="new"))
        assert fault.value.kind is Kind.WRONG_CREDENTIAL

    play(story)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"identity": {"other": {"issuer": "https://other.example/"}}}, Kind.FULL),
        ({"endpoints": {"/elsewhere": {}}}, Kind.NO_ENDPOINT),
        ({}, None),
    ],
)
def test_a_configuration_that_changes_while_a_class_is_made(keys: dict[str, Any], kind: Kind | None) -> None:
    async def story(scene: Scene) -> None:
        scene.load()
        scene.meanwhile = lambda: scene.load(**keys)
        if kind is None:
            assert (await scene.show(token())).view is not None
            return
        with pytest.raises(Fault) as fault:
            await scene.show(token())
        assert fault.value.kind is kind
        assert not scene.gateway.known_agents

    play(story)


def test_a_token_is_let_in_no_longer_than_it_is_good() -> None:
    async def story(scene: Scene) -> None:
        scene.load(policies=None)
        access = (await scene.show(token())).access
        assert access is not None
        assert access.expires == NOW + 330
        assert (await scene.show(token(), now=NOW + 329.9)).access is access
        with pytest.raises(Fault) as fault:
            await scene.show(token(), now=NOW + 330)
        assert fault.value.kind is Kind.UNAUTHENTICATED

    play(story)


def test_a_key_that_is_gone_has_signed_nothing() -> None:
    async def story(scene: Scene) -> None:
        scene.load(policies=None)
        await scene.show(token())
        scene.gateway.issuer_keys({ISSUER: document(jwk(), jwk(name="new"))})
        assert scene.gateway.known_agents
        scene.gateway.issuer_keys({ISSUER: document(jwk(name="new"))})
        assert not scene.gateway.known_agents

    play(story)


@pytest.mark.parametrize("change", ["key", "claims", "audience"])
def test_what_changes_while_a_class_is_made_is_not_remembered_as_it_was(change: str) -> None:
    async def story(scene: Scene) -> None:
        scene.load()

        def changed() -> None:
            scene.load(
                **({"identity": {"login": {"issuer": ISSUER, "set": {"team": "red"}}}} if change == "claims" else {}),
                **({"public_url": "http://elsewhere.example"} if change == "audience" else {}),
            )
            if change == "key":
                scene.gateway.issuer_keys({ISSUER: document(jwk(name="new"))})

        scene.meanwhile = changed
        assert (await scene.show(token())).principal.claims == {"team": "test"}  # it came while that was in force
        assert not scene.gateway.known_agents

    play(story)


def test_keys_of_agents_are_no_tokens() -> None:
    async def story(scene: Scene) -> None:
        scene.load(agents={"bot": {"key": HASH}})
        for shown in (b"fgw_nobody", b"fgw_a.b.c"):
            with pytest.raises(Fault) as fault:
                await scene.show(shown)
            assert (fault.value.kind, scene.asked) == (Kind.WRONG_CREDENTIAL, [])

    play(story)


def test_what_a_remembered_token_costs() -> None:
    """The path is that of a key: nothing else is entered."""

    async def story(scene: Scene) -> None:
        scene.load(policies=None)
        context, entered = await scene.show(token()), []
        sys.setprofile(lambda frame, event, _: entered.append(frame.f_code.co_name) if event == "call" else None)
        try:
            waiting = identify(scene.gateway, context)
        finally:
            sys.setprofile(None)
        assert (waiting, entered) == (None, ["identify"])

    play(story)
