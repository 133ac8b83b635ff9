"""What is kept, for how long, for whom; and who waits for whom, where a server answers when the test says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from fastgw.catalog.route import Arm, Checks, Deadlines, Target
from fastgw.errors import Fault, Kind
from fastgw.gateway.result_cache import OVERHEAD, KeptResult, KeptResults, ResultKey, key_of
from fastgw.policy.match import Principal
from fastgw.protocol.call import Call
from fastgw.protocol.quick import QuickResult, read_result
from tests.gateway.fakes import BUY, META, MODERN, FakeAgent, Message, Stage, event, progress, request, staged
from tests.upstream.fakes import FakeAnswer, Sent, run, settle

TARGET = Target("shop", "buy", b'"buy"')
KEY = ResultKey("/mcp", Principal("bot"), "buy", 30.0, (TARGET,), None, (), (), b"{}")
SECONDS = 30.0


# -- what is kept ---------------------------------------------------------------------------------------------------


def keyed(number: int = 0, arguments: bytes = b"") -> ResultKey:
    return KEY._replace(arguments=arguments or b"%d" % number)


def result(size: int = 10, expires: float = 100.0) -> KeptResult:
    return KeptResult(b"x" * size, "shop", expires)


def weight(size: int = 10) -> int:
    return OVERHEAD + 1 + size


def test_a_result_is_there_until_it_expires() -> None:
    kept, one = KeptResults(), result(expires=100.0)
    assert kept.get(keyed(), 0.0) is None
    kept.put(keyed(), one, 70.0)
    assert kept.get(keyed(), 70.0) is one
    assert kept.get(keyed(), 99.999) is one
    assert kept.held == weight()
    assert kept.get(keyed(), 100.0) is None
    assert kept.held == 0
    assert kept.get(keyed(), 99.0) is None


def test_what_was_used_longest_ago_makes_room() -> None:
    kept = KeptResults(3 * weight())
    for number in (1, 2, 3):
        kept.put(keyed(number), result(), 0.0)
    assert kept.get(keyed(1), 0.0)
    kept.put(keyed(4), result(), 0.0)
    assert [kept.get(keyed(number), 0.0) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert kept.held == 3 * weight()


def test_a_large_one_makes_room_for_itself_and_one_too_large_is_gone_at_once() -> None:
    kept = KeptResults(3 * weight())
    for number in (1, 2, 3):
        kept.put(keyed(number), result(), 0.0)
    kept.put(keyed(4), result(10 + weight()), 0.0)
    assert [kept.get(keyed(number), 0.0) is not None for number in (1, 2, 3, 4)] == [False, False, True, True]
    kept.put(keyed(5), result(3 * weight()), 0.0)
    assert kept.get(keyed(5), 0.0) is None
    assert kept.held == 0


def test_arguments_and_passed_headers_take_room() -> None:
    kept = KeptResults()
    kept.put(keyed(arguments=b"a" * 1000)._replace(passed=((b"mcp-param-x", b"v" * 500),)), result(), 0.0)
    assert kept.held == OVERHEAD + 1510


def test_a_newer_result_takes_the_place_of_the_older() -> None:
    kept, newer = KeptResults(), result(30)
    kept.put(keyed(), result(20), 0.0)
    kept.put(keyed(), newer, 0.0)
    assert kept.get(keyed(), 0.0) is newer
    assert kept.held == weight(30)


def test_what_has_expired_and_nobody_asks_for_goes_with_the_next() -> None:
    kept = KeptResults()
    for number in (1, 2):
        kept.put(keyed(number), result(expires=10.0), 0.0)
    kept.put(keyed(3), result(expires=50.0), 10.0)
    assert kept.held == weight()


def test_the_size_of_a_result_in_the_usual_shape() -> None:
    text = b'{"jsonrpc":"2.0","id":1,"result":{"content":[1],"structuredContent":{"a":1},"_meta":{}}}'
    found = read_result(text, b"1")
    assert isinstance(found, QuickResult)
    assert KeptResult(found, "shop", 0.0).size == len(b'[1]{"a":1}{}')


# -- which calls are equal ------------------------------------------------------------------------------------------

ARM = Arm(None, (TARGET,), cache=SECONDS)


def call(arguments: bytes | None = b'{"n":1}', **more: Any) -> Call:
    params = {} if arguments is None else {"arguments": arguments}
    return Call(b"1", "tools/call", "2026-07-28", "buy", params, **more)


def key(of: Call | None = None, arm: Arm = ARM, principal: Principal = KEY.principal, path: str = "/mcp") -> Any:
    return key_of(path, principal, of or call(), arm)


def test_equal_calls() -> None:
    """Whoever sends them, in whichever session, revision and with whatever `_meta`."""
    found = key()
    same = Call(b'"x"', "tools/call", "2025-11-25", "buy", {"arguments": b'{"n":1}'}, {"own": b"1"}, b"7", "debug")
    same.session, same.capabilities = "s", b'{"elicitation":{}}'
    again = replace(ARM, targets=(replace(TARGET),), deadlines=Deadlines(1, 1, 1, 1), weight=5)
    for other in (key(same), key(arm=again), key(principal=Principal("bot", {}))):
        assert other == found
        assert hash(other) == hash(found)
    assert key(call(None)) == key(call(b"{}"))


def test_calls_that_are_not_equal() -> None:
    schema = Checks(results=b"{}")
    renamed = replace(TARGET, renamed=(("n", "m"),))
    found = [
        key(),
        key(call(b'{"n":2}')),
        key(call(b'{"n": 1}')),
        key(call(None)),
        key(path="/mcp/ops"),
        key(principal=Principal("other")),
        key(principal=Principal("bot", {"team": "a"})),
        key(principal=Principal("bot", {"team": "b"})),
        key(principal=Principal("bot", user="u")),
        key(principal=Principal("bot", credential="key:0")),
        key(call(passed=((b"mcp-param-x", b"1"),))),
        key(arm=replace(ARM, cache=1.0)),
        key(arm=replace(ARM, checks=schema)),
        key(arm=replace(ARM, targets=(replace(TARGET, server="other"),))),
        key(arm=replace(ARM, targets=(renamed,))),
        key(arm=replace(ARM, targets=(TARGET, TARGET))),
        key(Call(b"1", "tools/call", "2026-07-28", "sell", {"arguments": b'{"n":1}'})),
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("more", ["inputResponses", "requestState", "anything"])
def test_a_call_that_says_more_than_its_arguments_is_like_no_other(more: str) -> None:
    asked = call()
    asked.params[more] = b"{}"
    assert key(asked) is None
    asked.params.pop("arguments")
    assert key(asked) is None


# -- who waits for whom ---------------------------------------------------------------------------------------------


class Shop:
    """A server that holds each call until the test says how it is answered."""

    def __init__(self) -> None:
        self.asked: list[Sent] = []
        self.held: list[asyncio.Future[FakeAnswer]] = []

    async def sells(self, sent: Sent) -> FakeAnswer:
        if sent.method != "tools/call":
            return FakeAnswer(202)
        self.asked.append(sent)
        self.held.append(asyncio.get_running_loop().create_future())
        return await self.held[-1]

    def answers(self, at: int, **result: Any) -> None:
        """The answer to call number `at`."""
        found = {"resultType": "complete", "content": [{"type": "text", "text": f"no. {at}"}], **result}
        self.says(at, {"result": found})

    def says(self, at: int, what: Message) -> None:
        text = json.dumps({"jsonrpc": "2.0", "id": self.asked[at].json["id"], **what}, separators=(",", ":"))
        self.held[at].set_result(FakeAnswer(body=text.encode()))


@asynccontextmanager
async def cached(monkeypatch: pytest.MonkeyPatch, handler: Any, **arm: Any) -> AsyncIterator[Stage]:
    """A stage whose tool has `cache`; its arm has these fields beside."""
    async with staged(monkeypatch, handler) as stage:
        snapshot = stage.gateway._newest
        assert snapshot is not None
        endpoint = snapshot.endpoints["/mcp"]
        view = endpoint.views[0]
        grant = view.grants["buy"]
        arms = (replace(grant.arms[0], **{"cache": SECONDS, **arm}),)
        view = replace(view, grants={"buy": replace(grant, arms=arms)})
        stage.gateway.load(replace(snapshot, endpoints={"/mcp": replace(endpoint, views=(view,))}))
        yield stage


def buying(n: int = 1, identity: Any = 1, **meta: Any) -> FakeAgent:
    params = {"name": "buy", "arguments": {"n": n}, "_meta": {**META, **meta}}
    return FakeAgent(request("tools/call", params, identity))


def text(agent: FakeAgent) -> str:
    return str(agent.json()["result"]["content"][0]["text"])


def counted(stage: Stage) -> dict[str, int]:
    counts = stage.gateway.results._counters.counts
    return {series[1]: count for series, count in counts.items() if series[0] == "fastgw_cache_total"}


Begun = tuple[list[FakeAgent], list[asyncio.Task[None]]]


async def begin(stage: Stage, *agents: FakeAgent) -> Begun:
    """Let these in, one after the other, as far as they come."""
    tasks = []
    for agent in agents:
        tasks.append(stage.ask(agent, MODERN))
        await settle()
    return list(agents), tasks


def test_an_equal_call_is_answered_by_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            (first,), (asked,) = await begin(stage, buying())
            shop.answers(0)
            await asked
            again, other = buying(identity="x"), buying(2)
            await stage.ask(again, MODERN)
            assert again.json() == {**first.json(), "id": "x"}
            asked = stage.ask(other, MODERN)
            await settle()
            shop.answers(1)
            await asked
            assert [text(one) for one in (first, again, other)] == ["no. 0", "no. 0", "no. 1"]
            assert counted(stage) == {"miss": 2, "hit": 1}
            fields = ("outcome", "statusCode", "cached", "attempts", "mcpServer")
            assert [tuple(one[name] for name in fields) for one in stage.controller.events] == [
                ("ok", 200, False, 1, "shop"),
                ("ok", 200, True, 0, None),
                ("ok", 200, False, 1, "shop"),
            ]
            assert stage.gateway.results._counters.gauges["fastgw_cache_bytes",] > 2 * OVERHEAD

    run(story())


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_each_revision_gets_its_own_answer_of_one_result(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    """Whoever asked first, and whichever reader took the result."""

    async def story(more: Message) -> None:
        shop = Shop()
        async with cached(monkeypatch, shop.sells) as stage:
            session = await stage.initialize()
            new, old = buying(), FakeAgent(request("tools/call", BUY, "o"))
            turns = [(new, MODERN), (old, session)]
            for number, (agent, fields) in enumerate(turns if era == "modern" else turns[::-1]):
                asked = stage.ask(agent, fields)
                if number == 0:
                    await settle()
                    shop.answers(0, **more)
                await asked
            assert len(shop.asked) == 1
            assert new.json()["result"]["resultType"] == "complete"
            assert new.json()["result"]["_meta"]["own"] == 1
            found = old.json()["result"]
            assert found == {"content": [{"type": "text", "text": "no. 0"}], "_meta": {"own": 1}}
            assert ("ttlMs" in new.json()["result"]) is ("ttlMs" in more)

    run(story({"_meta": {"own": 1}}))
    run(story({"_meta": {"own": 1}, "ttlMs": 60_000}))


@pytest.mark.parametrize(("more", "seconds"), [({}, SECONDS), ({"ttlMs": 20_000}, 20.0), ({"ttlMs": 40_000}, SECONDS)])
def test_a_server_s_word_makes_it_shorter_never_longer(
    monkeypatch: pytest.MonkeyPatch, more: Message, seconds: float
) -> None:
    shop, clock = Shop(), Clock()
    monkeypatch.setattr("fastgw.gateway.result_cache.monotonic", clock.monotonic)

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            _, (asked,) = await begin(stage, buying())
            shop.answers(0, **more)
            await asked
            for after, number in ((seconds - 0.001, 0), (0.001, 1)):
                clock.now += after
                (agent,), (asked,) = await begin(stage, buying())
                assert len(shop.asked) == 1 + number
                if number:
                    shop.answers(number)
                await asked
                assert text(agent) == f"no. {number}"

    run(story())


def test_what_is_told_of_freshness_is_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            (first,), (asked,) = await begin(stage, buying())
            shop.answers(0, ttlMs=20_000, cacheScope="private")
            await asked
            assert first.json()["result"]["ttlMs"] == 20_000
            again = buying()
            await stage.ask(again, MODERN)
            assert 0 <= again.json()["result"]["ttlMs"] < 20_000

    run(story())


@pytest.mark.parametrize(
    "more",
    [
        {"isError": True},
        {"ttlMs": 0},
        {"cacheScope": "nobody", "ttlMs": 1000},
        {"content": [{"type": "text", "text": "x" * 2**20}]},
    ],
    ids=["an error", "stale at once", "of unknown scope", "too large"],
)
def test_what_may_not_be_kept_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch, more: Message) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            _, tasks = await begin(stage, buying(), buying(), buying())
            assert len(shop.asked) == 1
            shop.answers(0, **more)
            await settle()
            # At the same time, not in turn: what fails slowly must not become a queue.
            assert len(shop.asked) == 3
            for at in (1, 2):
                shop.answers(at, **more)
            await asyncio.gather(*tasks)
            assert counted(stage) == {"miss": 3}
            assert "fastgw_cache_bytes" not in {series[0] for series in stage.gateway.results._counters.gauges}

    run(story())


@pytest.mark.parametrize(
    "says",
    [{"error": {"code": -32000, "message": "no"}}, {"result": {"content": "no such thing", "_meta": []}}],
    ids=["an error", "an unusable result"],
)
def test_a_failure_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch, says: Message) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            agents, tasks = await begin(stage, buying(), buying())
            shop.says(0, says)
            await settle()
            (late,), (last,) = await begin(stage, buying())
            assert len(shop.asked) == 2, "who comes later waits for the one that goes on"
            shop.answers(1)
            await asyncio.gather(*tasks, last)
            assert "error" in agents[0].json()
            assert [text(agents[1]), text(late)] == ["no. 1", "no. 1"]
            assert counted(stage) == {"miss": 2, "shared": 1}

    run(story())


def test_equal_calls_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            agents, tasks = await begin(stage, *(buying(identity=number) for number in range(5)), buying(2))
            assert len(shop.asked) == 2
            shop.answers(0)
            await asyncio.gather(*tasks[:5])
            assert [text(one) for one in agents[:5]] == ["no. 0"] * 5
            assert [one.json()["id"] for one in agents[:5]] == [0, 1, 2, 3, 4]
            shop.answers(1)
            await tasks[5]
            assert counted(stage) == {"miss": 2, "shared": 4}
            events = [one for one in stage.controller.events if one["cached"]]
            assert [(one["attempts"], one["outcome"]) for one in events] == [(0, "ok")] * 4

    run(story())


class Clock:
    """Set by hand, in place of the module `time` or of `monotonic` alone."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_who_waits_has_waited_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, clock = Shop(), Clock()
    monkeypatch.setattr("fastgw.gateway.pipeline.time", clock)

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            _, tasks = await begin(stage, buying(), buying())
            clock.now += 3.0
            shop.answers(0)
            await asyncio.gather(*tasks)
            (shared,) = [one for one in stage.controller.events if one["cached"]]
            assert shared["latencyMs"] > shared["overheadMs"] == 0

    run(story())


