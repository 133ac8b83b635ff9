from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from fastgw.catalog.route import Deadlines, Target
from fastgw.errors import Fault, Kind
from fastgw.protocol.headers import ParamHeader
from fastgw.upstream.attempts import UpstreamCaller
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.reply import UpstreamReply
from tests.upstream.fakes import (  # fmt: skip
    PATIENT,
    SSE,
    TARGET,
    FakeAnswer,
    FakeKeeper,
    FakeWire,
    Sent,
    backend,
    call,
    caller_of,
    error,
    event,
    given,
    instance,
    only,
    registry,
    result,
    run,
    settle,
)

DONE = {"content": []}
SESSION_WORDS = "No valid session ID provided"


class World:
    """One worker's caller with its controller and the wire to one server."""

    def __init__(self, handler: Any, controller: FakeKeeper | None = None) -> None:
        self.transport = FakeWire(handler)
        self.controller = controller or FakeKeeper()

    async def begin(
        self, spawn: Any, era: str | None = "legacy", caller: UpstreamCaller | None = None, **more: Any
    ) -> UpstreamReply:
        self.caller = caller or getattr(self, "caller", None) or caller_of(self.controller, self.transport, spawn)
        self.controller.workers[:] = [self.caller]
        values = {"call": call(), "target": TARGET, "identity": "agent:a", "deadlines": PATIENT, **more}
        return await given(
            self.caller, values["call"], values["target"], backend(), instance(era), values["identity"],
            values["deadlines"],
        )  # fmt: skip

    def ask(self, era: str | None = "legacy", **more: Any) -> Any:
        """One call from beginning to end: its final message."""

        async def play() -> Any:
            async with registry() as found:
                try:
                    upstream = await self.begin(found.spawn, era, **more)
                    message = await upstream.next()
                    while message.method is not None:
                        message = await upstream.next()
                finally:
                    await settle()
                return message

        return run(play())

    def fault(self, era: str | None = "legacy", **more: Any) -> Fault:
        with pytest.raises(Fault) as wrong:
            self.ask(era, **more)
        return wrong.value


def good(request: Sent) -> FakeAnswer:
    return result(request, DONE)


def in_turn(*answers: Any) -> Any:
    """The first request gets the first answer, and so on; the last one stays."""
    left = list(answers)

    def handler(request: Sent) -> Any:
        if request.verb != "POST" or "id" not in request.json:
            return FakeAnswer(202)
        found = left.pop(0) if len(left) > 1 else left[0]
        return found(request) if callable(found) else found

    return handler


# -- the plain way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_call_is_given_and_answered(era: str) -> None:
    world = World(good)
    assert world.ask(era).result == b'{"content": []}'
    sent = world.transport.sent[0]
    assert sent.headers.get("mcp-session-id") == ("s1" if era == "legacy" else None)
    assert world.controller.doubts == []


def test_an_unknown_era_is_asked_for_once() -> None:
    world = World(good, FakeKeeper("modern"))

    async def play() -> None:
        async with registry() as found:
            for _ in range(3):
                upstream = await world.begin(found.spawn, None)
                await upstream.next()

    run(play())
    assert world.controller.doubts == [("shop|http://a/mcp", "")]
    assert {sent.headers["mcp-method"] for sent in world.transport.sent} == {"tools/call"}


def test_ids_are_never_used_twice() -> None:
    world = World(good)

    async def play() -> None:
        async with registry() as found:
            first = caller_of(world.controller, world.transport, found.spawn)
            second = caller_of(world.controller, world.transport, found.spawn)
            work = [world.begin(found.spawn, caller=caller) for caller in (first, second) for _ in range(50)]
            for upstream in await asyncio.gather(*work):
                await upstream.next()

    run(play())
    ids = [sent.json["id"] for sent in world.transport.sent]
    assert len(set(ids)) == 100
    assert all(isinstance(one, int) for one in ids)


