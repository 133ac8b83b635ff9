"""Payloads travel byte for byte: ten thousand JSON values through all four pairs of eras, as JSON and as events.

What is compared is raw text on both sides of the gateway; nothing is decoded to be compared. An event stream has no
line break but LF (WHATWG HTML, 9.2.6), so where a server answers by events its JSON holds no carriage return.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random

from tests.e2e.asking import ERAS, listed
from tests.e2e.gateway import KEY, Gateway, running_beside
from tests.e2e.http import Asked, Reply, exchange, legacy, modern, open_session
from tests.e2e.jsontexts import joined, space, texts, without_returns
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, chunk, serving

SEED = 20260728
VALUES = 10_000
EACH = 100  # values in one call
AT_ONCE = 8
HOLE = b'"@"'
FORMS = ("json", "event", "events")
"""A server answers with JSON; with the result as its only event; with a notification first."""


@dataclass(frozen=True)
class Payload:
    """The texts of one call."""

    arguments: bytes
    content: bytes
    structured: bytes

    def on_stream(self) -> Payload:
        """The same with LF as its only line break in what the server answers."""
        plain = (without_returns(text.decode()).encode() for text in (self.content, self.structured))
        return Payload(self.arguments, *plain)

    @property
    def result(self) -> bytes:
        """What the server answers, with members that belong to the protocol around."""
        return b'{"content" : %s ,\n"structuredContent":%s , "isError": false}' % (self.content, self.structured)


def payloads() -> list[Payload]:
    """All values, `EACH` to a call; `values` stands twice in what is sent and in what comes back."""
    dice = Random(SEED)
    found = texts(SEED, VALUES)
    made = []
    for start in range(0, VALUES, EACH):
        values, again = found[start : start + EACH], [found[start], found[start + 1]]
        structured = f'{{"values":[{joined(dice, values)}],{space(dice)}"values":[{joined(dice, again)}]}}'
        content = f'[{space(dice)}{{"type":"text","text":"x","_meta":{{"values":[{joined(dice, values)}]}}}}]'
        numbered = (
            f'{{{space(dice)}"n":{len(made)},"values":[{joined(dice, values)}],"values":[{joined(dice, again)}]}}'
        )
        made.append(Payload(*(text.encode() for text in (numbered, content, structured))))
    return made


PAYLOADS = payloads()


@dataclass
class Mirror:
    """A server that writes down the bytes it got and answers with the payload of the same number."""

    era: str
    bodies: dict[int, bytes] = field(default_factory=dict)

    def toolbox(self) -> Toolbox:
        return Toolbox(self.era, {f"{form}-{self.era}": getattr(self, f"as_{form}") for form in FORMS})

    async def as_json(self, call: Call) -> None:
        await call.result(self.note(call).result)

    async def as_event(self, call: Call) -> None:
        await call.send(STREAM + events(call.envelope(self.note(call).on_stream().result)) + STREAM_END)

    async def as_events(self, call: Call) -> None:
        params = {"progressToken": call.params["_meta"]["progressToken"], "progress": 1}
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()
        result = call.envelope(self.note(call).on_stream().result)
        await call.send(STREAM + events(note) + events(result) + STREAM_END)

    def note(self, call: Call) -> Payload:
        number = call.arguments["n"]
        self.bodies[number] = call.got.body
        return PAYLOADS[number]


def events(message: bytes) -> bytes:
    """One event in chunks of a thousand bytes, each line of the message a `data` line."""
    text = b"".join(b"data: %s\n" % line for line in message.split(b"\n")) + b"\n"
    return b"".join(chunk(text[at : at + 1000]) for at in range(0, len(text), 1000))


def received(body: bytes, payload: Payload) -> bool:
    """Whether the server was given these very arguments."""
    _, _, rest = body.partition(b'"arguments":')
    return rest.startswith(payload.arguments) and rest[len(payload.arguments) :][:1] in (b",", b"}")


def returned(message: bytes, payload: Payload) -> bool:
    """Whether the agent was given this very content."""
    return b'"content":%s,"structuredContent":%s,' % (payload.content, payload.structured) in message


def last_message(reply: Reply) -> bytes:
    """The bytes of the answer; of a stream, those of its last event's data."""
    if not reply.is_stream:
        return reply.body
    blocks = [block for block in reply.body.split(b"\n\n") if b"data: " in block]
    return b"\n".join(line.removeprefix(b"data: ") for line in blocks[-1].split(b"\n") if line.startswith(b"data: "))


