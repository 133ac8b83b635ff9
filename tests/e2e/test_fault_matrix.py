"""Every fault of a server, for everything that is asked of one: what the agent hears, what ran, what is counted.

One gateway, one server for each fault and era. Each is well when the gateway begins; then it fails, for one method
after the other, all servers at once; then it is well again. A row of `ROWS` is one fault and what is expected of it.

Then the gateway is started again on what it has kept, while every server fails at its lists; and once more, while every
server fails at what it is asked about itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.aside import aside
from tests.e2e.asking import Agent
from tests.e2e.faults import FAULTS, SECRET
from tests.e2e.faulty import CALLS, LISTS, OPENINGS, Door, Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.http import Reply
from tests.upstream.test_tls import Authority, server_side

ERAS = ("modern", "legacy")
TIMEOUT = 2.0
"""Seconds for calls of servers that are too slow; all others have so many that only a test that has failed waits."""
READY_WITHIN = 12.0
"""Seconds in which the gateway must be ready before servers that all fail, on a busy machine too."""


class Told(NamedTuple):
    """What an agent hears. Without a code: the right answer, or what the server said."""

    status: int = 200
    code: int | None = None
    may_have_run: bool | None = None
    reason: str | None = None
    retry_after: int | None = None


FINE = Told()
LOST = Told(200, -31003, True)
LATE = Told(200, -31002, True)
DOWN = Told(503, -31001, False, "down", 1)
CREDENTIAL = Told(503, -31001, True, "credential")


def busy(retry_after: int, may_have_run: bool = False) -> Told:
    return Told(503, -31001, may_have_run, "busy", retry_after)


def told_by(reply: Reply) -> Told:
    """What this answer tells."""
    error = reply.json().get("error")
    if error is None:
        return Told(reply.status)
    data = error.get("data", {})
    return Told(reply.status, error["code"], data.get("mayHaveRun"), data.get("reason"), data.get("retryAfter"))


@dataclass(frozen=True)
class Row:
    """What is expected of a fault, whatever method it hits.

    Args:
        told: what the agent hears: one of these.
        counted: by which `failure` in `fastgw_attempts_failed_total`: one of these; none where nothing failed.
    """

    told: tuple[Told, ...]
    counted: tuple[str, ...] = ()


LOSES, TOO_LATE = Row((LOST,), ("lost",)), Row((LATE,), ("timeout",))
UNREACHED, HUNG_UP = Row((DOWN,), ("unreachable",)), Row((LOST, DOWN), ("lost", "unreachable"))
REFUSES, THROTTLES = Row((CREDENTIAL,), ("refused",)), Row((busy(1),), ("throttled",))
FAILS = Row((LOST,), ("server_error",))
WELL = Row((FINE,))
ROWS: dict[str, Row] = {
    "refused": UNREACHED,
    "accepts and is silent": TOO_LATE,
    "accepts and closes": HUNG_UP,
    "accepts and resets": HUNG_UP,
    "backlog full": UNREACHED,
    "plain HTTP where TLS is expected": UNREACHED,
    "an expired certificate": UNREACHED,
    "a stranger's certificate": UNREACHED,
    "silent": TOO_LATE,
    "reset before the answer": LOSES,
    "closed before the answer": LOSES,
    "half closed before the answer": LOSES,
    "half closed after the answer": WELL,
    "reset at byte 1": LOSES,
    "reset in the head": LOSES,
    "reset in the body": LOSES,
    "closed in the head": LOSES,
    "closed in the body": LOSES,
    "101": LOSES,
    "202": LOSES,
    "204": LOSES,
    "301 elsewhere": LOSES,
    "307 elsewhere": Row((DOWN,)),  # the address is wrong, not the server
    "400": LOSES,
    "401": REFUSES,
    "403": REFUSES,
    "404": LOSES,
    "408": LOSES,
    "421": LOSES,
    "429": THROTTLES,
    "429 with Retry-After": Row((busy(7),), ("throttled",)),
    "500": FAILS,
    "502": FAILS,
    "503": Row((busy(1, True),), ("server_error",)),
    "503 with Retry-After": Row((busy(9),), ("throttled",)),
    "504 of a proxy": FAILS,
    "HTTP/0.9": LOSES,
    "HTTP/2": LOSES,
    "a header without end": LOSES,
    "headers without end": LOSES,
    "Content-Length and chunked": LOSES,
    "a bad chunk size": LOSES,
    "a chunk without end": LOSES,
    "gzip that is none": LOSES,
    "gzip of too much": LOSES,
    "a head that drips": TOO_LATE,
    "a body that drips": TOO_LATE,
    "comments for ever": TOO_LATE,
    "a stream without an event": LOSES,
    "a stream without a response": LOSES,
    "a stream cut in an event": LOSES,
    "a line without end": LOSES,
    "cut JSON": LOSES,
    "not UTF-8": LOSES,
    "no JSON": LOSES,
    "an array": LOSES,
    "deep JSON": LOSES,
    "NaN": LOSES,
    "another's id": LOSES,
    "a null id": LOSES,
    "two answers": WELL,
    "a result that is no object": LOSES,
    "a result that is too large": LOSES,
    "isError": Row((FINE,), ()),
    "-32603": Row((Told(200, -32603),), ("server_error",)),
    "-32602": Row((Told(200, -32602),)),
    "-32601": Row((Told(200, -32601),)),
}
FAILED = re.compile(r'fastgw_attempts_failed_total\{server="([^"]+)",failure="([^"]+)"\} (\d+)')
BREAKING = {"unreachable", "lost", "timeout", "server_error"}
"""Reasons that count against an instance: its breaker sees a failure."""
NO_LIST = "-32601"
"""At a list it is no fault: the server has none."""
CASES = [(era, fault) for era in ERAS for fault in ROWS]


@dataclass
class Case:
    """One server with its fault, and what came of it.

    Args:
        heard: the agent's answer, by method.
        ran: how often each request ran.
        after: the answer once it was well again.
        backends: its entry in `/backends` after the faults; `failed`: the metric, by reason.
    """

    name: str
    era: str
    fault: str
    box: Faulty
    door: Door
    heard: dict[str, Reply] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)
    after: Reply | None = None
    backends: dict[str, Any] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def row(self) -> Row:
        return ROWS[self.fault]

    def shows(self, methods: tuple[str, ...]) -> bool | None:
        """Whether `/backends` has an error while it fails at these; None: it may."""
        if self.fault == "half closed after the answer":
            return None  # what is asked next may go by the same connection, and be lost
        if self.row is WELL:
            return False
        if methods is LISTS:
            return self.fault != NO_LIST
        # A server that answers what it is asked about itself under a wrong id is modern all the same.
        return not (self.era == "modern" and self.fault in ("another's id", "a null id"))

    @property
    def fails(self) -> int:
        """How many attempts are to be counted as failed."""
        return len(CALLS) if self.row.counted else 0

    def settings(self, authority: Authority) -> dict[str, Any]:
        slow = LATE in self.row.told or self.fault == "backlog full" or "TLS" in self.fault
        tls = {"tls": {"ca": authority.path}} if self.door.url.startswith("https") else {}
        timeout = f"{TIMEOUT:g}s" if slow else "60s"
        return {"url": self.door.url, "timeout": timeout, "start_timeout": "2s", **tls}

    async def fail(self, agent: Agent) -> None:
        """Have every method fail once, in the session that a first call has opened where there are sessions."""
        assert (await agent.call(f"{self.name}-unsafe")).status == 200
        for method in CALLS:
            nonce = f"{self.name}-{method.replace('/', '-')}"
            self.box.inject(self.fault, method)
            await self.door.become(FAULTS[self.fault].door or "open")
            self.heard[method] = await agent.ask(method, asked_of(self.name, method, nonce))
            self.box.inject(None)
            self.ran[method] = self.box.executions.runs[sent_as(self.name, method, nonce)]
        await self.door.become("open")

    async def recover(self, agent: Agent) -> None:
        """Be well, and be called again."""
        self.after = await agent.call(f"{self.name}-unsafe", {"nonce": "again"})

    async def start_failing(self, *methods: str) -> None:
        """Fail at these from now on."""
        self.box.inject(self.fault, *methods)
        await self.door.become(FAULTS[self.fault].door or "open")

    async def mend(self) -> None:
        self.box.inject(None, *LISTS, *OPENINGS)
        await self.door.become("open")


def asked_of(name: str, method: str, nonce: str) -> dict[str, Any]:
    """Parameters of a request that carries the nonce."""
    if method == "tools/call":
        return {"name": f"{name}-unsafe", "arguments": {"nonce": nonce}}
    if method == "prompts/get":
        return {"name": f"{name}-prompt", "arguments": {"nonce": nonce}}
    if method == "resources/read":
        return {"uri": f"{name}-://pages/{nonce}"}
    ref = {"type": "ref/prompt", "name": f"{name}-prompt"}
    return {"ref": ref, "argument": {"name": "word", "value": nonce}}


def sent_as(name: str, method: str, nonce: str) -> str:
    """What the ledger has of it."""
    return f"{name}-://pages/{nonce}" if method == "resources/read" else nonce


@dataclass
class Began:
    """How the gateway began while all servers failed.

    Args:
        listed: the tools that were listed then; `called`: what their calls came to, by server.
        errors: `error` of `/backends` while they failed, by server; `mended` once they were well.
    """

    ready: float
    listed: list[str]
    called: dict[str, Reply]
    errors: dict[str, str]
    mended: dict[str, str] = field(default_factory=dict)


@dataclass
class Matrix:
    """What came of all cases, and how the gateway began afterwards, by what failed then."""

    cases: dict[tuple[str, str], Case] = field(default_factory=dict)
    began: dict[str, Began] = field(default_factory=dict)
    log: str = ""


def certificates(ours: Authority, stranger: Authority) -> dict[str, ssl.SSLContext]:
    """What https servers show, by the state of their doors."""
    return {"open": server_side(ours), "foreign": server_side(stranger), "expired": server_side(ours, hours=-0.5)}


async def run_all(folder: Path) -> Matrix:
    """Open every server and the gateway, and go through everything."""
    ours, stranger, matrix = Authority(folder, "ours"), Authority(folder, "stranger"), Matrix()
    made = certificates(ours, stranger)
    async with AsyncExitStack() as stack:
        for era, fault in CASES:
            name = f"{era[0]}{list(ROWS).index(fault):02}"
            is_tls = FAULTS[fault].door in ("plain", "expired", "foreign")
            case = Case(name, era, fault, Faulty(era, f"{name}-"), Door(made if is_tls else None))
            matrix.cases[era, fault] = case
            await stack.enter_async_context(faulty(case.box, case.door))
        cases = list(matrix.cases.values())
        servers = {case.name: case.settings(ours) for case in cases}
        more = {"servers": servers, "max_reply": "64KiB", "breaker": {"failures": 100}}
        async with running_beside(more, folder) as gateway:
            await until(lambda: lists_all(gateway, cases), 30)
            agent, family = Agent(gateway.url), gateway.children()
            await asyncio.gather(*[case.fail(agent) for case in cases])
            await observe(gateway, cases)
            await asyncio.gather(*[case.recover(agent) for case in cases])
            assert gateway.children() == family, gateway.log()
            for methods in (LISTS, OPENINGS):
                matrix.began[methods[0]] = await begin(gateway, cases, methods)
            matrix.log = gateway.log()
    return matrix


async def lists_all(gateway: Gateway, cases: list[Case]) -> bool:
    return len(await Agent(gateway.url).names()) == 2 * len(cases)


async def observe(gateway: Gateway, cases: list[Case]) -> None:
    """What the admin port says of every case; counters arrive a moment later."""

    async def all_counted() -> bool:
        text = (await asyncio.to_thread(gateway.ask_admin, "/metrics"))[1].decode()
        failed: dict[str, Counter[str]] = {}
        for server, reason, count in FAILED.findall(text):
            failed.setdefault(server, Counter())[reason] = int(count)
        for case in cases:
            case.failed = failed.get(case.name, Counter())
        return all(case.failed.total() == case.fails for case in cases)

    with suppress(AssertionError):  # its tests say which is not
        await until(all_counted, 2)
    found = await backends(gateway)
    for case in cases:
        case.backends = found[case.name]


async def backends(gateway: Gateway) -> dict[str, Any]:
    return dict(json.loads((await asyncio.to_thread(gateway.ask_admin, "/backends"))[1]))


async def errors(gateway: Gateway) -> dict[str, str]:
    """What went wrong when each server was last asked something by the gateway itself."""
    return {name: found["instances"][0]["error"] for name, found in (await backends(gateway)).items()}


async def begin(gateway: Gateway, cases: list[Case], methods: tuple[str, ...]) -> Began:
    """Start the gateway again while the servers fail at these methods, then mend them."""
    assert await asyncio.to_thread(gateway.stop) == 0
    await asyncio.gather(*[case.start_failing(*methods) for case in cases])
    gateway.start_again()
    begun = time.monotonic()
    await until(lambda: is_ready(gateway), READY_WITHIN)
    ready = time.monotonic() - begun
    agent = Agent(gateway.url)
    listed = await agent.names()
    replies = await asyncio.gather(*[agent.call(f"{case.name}-safe", {"nonce": methods[0]}) for case in cases])
    called = dict(zip((case.name for case in cases), replies, strict=True))
    failing = {case.name for case in cases if case.shows(methods)}

    async def all_seen() -> dict[str, str]:
        found = await errors(gateway)
        return found if failing <= {name for name, error in found.items() if error} else {}

    found = await settled(gateway, all_seen)
    await asyncio.gather(*[case.mend() for case in cases])

    async def all_well() -> dict[str, str]:
        found = await errors(gateway)
        return found if not any(found.values()) else {}

    return Began(ready, listed, called, found, await settled(gateway, all_well))


async def is_ready(gateway: Gateway) -> bool:
    return (await asyncio.to_thread(gateway.ask_admin, "/readyz"))[0] == 200


async def settled(gateway: Gateway, look: Callable[[], Awaitable[dict[str, str]]]) -> dict[str, str]:
    """What `look` finds, or the state as it is when there was time enough: which one it is, its tests say."""
    try:
        return dict(await until(look, 20))
    except AssertionError:
        return await errors(gateway)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with aside() as loop:
        yield loop.run(run_all(tmp_path_factory.mktemp("matrix")))


cases = pytest.mark.parametrize(("era", "fault"), CASES)


def test_every_fault_has_a_row() -> None:
    assert list(ROWS) == list(FAULTS)


@cases
@pytest.mark.parametrize("method", CALLS)
def test_the_answer(matrix: Matrix, era: str, fault: str, method: str) -> None:
    case = matrix.cases[era, fault]
    reply = case.heard[method]
    told, said = told_by(reply), reply.json()
    if "error" in said:
        assert said["error"].get("data", {}).get("requestId") in (None, reply.header("x-request-id"))
        assert SECRET not in repr(reply)
    assert told in case.row.told, said
    assert reply.header("retry-after") == (str(told.retry_after) if told.retry_after else None)
    assert case.ran[method] <= 1, "it ran twice"
    if told.may_have_run is False:
        assert case.ran[method] == 0, "the agent hears that it did not run"
    if told == FINE:
        assert case.ran[method] == 1


@cases
def test_the_metric(matrix: Matrix, era: str, fault: str) -> None:
    case = matrix.cases[era, fault]
    assert case.failed.total() == case.fails, case.failed
    assert set(case.failed) <= set(case.row.counted)


@cases
def test_the_breaker(matrix: Matrix, era: str, fault: str) -> None:
    case = matrix.cases[era, fault]
    breaker = case.backends["instances"][0]["breaker"]
    assert breaker["state"] == "closed", "so many failures open none here"
    assert (breaker["failures"] > 0) == bool(BREAKING.intersection(case.failed))


@cases
def test_it_is_called_again_when_it_is_well(matrix: Matrix, era: str, fault: str) -> None:
    after = matrix.cases[era, fault].after
    assert after is not None
    assert after.json()["result"]["content"][0]["text"] == "again"


@cases
def test_a_gateway_that_begins_while_it_fails_goes_on_with_what_it_kept(matrix: Matrix, era: str, fault: str) -> None:
    case = matrix.cases[era, fault]
    for methods in (LISTS, OPENINGS):
        began = matrix.began[methods[0]]
        is_kept = {f"{case.name}-safe", f"{case.name}-unsafe"} <= set(began.listed)
        assert is_kept or fault == NO_LIST
        assert case.shows(methods) in (None, began.errors[case.name] != ""), began.errors[case.name]
        assert began.mended[case.name] == ""


@cases
def test_it_is_called_while_it_cannot_list(matrix: Matrix, era: str, fault: str) -> None:
    case = matrix.cases[era, fault]
    said = matrix.began[LISTS[0]].called[case.name].json()
    if FAULTS[fault].door:
        assert said["error"]["code"] in (-31001, -31002, -31003)
    elif fault != NO_LIST:
        assert said["result"]["content"][0]["text"] == LISTS[0]


@cases
def test_a_server_that_opens_no_session_runs_nothing(matrix: Matrix, era: str, fault: str) -> None:
    case = matrix.cases[era, fault]
    said = matrix.began[OPENINGS[0]].called[case.name].json()
    ran = case.box.executions.runs[OPENINGS[0]]
    if fault == NO_LIST:
        assert ran == 0
    elif "result" in said:
        assert ran == 1
    else:
        assert ran == 0
        assert era == "legacy" or FAULTS[fault].door, "a modern server has no session to open"
        assert said["error"]["data"]["mayHaveRun"] is False or era == "modern"


def test_it_is_ready_while_all_servers_fail(matrix: Matrix) -> None:
    for began in matrix.began.values():
        assert began.ready < READY_WITHIN


def test_nobody_met_what_he_did_not_expect(matrix: Matrix) -> None:
    _, _, met = matrix.log.partition("Traceback")
    if met:
        pytest.fail(met[:2000])