def test_each_call_gets_its_own_answer_whatever_the_order() -> None:
    async def play() -> None:
        gates: list[asyncio.Future[None]] = []

        def handler(request: Sent) -> Any:
            gate = asyncio.get_running_loop().create_future()
            gates.append(gate)

            async def later() -> FakeAnswer:
                await gate
                return result(request, {"echo": request.json["params"]["arguments"]["nonce"]})

            return later()

        world = World(handler)

        async def one(number: int) -> None:
            found = call(id=b"1", params={"arguments": b'{"nonce":%d}' % number})
            upstream = await world.begin(registered.spawn, call=found, identity=f"agent:{number % 5}")
            assert json.loads((await upstream.next()).result or b"") == {"echo": number}

        async with registry() as registered:
            work = asyncio.gather(*(one(number) for number in range(50)))
            while len(gates) < 50:
                await asyncio.sleep(0)
            for gate in reversed(gates):
                gate.set_result(None)
            await work

    run(play())


# -- sessions -----------------------------------------------------------------------------------------------------


def test_a_session_is_kept_per_identity_and_told_to_be_in_use() -> None:
    world = World(good)

    async def play() -> None:
        async with registry() as found:
            for identity in ("agent:a", "agent:b", "agent:a"):
                await (await world.begin(found.spawn, identity=identity)).next()

    run(play())
    assert [who for _, who, _ in world.controller.opened] == ["agent:a", "agent:b"]
    assert [sent.headers["mcp-session-id"] for sent in world.transport.sent] == ["s1", "s2", "s1"]
    assert len(world.controller.touched) == 3
    assert [(who, one.id) for _, who, one in world.caller.known_sessions()] == [("agent:a", "s1"), ("agent:b", "s2")]


def test_a_server_without_session_ids_is_asked_without() -> None:
    world = World(good, FakeKeeper(ids=False))
    world.ask()
    assert "mcp-session-id" not in world.transport.sent[0].headers


def dead(request: Sent) -> FakeAnswer:
    return FakeAnswer(404)


DEAD = [
    dead,
    lambda request: error(None, -32001, 404, "Session not found"),
    lambda request: error(request, -32600, 404, "Session not found"),
    lambda request: error(None, -32000, 400, SESSION_WORDS),
    lambda request: error(request, -32000, 400, SESSION_WORDS),
    lambda request: FakeAnswer(400, {"content-type": "text/plain"}, b"Missing Session"),
    lambda request: FakeAnswer(401, body=b"Unauthorized: Session not found"),
    lambda request: FakeAnswer(422, body=b"Unexpected message, expected initialize request"),
    lambda request: error(None, -32000, 200, SESSION_WORDS),
    lambda request: error(None, -32001, 500, SESSION_WORDS),
]


REFUSED = [
    (lambda request: FakeAnswer(401), Kind.NO_SERVER),
    (lambda request: FakeAnswer(403, body=b"forbidden"), Kind.NO_SERVER),
    (lambda request: FakeAnswer(400), Kind.LOST),
    (lambda request: FakeAnswer(405), Kind.LOST),
    (lambda request: FakeAnswer(409), Kind.LOST),
    (lambda request: FakeAnswer(410), Kind.LOST),
    (lambda request: FakeAnswer(422, body=b"<html>"), Kind.LOST),
    (lambda request: error(None, -32600, 400), Kind.LOST),
]


@pytest.mark.parametrize("answer", [*DEAD, *(answer for answer, _ in REFUSED)])
def test_a_call_whose_session_is_refused_is_asked_again_in_another_once(answer: Any) -> None:
    world = World(in_turn(answer, good))
    assert world.ask().result == b'{"content": []}'
    assert [dead and dead.id for _, _, dead in world.controller.opened] == [None, "s1"]
    assert [(sent.method, sent.headers["mcp-session-id"]) for sent in world.transport.sent] == [
        ("tools/call", "s1"), ("tools/call", "s2"),
    ]  # fmt: skip
    assert world.controller.kept == []
    assert [session.id for _, _, session in world.caller.known_sessions()] == ["s2"]


