"""`python -m bench counts`: what one request of each kind costs, in numbers that no noise moves.

Function calls, Python's and C's (`sys.setprofile`); instructions of Python (`sys.settrace`); objects allocated, as far
as they were still there when a function was next entered or left; files of the package that were entered. They are
compared with the committed ones of this version of Python, for another version they are only printed. Any difference
that other processes confirm fails: one that is higher is a decision of the commit that renews the file, one that is
lower would hide the next. (An object more or less may depend on where a process has its memory.)
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from operator import itemgetter
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import Any, NamedTuple

import uvloop

from bench import faked
from bench.faked import BATCHING, CALL, LEGACY, LISTS, PROMPT, RESOURCE, Question, Scene, opening
from fastgw.protocol import names

FILE = Path(__file__).parent / "baseline" / "counts.json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
AGAIN = 2
"""Processes that must confirm a difference: on a busy machine one of them may count an object more by the same chance.
"""
REPEATS = 5
"""Of each count; the least is taken, for a timer of the loop may be due in one of them."""
MOST_FILES = 14
"""That the usual call may enter where there are no limits."""
GUARDED = {"name": "guarded", "allow": "*", "match": {"arguments": {"dry_run": "true", "version": ["1.*", "2.*"]}}}
_STRICT = {"name": "agents", "by": "agent", "rate": "1/hour", "burst": 1}
_OWN = (__file__, faked.__file__)
_FULL = Scene(lists=LISTS)

USUAL, UNLIMITED = "tools/call modern > modern", "tools/call without limits"
KINDS: dict[str, tuple[Question, Scene]] = {
    USUAL: (Question(), Scene()),
    "tools/call modern > legacy": (Question(), Scene(LEGACY)),
    "tools/call legacy > modern": (Question(LEGACY), Scene()),
    "tools/call legacy > legacy": (Question(LEGACY), Scene(LEGACY)),
    UNLIMITED: (Question(), Scene(limits=())),
    "tools/call by conditions on arguments": (Question(), Scene(policies=(GUARDED,))),
    "tools/call refused by a limit": (Question(wanted=b'"error"'), Scene(limits=(_STRICT,), before=1)),
    "tools/call answered by events": (Question(), Scene(answers="events")),
    "tools/call at a server with resources": (Question(), _FULL),
    "tools/call of an unknown tool": (Question(params={**CALL, "name": "sell"}, wanted=b'"error"'), Scene()),
    "REST invoke": (Question("rest"), Scene()),
    "prompts/get": (Question(method=names.PROMPTS_GET, params={"name": PROMPT}), _FULL),
    "resources/read": (Question(method=names.RESOURCES_READ, params={"uri": RESOURCE}, wanted=b'"contents"'), _FULL),
    "tools/list": (Question(method="tools/list", params={}, wanted=b'"tools":['), Scene()),
    "server/discover": (Question(method=names.DISCOVER, params={}, wanted=b'"supportedVersions"'), Scene()),
    "initialize": (opening(LEGACY), Scene()),
    "ping": (Question(LEGACY, names.PING, {}, b'"result":{}'), Scene()),
    "a batch of two": (Question(BATCHING, count=2), Scene()),
}

Work = Callable[[], Awaitable[None]]


class Counts(NamedTuple):
    """Of one request; the driver's own part is in `objects` only, which are 0 where they are not counted."""

    calls: int
    instructions: int
    objects: int
    files: int


def freeze() -> None:
    """Stop the clocks and the dice, so that no value of theirs takes another branch. C stands in for C."""
    stands: dict[Any, Any] = {time.time: (1e9).conjugate, time.monotonic: (1e6).conjugate}
    stands |= {time.monotonic_ns: (10**15).conjugate, os.urandom: b"".ljust}
    for name, module in list(sys.modules.items()):
        if name in ("time", "os") or name.startswith("fastgw."):
            for key, value in list(vars(module).items()):
                if isinstance(value, BuiltinFunctionType) and value in stands:
                    setattr(module, key, stands[value])


