"""`fastgw bench`: how long calls of one tool take, and what a gateway adds to them.

An open loop: calls are due at random times of a fixed rate whether or not answers keep up, and a latency counts from
when its call was due. So a stall is seen by every call that it delays, not only by the one that met it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from math import ceil
from typing import Any

import uvloop

from fastgw.catalog.route import Deadlines
from fastgw.cli import terminal
from fastgw.cli.client import LARGEST, add_certificate, decoded, json_object, key_in
from fastgw.cli.snippets import KEY_ENV, URL
from fastgw.cli.terminal import FAILED, NO_ANSWER, USAGE, CommandFailed, line
from fastgw.errors import Fault
from fastgw.protocol import names
from fastgw.protocol.envelope import emit, quote
from fastgw.protocol.headers import encode_name
from fastgw.protocol.sse import EventParser, EventTooLong
from fastgw.upstream.transports.http import HttpPool, TransportSettings

DIRECT_KEY_ENV = "FASTGW_DIRECT_KEY"
NONCE = b"{nonce}"
TURNS, WARM = 4, 0.5
"""Turns that two addresses take; seconds at the start of each that do not count."""
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_HEAD = (
    b"content-type: application/json\r\naccept: application/json, text/event-stream\r\naccept-encoding: identity\r\n"
)
_CLIENT = b'{"name":"fastgw bench","version":"1"}'
_META = {names.META_VERSION: quote(names.MODERN_VERSION), names.META_CLIENT: _CLIENT, names.META_CAPABILITIES: b"{}"}
clock = time.monotonic
"""Not the event loop's, which stands still for a millisecond at a time."""


class LoadTarget:
    """One tool at one address, and what was seen there: seconds, and wrong answers by what is wrong.

    Make it in a running event loop; raises CommandFailed for an address that cannot be used.
    """

    def __init__(
        self, url: str, variable: str, tool: str, arguments: bytes, certificate: tuple[str | None, str | None]
    ) -> None:
        key = key_in(variable)
        try:
            self._pool = HttpPool(TransportSettings(url, LARGEST, (None, *certificate)))
            self._head = _HEAD + (f"authorization: Bearer {key}\r\n".encode("ascii") if key else b"")
        except ValueError as wrong:
            raise CommandFailed(USAGE, f"the address cannot be used: {wrong}") from None
        self._tool, self._params = tool, {"name": quote(tool), "arguments": arguments}
        self._ids, self._salt = count(1), secrets.token_hex(4)
        self.latencies, self.late = list[float](), list[float]()
        self.errors: Counter[str] = Counter()

    async def open(self, version: str) -> None:
        """Speak this revision from now on, an older one in a session; CommandFailed where the tool does not answer."""
        head = self._head + f"mcp-protocol-version: {version}\r\n".encode()
        try:
            if version == names.MODERN_VERSION:
                self._head = head + b"mcp-method: tools/call\r\nmcp-name: %b\r\n" % encode_name(self._tool)
                self._params["_meta"] = emit(_META)
            else:
                client = {"protocolVersion": quote(version), "capabilities": b"{}", "clientInfo": _CLIENT}
                session = (await self._post(names.INITIALIZE, emit(client), b"0"))[0]
                self._head = head + (f"mcp-session-id: {session}\r\n".encode() if session else b"")
                await self._post(names.INITIALIZED, b"{}")
        except Fault as fault:
            raise CommandFailed(NO_ANSWER, str(fault)) from None
        if wrong := await self.call():
            raise CommandFailed(NO_ANSWER, f"{self._tool} does not answer: {wrong}")

    async def call(self) -> str:
        """One call; what is wrong with its answer, empty where nothing is."""
        number = next(self._ids)
        nonce = f"{self._salt}-{number:08x}"
        try:
            params = emit(self._params).replace(NONCE, nonce.encode())
            found = (await self._post(names.TOOLS_CALL, params, b"%d" % number))[1]
            return _wrong(found, number, nonce if NONCE in self._params["arguments"] else "")
        except (Fault, EventTooLong) as fault:
            return str(fault)

    async def measure(self, due: float) -> None:
        """A call that counts."""
        late = clock() - due
        if wrong := await self.call():
            self.errors[wrong] += 1
        else:
            self.latencies.append(clock() - due)
            self.late.append(late)

    async def load(self, rate: float, seconds: float) -> None:
        """Calls for so long, after some that do not count."""
        due = begun = clock()
        async with asyncio.TaskGroup() as calls:
            while due < begun + WARM + seconds:
                await asyncio.sleep(max(0.0, due - clock() - 0.002))
                while due > clock():  # noqa: ASYNC110 - timers are a millisecond coarse
                    await asyncio.sleep(0)
                calls.create_task(self.measure(due) if due >= begun + WARM else self.call())
                due += random.expovariate(rate)

    async def close(self) -> None:
        """End the session, where there is one, and hang up."""
        if b"mcp-session-id" in self._head:
            with suppress(Fault):
                (await self._pool.request("DELETE", self._head, b"", Deadlines(total=5.0))).close()
        await self._pool.close()

    def figures(self) -> dict[str, float]:
        """Calls, errors, and milliseconds that the shares of calls do not exceed; `late`: at p99, of this program."""
        shown: dict[str, float] = {"calls": len(self.latencies), "errors": self.errors.total()}
        if ordered := sorted(self.latencies):
            shown |= {name: _at(ordered, share) for name, share in SHARES.items()}
            shown["late"] = _at(sorted(self.late), 0.99)
        return shown

    async def _post(self, method: str, params: bytes, id: bytes = b"") -> tuple[str, dict[str, Any]]:
        """The session that the answer names, and the message in it; an HTTP status instead where it holds none."""
        fields = {"jsonrpc": b'"2.0"', **({"id": id} if id else {}), "method": quote(method), "params": params}
        answer = await self._pool.request("POST", self._head, emit(fields), Deadlines())
        text, parser = answer.body or b"", EventParser(LARGEST)
        while answer.body is None and (piece := await answer.read()):
            for event in parser.feed(piece):
                text = text if b'"method"' in event.data[:64] else event.data
        return answer.headers.get("mcp-session-id", ""), decoded(text) or {"status": answer.status}