def went_back(world: World) -> None:
    """The call was refused in two sessions, and the old one is kept."""
    assert [sent.headers["mcp-session-id"] for sent in world.transport.sent] == ["s1", "s2"]
    assert [(old.id, new.id) for _, _, old, new in world.controller.kept] == [("s1", "s2")]
    assert [session.id for _, _, session in world.caller.known_sessions()] == ["s1"]
    assert only(world.caller).in_use == {}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *REFUSED,
        *((answer, Kind.LOST) for answer in (*DEAD[:2], DEAD[3], DEAD[5], *DEAD[7:])),
        (DEAD[6], Kind.NO_SERVER),
    ],
)
def test_a_refusal_that_stays_in_another_session_means_what_it_says(answer: Any, kind: Kind) -> None:
    world = World(in_turn(answer))
    fault = world.fault()
    assert (fault.kind, fault.sent) == (kind, True)
    went_back(world)


@pytest.mark.parametrize("answer", [DEAD[2], DEAD[4], lambda request: error(request, -32000, 400, "session of May")])
def test_what_the_server_says_to_our_id_twice_is_handed_up(answer: Any) -> None:
    world = World(in_turn(answer))
    assert b"ession" in world.ask().error
    went_back(world)


def test_where_the_old_session_cannot_be_kept_the_new_one_stays() -> None:
    world = World(in_turn(FakeAnswer(422)))

    async def gone(*about: Any) -> UpstreamSession:
        raise Fault(Kind.NO_SERVER, detail="not configured any more")

    world.controller.keep_session = gone
    assert world.fault().kind is Kind.LOST
    assert [session.id for _, _, session in world.caller.known_sessions()] == ["s2"]


@pytest.mark.parametrize(("answer", "tried"), [(FakeAnswer(404), ["s1", "s1", "s2"]), (FakeAnswer(422), ["s1", "s1"])])
def test_a_session_that_was_just_opened_is_doubted_only_where_its_server_says_that_it_is_gone(
    answer: FakeAnswer, tried: list[str]
) -> None:
    world = World(in_turn(good, answer), FakeKeeper(fresh=True))
    world.ask()
    assert world.fault().kind is Kind.LOST
    assert [sent.headers["mcp-session-id"] for sent in world.transport.sent] == tried


def test_another_session_that_is_older_than_the_call_may_be_lost_too() -> None:
    """The controller may know one that somebody else opened, before the server lost them all."""
    old = [UpstreamSession(name, "2025-11-25", 0.0) for name in ("s1", "s2")]
    world = World(in_turn(FakeAnswer(404), FakeAnswer(404), good))
    opened = world.controller.open_session

    async def held(instance: str, identity: str, dead: UpstreamSession | None = None, *_: object) -> UpstreamSession:
        session = await opened(instance, identity, dead)
        return old.pop(0) if old else session

    world.controller.open_session = held
    assert world.ask().result == b'{"content": []}'
    assert [dead and dead.id for _, _, dead in world.controller.opened] == [None, "s1", "s2"]
    assert [sent.headers["mcp-session-id"] for sent in world.transport.sent] == ["s1", "s2", "s3"]


@pytest.mark.parametrize(("answer", "kind"), [*REFUSED, (dead, Kind.LOST)])
def test_where_no_other_session_can_be_had_the_agent_hears_the_refusal_and_the_old_one_stays(
    answer: Any, kind: Kind
) -> None:
    def refuse_sessions(request: Sent) -> Any:
        world.controller.open_session = _no_session
        return answer(request)

    world = World(refuse_sessions)
    fault = world.fault()
    assert (fault.kind, fault.sent) == (kind, True)
    assert "initialize" not in (fault.detail or "")
    assert world.transport.methods() == ["tools/call"]
    assert [session.id for _, _, session in world.caller.known_sessions()] == ["s1"]


@pytest.mark.parametrize("answer", DEAD)
def test_a_session_that_was_opened_for_this_call_is_never_doubted(answer: Any) -> None:
    world = World(in_turn(answer), FakeKeeper(fresh=True))
    with contextlib.suppress(Fault):
        world.ask()
    assert world.transport.methods() == ["tools/call"]
    assert len(world.controller.opened) == 1


