"""`python -m bench edge`: CPU per call of the gateway beside a reference, in one run.

Knows: which contenders there are and what the run prints. Refuses to know: how one is started or measured.
Exit codes: 0 measured, 1 an answer was wrong or something switched on does not show, 3 the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import gate, loop, references, rounds
from bench.gateway import Behind, Gateway, NotAsMeant, gateway
from bench.handshake import Refused, close_sessions
from bench.load import with_sessions
from bench.messages import Target
from bench.processes import LostProcess
from bench.rounds import Contender, Row
from bench.started import NotStarted, Started, listens, started
from bench.versions import versions

ERAS = ("modern", "legacy")
FEW, MANY = 10, 10_000
TOOLS = {"modern": "echo", "legacy": "echo-legacy"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What was asked for on the command line."""

    plan: loop.Plan
    rounds: int
    pairs: tuple[tuple[str, str], ...]
    only: tuple[str, ...]


class Stage:
    """Everything that runs during one benchmark; leaving the `with` block ends it all."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.reference = references.best()
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
            _say("a gateway no longer answers; its sessions were not ended")
        finally:
            self.stack.close()

    def build(self) -> None:
        """Start what `make bench` compares."""
        backends = {era: self.backend(era, FEW) for era in ERAS}
        modern = backends["modern"]
        self.add_reference(modern)
        if self.wanted("bare backend"):
            self.add("bare backend", modern.pid, Target(modern.port))
        if self.wanted("fastgw"):
            behind = [Behind(backends[era].port, era, TOOLS[era]) for era in ERAS]
            running = self.gateway("gateway", behind, FEW)
            for agent, server in self.setting.pairs:
                target = running.target(behind[ERAS.index(server)], agent)
                self.add(f"fastgw {agent} > {server}", running.pid, target)
        if self.wanted("granian + ClientSession"):
            plain = self.stack.enter_context(references.forwarder(modern.port, self.folder("forwarder")))
            self.add("granian + ClientSession", plain.pid, Target(plain.port))

    def add_reference(self, modern: Started) -> None:
        """The reference, always the first row."""
        folder = self.folder("reference")
        running = self.stack.enter_context(references.reference(self.reference, modern.port, folder))
        self.add(self.reference, running.pid, Target(running.port))

    def wanted(self, name: str) -> bool:
        """Whether `--only` leaves this one in."""
        return not self.setting.only or any(part in name for part in self.setting.only)

    def folder(self, name: str) -> Path:
        """A new folder for one contender's files."""
        folder = self.root / name
        folder.mkdir()
        return folder

    def backend(self, era: str, tools: int) -> Started:
        """A bare backend with so many tools."""
        log = self.root / f"backend-{era}-{tools}.log"
        command = [sys.executable, "-m", "bench", "backend", "--era", era]
        command += ["--name", TOOLS[era], "--tools", str(tools)]
        pid = self.stack.enter_context(started(command, log, lambda: b"port=" in log.read_bytes()))
        return Started(pid, int(log.read_text().split("port=")[1].split()[0]))

    def gateway(self, name: str, behind: list[Behind], agents: int) -> Gateway:
        """A gateway in front of these backends."""
        running = self.stack.enter_context(gateway(behind, self.folder(name), agents))
        self.gateways.append(running)
        return running

    def add(self, name: str, pid: int, target: Target) -> None:
        """One more row; a legacy agent's sessions are opened once, for all rounds."""
        if not listens(target.port):
            raise NotStarted(f"{name} does not listen on port {target.port}")
        target = with_sessions(target, self.setting.plan.connections)
        self.contenders.append(Contender(name, pid, target))

    def measure(self) -> list[Row]:
        """All rounds."""
        outcomes = rounds.measure(self.contenders, self.setting.plan, self.setting.rounds, _say)
        return rounds.table(self.contenders, outcomes)


