"""Everything that runs during one benchmark: servers, reference, gateways; leaving the `with` block ends it all."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from bench import loop, references, rounds
from bench.gateway import OFF, ON, Behind, Features, Gateway, NotAsMeant, gateway
from bench.handshake import close_sessions, with_sessions
from bench.messages import BODY, Target
from bench.rounds import Contender, Row, Wrong
from bench.started import NotStarted, Started, listens, started

ERAS = ("modern", "legacy")
FLOOR = "bare backend"
FEW, MANY = 10, 10_000
MEGABYTE = 1_000_000
TOOLS = {"modern": "echo", "legacy": "echo-legacy"}
SETTINGS: dict[str, Features] = {
    "everything off": OFF,
    "keys alone": replace(OFF, agents=FEW),
    "policies alone": replace(OFF, policies=True),
    "limits alone": replace(OFF, limits=ON.limits),
    "usage events alone": replace(OFF, usage=True),
    "validation alone": replace(OFF, validation=True),
    "store: embedded": replace(ON, store="embedded"),
}
"""Beside everything on, whose buckets are in memory. Agents and server modern."""
WRITTEN = 10.0
"""Seconds for the last usage events to be written."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What was asked for on the command line.

    Args:
        pairs: of an agent's and a server's era, with everything on.
        settings: names in `SETTINGS`.
        only: parts of names; empty for all. The reference always runs.
        backends: ports of servers that run already, modern and legacy; 0 to start one.
        others: name, pid, URL, era and tool of gateways that run already.
    """

    plan: loop.Plan
    rounds: int
    pairs: tuple[tuple[str, str], ...] = ()
    settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    reference: str = ""
    drift: float = rounds.DRIFT
    backends: tuple[int, ...] = (0, 0)
    others: tuple[tuple[str, str, str, str, str], ...] = ()


class Stage:
    """What `make bench-edge` compares."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.reference = setting.reference or references.best()
        self.gateways: list[Gateway] = []
        self.contenders: list[Contender] = []

    def __enter__(self) -> Stage:
        self.stack = ExitStack()
        try:
            self.root = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            self.build()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for one in self.contenders:
                close_sessions(one.target)
        except OSError:
            say("a gateway no longer answers; its sessions were not ended")
        finally:
            self.stack.close()

    def build(self) -> None:
        """Start everything."""
        setting = self.setting
        backends = {era: self.backend(era, FEW, port) for era, port in zip(ERAS, setting.backends, strict=True)}
        behind = {era: Behind(one.port, era, TOOLS[era]) for era, one in backends.items()}
        modern = backends["modern"]
        folder = self.folder("reference")
        running = self.stack.enter_context(references.reference(self.reference, modern.port, folder))
        self.add(self.reference, running.pid, Target(running.port))
        if modern.pid and self.wanted(FLOOR):
            self.add(FLOOR, modern.pid, Target(modern.port))
        self.add_beside(modern)
        pairs = [pair for pair in setting.pairs if self.wanted("fastgw {} > {}".format(*pair))]
        if pairs:
            whole = self.gateway(list(behind.values()), ON)
            for agent, server in pairs:
                self.add(f"fastgw {agent} > {server}", whole.pid, whole.target(behind[server], agent))
        for name in setting.settings:
            if self.wanted(f"fastgw, {name}"):
                one = self.gateway([behind["modern"]], SETTINGS[name])
                self.add(f"fastgw, {name}", one.pid, one.target(behind["modern"], "modern"))
        for name, pid, url, era, tool in setting.others:
            self.add(name, int(pid), replace(Target.at(url, era, tool), streams=True))

    def add_beside(self, modern: Started) -> None:
        """What is no gateway, in front of the modern server."""
        if self.reference != "granian + ClientSession" and self.wanted("granian + ClientSession"):
            plain = self.stack.enter_context(references.forwarder(modern.port, self.folder("forwarder")))
            self.add("granian + ClientSession", plain.pid, Target(plain.port))
        if self.setting.settings and self.reference != "granian answer" and self.wanted("granian answer"):
            answers = self.stack.enter_context(references.granian_answer(modern.port, self.folder("answer")))
            self.add("granian answer", answers.pid, Target(answers.port))
        if self.setting.settings and self.wanted("sketch"):
            key, tool = "fgw_bench_sketch", TOOLS["modern"]
            drawn = self.stack.enter_context(references.sketch(modern.port, self.folder("sketch"), key, tool))
            self.add("sketch", drawn.pid, Target(drawn.port, key=key))

    def wanted(self, name: str) -> bool:
        """Whether `--only` leaves this one in."""
        return not self.setting.only or any(part in name for part in self.setting.only)

    def folder(self, name: str) -> Path:
        """A new folder for one contender's files."""
        folder = self.root / name
        folder.mkdir()
        return folder

    def backend(self, era: str, tools: int, port: int = 0, size: int = 0) -> Started:
        """A bare backend with so many tools; the one at `port`, of pid 0, where one runs there already."""
        if port:
            return Started(0, port)
        log = self.root / f"backend-{era}-{tools}-{size}.log"
        command = [sys.executable, "-m", "bench", "backend", "--era", era]
        command += ["--name", TOOLS[era], "--tools", str(tools), "--size", str(size)]
        pid = self.stack.enter_context(started(command, log, lambda: b"port=" in log.read_bytes()))
        return Started(pid, int(log.read_text().split("port=")[1].split()[0]))

    def gateway(self, behind: list[Behind], on: Features) -> Gateway:
        """A gateway in front of these backends."""
        folder = self.folder(f"gateway-{len(self.gateways)}")
        running = self.stack.enter_context(gateway(behind, folder, on))
        self.gateways.append(running)
        return running

    def add(self, name: str, pid: int, target: Target) -> None:
        """One more row; a legacy agent's sessions are opened once, for all rounds."""
        if not listens(target.port):
            raise NotStarted(f"{name} does not listen on port {target.port}")
        target = with_sessions(target, self.setting.plan.connections)
        self.contenders.append(Contender(name, pid, target, floor=name == FLOOR))

    def measure(self) -> list[Row]:
        """All rounds.

        Raises:
            rounds.Wrong: an answer was wrong, or the figures may not be reported.
        """
        outcomes = rounds.measure(self.contenders, self.setting.plan, self.setting.rounds, say)
        rounds.refuse(self.contenders, outcomes, self.setting.drift)
        return rounds.table(self.contenders, outcomes)

    def latencies(self, rate: float, seconds: float, turns: int) -> dict[str, loop.Outcome]:
        """Each contender by the open loop, in turns whose counts are summed.

        Raises:
            rounds.Wrong: an answer was wrong.
        """
        plan = replace(self.setting.plan, rate=rate, seconds=seconds)
        found: dict[str, list[loop.Outcome]] = {one.name: [] for one in self.contenders}
        for turn in range(turns):
            for one in self.contenders:
                outcome = uvloop.run(loop.run(one.target, plan, open_loop=loop.Paced))
                if outcome.errors:
                    raise Wrong(f"{one.name}: {outcome.errors} wrong answers: {'; '.join(outcome.samples)}")
                found[one.name].append(outcome)
            say(f"open loop, turn {turn + 1} of {turns}")
        return {name: _summed(outcomes) for name, outcomes in found.items()}

    def events(self, rows: list[Row]) -> int:
        """Usage events written, once there is one for each call that counts.

        Raises:
            NotAsMeant: there are less.
        """
        writing = {one.pid for one in self.gateways if one.on.usage}
        pids = {one.name: one.pid for one in self.contenders}
        calls = sum(row.calls for row in rows if pids[row.name] in writing)
        deadline = time.monotonic() + WRITTEN
        while (written := sum(one.events() for one in self.gateways)) < calls:
            if time.monotonic() > deadline:
                raise NotAsMeant(f"{written} usage events for {calls} calls")
            time.sleep(0.2)
        return written