def test_a_hundred_calls_that_find_their_session_dead_ask_for_one_in_its_place() -> None:
    gone: set[str] = set()
    world = World(lambda request: dead(request) if request.headers["mcp-session-id"] in gone else good(request))

    async def play() -> None:
        async with registry() as found:
            await (await world.begin(found.spawn)).next()
            gone.add("s1")
            for upstream in await asyncio.gather(*(world.begin(found.spawn) for _ in range(100))):
                assert (await upstream.next()).result is not None

    run(play())
    assert {dead and dead.id for _, _, dead in world.controller.opened[1:]} == {"s1"}
    assert world.transport.count("tools/call") == 1 + 2 * 100


# -- sessions under suspicion -------------------------------------------------------------------------------------


def serving(*calls: Any, ping: Any = good) -> Any:
    """Calls are answered in turn, pings as told."""
    answers = in_turn(*calls)

    def handler(request: Sent) -> Any:
        if request.method != "ping":
            return answers(request)
        return ping(request) if callable(ping) else ping

    return handler


@pytest.mark.parametrize(
    "answer",
    [
        FakeAnswer(500),
        FakeAnswer(502, body=b"<html>no session</html>"),
        FakeAnswer(504),
        lambda request: error(request, -32000, 200, SESSION_WORDS),
        lambda request: error(request, -32001, 500, SESSION_WORDS),
        FakeAnswer(200, body=b"<html>"),
        FakeAnswer(202),
    ],
)
@pytest.mark.parametrize("lost", [False, True])
def test_a_suspect_session_is_asked_before_the_next_call_goes_and_no_call_runs_twice(answer: Any, lost: bool) -> None:
    world = World(serving(answer, good, ping=FakeAnswer(404) if lost else good))

    async def play() -> None:
        async with registry() as found:
            with contextlib.suppress(Fault):
                upstream = await world.begin(found.spawn)
                assert (await upstream.next()).error is not None
            assert world.transport.methods() == ["tools/call"]
            assert world.controller.suspected == [("shop|http://a/mcp", "agent:a")]
            for _ in range(2):
                assert (await (await world.begin(found.spawn)).next()).result is not None

    run(play())
    session = "s2" if lost else "s1"
    assert [(sent.method, sent.headers["mcp-session-id"]) for sent in world.transport.sent] == [
        ("tools/call", "s1"), ("ping", "s1"), ("tools/call", session), ("tools/call", session),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("between", "last"),
    [
        ([], [("tools/call", "s2")]),
        ([good], [("tools/call", "s1"), ("ping", "s1"), ("tools/call", "s1")]),
    ],
)
def test_a_session_that_is_suspect_twice_in_a_row_is_not_believed(between: list[Any], last: list[Any]) -> None:
    answers = [FakeAnswer(500), *between, FakeAnswer(500), good]
    world = World(serving(*answers))

    async def play() -> None:
        async with registry() as found:
            for _ in answers:
                with contextlib.suppress(Fault):
                    await (await world.begin(found.spawn)).next()

    run(play())
    whole = [("tools/call", "s1"), ("ping", "s1"), ("tools/call", "s1"), *last]
    assert [(sent.method, sent.headers["mcp-session-id"]) for sent in world.transport.sent] == whole


def test_a_session_that_is_suspect_twice_stays_where_no_other_can_be_had_and_it_answers() -> None:
    world = World(serving(FakeAnswer(500), FakeAnswer(500), good))

    async def play() -> None:
        async with registry() as found:
            for _ in range(2):
                with contextlib.suppress(Fault):
                    await (await world.begin(found.spawn)).next()
            world.controller.fail = Fault(Kind.NO_SERVER, detail="Server already initialized")
            for _ in range(2):
                assert (await (await world.begin(found.spawn)).next()).result is not None

    run(play())
    assert {sent.headers["mcp-session-id"] for sent in world.transport.sent} == {"s1"}


def test_a_suspicion_is_of_one_session_not_of_the_next_one() -> None:
    world = World(good)

    async def play() -> None:
        async with registry() as found:
            await (await world.begin(found.spawn)).next()
            for _ in range(2):
                world.caller.suspect(("shop|http://a/mcp", "agent:a"), "another")
            await (await world.begin(found.spawn)).next()

    run(play())
    assert world.transport.methods() == ["tools/call"] * 2


