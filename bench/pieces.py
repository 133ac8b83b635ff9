"""The pieces of a call one by one, for pytest-benchmark, beside a loop of Python: `python -m bench micro` runs them.

Before each round of a piece the loop is run as well; what counts is the least CPU time of the one, in thousandths of
the least of the other.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import jwt
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from pytest_benchmark.fixture import BenchmarkFixture
from redis import Redis

from bench import faked
from bench.asked import store
from bench.catalogues import Size, offered
from bench.classes import Newcomers, policies
from bench.counts import GUARDED
from bench.decisions import OWN
from bench.decisions import Scene as Limited
from bench.faked import CALL, TEXT, TOOL, Question, Scene
from fastgw.config.schema.settings import Settings
from fastgw.gateway import observers, pipeline, relay
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import dialect
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.token_agents import TokenAgents
from fastgw.gateway.tracing import RequestSpans, follow
from fastgw.limits.script import DIGEST, ENFORCE, SOURCE, ScriptRequest, ScriptRow, StoreKeys, encode
from fastgw.protocol import envelope, headers, names, quick, results, sse
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Address, Backend, Snapshot
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.spans import MOST_TOGETHER, SpanSender
from fastgw.upstream import balancer
from fastgw.upstream.balancer import Wish
from fastgw.upstream.instances import Instance

ROUNDS, FEW = 250, 30
SECONDS = 0.0006
"""About so long is a round, of all but a `FEW`: short enough that some of them are not interrupted."""
Work = Callable[[], object]


def loop() -> float:
    """What everything is compared with: CPU seconds of small steps like those of a call."""
    begun, found = time.thread_time(), dict[bytes, int]()
    for number in range(1500):
        key = b"%d" % (number & 63)
        found[key] = found.get(key, 0) + len(key)
    return time.thread_time() - begun


def measure(benchmark: BenchmarkFixture, work: Work, rounds: int = ROUNDS) -> None:
    """Hold this piece against the loop."""
    begun, tries = time.thread_time(), rounds // 5
    for _ in range(tries):
        work()
    times = range(max(1, round(SECONDS * tries / (time.thread_time() - begun))))
    loops: list[float] = []

    def many() -> None:
        for _ in times:
            work()

    benchmark.pedantic(many, setup=lambda: loops.append(loop()), rounds=rounds, warmup_rounds=5)
    benchmark.extra_info["ratio"] = benchmark.stats.stats.min / len(times) / min(loops) * 1000


class Played:
    """A call that has been answered, with all that its steps found out."""

    def __init__(self, question: Question, scene: Scene) -> None:
        # It stays open: a call that is over is told of in a moment.
        self._loop = uvloop.new_event_loop()
        self._loop.run_until_complete(self._play(question, scene))

    async def _play(self, question: Question, scene: Scene) -> None:
        self.gateway: Gateway = scene.gateway()
        self.gateway.observers.append(self)
        await faked.GatewayDriver(self.gateway, question).observed()
        entry_point = pipeline.accept(self.context, question.scope())
        found = entry_point.recognise(self.context, question.body, self.gateway.agent_sessions)
        assert not isinstance(found, list)
        self.found, self.context.call = found, found.call

    def observe(self, context: RequestContext) -> None:
        """See `observers.Observer`."""
        self.context = context


def token_scene(policies: int) -> tuple[TokenAgents, bytes, Snapshot]:
    """A worker's tokens, one that is good, and a snapshot with so many policies."""
    issuer, key = "https://login.example.com/", rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rules = [{"name": f"p{at}", "match": {"claims": {"team": f"team-{at}"}}, "allow": ["*"]} for at in range(policies)]
    identity = {"login": {"issuer": issuer, "claims": {"team": "team", "project": "a.project"}}}
    settings = Settings.model_validate({"identity": identity, "policies": rules})
    jwk = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "a"}
    tokens = TokenAgents(faked.FakeController(), Counters())
    tokens.learn({issuer: json.dumps({"keys": [jwk]}).encode()})
    claims = {"iss": issuer, "sub": "a" * 36, "aud": "http://127.0.0.1:8080/mcp", "exp": int(time.time()) + 3600}
    claims |= {"scope": "a b", "team": "nobody", "a": {"project": "checkout"}, "jti": "b" * 36}
    shown = jwt.encode(claims, key, "RS256", {"kid": "a"}).encode()
    return tokens, shown, compile_snapshot(settings, Learned(), 1)[0]