def test_one_takes_over_from_an_agent_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            agents, tasks = await begin(stage, *(buying() for _ in range(4)))
            assert len(shop.asked) == 1
            agents[0].leaves()
            await tasks[0]
            await settle()
            assert len(shop.asked) == 2
            agents[1].leaves()
            await tasks[1]
            await settle()
            assert len(shop.asked) == 3
            shop.answers(2)
            await asyncio.gather(*tasks)
            assert [text(one) for one in agents[2:]] == ["no. 2"] * 2
            assert counted(stage) == {"miss": 3, "shared": 1}
            assert [one["outcome"] for one in stage.controller.events] == ["cancelled", "cancelled", "ok", "ok"]

    run(story())


def test_who_leaves_while_waiting_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            agents, tasks = await begin(stage, buying(), buying(), buying())
            agents[1].leaves()
            await tasks[1]
            assert agents[1].sent == []
            shop.answers(0)
            await asyncio.gather(*tasks)
            assert [text(agents[0]), text(agents[2])] == ["no. 0", "no. 0"]
            assert len(shop.asked) == 1

    run(story())


def test_an_older_agent_that_cancels_its_call_is_not_answered_and_another_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            session = await stage.initialize()
            old, new = FakeAgent(request("tools/call", BUY, "o")), buying()
            asked = stage.ask(old, session)
            await settle()
            _, tasks = await begin(stage, new)
            await stage.ask(FakeAgent(request("notifications/cancelled", {"requestId": "o"}, None)), session)
            await asked
            assert old.body == b""
            await settle()
            shop.answers(1)
            await asyncio.gather(*tasks)
            assert text(new) == "no. 1"

    run(story())