def test_a_suspicion_is_of_one_identitys_session() -> None:
    world = World(serving(FakeAnswer(500), good))

    async def play() -> None:
        async with registry() as found:
            with pytest.raises(Fault):
                await world.begin(found.spawn)
            await (await world.begin(found.spawn, identity="agent:b")).next()

    run(play())
    assert world.transport.count("ping") == 0


def test_a_ping_takes_no_more_than_half_the_time_a_call_has_left() -> None:
    world = World(good)
    totals: list[float] = []

    class Timed(FakeWire):
        async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> FakeAnswer:
            totals.append(deadlines.total)
            return await super().request(verb, headers, body, deadlines)

    world.transport = Timed(serving(FakeAnswer(500), good, ping=Fault(Kind.TIMEOUT, sent=True)))
    world.fault(deadlines=Deadlines(1, 1, 1, 1))
    world.ask(deadlines=Deadlines(1, 1, 1, 1))
    assert world.transport.methods() == ["tools/call", "ping", "tools/call"]
    assert totals[1] <= 0.5 < totals[0]


# -- servers of both eras -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"])
def test_where_a_server_speaks_both_eras_each_agent_gets_its_own(version: str) -> None:
    world = World(good)
    world.ask("both", call=call(version=version))
    sent = world.transport.sent[0]
    modern = version == "2026-07-28"
    assert ("mcp-method" in sent.headers, sent.headers.get("mcp-session-id")) == (modern, None if modern else "s1")
    assert world.controller.doubts == []


OLDER = call(version="2025-11-25")


def test_a_server_that_no_longer_has_sessions_is_asked_as_modern() -> None:
    controller = FakeKeeper("modern")
    world = World(good, controller)
    controller.open_session = _no_session
    assert world.ask("both", call=OLDER).result == b'{"content": []}'
    assert controller.doubts == [("shop|http://a/mcp", "legacy")]
    assert "mcp-method" in world.transport.sent[0].headers


def test_a_server_whose_session_is_lost_and_that_has_none_any_more_is_asked_as_modern() -> None:
    controller = FakeKeeper("modern")
    world = World(good, controller)

    def gone(request: Sent) -> FakeAnswer:
        controller.open_session = _no_session
        return FakeAnswer(404)

    world.transport.handler = in_turn(gone, good)
    assert world.ask("both", call=OLDER).result == b'{"content": []}'
    assert ["mcp-method" in sent.headers for sent in world.transport.sent] == [False, True]


def test_a_server_of_both_eras_that_gives_no_session_and_still_says_both_is_asked_nothing() -> None:
    controller = FakeKeeper("both")
    world = World(good, controller)
    controller.open_session = _no_session
    fault = world.fault("both", call=OLDER)
    assert (fault.kind, fault.detail, fault.sent) == (Kind.NO_SERVER, "initialize was refused", False)
    assert world.transport.sent == []


def test_what_may_have_run_at_one_face_of_a_server_is_not_asked_at_the_other() -> None:
    for fault in (Fault(Kind.LOST, sent=True), Fault(Kind.TIMEOUT, sent=True)):
        world = World(in_turn(fault, good), FakeKeeper("modern"))
        assert world.fault("both", call=OLDER).kind is fault.kind
        assert world.transport.count("tools/call") == 1


async def _no_session(instance: str, identity: str, *_: object) -> UpstreamSession:
    raise Fault(Kind.NO_SERVER, detail="initialize was refused")


def test_a_tools_own_error_that_speaks_of_a_session_is_the_tools() -> None:
    world = World(in_turn(lambda request: error(request, -32602, 400, "session_id is missing")))
    assert b"session_id" in (world.ask().error or b"")
    assert len(world.transport.sent) == 1


def test_a_controller_that_opens_no_session_fails_the_call_unsent() -> None:
    world = World(good, FakeKeeper(fail=Fault(Kind.NO_SERVER)))
    assert not world.fault().sent
    assert world.transport.sent == []


