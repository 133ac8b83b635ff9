"""Validation where it is asked for: what does not fit reaches no server and no agent, and no schema holds others up."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastgw.protocol.envelope import members
from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import Asked, Reply, exchange, legacy, modern
from tests.e2e.pairs import PAIRS, Pair
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, answer, event, serving

BAD_PARAMS, LOST, TOO_DEEP = -32602, -31003, -32700
PATIENCE = 1.5
"""Seconds that no other call may take meanwhile, on a busy machine with two cores. Alone it takes 2 ms."""

# -- arguments and results ------------------------------------------------------------------------------------------

ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "maximum": 9007199254740993},
        "kind": {"enum": ["new", "old", 7, None]},
        "code": {"type": "string", "pattern": "^[a-z]{2}-[0-9]+$"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "maxItems": 3, "uniqueItems": True},
        "any": {},
    },
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {"sku": {"type": "string", "minLength": 1}, "below": {"$ref": "#/$defs/line"}},
            "required": ["sku"],
        }
    },
}
FITTING = (
    b'{"id":1}', b'{"id":9007199254740993}', b'{"id":-123456789012345678901234567890}', b'{"id":1.0}',
    b'{"id":1,"kind":null,"code":"ab-1"}', b'{"lines":[{"sku":"x","below":{"sku":"y"}}],"id":2}',
    b'{"id":1,"any":{"a":[1,2,{"b":"\\u00fc\\ud83d\\ude00"}]}}',
)  # fmt: skip
UNFIT = {
    b"{}": 'arguments: "id" is a required property',
    b'{"id":"1"}': 'arguments.id: the value is not of type "integer"',
    b'{"id":9007199254740994}': "arguments.id: the value is greater than the maximum of 9007199254740993",
    b'{"id":1,"kind":"newer"}': "arguments.kind: ",
    b'{"id":1,"code":"AB-1"}': "arguments.code: ",
    b'{"id":1,"lines":[{"sku":"x"},{"sku":""}]}': "arguments.lines[1].sku: ",
    b'{"id":1,"lines":[{"sku":"x","below":{}}]}': 'arguments.lines[0].below: "sku" is a required property',
    b'{"id":1,"lines":[{"sku":"x"},{"sku":"x"}]}': "arguments.lines: ",
    b'{"id":1,"lines":[1,2,3,4]}': "arguments.lines",
    b'{"id":1,"more":"hunter2"}': "'more' was unexpected",
    b'{"id":1,"any":1e400}': "",
    b'{"id":1,"any":{"a":1,"a":2}}': "a member stands twice",
    b'{"id":1,"any":"\\ud800"}': "",
    b'{"id":1,"any":' + b"9" * 5000 + b"}": "an integer of too many digits",
    b'{"id":1,"any":' + b"[" * 100 + b"]" * 100 + b"}": "nested more than 64 levels deep",
    b'{"id":1,"any":"' + b"x" * 2**20 + b'"}': "larger than 1 MiB",
}
"""Arguments that are refused, and words that the refusal has."""
STRANGE = {b'{"id":1,"any":1e400}', b'{"id":1,"any":"\\ud800"}'}
"""Some readers of JSON cannot hold these: whether they pass is not settled, only that nothing breaks."""

PROMISED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
RESULTS = {
    b'{"content":[],"structuredContent":{"n":1}}': True,
    b'{"content":[],"structuredContent":{"n":123456789012345678901234567890,"more":"hunter2"}}': True,
    b'{"content":[{"type":"text","text":"hunter2"}],"isError":true}': True,
    b'{"content":[],"structuredContent":{"n":"hunter2"}}': False,
    b'{"content":[],"structuredContent":{"more":"hunter2"}}': False,
    b'{"content":[{"type":"text","text":"hunter2"}]}': False,
    b'{"content":[],"structuredContent":["hunter2"]}': False,
    b'{"content":[],"structuredContent":null}': False,
    b'{"content":[],"structuredContent":{"n":1,"n":"hunter2"}}': False,
    b'{"content":[],"structuredContent":{"n":1,"deep":' + b"[" * 70 + b"]" * 70 + b"}}": False,
    b'{"content":[],"structuredContent":{"n":1,"long":"' + b"x" * 2**20 + b'"}}': False,
}
"""Results, and whether they are handed on."""


@dataclass
class Scene:
    """A gateway before a server of each era; `results` is what they answer next."""

    gateway: Gateway
    boxes: dict[str, Toolbox]
    loop: Aside
    results: list[bytes]

    def reached(self) -> int:
        return sum(len(box.ledger) for box in self.boxes.values())


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    results: list[bytes] = []

    async def give(call: Call) -> None:
        await call.result(results[-1])

    async def stream(call: Call) -> None:
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "before"}}
        last = call.envelope(results[-1])
        await call.send(STREAM + event(json.dumps(log).encode()) + event(last) + STREAM_END)

    async def echo(call: Call) -> None:
        await call.text("echo")

    defined = {
        "give": {"outputSchema": PROMISED},
        "stream": {"outputSchema": PROMISED},
        "order": {"inputSchema": ORDER},
    }
    defined["loose"] = {"inputSchema": ORDER, "outputSchema": PROMISED}
    tools = {"give": give, "stream": stream, "order": echo, "loose": echo}
    boxes = {
        era: Toolbox(era, {f"{era}-{name}": tool for name, tool in tools.items()},
                     {f"{era}-{name}": one for name, one in defined.items()}) for era in ERAS
    }  # fmt: skip
    async with serving(boxes["legacy"]) as old, serving(boxes["modern"]) as new:
        more = {
            "servers": {"legacy": {"url": old.url}, "modern": {"url": new.url}},
            "tools": {
                "*-give": {"validate": "results"},
                "*-stream": {"validate": ["arguments", "results"]},
                "*-order": {"validate": "arguments"},
                "*-l*": {"validate": ["arguments", "results"]},
                "*-loose": {"validate": []},
            },
        }
        async with running_beside(more, folder) as gateway:
            await listed(gateway, *(f"{era}-{name}" for era in ERAS for name in tools))
            yield Scene(gateway, boxes, loop, results)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("validation"), loop))


async def sent(who: Agent, tool: str, arguments: bytes) -> Reply:
    """A call whose arguments are this JSON text."""
    params = {"name": tool, "arguments": "HERE"}
    asked = modern("tools/call", params, key=who.key)
    if who.session:
        asked = legacy("tools/call", params, key=who.key, session=who.session)
    return await exchange(who.url, Asked(asked.body.replace(b'"HERE"', arguments), asked.headers))


def invoked(tool: str, arguments: bytes, url: str) -> tuple[str, Asked]:
    """The same by REST."""
    fields = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
    return f"{url}/tools/{tool}/invoke", Asked(arguments, fields)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_arguments_that_do_not_fit_reach_no_server(stage: Scene, pair: Pair) -> None:
    async def story() -> None:
        who, tool, box = await agent(pair.agent, stage.gateway.url), f"{pair.server}-order", stage.boxes[pair.server]
        for arguments in FITTING:
            before = stage.reached()
            reply = await sent(who, tool, arguments)
            assert reply.json().get("result"), (arguments, reply.json())
            assert (members(members(box.last_call().body)["params"])["arguments"], stage.reached()) == (
                arguments,
                before + 1,
            )
        for arguments, words in UNFIT.items():
            if arguments in STRANGE:
                continue
            before = stage.reached()
            reply = await sent(who, tool, arguments)
            error = reply.json()["error"]
            assert (error["code"], error["data"]["mayHaveRun"], stage.reached()) == (BAD_PARAMS, False, before)
            assert words in error["message"], (arguments[:80], error["message"])
            assert len(error["message"]) < 300
            assert "hunter2" not in error["message"]
            assert "line" not in error["message"] or "lines" in error["message"], "names of the schema are not told"
        # Without arguments there are none, which is an empty object.
        nothing = await who.ask("tools/call", {"name": tool})
        assert '"id" is a required property' in nothing.json()["error"]["message"]

    stage.loop.run(story())


def test_arguments_that_do_not_fit_by_rest(stage: Scene) -> None:
    async def story() -> None:
        for era in ERAS:
            for arguments, words in {**UNFIT, b"": UNFIT[b"{}"]}.items():
                before = stage.reached()
                reply = await exchange(*invoked(f"{era}-order", arguments, stage.gateway.url))
                if arguments in STRANGE:
                    assert reply.status in (200, 400)
                    continue
                told = reply.json()
                assert (reply.status, told["code"], stage.reached()) == (400, BAD_PARAMS, before)
                assert words in told["error"]

    stage.loop.run(story())


def test_what_some_readers_cannot_hold_breaks_nothing(stage: Scene) -> None:
    async def story() -> None:
        for era in ERAS:
            for arguments in sorted(STRANGE):
                for one in (f"{era}-order", f"{era}-loose"):
                    reply = await sent(await agent("modern", stage.gateway.url), one, arguments)
                    assert reply.json().get("result") or reply.json()["error"]["code"] in (BAD_PARAMS, -32700)
        assert "Traceback" not in stage.gateway.log()

    stage.loop.run(story())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_results_that_do_not_fit_reach_no_agent(stage: Scene, pair: Pair) -> None:
    async def story() -> None:
        who = await agent(pair.agent, stage.gateway.url)
        for result, is_handed_on in RESULTS.items():
            stage.results.append(result)
            for tool in (f"{pair.server}-give", f"{pair.server}-stream"):
                reply = await who.call(tool)
                found, number = reply.json(), reply.header("x-request-id")
                if is_handed_on:
                    assert handed_on(reply) == members(result)
                    continue
                assert found["error"]["code"] == LOST, (result[:80], found)
                assert found["error"]["data"] == {"requestId": number, "mayHaveRun": True}
                assert b"hunter2" not in reply.body

                async def told(number: str | None = number) -> list[dict[str, Any]]:
                    return [one for one in stage.gateway.events() if one["requestId"] == number]

                [event] = await until(told)
                assert (event["outcome"], event["statusCode"], event["attempts"]) == ("server_error", 502, 1)
        assert "hunter2" not in stage.gateway.log()

    stage.loop.run(story())


def handed_on(reply: Reply) -> dict[str, bytes]:
    """The members of an answer's result, less what the revision adds; each byte for byte."""
    body = reply.events()[-1].data.encode() if reply.is_stream else reply.body
    found = members(members(body)["result"])
    return {name: value for name, value in found.items() if name not in ("resultType", "_meta")}


