"""A server asks for input in the middle of a call, and the agent asks again with the answers: the whole path.

The server sees one credential for all agents, so a state that it gave to one must not come back from another.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from fastgw.catalog.route import Arm, Deadlines, Route, Target
from fastgw.catalog.uris import ServerUris, Uris
from fastgw.protocol import names
from fastgw.snapshot.model import Grant
from tests.gateway.fakes import META, MODERN, FakeAgent, Stage, event, request, staged
from tests.upstream.fakes import FakeAnswer, Sent, error, result, run

FORM = {"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {"type": "object"}}}
ROOTS = {"method": "roots/list", "params": {"uri": "file:///not a member that is known"}}
ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
MINUTE = Deadlines(5, 5, 5, 5)
SERVERS = 'it\\u0073 own \\"state\\" \u00e9 1e400'
"""What the server writes into its `requestState`, as it stands in the JSON text."""

ASKED = {
    "tools/call": {"name": "buy", "arguments": {}},
    "prompts/get": {"name": "greet", "arguments": {"a": "b"}},
    "resources/read": {"uri": "doc:a"},
}


def granted(name: str, target: Target) -> Grant:
    arms = (Arm(None, (target,), MINUTE),)
    return Grant(True, (), Route(name, arms, (name,), ()), arms)


@asynccontextmanager
async def shop(
    monkeypatch: pytest.MonkeyPatch, handler: Any, era: str = "modern", mode: str = "none"
) -> AsyncIterator[Stage]:
    """The usual stage, whose server has a prompt and resources besides its tool."""
    async with staged(monkeypatch, handler, era) as stage:
        snapshot = stage.gateway._newest
        assert snapshot is not None
        before = snapshot.endpoints["/mcp"]
        view = replace(before.views[0], prompts={"greet": granted("greet", Target("shop", "greet", b'"greet"'))})
        shelf = ServerUris("shop", "shop", ("doc:a", "doc:b"))
        endpoint = replace(
            before, views=(view,), uris=Uris(mode, (shelf,)), readers={"shop": Arm(None, (), MINUTE)},
            completes=frozenset(("shop",)),
        )  # fmt: skip
        stage.gateway.load(replace(snapshot, generation=2, endpoints={"/mcp": endpoint}))
        yield stage


async def ask(stage: Stage, method: str, capabilities: Any = ALL, identity: Any = 1, **more: Any) -> FakeAgent:
    """A modern agent's request and the answer to it."""
    params = {**ASKED.get(method, {}), **more}
    meta = {**META, names.META_CAPABILITIES: capabilities}
    agent = FakeAgent(request(method, {**params, "_meta": meta}, identity))
    fields = {**MODERN, "mcp-method": method, "mcp-name": str(params.get("name", params.get("uri", "")))}
    await stage.ask(agent, fields)
    return agent


def needs(text: str) -> Any:
    """A server that answers so, in these very bytes."""

    def answers(sent: Sent) -> FakeAnswer:
        body = '{"jsonrpc":"2.0","id":"%s","result":%s}' % (sent.json["id"], text)  # noqa: UP031 - it is JSON
        return FakeAnswer(body=body.encode())

    return answers


def refusing(error: dict[str, Any], status: int) -> Any:
    """A server that answers with this error."""

    def answers(sent: Sent) -> FakeAnswer:
        body = {"jsonrpc": "2.0", "id": sent.json["id"], "error": error}
        return FakeAnswer(status=status, body=json.dumps(body).encode())

    return answers


def input_required(**requests: Any) -> str:
    return '{"resultType":"input_required","inputRequests":%s,"requestState":"%s","own":1.50}' % (  # noqa: UP031
        json.dumps(requests),
        SERVERS,
    )


def outcomes(stage: Stage) -> list[str]:
    return [event["outcome"] for event in stage.controller.events]