def _at(ordered: list[float], share: float) -> float:
    return round(ordered[ceil(share * len(ordered)) - 1] * 1e3, 3)


def _wrong(found: dict[str, Any], number: int, nonce: str) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if isinstance(error := found.get("error"), dict):
        return f"refused ({error.get('code')}): {error.get('message')}"
    if found.get("id") != number:
        return f"HTTP status {found['status']} and no answer" if "status" in found else "another call's answer"
    result = found.get("result")
    if not isinstance(result, dict) or result.get("resultType", "complete") != "complete":
        return "not the result of a tool"
    if result.get("isError") is True:
        return "the tool says that it failed"
    return "another call's content" if nonce not in terminal.encoded(result) else ""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("bench")
    parser.add_argument("--url", default=URL, help=f"the MCP endpoint ({URL}); its key is in {KEY_ENV}")
    parser.add_argument("--tool", required=True, metavar="NAME", help="one that may be called many times")
    words = "{nonce} in it: a text of each call's own"
    parser.add_argument("--arguments", type=json_object, default=b"{}", metavar="JSON", help=words)
    parser.add_argument("--rate", type=float, default=50.0, metavar="N", help="calls per second (50)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="N", help="measured at each address (10)")
    add_certificate(parser)
    parser.add_argument("--legacy", action="store_true", help=f"as a client of {names.NEWEST_LEGACY}, in a session")
    words = f"the server behind it, to see what the gateway adds; its key is in {DIRECT_KEY_ENV}"
    parser.add_argument("--direct", metavar="URL", help=words)
    parser.add_argument("--direct-tool", metavar="NAME", help="what the server calls the tool (the same)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load and print; exit status 0, 1 where an answer was wrong, 2 where typed wrong, 3 where nobody answers."""
    if not (0 < args.rate <= 100_000 and 0 < args.seconds <= 3600):
        raise CommandFailed(USAGE, "--rate must be above 0 and at most 100000, --seconds at most 3600")
    found = uvloop.run(_measured(args))
    shown = {name: target.figures() for name, target in found.items()}
    print(terminal.encoded(shown) if args.json else "\n".join(_table(shown)))
    for name, target in found.items():
        for words, times in target.errors.items():
            terminal.say(f"{name}: {times} times: {line(words)}")
        if shown[name].get("late", 0) > shown[name].get("p99", 0) / 2:
            terminal.say(f"{name}: believe none of it, this program was late itself; a lower --rate may help")
    return FAILED if any(target.errors for target in found.values()) else 0


async def _measured(args: argparse.Namespace) -> dict[str, LoadTarget]:
    """The address and, by turns, the server behind it, loaded."""
    found = {"url": LoadTarget(args.url, KEY_ENV, args.tool, args.arguments, (args.cert, args.key))}
    if args.direct:
        tool = args.direct_tool or args.tool
        found["direct"] = LoadTarget(args.direct, DIRECT_KEY_ENV, tool, args.arguments, (None, None))
    try:
        for target in found.values():
            await target.open(names.NEWEST_LEGACY if args.legacy else names.MODERN_VERSION)
        for _ in range(TURNS):
            for target in found.values():
                await target.load(args.rate, args.seconds / TURNS)
    finally:
        for target in found.values():
            await target.close()
    return found


def _table(shown: dict[str, dict[str, float]]) -> list[str]:
    lines = ["ms       calls  errors" + "".join(f"{name:>10}" for name in SHARES)]
    for name, row in shown.items():
        figures = "".join(f"{row[share]:10.3f}" for share in SHARES if share in row)
        lines.append(f"{name:7}{row['calls']:7d}{row['errors']:8d}{figures}")
    if len(shown) == 2 and all("p50" in row for row in shown.values()):
        with_it, without = shown["url"], shown["direct"]
        lines.append(f"{'added':22}" + "".join(f"{with_it[share] - without[share]:+10.3f}" for share in SHARES))
    return lines