def asked(agent: str, tool: str, arguments: bytes, session: str) -> Asked:
    """A call with these bytes as its arguments, in the agent's era."""
    params = {"name": tool, "arguments": "@", "_meta": {"progressToken": "mine"}}
    if agent == "modern":
        request = modern("tools/call", {**params}, key=KEY, meta={"progressToken": "mine"})
    else:
        request = legacy("tools/call", params, key=KEY, session=session)
    assert request.body.count(HOLE) == 1
    return Asked(request.body.replace(HOLE, arguments), request.headers)


async def all_pass(gateway: Gateway, mirror: Mirror, agent: str, form: str) -> None:
    """Every payload once, both ways, `AT_ONCE` at a time, each on a connection of its own."""
    session = await open_session(gateway.url, key=KEY) if agent == "legacy" else ""
    mirror.bodies.clear()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        payload = PAYLOADS[number]
        async with places:
            reply = await exchange(gateway.url, asked(agent, f"{form}-{mirror.era}", payload.arguments, session))
        assert reply.status == 200, reply
        assert reply.is_stream == (form == "events")
        expected = payload if form == "json" else payload.on_stream()
        assert received(mirror.bodies[number], payload), (number, payload.arguments, mirror.bodies[number])
        assert returned(last_message(reply), expected), (number, expected, reply.body)

    await asyncio.gather(*(one(number) for number in range(len(PAYLOADS))))


def test_the_values_are_what_they_should_be() -> None:
    whole = b"".join(payload.arguments for payload in PAYLOADS)
    assert sum(len(json.loads(f"[{text}]")) for text in texts(SEED, VALUES)) == VALUES
    for part in (b"1E400", b"-0.0", b"\r\n", b"\\uD83D\\uDE00", b"\\\\ud800", "\u2028".encode(), b'"":', b"[" * 150):
        assert part in whole
    assert all(payload.arguments.count(b'"values"') == 2 for payload in PAYLOADS)


def test_every_value_passes_byte_for_byte(tmp_path: Path) -> None:
    mirrors = [Mirror(era) for era in ERAS]

    async def story() -> None:
        async with serving(mirrors[0].toolbox()) as old, serving(mirrors[1].toolbox()) as new:
            servers = {"old": {"url": old.url}, "new": {"url": new.url}}
            async with running_beside({"servers": servers}, tmp_path) as gateway:
                await listed(gateway, *(f"{form}-{era}" for form, era in product(FORMS, ERAS)))
                for mirror, agent, form in product(mirrors, ERAS, FORMS):
                    await all_pass(gateway, mirror, agent, form)

    asyncio.run(story())


def test_half_a_surrogate_pair_goes_no_further(tmp_path: Path) -> None:
    """It is no Unicode text, readers differ in what they make of it: refused on both ways, by design."""
    mirror, half = Mirror("modern"), b'{"n":0,"values":["\\ud800"]}'

    async def answers_half(call: Call) -> None:
        await call.result(b'{"content":[{"type":"text","text":"\\udfff"}]}')

    async def story() -> list[Reply]:
        toolbox = mirror.toolbox()
        toolbox.tools["answers-half"] = answers_half
        async with (
            serving(toolbox) as server,
            running_beside({"servers": {"one": {"url": server.url}}}, tmp_path) as gateway,
        ):
            await listed(gateway, *toolbox.tools)
            sent = await exchange(gateway.url, asked("modern", "json-modern", half, ""))
            return [sent, await exchange(gateway.url, asked("modern", "answers-half", b"{}", ""))]

    sent, answered = asyncio.run(story())
    assert (sent.status, sent.json()["error"]["code"]) == (400, -32700)
    assert mirror.bodies == {}
    assert answered.status == 200, answered
    assert (answered.status, answered.json()["error"]["code"]) == (200, -31003)
