"""`python -m bench compile`: what a controller does when one of thirty servers lists something else, and a worker
with it, beside reading the same definitions as JSON (`orjson.loads`).

It imports the gateway, since these steps cannot be told apart from outside.
"""

from __future__ import annotations

import argparse
import gc
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import orjson

from bench.catalogues import Lists, Size, changed, offered, text
from bench.versions import footer
from fastgw.catalog.definitions import DefinitionKind, parse_definitions
from fastgw.catalog.tools import Catalogue
from fastgw.config.schema.settings import Settings
from fastgw.processes.control_plane import no_collections
from fastgw.processes.ipc import pack
from fastgw.processes.ipc_server import batches
from fastgw.snapshot import codec
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Snapshot

LONGEST = 300.0
"""CPU milliseconds from a changed list to frames that can be sent."""
AGENTS = {f"agent-{at}": {"key": f"sha256:{at:064x}", "claims": {"team": f"team-{at % 4}"}} for at in range(10)}
POLICIES: list[dict[str, Any]] = [
    {"name": "everything", "match": {"claims": {"team": "team-0"}}, "allow": ["*", "prompt:*", "resource:*"]},
    {
        "name": "reading",
        "match": {"claims": {"team": "team-1"}},
        "allow": ["get_*", "list_*", "search_*", "resource:*"],
    },
    {"name": "drafting", "match": {"claims": {"team": "team-2"}}, "allow": ["server-0*/*", "prompt:draft_*"]},
    {"name": "nothing archived", "match": {"claims": {"team": "team-1"}}, "deny": ["*archive*"]},
]
"""Three classes of agents that see something, and one that sees nothing."""
clock = time.thread_time
"""CPU time of this thread: what else the machine does is not counted."""


@dataclass(slots=True)
class Times:
    """CPU milliseconds of one recompile.

    Args:
        compile: from the changed catalogue to the snapshot.
        pack: the snapshot into frames, `frames` of them with `size` bytes.
        unpack: all a worker does with them, in stretches between which it serves calls; `pause` is the longest.
        reference: reading the definitions of all servers as JSON.
    """

    compile: float = 0.0
    pack: float = 0.0
    unpack: float = 0.0
    pause: float = 0.0
    reference: float = 0.0
    frames: int = 0
    size: int = 0


class Controller:
    """As `fastgw.processes.control_plane` compiles: one cache for all compiles of one configuration.

    Args:
        keys: of the configuration, beside its servers.
    """

    def __init__(self, size: Size, **keys: Any) -> None:
        names = [f"server-{number:02d}" for number in range(size.servers)]
        servers = {name: {"url": f"http://127.0.0.1:9/{name}"} for name in names}
        self.lists: list[Lists] = [offered(size, number) for number in range(size.servers)]
        keys = {"agents": AGENTS, "policies": POLICIES, **keys}
        self.settings = Settings.model_validate({"servers": servers, **keys})
        self.cache = CompileCache(self.settings)
        self.catalogues = {name: catalogue(name, lists) for name, lists in zip(names, self.lists, strict=True)}
        self.texts = [text(items) for lists in self.lists for items in lists.values()]
        self._names = names

    def change(self, times: int) -> None:
        """Another server's list is another one now."""
        at = times % len(self._names)
        self.catalogues[self._names[at]] = catalogue(self._names[at], changed(self.lists[at], times))

    def compile(self, generation: int) -> Snapshot:
        """The snapshot of what is known now."""
        learned = Learned(catalogues=dict(self.catalogues), version="0", seal_keys=(bytes(32),))
        with no_collections():
            return compile_snapshot(self.settings, learned, generation, self.cache)[0]


class Worker:
    """As `fastgw.processes.ipc_client` takes a snapshot, each stretch without a turn for others timed by itself."""

    def __init__(self) -> None:
        self.decoder = codec.SnapshotDecoder()
        self.stretches: list[float] = []
        self.snapshot: Any = None

    def take(self, frame: bytes) -> None:
        """One frame."""
        with self._stretch():
            name, _, args = pickle.loads(frame[4:])
        if name == "parts":
            for part in args[0]:
                self._place(self.decoder.take(*part))
            return
        with self._stretch():
            self.snapshot, gone = self.decoder.whole(*args[1:])
        while gone:
            with self._stretch():
                gone.pop()

    def _place(self, steps: Iterator[None]) -> None:
        while True:
            with self._stretch():
                over = next(steps, self) is self
            if over:
                return

    @contextmanager
    def _stretch(self) -> Iterator[None]:
        begun = clock()
        yield
        self.stretches.append((clock() - begun) * 1000)