# -- the dialogue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(ASKED))
def test_the_agent_is_asked_and_its_answers_reach_the_server_with_its_own_state(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def server(sent: Sent) -> FakeAnswer:
        if "requestState" in sent.json["params"]:
            return result(sent, {"resultType": "complete", "content": [], "messages": [], "contents": []})
        return needs(input_required(k=FORM, r=ROOTS))(sent)

    async def story() -> None:
        async with shop(monkeypatch, server) as stage:
            first = await ask(stage, method)
            told = first.json()["result"]
            assert first.status == 200
            assert told["resultType"] == "input_required"
            assert told["inputRequests"] == {"k": FORM, "r": ROOTS}
            assert b'"own":1.50' in first.body
            assert "state" not in told["requestState"] and told["requestState"] != SERVERS
            assert told["_meta"][names.META_SERVER]["name"] == "fastgw"
            answers = {"k": {"action": "accept", "content": {"n": 1}}}
            second = await ask(stage, method, identity=2, inputResponses=answers, requestState=told["requestState"])
            assert second.json()["result"]["resultType"] == "complete"
            asked, again = stage.wire.sent
            assert asked.json["params"]["_meta"][names.META_CAPABILITIES] == ALL
            assert again.json["params"]["inputResponses"] == answers
            assert b'"requestState":"%s"' % SERVERS.encode() in again.body
            assert outcomes(stage) == ["input_required", "ok"]

    run(story())


def test_a_result_in_a_stream_is_relayed_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    def server(sent: Sent) -> FakeAnswer:
        answer = needs(input_required(k=FORM))(sent)
        return FakeAnswer(headers={"content-type": "text/event-stream"}, body=None, pieces=[event(answer.body), b""])

    async def story() -> None:
        async with shop(monkeypatch, server) as stage:
            told = (await ask(stage, "tools/call")).json()["result"]
            assert told["inputRequests"] == {"k": FORM}
            assert told["requestState"] != SERVERS

    run(story())


def test_a_result_without_a_state_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        wanted = {"resultType": "input_required", "inputRequests": {"k": FORM}, "ttlMs": 9, "cacheScope": "public"}
        async with shop(monkeypatch, lambda sent: result(sent, wanted)) as stage:
            told = (await ask(stage, "resources/read")).json()["result"]
            assert set(told) == {"resultType", "inputRequests", "_meta"}

    run(story())


@pytest.mark.parametrize(
    ("capabilities", "text"),
    [
        ({}, input_required(k=FORM)),
        ({"elicitation": {"url": {}}}, input_required(k=FORM)),
        ({"elicitation": {}}, input_required(k=FORM, r=ROOTS)),
        (ALL, input_required(k={"method": "tools/list"})),
        (ALL, '{"resultType":"task","taskId":"S3CRET"}'),
        (ALL, '{"resultType":"INPUT_REQUIRED","requestState":"S3CRET"}'),
    ],
)
def test_what_was_not_offered_is_not_asked(monkeypatch: pytest.MonkeyPatch, capabilities: Any, text: str) -> None:
    async def story() -> None:
        async with shop(monkeypatch, needs(text)) as stage:
            agent = await ask(stage, "tools/call", capabilities)
            told = agent.json()["error"]
            assert (agent.status, told["code"], told["data"]["mayHaveRun"]) == (200, -32603, True)
            assert "needs input from the user" in told["message"]
            assert b"inputRequests" not in agent.body and b"S3CRET" not in agent.body
            assert outcomes(stage) == ["server_error"]

    run(story())


@pytest.mark.parametrize(
    "text",
    [
        '{"resultType":"input_required"}',
        '{"resultType":"input_required","requestState":7}',
        '{"resultType":"input_required","inputRequests":[]}',
        '{"resultType":7}',
    ],
)
def test_a_broken_result_is_a_lost_call(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    async def story() -> None:
        async with shop(monkeypatch, needs(text)) as stage:
            assert (await ask(stage, "tools/call")).json()["error"]["code"] == -31003

    run(story())


STATE_ALONE = '{"resultType":"input_required","requestState":"S3CRET"}'
EITHER = pytest.mark.parametrize("text", [input_required(k=FORM), STATE_ALONE])


@pytest.mark.parametrize("status", [200, 400])
def test_a_capability_that_cannot_be_handed_on_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    error = {"code": -32021, "message": "S3CRET", "data": {"requiredCapabilities": {"elicitation": {"form": {}}}}}

    async def story() -> None:
        async with shop(monkeypatch, refusing(error, status)) as stage:
            told = (await ask(stage, "tools/call", ALL)).json()["error"]
            assert (told["code"], told["data"]["mayHaveRun"]) == (-32603, True)
            assert "needs a capability of the client" in told["message"] and "S3CRET" not in told["message"]

    run(story())


@EITHER
def test_completions_have_no_rounds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    async def story() -> None:
        async with shop(monkeypatch, needs(text)) as stage:
            ref = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}}
            agent = await ask(stage, "completion/complete", **ref)
            assert agent.json()["error"]["code"] == -32603
            assert stage.wire.sent[0].json["params"]["_meta"][names.META_CAPABILITIES] == {}

    run(story())