# -- the backend-error mapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("code", "status"),
    [(-32602, 200), (-32602, 400), (-32601, 404), (-32002, 404), (-32603, 500), (12, 200), (-31999, 200)],
)
def test_the_servers_own_errors_are_handed_up(era: str, code: int, status: int) -> None:
    world = World(in_turn(lambda request: error(request, code, status, data={"x": 1})))
    assert json.loads(world.ask(era).error) == {"code": code, "message": "no", "data": {"x": 1}}
    assert len(world.transport.sent) == 1


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_ours_and_nothing_of_it_is_told(era: str, status: int) -> None:
    headers = {"content-type": "text/plain", "www-authenticate": 'Bearer realm="inner"'}
    fault = World(in_turn(FakeAnswer(status, headers, b"who are you"))).fault(era)
    assert (fault.kind, fault.data, fault.headers, fault.sent) == (Kind.NO_SERVER, {"reason": "credential"}, (), True)
    assert "realm" not in str(fault)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("answer", "sent", "wait"),
    [
        (lambda request: FakeAnswer(429), False, 1),
        (lambda request: FakeAnswer(429, {"retry-after": "7"}), False, 7),
        (lambda request: FakeAnswer(503, {"retry-after": "7"}), False, 7),
        (lambda request: FakeAnswer(503, {"retry-after": "99999"}), False, 3600),
        (lambda request: FakeAnswer(503), True, 1),
        (lambda request: FakeAnswer(503, {"retry-after": "Fri, 07 Aug 2026 23:59:59 GMT"}), False, 1),
        (lambda request: error(request, -32000, 429), True, 1),
        (lambda request: error(None, -32000, 429), False, 1),
    ],
)
def test_a_busy_server_is_told_with_its_waiting_time(era: str, answer: Any, sent: bool, wait: int) -> None:
    fault = World(in_turn(answer)).fault(era)
    assert (fault.kind, fault.data, fault.sent) == (Kind.NO_SERVER, {"reason": "busy"}, sent)
    assert fault.retry_after == wait


HTML = {"content-type": "text/html"}


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    "answer",
    [
        FakeAnswer(200, HTML, b"<html>"),
        FakeAnswer(200, body=b""),
        FakeAnswer(202),
        FakeAnswer(204),
        FakeAnswer(302, {"location": "http://b/"}),
        FakeAnswer(307, HTML, b"<html>"),
        FakeAnswer(500, HTML, b"<html>"),
        FakeAnswer(502),
        FakeAnswer(504),
        FakeAnswer(400, HTML, b"<html>"),
        FakeAnswer(405),
        FakeAnswer(415),
        FakeAnswer(200, body=b'{"jsonrpc":"2.0","id":"other","result":{}}'),
        FakeAnswer(200, body=b'{"jsonrpc":"2.0","id":1,"result":{}}'),
        FakeAnswer(200, body=b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'),
        FakeAnswer(200, body=b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"x"}}'),
        FakeAnswer(500, SSE, None),
    ],
)
def test_what_is_no_answer_is_a_lost_call(era: str, answer: FakeAnswer) -> None:
    world = World(in_turn(answer), FakeKeeper(era))
    fault = world.fault(era)
    assert (fault.kind, fault.sent, fault.retry_after) == (Kind.LOST, True, None)
    assert only(world.caller).in_use == {}


def test_faults_of_the_wire_pass_as_they_are() -> None:
    for fault in (Fault(Kind.NO_SERVER), Fault(Kind.LOST, sent=True)):
        world = World(in_turn(fault))
        assert world.fault("modern") is fault
        assert len(world.transport.sent) == 1


MODERN_TO_LEGACY = [
    lambda request: FakeAnswer(400),
    lambda request: FakeAnswer(404, HTML, b"<html>"),
    lambda request: FakeAnswer(405),
    lambda request: FakeAnswer(406),
    lambda request: error(None, -32000, 400, "Bad Request: Server not initialized"),
    lambda request: error(request, -32000, 400, SESSION_WORDS),
    lambda request: error(request, -32022, 400, data={"supported": ["2025-11-25"]}),
    lambda request: error(None, -32022, 400),
    lambda request: error(request, -32022, 200),
]