class Flat(Stage):
    """The stage of `--flat`: the same gateway with few and with many tools, and with few and with many agents."""

    def build(self) -> None:
        """Start the three; the first is the reference."""
        few, many = self.backend("modern", FEW), self.backend("modern", MANY)
        self.reference = f"fastgw, {FEW} tools, {FEW} agents"
        for tools, agents, backend in ((FEW, FEW, few), (MANY, FEW, many), (FEW, MANY, few)):
            name = f"fastgw, {tools} tools, {agents} agents"
            behind = Behind(backend.port, "modern", TOOLS["modern"])
            running = self.gateway(name, [behind], agents)
            self.add(name, running.pid, running.target(behind, "modern"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(stage: Stage, rows: Sequence[Row], written: Path | None) -> None:
    setting = stage.setting
    print(rounds.text(rows))
    print(f"\nreference: {stage.reference}; medians of {setting.rounds} rounds of {setting.plan.seconds:g} s,")
    print(f"{setting.plan.connections} connections, closed loop, every answer's status, id and content checked")
    if stage.reference == "granian answer":
        print("there is no nginx and no HAProxy here: the reference is a Granian worker that answers by itself,")
        print("so these ratios cannot be compared with those to a proxy")
    answered = sum(row.calls for row in rows if row.name.startswith("fastgw"))
    written_events = sum(running.events() for running in stage.gateways)
    print(f"usage events written: {written_events} (at least {answered} calls, warm-up not counted)")
    print("versions: " + ", ".join(f"{name} {value}" for name, value in versions().items()))
    print("load average when it ended: " + " ".join(f"{value:.2f}" for value in os.getloadavg()))
    if written:
        found = {"reference": stage.reference, "rounds": setting.rounds, "plan": asdict(setting.plan)}
        found |= {"versions": versions(), "usage_events": written_events, "rows": [asdict(row) for row in rows]}
        written.write_text(json.dumps(found, indent=1) + "\n")


def _ratios(rows: Sequence[Row]) -> dict[str, float]:
    return {row.name: row.ratio for row in rows if row.name.startswith("fastgw")}


def _gate(stage: Stage, rows: Sequence[Row], file: Path) -> int:
    baseline = gate.load(file)
    known = baseline.ratios.get(stage.reference, {})
    for name in _ratios(rows).keys() - known.keys():
        print(f"gate: {name} has no committed ratio to {stage.reference} and is not judged")

    def again() -> dict[str, float]:
        _say("the gate wants a second look")
        return _ratios(stage.measure())

    failures = gate.judge(baseline, stage.reference, _ratios(rows), again)
    for failure in failures:
        print(f"gate: confirmed by a repeat: {failure}")
    return 3 if failures else 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench edge", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured, of each contender in each round")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before that")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--pairs", choices=("modern", "all"), default="modern", help="agent and server eras")
    parser.add_argument("--only", default="", help="names or parts of names, comma-separated; the reference stays")
    parser.add_argument("--flat", action="store_true", help="cost with few and many tools and agents instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--gate", type=Path, metavar="FILE", help="compare with committed ratios")
    parser.add_argument("--renew", type=Path, metavar="FILE", help="write this run's ratios as those to commit")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run it; the table goes to stdout, progress to stderr."""
    args = _arguments(argv)
    pairs = tuple((agent, server) for agent in ERAS for server in ERAS) if args.pairs == "all" else (("modern",) * 2,)
    plan = loop.Plan(args.connections, args.seconds, args.warm)
    # A terminated benchmark still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setting = Setting(plan, args.rounds, pairs, tuple(filter(None, args.only.split(","))))
    try:
        with (Flat if args.flat else Stage)(setting) as stage:
            rows = stage.measure()
            _report(stage, rows, args.json)
            if args.renew:
                gate.renew(args.renew, stage.reference, _ratios(rows))
            return _gate(stage, rows, args.gate) if args.gate else 0
    except (rounds.Wrong, LostProcess, NotStarted, NotAsMeant, Refused, OSError) as exc:
        print(f"no figures: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
