"""What a worker shows to a server that takes tokens: which one, until when, and what a 401 leads to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fastgw.credentials.token_endpoint import ServerToken
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Match, Principal
from fastgw.policy.patterns import Patterns
from fastgw.protocol.call import SentAs, SubjectToken
from fastgw.snapshot.model import Backend, ServerCredential
from fastgw.upstream.attempts import UpstreamCaller, identity_of
from fastgw.upstream.call_context import Attempt, BackgroundTasks
from fastgw.upstream.controller import UpstreamSession
from tests.upstream.fakes import (
    PATIENT,
    TARGET,
    FakeAnswer,
    FakeKeeper,
    FakeWire,
    Sent,
    backend,
    call,
    caller_of,
    error,
    instance,
    only,
    result,
    run,
    settle,
)

GONE = Fault(Kind.NO_SERVER, detail="no controller", data={"reason": "down"}, retry_after=1)
OURS = ServerCredential("", None, b"x-plain: 1\r\n", "grant")
TEAMS = ServerCredential("t1", Match(agent=Patterns(("a",))), b"x-team: 1\r\n", "grant")
USERS = ServerCredential("u1", None, b"", "grant", exchanges=True)
ALICE = SubjectToken("token-of-alice", "login:alice")


@dataclass
class Keeper(FakeKeeper):
    """A controller that gives tokens `t1`, `t2`, ... each good for `seconds`, or fails."""

    seconds: float = 100.0
    asked: list[tuple[str, str, Any, bytes]] = field(default_factory=list)
    gone: bool = False
    shown: list[bytes | None] = field(default_factory=list)
    good: set[str] = field(default_factory=set)

    async def server_token(
        self, server: str, grant: str, subject: SubjectToken | None = None, refused: bytes = b""
    ) -> ServerToken:
        self.asked.append((server, grant, subject, refused))
        await asyncio.sleep(0)
        if self.gone:
            raise GONE
        name = f"t{len(self.asked)}"
        self.good.add(name)
        now = time.time()
        return ServerToken(f"Authorization: Bearer {name}\r\n".encode(), now + self.seconds / 2, now + self.seconds)

    async def open_session(
        self, instance: str, identity: str, dead: UpstreamSession | None = None, headers: bytes | None = None
    ) -> UpstreamSession:
        self.shown.append(headers)
        token = (headers or b"").decode().rpartition("Bearer ")[2].strip()
        if headers is not None and token not in self.good:
            raise Fault(Kind.NO_SERVER, detail="401", data={"reason": "credential"})
        return await super().open_session(instance, identity, dead, headers)


class World:
    """One worker before one server, which `answers`."""

    def __init__(self, credential: ServerCredential = OURS, era: str = "modern", sent_as: SentAs | None = None) -> None:
        self.keeper = Keeper()
        self.wire = FakeWire(self.answer)
        self.of: Backend = replace(backend(), headers=b"x-plain: 1\r\n", credentials=(credential,))
        self.era = era
        self.sent_as = sent_as or SentAs(b"X-Tenant: acme\r\n", b"", credential.tag)
        self.refusing: Any = None
        self.caller: UpstreamCaller

    def answer(self, request: Sent) -> FakeAnswer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.keeper.good:
            return result(request, {"content": [], "resultType": "complete"})
        return self.refusing(request) if self.refusing else FakeAnswer(401, body=b'{"error":"invalid_token"}')

    def begin(self) -> None:
        self.caller = caller_of(self.keeper, self.wire, BackgroundTasks().spawn)
        one = only(self.caller)
        one.backend, one.address = self.of, instance(self.era)

    async def ask(self) -> Attempt:
        asked = call(sent_as={"shop": self.sent_as})
        identity = identity_of(self.of, Principal("a"), asked)
        now = asyncio.get_running_loop().time()
        attempt = Attempt(asked, TARGET, self.of, instance(self.era), identity, PATIENT, now)
        await self.caller.call(attempt, only(self.caller), Principal("a"))
        return attempt

    async def fails(self) -> Fault:
        with pytest.raises(Fault) as found:
            await self.ask()
        return found.value

    def tokens(self) -> list[str]:
        """Those of calls, in order."""
        sent = [one for one in self.wire.sent if one.method == "tools/call"]
        return [one.headers["authorization"].removeprefix("Bearer ") for one in sent]


def played(world: World, play: Any) -> None:
    async def begin() -> None:
        world.begin()
        await play()

    run(begin())


def test_calls_show_the_one_they_were_given_and_what_is_handed_on() -> None:
    world = World()

    async def play() -> None:
        await asyncio.gather(*[world.ask() for _ in range(10)])
        assert set(world.tokens()) == {"t1"}
        assert world.keeper.asked == [("shop", "grant", None, b"")]
        assert [world.wire.sent[0].headers[name] for name in ("x-plain", "x-tenant")] == ["1", "acme"]

    played(world, play)


def test_an_old_one_serves_while_another_is_asked_for_also_without_a_controller() -> None:
    world = World()
    world.keeper.seconds = 0.0

    async def play() -> None:
        await world.ask()
        [known] = world.caller._tokens._known.values()
        key = ("shop", "grant", b"")
        world.caller._tokens._known[key] = replace(known, refresh_at=0.0, expires=time.time() + 100)
        world.caller._tokens._asked.clear()  # that was a while ago
        world.keeper.gone = True
        await world.ask()
        await settle()
        await world.ask()
        assert world.tokens() == ["t1"] * 3
        assert len(world.keeper.asked) == 2  # not for each call
        world.caller._tokens._known[key] = replace(known, refresh_at=0.0, expires=0.0)
        fault = await world.fails()
        assert (fault.kind, fault.data, fault.sent, fault.failure) == (
            Kind.NO_SERVER, {"reason": "credential"}, False, "",
        )  # fmt: skip

    played(world, play)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_refused_one_is_replaced_and_the_call_asked_again_once(era: str) -> None:
    world = World(era=era)

    async def play() -> None:
        await world.ask()
        world.keeper.good.clear()
        attempt = await world.ask()
        assert world.tokens() == ["t1", "t1", "t2"]
        assert world.keeper.asked[-1] == ("shop", "grant", None, b"Authorization: Bearer t1\r\n")
        assert attempt.credential.endswith(b"Bearer t2\r\nX-Tenant: acme\r\n")
        assert world.keeper.shown == ([] if era == "modern" else [None])  # the session is the same

    played(world, play)


def test_where_there_is_no_other_the_server_has_refused_it() -> None:
    world = World()

    async def play() -> None:
        await world.ask()
        world.keeper.good.clear()
        known = next(iter(world.caller._tokens._known.values()))
        world.keeper.server_token = lambda *_: settled(known)  # type: ignore[method-assign]
        fault = await world.fails()
        assert (fault.kind, fault.data, fault.sent) == (Kind.NO_SERVER, {"reason": "credential"}, True)
        assert world.tokens() == ["t1", "t1"]

    played(world, play)


async def settled(found: ServerToken) -> ServerToken:
    return found


def test_a_401_that_answers_the_call_itself_is_not_asked_again() -> None:
    """The server has read it, so it may have run; the token is replaced all the same."""
    world = World()
    world.refusing = lambda request: error(request, -32001, status=401)

    async def play() -> None:
        await world.ask()
        world.keeper.good.clear()
        assert (await world.fails()).sent
        assert world.tokens() == ["t1", "t1"]
        await world.ask()
        assert world.tokens() == ["t1", "t1", "t2"]

    played(world, play)


def test_a_session_is_opened_by_the_token_of_its_agents() -> None:
    world = World(TEAMS, era="legacy")

    async def play() -> None:
        await world.ask()
        assert world.keeper.shown == [b"x-team: 1\r\nAuthorization: Bearer t1\r\n"]
        assert [identity for _, identity, _ in world.keeper.opened] == ["agent/t1:a"]
        only(world.caller).sessions.clear()
        world.keeper.good.clear()
        await world.ask()
        assert world.keeper.shown[1:] == [
            b"x-team: 1\r\nAuthorization: Bearer t1\r\n", b"x-team: 1\r\nAuthorization: Bearer t2\r\n",
        ]  # fmt: skip
        assert world.tokens() == ["t1", "t2"]

    played(world, play)


def test_a_user_has_a_token_in_exchange_and_a_session() -> None:
    world = World(USERS, era="legacy", sent_as=SentAs(b"", b"", f"u1.{ALICE.user}", ALICE))

    async def play() -> None:
        await world.ask()
        assert world.keeper.asked == [("shop", "grant", ALICE, b"")]
        assert [identity for _, identity, _ in world.keeper.opened] == [f"agent/u1.{ALICE.user}:a"]
        assert "token-of-alice" not in repr((world.sent_as, world.wire.sent, world.keeper.opened))
        bob = SubjectToken("token-of-bob", "login:bob")
        world.sent_as = SentAs(b"", b"", f"u1.{bob.user}", bob)
        await world.ask()
        assert world.tokens() == ["t1", "t2"]
        assert len({identity for _, identity, _ in world.keeper.opened}) == 2

    played(world, play)


@pytest.mark.parametrize("sent_as", [SentAs(credential=None), SentAs(credential="other"), SentAs(credential="u1")])
def test_for_whom_there_is_none_nothing_is_sent(sent_as: SentAs) -> None:
    world = World(USERS, sent_as=sent_as)

    async def play() -> None:
        fault = await world.fails()
        assert (fault.kind, fault.data, fault.sent, fault.failure) == (
            Kind.NO_SERVER, {"reason": "credential"}, False, "",
        )  # fmt: skip
        assert (world.wire.sent, world.keeper.asked) == ([], [])

    played(world, play)