def test_results_that_do_not_fit_by_rest(stage: Scene) -> None:
    async def story() -> None:
        for result, is_handed_on in RESULTS.items():
            stage.results.append(result)
            for era in ERAS:
                for name in ("give", "stream"):
                    reply = await exchange(*invoked(f"{era}-{name}", b"{}", stage.gateway.url))
                    assert reply.status == (200 if is_handed_on else 502), (result[:80], reply.body[:300])
                    assert is_handed_on or (reply.json()["code"], reply.json()["mayHaveRun"]) == (LOST, True)

    stage.loop.run(story())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_what_is_not_to_be_validated_is_not(stage: Scene, pair: Pair) -> None:
    async def story() -> None:
        who, before = await agent(pair.agent, stage.gateway.url), stage.reached()
        for arguments in (b"{}", b'{"id":"1"}', b'{"id":1,"any":{"a":1,"a":2}}'):
            assert (await sent(who, f"{pair.server}-loose", arguments)).json()["result"]["content"]
        assert stage.reached() == before + 3

    stage.loop.run(story())


# -- schemas that cannot be used ------------------------------------------------------------------------------------


def nested(times: int, keyword: str = "not") -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object"}
    for _ in range(times):
        found = {keyword: found}
    return {"type": "object", **found}


def doubled(times: int) -> dict[str, Any]:
    """Each definition asks for the one below it twice: two to the power of `times` evaluations."""
    steps = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(times)}
    return {"type": "object", "$ref": "#/$defs/a0", "$defs": {**steps, f"a{times}": {}}}