@pytest.mark.parametrize("answer", MODERN_TO_LEGACY)
def test_a_server_that_turns_out_legacy_is_asked_again_that_way(answer: Any) -> None:
    world = World(in_turn(answer, good), FakeKeeper("legacy"))
    assert world.ask("modern").result == b'{"content": []}'
    assert world.controller.doubts == [("shop|http://a/mcp", "modern")]
    assert world.transport.sent[1].headers["mcp-session-id"] == "s1"
    assert "mcp-method" not in world.transport.sent[1].headers


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: error(request, -32022, 400),
        lambda request: error(None, -32020, 400),
        lambda request: error(request, -32020, 200),
    ],
)
def test_a_server_that_turns_out_modern_is_asked_again_that_way(answer: Any) -> None:
    world = World(in_turn(answer, good), FakeKeeper("modern"))
    assert world.ask("legacy").result == b'{"content": []}'
    assert world.controller.doubts == [("shop|http://a/mcp", "legacy")]
    assert world.transport.sent[1].headers["mcp-method"] == "tools/call"


@pytest.mark.parametrize("status", [400, 405, 406])
def test_a_server_that_refuses_session_and_initialize_may_be_modern_now(status: int) -> None:
    def refuse_sessions(request: Sent) -> FakeAnswer:
        world.controller.open_session = _no_session
        return FakeAnswer(status)

    world = World(in_turn(refuse_sessions, good), FakeKeeper("modern"))
    assert world.ask("legacy").result == b'{"content": []}'
    assert ["mcp-method" in sent.headers for sent in world.transport.sent] == [False, True]


@pytest.mark.parametrize(
    ("era", "answer", "kind"),
    [
        ("modern", lambda request: FakeAnswer(405), Kind.LOST),
        ("modern", lambda request: error(request, -32022, 400), Kind.INTERNAL),
        ("legacy", lambda request: error(request, -32022, 400), Kind.INTERNAL),
    ],
)
def test_a_doubt_that_proves_wrong_repeats_nothing(era: str, answer: Any, kind: Kind) -> None:
    world = World(in_turn(answer, good), FakeKeeper(era))
    fault = world.fault(era)
    assert (fault.kind, fault.sent) == (kind, True)
    assert world.transport.count("tools/call") == 1
    assert world.controller.doubts == [("shop|http://a/mcp", era)]


def test_a_doubt_that_proves_wrong_hands_up_the_servers_own_error() -> None:
    world = World(in_turn(lambda request: error(request, -32000, 400, SESSION_WORDS)), FakeKeeper("modern"))
    assert b"session" in (world.ask("modern").error or b"")


def test_a_call_goes_to_and_fro_between_eras_only_once() -> None:
    world = World(in_turn(FakeAnswer(405)), FakeKeeper("legacy", fresh=True))
    assert world.fault("modern").kind is Kind.LOST
    assert world.transport.methods() == ["tools/call"] * 2
    assert len(world.controller.doubts) == 1


def test_a_header_mismatch_fetches_the_definition_and_repeats_once() -> None:
    controller = FakeKeeper(headers=(("mcp-param-n", ("n",), "integer"),))
    world = World(in_turn(lambda request: error(request, -32020, 400), good), controller)
    assert world.ask("modern").result == b'{"content": []}'
    assert controller.refreshed == [("shop", "buy")]
    assert [sent.headers.get("mcp-param-n") for sent in world.transport.sent] == [None, "1"]


def test_a_header_mismatch_of_what_is_no_tool_fetches_no_tool_and_repeats_nothing() -> None:
    controller = FakeKeeper(headers=(("mcp-param-n", ("n",), "integer"),))
    world = World(in_turn(lambda request: error(request, -32020, 400)), controller)
    asked = call()
    asked.method = "prompts/get"
    assert world.fault("modern", call=asked).kind is Kind.INTERNAL
    assert (controller.refreshed, len(world.transport.sent)) == ([], 1)