@pytest.fixture
def played() -> Played:
    """The usual call."""
    return Played(Question(), Scene())


def test_reading_quickly(benchmark: BenchmarkFixture) -> None:
    call, answer = Question().body, b'{"jsonrpc":"2.0","id":7,"result":{%b}}' % faked.RESULTS[names.TOOLS_CALL]
    assert quick.read_request(call) and quick.read_result(answer, b"7")
    measure(benchmark, lambda: (quick.read_request(call), quick.read_result(answer, b"7")))


def test_reading_with_care(benchmark: BenchmarkFixture) -> None:
    call, answer = Question().body, b'{"jsonrpc":"2.0","id":7,"result":{%b}}' % faked.RESULTS[names.TOOLS_CALL]

    def work() -> object:
        opened = dialect.open_message(dialect.read_message(call), b"1")
        return opened, results.read(envelope.read_reply(answer).result or b"")

    measure(benchmark, work)


def test_mirror(benchmark: BenchmarkFixture) -> None:
    arguments = json.dumps(CALL["arguments"]).encode()
    wanted = [headers.ParamHeader(f"mcp-param-{name}", (name,), "string") for name in ("service", "version")]
    sent = {b"mcp-param-service": b"checkout", b"mcp-param-version": b"1.2.3"}
    assert headers.check(wanted, arguments, sent) is None
    measure(benchmark, lambda: (headers.lines(wanted, arguments), headers.check(wanted, arguments, sent)))


def test_identify(benchmark: BenchmarkFixture, played: Played) -> None:
    """By a key or a token that is remembered: the same."""
    played.gateway.known_agents.clear()
    assert pipeline.identify(played.gateway, played.context) is None
    assert pipeline.identify(played.gateway, played.context) is None
    measure(benchmark, lambda: pipeline.identify(played.gateway, played.context))


def test_first_token(benchmark: BenchmarkFixture) -> None:
    """A token by RS256, seen for the first time, of a class that is known, with a thousand policies by claims."""
    tokens, shown, snapshot = token_scene(1000)
    endpoint, now = snapshot.endpoints["/mcp"], time.time()

    def work() -> object:
        tokens.forget()
        try:
            tokens.identify(shown, snapshot, endpoint, now).send(None)
        except StopIteration as found:
            return endpoint.view_for(found.value[0])
        raise AssertionError

    assert work() is not None
    measure(benchmark, work)


def test_resolve(benchmark: BenchmarkFixture, played: Played) -> None:
    measure(benchmark, lambda: pipeline.resolve(played.gateway, played.context, played.found))


def test_authorise(benchmark: BenchmarkFixture) -> None:
    guarded = Played(Question(), Scene(policies=(GUARDED,)))
    measure(benchmark, lambda: pipeline.authorise(guarded.gateway, guarded.context))


def _decision(benchmark: BenchmarkFixture, **further: object) -> None:
    """By the last of a thousand policies, about the last of 10,000 tools."""
    lists = offered(Size(1, 10_000, 1, 1), 0)
    called = Question(params={**CALL, "name": lists["tools/list"][-1]["name"]})
    last = {"name": "last", "allow": ["*"], "match": {"claims": {"team": "platform"}, **further}}
    asked = Played(called, Scene(lists=lists, policies=(*policies()[1:], last)))

    def work() -> None:
        pipeline.resolve(asked.gateway, asked.context, asked.found)
        pipeline.authorise(asked.gateway, asked.context)

    measure(benchmark, work)