@EITHER
def test_the_other_pairs_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    async def story(era: str, is_new: bool) -> None:
        async with shop(monkeypatch, needs(text), era) as stage:
            if is_new:
                agent = await ask(stage, "tools/call")
            else:
                agent = FakeAgent(request("tools/call", ASKED["tools/call"]))
                await stage.ask(agent, await stage.initialize())
            assert agent.json()["error"]["code"] == -32603
            assert b"S3CRET" not in agent.body

    for era, is_new in (("modern", False), ("legacy", True), ("legacy", False)):
        run(story(era, is_new))


# -- the state ------------------------------------------------------------------------------------------------------


def test_a_state_is_good_for_what_it_was_given_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with shop(monkeypatch, needs(input_required(k=FORM))) as stage:
            state = (await ask(stage, "resources/read")).json()["result"]["requestState"]
            wrong = [
                await ask(stage, "resources/read", requestState=state[:-2] + ("AA" if state[-2:] != "AA" else "BB")),
                await ask(stage, "resources/read", requestState=SERVERS),
                await ask(stage, "resources/read", requestState=""),
                await ask(stage, "resources/read", requestState=state, uri="doc:b"),
                await ask(stage, "prompts/get", requestState=state),
                await ask(stage, "tools/call", requestState=state),
            ]
            for agent in wrong:
                assert (agent.status, agent.json()["error"]["code"]) == (400, -32602)
                assert agent.json()["error"]["data"]["mayHaveRun"] is False
            assert len({agent.json()["error"]["message"] for agent in wrong}) == 1
            assert stage.wire.count("resources/read") == len(stage.wire.sent) == 1, (
                "a server saw a state that is not its"
            )

    run(story())


def test_a_state_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with shop(monkeypatch, needs(input_required(k=FORM))) as stage:
            monkeypatch.setattr("fastgw.protocol.rounds.LIFETIME", -1)
            state = (await ask(stage, "tools/call")).json()["result"]["requestState"]
            assert (await ask(stage, "tools/call", requestState=state)).json()["error"]["code"] == -32602
            assert len(stage.wire.sent) == 1

    run(story())