async def _profiled(work: Work, observe: Callable[..., object], install: Callable[[Any], None]) -> None:
    install(observe)
    try:
        await work()
    finally:
        install(None)


async def calls(work: Work) -> tuple[int, Counter[str]]:
    """Function calls of one request, Python's and C's; and those of functions of the package, by file."""
    total, files = 0, Counter[str]()

    def observe(frame: FrameType, event: str, _: Any) -> None:
        nonlocal total
        file = frame.f_code.co_filename
        if event in ("call", "c_call") and file not in _OWN:
            total += 1
            if event == "call" and "/fastgw/" in file:
                files[file.rpartition("/fastgw/")[2]] += 1

    await _profiled(work, observe, sys.setprofile)
    return total, files


async def _instructions(work: Work) -> int:
    total = 0

    def observe(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal total
        if frame.f_code.co_filename in _OWN:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        total += event == "opcode"
        return observe

    await _profiled(work, observe, sys.settrace)
    return total


async def _objects(work: Work) -> int:
    total, allocated = 0, sys.getallocatedblocks
    last = allocated()

    def observe(*_: Any) -> None:
        nonlocal total, last
        now = allocated()
        if now > last:
            total += now - last
        last = now

    await _profiled(work, observe, sys.setprofile)
    return total


async def count(question: Question, scene: Scene) -> Counts:
    """What this question costs, once everything that is remembered is known."""
    work = (await faked.driver(question, scene)).observed
    for _ in range(REPEATS):
        await work()
    called = [await calls(work) for _ in range(REPEATS)]
    instructions = [await _instructions(work) for _ in range(REPEATS)]
    # Where tasks run side by side, an object more or less depends on their places in memory.
    objects = [await _objects(work) for _ in range(REPEATS)] if question.count == 1 else [0]
    total, files = min(called, key=itemgetter(0))
    return Counts(total, min(instructions), min(objects), len(files))


async def _every() -> dict[str, Counts]:
    return {name: await count(*kind) for name, kind in KINDS.items()}


def counted() -> dict[str, Counts]:
    """All kinds; the clocks of this process stand still from now on."""
    freeze()
    gc.disable()
    return uvloop.run(_every())


def every_version() -> dict[str, dict[str, Counts]]:
    """What is committed, by version of Python: counts by kind."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {version: {name: Counts(**one) for name, one in known.items()} for version, known in found.items()}


def renew(found: dict[str, Counts]) -> None:
    """Write these down for this version of Python."""
    versions = []
    for version, known in {**every_version(), PYTHON: found}.items():
        rows = [f'  "{name}": {json.dumps(one._asdict())}' for name, one in known.items()]
        versions.append(f' "{version}": {{\n' + ",\n".join(rows) + "\n }")
    FILE.write_text("{\n" + ",\n".join(versions) + "\n}\n")


def main(argv: list[str]) -> int:
    """Print all counts; 0: as committed, or nothing is committed for this Python; 3: other ones."""
    parser = argparse.ArgumentParser(prog="python -m bench counts", description=__doc__.split("\n")[0])
    parser.add_argument("--renew", action="store_true", help="write them down as those to commit")
    parser.add_argument("--again", type=int, default=AGAIN, help="how often what differs is counted once more")
    args = parser.parse_args(argv)
    known = every_version().get(PYTHON, {})
    found = counted()
    differing = {name for name, one in found.items() if known and one != known.get(name)}
    for name, one in found.items():
        told = "  ".join(f"{value:4d} {unit}" for unit, value in one._asdict().items())
        was = f"  was {tuple(known.get(name, ()))}" if name in differing else ""
        print(f"{name:38} {told}{was}")
    if args.renew:
        renew(found)
        return 0
    if not known:
        print(f"nothing is committed for Python {PYTHON}: nothing is judged")
    if differing and args.again:
        print("once more, in another process:", flush=True)
        order = [sys.executable, "-m", "bench", "counts", "--again", str(args.again - 1)]
        return subprocess.run(order, check=False).returncode
    if differing:
        print("other than committed: `make baseline` writes down what is so now; a rise is a decision")
    return 3 if differing else 0