def test_decision(benchmark: BenchmarkFixture) -> None:
    _decision(benchmark)


def test_decision_by_arguments(benchmark: BenchmarkFixture) -> None:
    _decision(benchmark, arguments=GUARDED["match"]["arguments"])


@pytest.fixture(scope="module")
def newcomers() -> Newcomers:
    """Agents of classes that nobody of has come before."""
    return Newcomers()


def test_first_class(benchmark: BenchmarkFixture, newcomers: Newcomers) -> None:
    """All that the controller does for the first of a class, and a worker."""
    measure(benchmark, newcomers.met, FEW)


def test_first_class_at_worker(benchmark: BenchmarkFixture, newcomers: Newcomers) -> None:
    """The part of it that a worker does, between calls."""
    sent = newcomers.announced()
    measure(benchmark, lambda: newcomers.heard(sent), FEW)


def test_admit(benchmark: BenchmarkFixture, played: Played) -> None:
    def work() -> None:
        try:
            pipeline.admit(played.gateway, played.context).send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        raise AssertionError("nothing is to be waited for")

    measure(benchmark, work)


def test_attempt(benchmark: BenchmarkFixture, played: Played) -> None:
    """Forward without the exchange: an instance is chosen, its breaker and its average are told, an attempt noted."""
    caller, context = played.gateway.caller, played.context
    answer = quick.read_result(b'{"jsonrpc":"2.0","id":7,"result":{%b}}' % faked.RESULTS[names.TOOLS_CALL], b"7")

    async def answered(*_: object) -> object:
        return answer

    caller.call = answered  # type: ignore[assignment]

    def work() -> None:
        context.attempts = []
        try:
            pipeline.forward(played.gateway, context, context.arm).send(None)  # type: ignore[attr-defined, arg-type]
        except StopIteration as done:
            assert done.value is answer
            return
        raise AssertionError("nothing is to be waited for")

    async def running() -> None:
        measure(benchmark, work)

    uvloop.run(running())


def test_balance(benchmark: BenchmarkFixture) -> None:
    """One of three instances, by what is known of two."""
    addresses = tuple(Address(f"s|{number}", "s", f"http://{number}/mcp", "modern", "") for number in range(3))
    server = Backend("s", addresses, b"", (None, None, None), False, 0.0, 1, None)
    instances = [Instance(server, address) for address in addresses]
    wish = Wish("agent:a", stays=False)
    assert balancer.pick(instances, wish, (), 1.0) in instances
    measure(benchmark, lambda: balancer.pick(instances, wish, (), 1.0))


def test_settle(benchmark: BenchmarkFixture, played: Played) -> None:
    measure(benchmark, lambda: pipeline.settle(played.gateway, played.context))


def test_list(benchmark: BenchmarkFixture) -> None:
    lists = offered(Size(1, 100, 1, 1), 0)
    asked = Played(Question(method="tools/list", params={}, wanted=b'"tools":['), Scene(lists=lists))

    def work() -> object:
        page = pipeline.resolve(asked.gateway, asked.context, asked.found)
        assert isinstance(page, tuple)
        return asked.found.dialect.reply(b"1", page)

    measure(benchmark, work)


def test_events(benchmark: BenchmarkFixture) -> None:
    stream = b"".join(sse.encode(b'{"jsonrpc":"2.0","id":%d,"result":{%b}}' % (at, TEXT)) for at in range(5))
    measure(benchmark, lambda: sse.EventParser(1 << 20).feed(stream))


def test_histograms(benchmark: BenchmarkFixture, played: Played) -> None:
    metrics = observers.RequestMetrics(Counters())
    measure(benchmark, lambda: metrics.observe(played.context))


def test_usage_event(benchmark: BenchmarkFixture, played: Played) -> None:
    measure(benchmark, lambda: observers.event(played.context, played.context.access).encode())


