"""Health: the table, check by check; what is asked of a server, and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.upstream.discovery.status import InstanceStatus, ServerStatus, WatchedServer
from fastgw.upstream.health import AGAIN, CheckedInstance, Health, HealthChecks, HealthPolicy, HealthState
from fastgw.upstream.rpc import RpcClient, RpcClients
from fastgw.upstream.sessions import UpstreamSessions
from fastgw.upstream.transports import down, late, lost
from tests.upstream.fakes import JSON, OURS, PATIENT, FakeAnswer, FakeWire, Sent, backend, error, registry, result, run

KEY = "shop|http://a/mcp"
POLICY = HealthPolicy(10.0, 2.0, 3, 2)
UNKNOWN, HEALTHY, UNHEALTHY = HealthState.UNKNOWN, HealthState.HEALTHY, HealthState.UNHEALTHY


@pytest.mark.parametrize(
    ("checks", "state", "against"),
    [
        ("", UNKNOWN, 0), ("+", HEALTHY, 0), ("-", UNKNOWN, 1), ("-+", HEALTHY, 0), ("---", UNHEALTHY, 0),
        ("+--", HEALTHY, 2), ("+--+--", HEALTHY, 2), ("+---", UNHEALTHY, 0), ("+----", UNHEALTHY, 0),
        ("---+", UNHEALTHY, 1), ("---+-+", UNHEALTHY, 1), ("---++", HEALTHY, 0), ("---++--", HEALTHY, 2),
    ],
)  # fmt: skip
def test_so_many_in_a_row_change_it(checks: str, state: HealthState, against: int) -> None:
    health = Health()
    for check in checks:
        health.take(POLICY, succeeded=check == "+")
    assert (health.state, health.against) == (state, against)


def test_only_what_matters_to_calls_is_a_change() -> None:
    health = Health()
    changes = [health.take(POLICY, succeeded=check == "+") for check in "+---++"]
    assert changes == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("checks", "pause"), [("", AGAIN), ("+", 10.0), ("+-", AGAIN), ("+-+", 10.0), ("---", AGAIN), ("---++", 10.0)]
)
def test_in_doubt_it_is_asked_again_soon(checks: str, pause: float) -> None:
    health = Health()
    for check in checks:
        health.take(POLICY, succeeded=check == "+")
    assert [health.pause(POLICY, jitter) for jitter in (-1, 0, 1)] == [
        pytest.approx(pause * part) for part in (0.9, 1, 1.1)
    ]
    assert health.pause(HealthPolicy(0.2), 0.0) == 0.2


class Ward:
    """One server, and its checks; `wire` answers what is asked."""

    def __init__(self, spawn: Any, era: str | None, serve: Callable[[Sent], Any], **of: Any) -> None:
        self.wire = FakeWire(serve)
        self.server = ServerStatus(WatchedServer(backend(**of)))
        known = (era, "2025-11-25") if era is not None else None
        self.status = self.server.instances[KEY] = InstanceStatus(KEY, self.server, known)
        self.now = 1000.0
        client = RpcClient(self.wire, self.server.watched.backend, spawn, PATIENT)
        clients = RpcClients(lambda _: client, spawn, OURS, lambda: self.now)
        self.sessions = UpstreamSessions(clients)
        self.checks = HealthChecks(clients, self.sessions, {KEY: self.status}.get)
        self.heard: list[bool] = []
        self.changes: list[bool] = []
        self.checks.on_check = lambda _, succeeded: self.heard.append(succeeded)
        self.checks.on_change = lambda _, healthy: self.changes.append(healthy)
        self.one = CheckedInstance(KEY, HealthPolicy(10.0, 0.2))

    async def check(self) -> str:
        await self.checks.check(self.one)
        return self.one.error


def play(script: Callable[[Ward], Awaitable[Any]], era: str | None, serve: Callable[[Sent], Any], **of: Any) -> Ward:
    async def whole() -> Ward:
        async with registry() as found:
            ward = Ward(found.spawn, era, serve, **of)
            await script(ward)
            ward.checks.close()
            return ward

    return run(whole())


def legacy(answer: Callable[[Sent], Any]) -> Callable[[Sent], Any]:
    """A server that opens sessions, and answers a ping so."""

    def serve(request: Sent) -> Any:
        if request.method == "initialize":
            return result(request, {"protocolVersion": "2025-11-25", "capabilities": {}}, **{"mcp-session-id": "own"})
        return answer(request) if request.method == "ping" else FakeAnswer(202)

    return serve


ANSWERS: dict[str, Callable[[Sent], Any]] = {
    "pong": lambda request: result(request, {}),
    "no such method": lambda request: error(request, -32601),
    "no such method, by status": lambda request: error(request, -32601, 404),
    "internal": lambda request: error(request, -32603),
    "session unknown": lambda request: error(None, -32001, 404),
    "bare 404": lambda _: FakeAnswer(404, body=b"not found"),
    "credential": lambda _: FakeAnswer(401, body=b""),
    "forbidden": lambda _: FakeAnswer(403, body=b"<html>"),
    "throttled": lambda _: FakeAnswer(429, body=b"slow down"),
}
FAILURES: dict[str, tuple[Callable[[Sent], Any], str]] = {
    "refused": (lambda _: down("cannot connect"), "cannot connect"),
    "reset": (lambda _: lost("the connection was reset"), "the connection was reset"),
    "late": (lambda _: late(2.0, "first byte"), "first byte deadline"),
    "500": (lambda _: FakeAnswer(500, body=b"oops"), "status 500"),
    "503": (lambda _: FakeAnswer(503, body=b""), "status 503"),
    "500 with an error": (lambda request: error(request, -32603, 500, "boom"), "status 500, 'boom'"),
    "a page": (lambda _: FakeAnswer(200, headers=JSON, body=b"<html>"), "status 200 without an answer"),
}


@pytest.mark.parametrize("era", ["legacy", "modern", "both"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_whatever_it_answers_it_is_there(era: str, answer: Callable[[Sent], Any]) -> None:
    ward = play(Ward.check, era, legacy(answer) if era == "legacy" else answer)
    assert (ward.heard, ward.one.error, ward.one.health.state) == ([True], "", HEALTHY)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(("answer", "words"), FAILURES.values(), ids=list(FAILURES))
def test_who_does_not_answer_is_unhealthy_after_three_checks(
    era: str, answer: Callable[[Sent], Any], words: str
) -> None:
    async def script(ward: Ward) -> None:
        for _ in range(4):
            assert await ward.check() == words

    ward = play(script, era, legacy(answer) if era == "legacy" else answer)
    assert (ward.heard, ward.changes) == ([False] * 4, [False])


@pytest.mark.parametrize("answer", [lambda _: FakeAnswer(500, body=b""), lambda _: down("cannot connect")])
def test_a_session_that_cannot_be_opened_is_a_failure(answer: Callable[[Sent], Any]) -> None:
    assert play(Ward.check, "legacy", answer).heard == [False]


@pytest.mark.parametrize("status", [400, 401, 404, 429])
def test_a_session_that_is_refused_is_an_answer(status: int) -> None:
    assert play(Ward.check, "legacy", lambda _: FakeAnswer(status, body=b"no")).heard == [True]


def test_silence_is_a_failure_when_its_time_is_up() -> None:
    async def silent(_: Sent) -> Any:
        await asyncio.Event().wait()

    ward = play(Ward.check, "modern", silent)
    assert ward.one.error == "no answer within 0.2 s"


@pytest.mark.parametrize("shared", [False, True])
def test_a_legacy_server_is_pinged_in_the_one_session_of_the_gateway(shared: bool) -> None:
    async def script(ward: Ward) -> None:
        await ward.sessions.own(KEY)
        for _ in range(3):
            await ward.check()

    dead = play(script, "legacy", legacy(lambda request: error(None, -32001, 404)), shared_session=shared)
    assert dead.wire.methods().count("initialize") == 1
    assert [sent.headers["mcp-session-id"] for sent in dead.wire.sent if sent.method == "ping"] == ["own"] * 3


def test_a_credential_is_shown_and_never_told() -> None:
    said = "your s3cret is wrong"
    ward = play(Ward.check, "modern", lambda request: error(request, -32000, 500, said))
    assert ward.wire.sent[0].headers["authorization"] == "Bearer s3cret"
    assert ward.one.error == "status 500, 'your *** is wrong'"


def test_of_what_never_answered_the_probe_says_how_it_is() -> None:
    async def script(ward: Ward) -> None:
        await ward.check()
        assert ward.heard == []
        ward.status.fault = down("cannot connect")
        for _ in range(3):
            assert await ward.check() == "cannot connect"

    ward = play(script, None, ANSWERS["pong"])
    assert (ward.wire.sent, ward.changes) == ([], [False])


def test_checks_go_on_and_a_sign_of_trouble_has_one_made_at_once() -> None:
    async def script(ward: Ward) -> None:
        asked = asyncio.Event()
        ward.checks.on_check = lambda *_: asked.set()
        ward.checks.watch({KEY: HealthPolicy(3600.0)})
        await asyncio.wait_for(asked.wait(), 10)  # the first is soon
        asked.clear()
        ward.checks.check_now(KEY)
        await asyncio.wait_for(asked.wait(), 10)
        assert ward.checks.state(KEY)["health"] == "healthy"

    play(script, "modern", ANSWERS["pong"])


def test_what_is_not_checked_any_more_is_not_unhealthy() -> None:
    async def script(ward: Ward) -> None:
        changed = asyncio.Event()
        ward.checks.on_change = lambda _, healthy: (ward.changes.append(healthy), changed.set())
        ward.checks.watch({KEY: HealthPolicy(0.001, unhealthy_after=1)})
        await asyncio.wait_for(changed.wait(), 10)
        ward.checks.watch({})
        assert ward.checks.state(KEY) == {"health": "unknown", "checked_at": None, "health_error": ""}

    assert play(script, "modern", lambda _: down("gone")).changes == [False, True]


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_where_there_is_no_token_for_it_nothing_is_said_of_it(era: str) -> None:
    async def script(ward: Ward) -> None:
        async def shown(*_: Any) -> bytes:
            await asyncio.sleep(ward.one.policy.timeout * 2)  # however long the endpoint takes
            raise Fault(Kind.NO_SERVER, detail="there is no token", data={"reason": "credential"})

        ward.checks._clients = replace(ward.checks._clients, shown=shown)
        for _ in range(3):
            await ward.check()

    ward = play(script, era, legacy(ANSWERS["pong"]))
    assert (ward.heard, ward.changes, ward.wire.sent, ward.one.error) == ([], [], [], "")