def catalogue(server: str, lists: Lists) -> Catalogue:
    """What the controller makes of a server's lists when it has fetched them."""
    resources = parse_definitions(DefinitionKind.RESOURCE, server, text(lists["resources/list"]))[0]
    prompts = parse_definitions(DefinitionKind.PROMPT, server, text(lists["prompts/list"]))[0]
    tools = parse_definitions(DefinitionKind.TOOL, server, text(lists["tools/list"]))[0]
    declared = frozenset(("tools", "prompts", "resources"))
    return Catalogue(server, tools, 0.0, 0.0, (), prompts, resources, (), declared)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = clock()
    found = work()
    return (clock() - begun) * 1000, found


def _read(texts: list[bytes]) -> float:
    with no_collections():
        return _timed(lambda: [orjson.loads(one) for one in texts])[0]


def once(
    controller: Controller, worker: Worker, generation: int, before: codec.EncodedSnapshot | None
) -> tuple[Times, codec.EncodedSnapshot]:
    """One recompile, its way to a worker, and the reference before and after it."""
    times = Times()
    earlier = _read(controller.texts)
    times.compile, snapshot = _timed(lambda: controller.compile(generation))
    begun = clock()
    packed = codec.EncodedSnapshot(generation, snapshot, before)
    sent = frames(packed, worker)
    times.pack = (clock() - begun) * 1000
    times.frames, times.size = len(sent), sum(map(len, sent))
    worker.stretches.clear()
    for frame in sent:
        worker.take(frame)
    times.unpack, times.pause = sum(worker.stretches), max(worker.stretches)
    times.reference = (earlier + _read(controller.texts)) / 2
    return times, packed


def frames(packed: codec.EncodedSnapshot, worker: Worker) -> list[bytes]:
    """What is sent to a worker that has what it has."""
    known = set(worker.decoder.parts)
    sent = [pack("parts", parts) for parts in batches(packed.lacked(known))]
    return [*sent, pack("load", packed.generation, packed.root, known - packed.parts.keys())]


SHOWN = {
    "compile": "compile",
    "pack": "into frames",
    "unpack": "unpack at a worker",
    "pause": "its longest stretch",
    "reference": "reference: orjson.loads",
}


def show(first: Times, found: list[Times]) -> list[str]:
    """The table: CPU milliseconds, and the ratio to the reference of the same round."""
    lines = [f"{'':24}  from nothing   one list changed   min - max       ratio"]
    for name, title in SHOWN.items():
        values = [getattr(one, name) for one in found]
        ratio = median(getattr(one, name) / one.reference for one in found)
        spread = f"{min(values):.1f} - {max(values):.1f}"
        lines.append(f"{title:24}  {getattr(first, name):12.1f}  {median(values):17.1f}  {spread:>12}  {ratio:10.2f}")
    lines.append(f"{'megabytes':24}  {first.size / 1e6:12.1f}  {median(one.size for one in found) / 1e6:17.1f}")
    lines.append(f"{'frames':24}  {first.frames:12d}  {median(one.frames for one in found):17.0f}")
    return lines


def rounds(size: Size, count: int) -> tuple[Times, list[Times]]:
    """The first compile, and as many after a change of one list."""
    controller, worker = Controller(size), Worker()
    gc.collect()
    gc.freeze()
    first, packed = once(controller, worker, 1, None)
    found = []
    for number in range(count):
        gc.collect()
        controller.change(number + 1)
        times, packed = once(controller, worker, number + 2, packed)
        found.append(times)
    return first, found


def main(argv: list[str]) -> int:
    """Measure and print; the table goes to stdout. 3: a recompile takes longer than `LONGEST`, in two runs."""
    parser = argparse.ArgumentParser(prog="python -m bench compile", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="servers that change, one after the other")
    args = parser.parse_args(argv)
    # As in a worker.
    gc.set_threshold(50_000, 20, 50)
    size = Size()
    for _ in range(2):
        first, found = rounds(size, args.rounds)
        print("\n".join(show(first, found)))
        taken = median(one.compile + one.pack for one in found)
        if taken <= LONGEST:
            break
    told = f"{size.tools} tools, {size.resources} resources, {size.prompts} prompts over {size.servers} servers"
    print(f"\nCPU milliseconds, medians of {args.rounds} changes; {told}")
    print(footer())
    return 0 if taken <= LONGEST else 3