def outside(there: str) -> dict[str, dict[str, Any]]:
    """Schemas that name another place than themselves; none may ever be looked at."""
    found = {
        "ref": {"properties": {"x": {"$ref": f"{there}/x.json"}}},
        "ref-root": {"$ref": f"{there}/x.json"},
        "ref-local-first": {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": f"{there}/a.json#/$defs/b"}}},
        "dynamic-ref": {"properties": {"x": {"$dynamicRef": f"{there}/x.json#a"}}},
        "relative-to-id": {"$id": f"{there}/own.json", "properties": {"x": {"$ref": "x.json"}}},
        "inner-id": {"properties": {"x": {"$id": f"{there}/x.json", "$ref": "y.json"}}},
        "own-dialect": {"$schema": f"{there}/dialect"},
        "file": {"properties": {"x": {"$ref": "file:///etc/hostname"}}},
        "relative": {"properties": {"x": {"$ref": "x.json"}}},
        "escaped": {"properties": {"x": {"\u0024ref": f"{there}/x.json"}}},
    }
    return {name: {"type": "object", **schema} for name, schema in found.items()}


HARD: dict[str, tuple[dict[str, Any], str]] = {
    "endless": ({"type": "object", "properties": {"x": {"$ref": "#/properties/x"}}}, "refers to itself without end"),
    "endless-2": ({"type": "object", "allOf": [{"$ref": "#"}]}, "refers to itself without end"),
    "look-ahead": ({"type": "object", "properties": {"x": {"pattern": "(?=a)b"}}}, "cannot be validated against"),
    "back-reference": ({"type": "object", "properties": {"x": {"pattern": "(a)\\1"}}}, "cannot be validated against"),
    "huge-pattern": ({"type": "object", "properties": {"x": {"pattern": "(a{1000}){1000}"}}}, 'is not a "regex"'),
    "nested": (nested(500), "links on one value"),
    "doubled": (doubled(25), "more work than any value is given"),
    "bomb": (
        {"type": "object", "unevaluatedProperties": False, "allOf": [doubled(12)]},
        "cannot be validated against",
    ),
    "large": ({"type": "object", "enum": ["x" * 100 + str(n) for n in range(4000)]}, "larger than 256 KiB"),
    "10-mb": (
        {"type": "object", "properties": {f"{n}": {"description": "x" * 1000} for n in range(10_000)}},
        "more than 1048576",
    ),
    "no-schema": ({"type": "object", "properties": {"x": {"type": "strnig"}}}, "no schema that can be used"),
    "nowhere": ({"type": "object", "properties": {"x": {"$ref": "#/$defs/missing"}}}, "does not have"),
}
"""Schemas that nothing is validated against, and why."""
SOFT: dict[str, dict[str, Any]] = {
    "catastrophic": {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}},
    "catastrophic-2": {
        "type": "object",
        "properties": {"x": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}},
    },
    "tree": {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"anyOf": [{"type": ["string", "number"]}, {"type": "array", "items": {"$ref": "#/$defs/n"}}]}},
    },
    "unique": {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}},
}
"""Schemas that are used, and that a value can make slow work for."""
HEAVY = {
    "catastrophic": [b'{"x":"' + b"a" * size + b'!"}' for size in (40, 50_000, 1_000_000)],
    "catastrophic-2": [b'{"x":"' + b"ab" * size + b'!"}' for size in (40, 25_000, 500_000)],
    "tree": [b'{"x":' + b"[" * deep + b"true" + b"]" * deep + b"}" for deep in (60, 5000, 500_000)]
    + [b'{"x":[' + b",".join([b"[1,2,[3]]"] * 90_000) + b",true]}"],
    "unique": [b'{"x":[' + b",".join(b'{"n":%d}' % n for n in range(count)) + b",{},{}]}" for count in (100, 50_000)]
    + [b'{"x":[' + b",".join(b"1%030d" % n for n in range(20_000)) + b"]}"],
}
"""Arguments that make such work; none of them fit."""