def test_who_waits_has_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first was begun with another deadline; a reload has given the second a shorter one."""
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            (first,), (asked,) = await begin(stage, buying())
            snapshot = stage.gateway._newest
            assert snapshot is not None
            endpoint = snapshot.endpoints["/mcp"]
            grant = endpoint.views[0].grants["buy"]
            arm = replace(grant.arms[0], deadlines=Deadlines(0.05, 0.05, 0.05, 0.05))
            view = replace(endpoint.views[0], grants={"buy": replace(grant, arms=(arm,))})
            stage.gateway.load(replace(snapshot, endpoints={"/mcp": replace(endpoint, views=(view,))}))
            second = buying()
            await stage.ask(second, MODERN)
            error = second.json()["error"]
            assert error["code"] == Kind.TIMEOUT.code
            assert (error["data"]["mayHaveRun"], error["data"]["timeoutMs"]) == (False, 50)
            assert len(shop.asked) == 1
            shop.answers(0)
            await asked
            assert text(first) == "no. 0"

    run(story())


def test_who_goes_on_alone_has_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, clock = Shop(), Clock()
    monkeypatch.setattr("fastgw.gateway.pipeline.time", clock)

    async def story() -> None:
        async with cached(monkeypatch, shop.sells, deadlines=Deadlines(5, 5, 5, 5)) as stage:
            due: list[Deadlines] = []
            send = stage.wire.request

            async def noting(verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> FakeAnswer:
                due.append(deadlines)
                return await send(verb, headers, body, deadlines)

            monkeypatch.setattr(stage.wire, "request", noting)
            _, tasks = await begin(stage, buying(), buying())
            clock.now += 3.0
            shop.held[0].set_exception(Fault(Kind.LOST, sent=True))
            await settle()
            assert due[1].total == pytest.approx(2.0, abs=0.5)
            assert due[1].whole == 5
            shop.answers(1)
            await asyncio.gather(*tasks)

    run(story())


def test_a_slow_reader_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            agents, tasks = await begin(stage, buying(), buying())
            agents[0].may_read.clear()
            shop.answers(0)
            await tasks[1]
            assert text(agents[1]) == "no. 0"
            assert agents[0].sent == []
            agents[0].may_read.set()
            await tasks[0]

    run(story())


def test_progress_and_log_messages_go_to_the_one_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeAnswer(headers={"content-type": "text/event-stream"}, body=None)
    asked: list[Sent] = []

    def streams(sent: Sent) -> FakeAnswer:
        asked.append(sent)
        return stream

    async def story() -> None:
        async with cached(monkeypatch, streams) as stage:
            agents, tasks = await begin(stage, buying(progressToken="a"), buying(progressToken="b"))
            stream.more.put_nowait(progress(asked[0], 1))
            await settle()
            final = {"jsonrpc": "2.0", "id": asked[0].json["id"], "result": {"content": []}}
            stream.more.put_nowait(event(json.dumps(final).encode()))
            await asyncio.gather(*tasks)
            assert [one.get("method") for one in agents[0].events()] == ["notifications/progress", None]
            assert agents[1].json()["result"]["content"] == []
            assert agents[1].headers[b"content-type"] == b"application/json"
            later = buying()
            await stage.ask(later, MODERN)
            assert later.json()["result"] == agents[1].json()["result"]
            assert len(asked) == 1

    run(story())


def test_a_full_worker_lets_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            _, (asked,) = await begin(stage, buying())
            monkeypatch.setattr("fastgw.gateway.pipeline.MOST_IN_FLIGHT", 1)
            stage.gateway.gates[0].most = 1  # type: ignore[attr-defined]
            second = buying()
            await stage.ask(second, MODERN)
            assert second.json()["error"]["code"] == Kind.FULL.code
            shop.answers(0)
            await asked
            third = buying()
            await stage.ask(third, MODERN)
            assert text(third) == "no. 0"

    run(story())


def test_a_worker_that_ends_answers_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells) as stage:
            agents, tasks = await begin(stage, buying(), buying())
            stage.gateway.expire()
            await asyncio.gather(*tasks)
            assert [one.json()["error"]["code"] for one in agents] == [Kind.LOST.code, Kind.FULL.code]
            assert len(shop.asked) == 1

    run(story())


def test_what_is_not_to_be_kept_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    async def story() -> None:
        async with cached(monkeypatch, shop.sells, cache=0.0) as stage:
            _, tasks = await begin(stage, buying(), buying())
            assert len(shop.asked) == 2
            shop.answers(0)
            shop.answers(1)
            await asyncio.gather(*tasks)
            assert counted(stage) == {}

    run(story())