def _traced(played: Played, sample: int, parent: bytes = b"") -> RequestContext:
    """The call, where this part of 2**64 traces is recorded and the agent says that it is in this one."""
    context = played.context
    context.snapshot = replace(context.snapshot, sample=sample)
    if parent:
        context.headers[b"traceparent"] = parent
    return context


def test_trace_not_recorded(benchmark: BenchmarkFixture, played: Played) -> None:
    """All that a call pays for `traces`, where neither its agent nor chance wants it recorded."""
    context, made = _traced(played, 0), RequestSpans()
    call = context.call
    assert call is not None

    def work() -> None:
        follow(context, call, made)
        made.observe(context)

    measure(benchmark, work)
    assert not made.waiting


def test_trace_recorded(benchmark: BenchmarkFixture, played: Played) -> None:
    """All that a worker does for a recorded call with one attempt: its trace found and handed on, two spans made and
    sent to the usage process.
    """
    context, made = _traced(played, 2**64, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), RequestSpans()
    call, (attempt,) = context.call, context.attempts
    assert call is not None
    with TemporaryDirectory(prefix="bench-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as usage:
        usage.bind(path := f"{folder}/spans")
        sender = SpanSender(path)

        def work() -> None:
            attempt.span_id, call.meta = "", {}
            follow(context, call, made)
            attempt.carry(call.trace)
            made.observe(context)
            if len(made.waiting) == MOST_TOGETHER:  # as many as one datagram takes
                made.hand_over()
                usage.recv(1 << 18)

        made.write = sender.send
        measure(benchmark, work)
        sender.close()


def test_accounting(benchmark: BenchmarkFixture) -> None:
    """All that a priced call under a quota of calls, tokens and money pays for being accounted for: what it reserves,
    its tokens, its cost, what is settled, its event.
    """
    priced = {TOOL: {"tokens": {"in": "_meta.usage.in", "out": "_meta.usage.out"}, "price": {"per_call": 0.001}}}
    quota = {"name": "monthly", "by": ["claims.team"], "per": "month", "calls": 10**9, "tokens": 10**12, "cost": 10**6}
    played = Played(Question(), Scene(quotas=(quota,), tools=priced))
    context, gate = played.context, played.gateway.quotas
    (account,) = gate.accounts
    account.until, account.pool = inf, [10**12] * 5  # no lease is asked for meanwhile
    usage = b'{"usage":{"in":1250,"out":487}}'

    def work() -> object:
        assert gate.admit(context) is None
        relay.count_tokens(context, lambda name: usage)
        context.charge()
        gate.settle(context)
        return observers.event(context, context.access).encode()

    measure(benchmark, work)
    assert context.cost == 10**6


_STORE = [0]


def _clock_of_store() -> float:
    """CPU seconds of its process (clock_getcpuclockid(3))."""
    return time.clock_gettime(~_STORE[0] << 3 | 2)


@pytest.fixture
def client() -> Iterator[Redis]:
    """Of a store of its own."""
    with TemporaryDirectory(prefix="bench-") as folder, store(Path(folder)) as (pid, socket):
        _STORE[0] = pid
        with Redis(unix_socket_path=str(socket), protocol=2) as found:
            found.script_load(SOURCE)
            yield found


@pytest.mark.benchmark(timer=_clock_of_store)
def test_lua(benchmark: BenchmarkFixture, client: Redis) -> None:
    """Sixteen checks of four buckets in one call of the script."""
    keys, scene = StoreKeys("bench"), Limited(OWN)
    charges = [scene.charges(f"agent-{number}") for number in range(16)]
    rows = [ScriptRow(keys.bucket(*charge.bucket), charge.rate) for check in charges for charge in check]
    checks = [[part for place in range(at, at + 4) for part in (place, 1, ENFORCE)] for at in range(1, 64, 4)]
    request = ScriptRequest(rows, checks)
    names, argument = keys.of(request), encode(request, "bench", "epoch")
    measure(benchmark, lambda: client.evalsha(DIGEST, len(names), *names, argument))