class Flat(Stage):
    """The stage of `--flat`: the same gateway with few and with many tools, and with few and with many agents."""

    def build(self) -> None:
        """Start the three; the first is the reference."""
        few, many = self.backend("modern", FEW), self.backend("modern", MANY)
        self.reference = f"fastgw, {FEW} tools, {FEW} agents"
        for tools, agents, backend in ((FEW, FEW, few), (MANY, FEW, many), (FEW, MANY, few)):
            behind = Behind(backend.port, "modern", TOOLS["modern"])
            running = self.gateway([behind], replace(ON, agents=agents))
            self.add(f"fastgw, {tools} tools, {agents} agents", running.pid, running.target(behind, "modern"))


class Large(Stage):
    """The stage of `--large`: results, or arguments, of a megabyte through the reference and the gateway."""

    def __init__(self, setting: Setting, what: str) -> None:
        super().__init__(setting)
        self.what = what

    def build(self) -> None:
        """Start the three."""
        size, body = (MEGABYTE, BODY) if self.what == "results" else (0, MEGABYTE)
        backend = self.backend("modern", FEW, size=size)
        plain = self.stack.enter_context(references.reference(self.reference, backend.port, self.folder("reference")))
        # So cheap for it that the load generator, which looks at every byte, is the bottleneck.
        self.contenders.append(
            Contender(self.reference, plain.pid, Target(plain.port, size=size, body=body), floor=True)
        )
        behind = Behind(backend.port, "modern", TOOLS["modern"])
        running = self.gateway([behind], ON)
        target = replace(running.target(behind, "modern"), size=size, body=body)
        self.add(f"fastgw, {self.what} of a megabyte", running.pid, target)


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(line, file=sys.stderr, flush=True)


def _summed(outcomes: list[loop.Outcome]) -> loop.Outcome:
    return replace(
        outcomes[0],
        calls=sum(one.calls for one in outcomes),
        seconds=sum(one.seconds for one in outcomes),
        own=max(one.own for one in outcomes),
        latencies=[one for each in outcomes for one in each.latencies],
        late=[one for each in outcomes for one in each.late],
    )
