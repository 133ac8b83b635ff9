"""`python -m bench lists`: what a list costs beside a static answer of its size, from the same embedded server.

The reference reads the request's body, as every answer to a POST must, and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from bench import apps, loop, rounds
from bench.catalogues import NAMES, Size
from bench.handshake import post
from bench.messages import Target, modern_meta
from bench.processes import LostProcess
from bench.rounds import Contender
from bench.servers import SMALL, crowd
from bench.started import NotStarted, free_port, listens, started
from bench.versions import footer, versions

WANTED = 1.5
"""Ratio to the static answer that a list should not exceed (docs/benchmarks.md)."""
LISTS = (("", "tools/list"), ("", "resources/list"), ("", "prompts/list"), (SMALL, "tools/list"))
JSON = (b"content-type", b"application/json")


def application(folder: Path) -> Callable[..., Awaitable[None]]:
    """Answers `/NAME` with the file of that name, read once."""
    bodies = {f"/{file.name}": file.read_bytes() for file in folder.iterdir()}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
        await send({"type": "http.response.body", "body": bodies[scope["path"]]})

    return app


def body_of(target: Target) -> bytes:
    """The whole answer to the first page of a list."""
    message = {"jsonrpc": "2.0", "id": 1, "method": target.method, "params": {"_meta": modern_meta()}}
    status, _, body = post(target, message)
    if status != 200 or b'"error"' in body[:64]:
        raise NotStarted(f"{target.method}: HTTP {status} {body[:300]!r}")
    return body


def items_of(target: Target, body: bytes) -> bytes:
    """The JSON array of the items, as it stands in the answer."""
    start = body.index(b'"%s":[' % NAMES[target.method].encode())
    return body[start : body.rindex(b"]", start) + 1]


def contenders(stack: ExitStack, folder: Path) -> list[Contender]:
    """In pairs: the static answer, the gateway."""
    size = Size()
    running = stack.enter_context(crowd(folder, size, 1))
    answers = folder / "answers"
    answers.mkdir()
    found, port = [], free_port()
    for endpoint, method in LISTS:
        target = replace(running.target(endpoint), method=method)
        body = body_of(target)
        name = f"{endpoint}{method.replace('/', '-')}"
        (answers / name).write_bytes(body)
        items = items_of(target, body)
        told = f"{method}, {len(body) / 1000:.0f} kB"
        static = Target(port, path=f"/{name}", method=method, items=items)
        found.append((f"static, {told}", static, f"fastgw, {told}", replace(target, items=items)))
    command = [sys.executable, "-m", "bench", "lists", "--serve", str(answers), "--port", str(port)]
    pid = stack.enter_context(started(command, folder / "static.log", lambda: listens(port)))
    return [
        one
        for name, static, own, target in found
        for one in (Contender(name, pid, static), Contender(own, running.gateway, target))
    ]


def main(argv: list[str]) -> int:
    """Measure and print; 0 measured, 1 no figures."""
    parser = argparse.ArgumentParser(prog="python -m bench lists", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="measured, of each list in each round")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        uvloop.run(apps.serve(application(args.serve), args.port))
        return 0
    plan = loop.Plan(args.connections, args.seconds, 0.2)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            pairs = contenders(stack, folder)
            outcomes = rounds.measure(pairs, plan, args.rounds, lambda line: print(line, file=sys.stderr, flush=True))
    except (rounds.Wrong, LostProcess, NotStarted, OSError) as exc:
        print(f"no figures: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    rows = [row for at in range(0, len(pairs), 2) for row in _pair(pairs, outcomes, at)]
    print(rounds.text(rows))
    print(f"\neach list beside the static answer above it; wanted: at most {WANTED}")
    print(footer())
    if args.json:
        ratios = {row.name: row.ratio for row in rows}
        args.json.write_text(json.dumps({"ratios": ratios, "versions": versions()}, indent=1) + "\n")
    return 0


def _pair(pairs: list[Contender], outcomes: list[list[loop.Outcome]], at: int) -> list[rounds.Row]:
    return rounds.table(pairs[at : at + 2], [line[at : at + 2] for line in outcomes])