@dataclass
class Watch:
    """How long other calls take meanwhile, in seconds."""

    url: str
    took: list[float]
    over: asyncio.Event

    async def run(self, era: str) -> None:
        """Call one after another, each on a connection of its own, until it is over."""
        who = await agent(era, self.url)
        while not self.over.is_set():
            begun = time.monotonic()
            reply = await who.call("calm", {"word": "w"})
            self.took.append(time.monotonic() - begun)
            assert reply.json()["result"]["content"][0]["text"] == "calm", reply


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watch]:
    """Two agents that call a calm tool throughout; none of their calls may be slow."""
    watch = Watch(url, [], asyncio.Event())
    tasks = [asyncio.create_task(watch.run(era)) for era in ERAS]
    try:
        yield watch
    finally:
        watch.over.set()
        await asyncio.gather(*tasks)
    assert len(watch.took) > 20
    assert max(watch.took) < PATIENCE, sorted(watch.took)[-5:]


async def calm(call: Call) -> None:
    await call.text("calm")


def test_no_schema_holds_others_up_or_makes_us_fetch_anything(tmp_path: Path) -> None:
    async def story() -> None:
        async with counting() as (there, connections), serving(Toolbox("modern", {"calm": calm})) as quiet:
            bad = {**{name: (one, "") for name, one in outside(there).items()}, **HARD}
            boxes = [odd(era, {name: one for name, (one, _) in bad.items()}) for era in ERAS]
            async with serving(boxes[0]) as one, serving(boxes[1]) as two:
                urls = {"quiet": quiet.url, "legacy": one.url, "modern": two.url}
                only = {"servers": {"quiet": {"url": quiet.url}}}
                async with running_beside(only, tmp_path) as gateway:
                    await listed(gateway, "calm")
                    async with watching(gateway.url):
                        gateway.configure(configured(urls))
                        gateway.process.send_signal(signal.SIGHUP)
                        await listed(gateway, *(f"{era}-{name}" for era in ERAS for name in SOFT))
                        await all_left_out(gateway, bad)
                        await heavy_calls(gateway, boxes)
                    assert gateway.metric("fastgw_worker_restarts_total") == 0
                    assert "Traceback" not in gateway.log()
            assert connections == []

    asyncio.run(story())