@pytest.mark.parametrize("fail", [None, Fault(Kind.NO_SERVER)])
def test_a_header_mismatch_that_stays_is_our_fault(fail: Fault | None) -> None:
    world = World(in_turn(lambda request: error(request, -32020, 400)), FakeKeeper("modern", fail=fail))
    fault = world.fault("modern")
    assert (fault.kind, fault.sent) == (Kind.INTERNAL, True)
    assert len(world.transport.sent) == (2 if fail is None else 1)


@pytest.mark.parametrize(
    ("declared", "required", "relayed"),
    [
        (b"{}", {"sampling": {}}, True),
        (b'{"sampling":{}}', {"sampling": {}}, False),
        (b'{"elicitation":{}}', {"elicitation": {"url": {}}}, True),
        (b'{"elicitation":{"url":{}}}', {"elicitation": {"url": {}}}, False),
        (b'{"sampling":{}}', None, False),
    ],
)
def test_a_missing_capability_is_told_only_if_the_agent_misses_it(
    declared: bytes, required: Any, relayed: bool
) -> None:
    world = World(in_turn(lambda request: error(request, -32021, 400, data={"requiredCapabilities": required})))
    if relayed:
        assert b"-32021" in (world.ask("modern", call=call(capabilities=declared)).error or b"")
    else:
        fault = world.fault("modern", call=call(capabilities=declared))
        assert fault.kind is Kind.INTERNAL
        assert required is None or str(required) in fault.detail


def test_arguments_that_cannot_be_mirrored_are_refused_unsent() -> None:
    target = Target("shop", "buy", b'"buy"', (ParamHeader("mcp-param-n", ("n",), "integer"),))
    world = World(good)
    fault = world.fault("modern", target=target, call=call(params={"arguments": b'{"n":1,"n":2}'}))
    assert (fault.kind, fault.sent) == (Kind.BAD_PARAMS, False)
    assert world.transport.sent == []


# -- leaving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("era", "told"), [("legacy", ["notifications/cancelled"]), ("modern", [])])
def test_an_agent_that_leaves_before_the_answer_withdraws_the_call(era: str, told: list[str]) -> None:
    async def play() -> None:
        async def never() -> FakeAnswer:
            return await asyncio.get_running_loop().create_future()

        world = World(lambda request: never() if "id" in request.json else FakeAnswer(202))
        async with registry() as found:
            task = found.spawn(world.begin(found.spawn, era), "call")
            while not world.transport.sent:
                await asyncio.sleep(0)
            task.cancel()
            await settle()
            asked, *rest = world.transport.sent
            assert [sent.method for sent in rest] == told
            assert all(sent.json["params"]["requestId"] == asked.json["id"] for sent in rest)
            assert only(world.caller).in_use == {}

    run(play())


def test_a_timeout_withdraws_the_call_too() -> None:
    world = World(in_turn(Fault(Kind.TIMEOUT, sent=True)))
    assert world.fault("legacy").kind is Kind.TIMEOUT
    assert world.transport.methods() == ["tools/call", "notifications/cancelled"]


def test_a_session_stays_in_use_while_its_call_streams() -> None:
    async def play() -> None:
        answer = FakeAnswer(200, SSE, None)
        world = World(lambda request: answer)
        async with registry() as found:
            upstream = await world.begin(found.spawn)
            world.caller._beat()
            assert len(world.controller.touched) == 2
            answer.more.put_nowait(event({"jsonrpc": "2.0", "id": world.transport.sent[0].json["id"], "result": {}}))
            await upstream.next()
            world.caller._beat()
            assert len(world.controller.touched) == 2

    run(play())


def test_repeats_share_one_total() -> None:
    status: list[Deadlines] = []

    class Timed(FakeWire):
        async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> FakeAnswer:
            status.append(deadlines)
            await asyncio.sleep(0.01)
            return await super().request(verb, headers, body, deadlines)

    world = World(good)
    world.transport = Timed(in_turn(FakeAnswer(404), good))
    world.ask()
    assert status[1].total < status[0].total