# -- resources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_what_was_read_is_told_as_fresh_for_this_agent_alone(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    async def story() -> None:
        wanted = {"contents": [{"uri": "doc:a", "text": "t"}], "cacheScope": "public"}
        async with shop(monkeypatch, lambda sent: result(sent, wanted), era) as stage:
            told = (await ask(stage, "resources/read")).json()["result"]
            assert (told["ttlMs"], told["cacheScope"], told["resultType"]) == (0, "private", "complete")
            prompt = (await ask(stage, "prompts/get")).json()["result"]
            assert "ttlMs" not in prompt
            old = FakeAgent(request("resources/read", ASKED["resources/read"]))
            await stage.ask(old, await stage.initialize())
            assert set(old.json()["result"]) == {"contents"}

    run(story())


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(("code", "data"), [(-32002, None), (-32002, {"uri": "x:y"}), (-32602, {"uri": "doc:a"})])
def test_a_servers_not_found_is_told_in_our_words(
    monkeypatch: pytest.MonkeyPatch, era: str, code: int, data: Any
) -> None:
    async def story() -> None:
        async with shop(monkeypatch, lambda sent: error(sent, code, 400, "S3CRET", data), era) as stage:
            new = await ask(stage, "resources/read")
            old = FakeAgent(request("resources/read", ASKED["resources/read"]))
            await stage.ask(old, await stage.initialize())
            for agent, status, told in ((new, 400, -32602), (old, 200, -32002)):
                wrong = agent.json()["error"]
                assert (agent.status, wrong["code"], wrong["message"]) == (status, told, "Resource not found")
                assert wrong["data"]["uri"] == "doc:a"
                assert wrong["data"]["mayHaveRun"] is False
            assert outcomes(stage) == ["unknown", "unknown"]

    run(story())


def test_other_errors_of_a_read_are_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with shop(monkeypatch, lambda sent: error(sent, -32602, 400, "bad range", {"x": 1})) as stage:
            agent = await ask(stage, "resources/read")
            assert agent.json()["error"] == {"code": -32602, "message": "bad range", "data": {"x": 1}}

    run(story())


@pytest.mark.parametrize("code", [2**53, -(10**30)])
def test_a_code_that_is_no_code_is_a_lost_call_and_counted_once(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    async def story() -> None:
        async with shop(monkeypatch, lambda sent: error(sent, code, 200)) as stage:
            agent = await ask(stage, "prompts/get")
            assert agent.json()["error"]["code"] == -31003
            assert outcomes(stage) == ["server_error"]

    run(story())


# -- URIs -----------------------------------------------------------------------------------------------------------


def test_uris_are_told_as_agents_know_them_in_results_questions_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    link = {"type": "resource_link", "uri": "doc:b", "name": "n"}
    question = {
        "method": "sampling/createMessage",
        "params": {
            "maxTokens": 1,
            "messages": [{"role": "user", "content": {"type": "resource", "resource": {"uri": "doc:b", "text": ""}}}],
        },
    }
    page = {"ui": {"resourceUri": "ui://x"}}
    answers = [
        lambda sent: result(sent, {"resultType": "complete", "content": [link], "_meta": page}),
        needs(input_required(k=question)),
        lambda sent: error(sent, -5, 200, "no", {"uri": "doc:b", "n": 1.5}),
    ]

    async def story() -> None:
        async with shop(monkeypatch, lambda sent: answers.pop(0)(sent), mode="always") as stage:
            told = (await ask(stage, "tools/call")).json()["result"]
            assert told["content"][0]["uri"] == "shop+doc:b"
            assert told["_meta"]["ui"]["resourceUri"] not in ("", "ui://x")
            assert b'"shop+doc:b"' in (await ask(stage, "tools/call")).body
            told = (await ask(stage, "tools/call")).json()["error"]
            assert told == {"code": -5, "message": "no", "data": {"uri": "shop+doc:b", "n": 1.5}}

    run(story())


def test_a_read_goes_out_under_the_servers_own_uri_and_comes_back_under_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        found = {"contents": [{"uri": "doc:a", "text": "t"}]}
        async with shop(monkeypatch, lambda sent: result(sent, found), mode="always") as stage:
            agent = await ask(stage, "resources/read", uri="shop+doc:a")
            assert agent.json()["result"]["contents"][0]["uri"] == "shop+doc:a"
            sent = stage.wire.sent[0]
            assert (sent.json["params"]["uri"], sent.headers["mcp-name"]) == ("doc:a", "doc:a")

    run(story())