@asynccontextmanager
async def counting() -> AsyncIterator[tuple[str, list[int]]]:
    """A socket that nobody should ever connect to: what schemas call it, and its connections."""
    connections: list[int] = []

    async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername")[1])
        writer.close()

    server = await asyncio.start_server(came, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections


class Ready(Toolbox):
    """A toolbox whose list is encoded ahead: making 20 MB of JSON would hold up the test's own loop."""

    listed: bytes = b""

    def _answer(self, message: dict[str, Any], is_modern: bool) -> bytes:
        if message["method"] != "tools/list":
            return super()._answer(message, is_modern)
        if not self.listed:
            self.listed = super()._answer({**message, "id": "HERE"}, is_modern).partition(b"\r\n\r\n")[2]
        return answer(self.listed.replace(b'"HERE"', json.dumps(message["id"]).encode(), 1))


def odd(era: str, bad: dict[str, Any]) -> Toolbox:
    """A server whose tools have these schemas: as that of their arguments, and of their results."""
    tools, defined = {}, {}
    for name, schema in SOFT.items():
        tools[f"{era}-{name}"] = calm
        defined[f"{era}-{name}"] = {"inputSchema": schema}
    for name, schema in bad.items():
        for side in ("input", "output"):
            tools[f"{era}-{side}-{name}"] = calm
            defined[f"{era}-{side}-{name}"] = {f"{side}Schema": schema}
    box = Ready(era, tools, defined)
    box._answer({"method": "tools/list", "id": 0}, era == "modern")
    return box


def configured(urls: dict[str, str]) -> dict[str, Any]:
    servers = {name: {"url": url} for name, url in urls.items()}
    return {"servers": servers, "tools": {"*-*": {"validate": ["arguments", "results"]}}}


async def all_left_out(gateway: Gateway, bad: dict[str, Any]) -> None:
    """None of them is there, and operators are told of each why."""
    who = Agent(gateway.url)
    seen = set(await who.names())
    assert seen == {"calm", *(f"{era}-{name}" for era in ERAS for name in SOFT)}
    told = json.loads((await asyncio.to_thread(gateway.ask_admin, "/catalogue"))[1])
    notices = {one["subject"].rpartition("/")[2]: one["text"] for one in told["notices"]}
    for era in ERAS:
        for name, (_, why) in bad.items():
            for tool in (f"{era}-{side}-{name}" for side in ("input", "output")):
                assert why in notices[tool], (tool, notices[tool])
                assert (await who.call(tool)).json()["error"]["message"] == f"Unknown tool: {tool}"


async def heavy_calls(gateway: Gateway, boxes: list[Toolbox]) -> None:
    """Every value that makes work, at several tools at once, from agents of both eras: none fits, none is sent."""
    agents = [await agent(era, gateway.url) for era in ERAS]
    before = [len(box.ledger) for box in boxes]
    for name, values in HEAVY.items():
        for value in values:
            calls = [sent(who, f"{era}-{name}", value) for who in agents for era in ERAS]
            for reply in await asyncio.gather(*calls):
                refused = reply.json().get("error", {"code": 0})
                assert refused["code"] in (BAD_PARAMS, TOO_DEEP), (name, value[:40], reply.body[:300])
    assert [len(box.ledger) for box in boxes] == before
