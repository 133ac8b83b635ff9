"""`python -m bench edge`: CPU per call of the gateway beside a reference, in one run.

Exit codes: 0 measured, 1 no figures (an answer was wrong, something switched on does not show, the machine was not
fit to measure on), 3 the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import gate, loop, plot, references, rounds
from bench.gateway import NotAsMeant
from bench.handshake import Refused
from bench.processes import LostProcess
from bench.rounds import Row
from bench.stage import ERAS, SETTINGS, Flat, Large, Setting, Stage
from bench.started import NotStarted
from bench.versions import footer, versions

TURNS = 3
"""Of the open loop."""


def compare(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The ratios of two runs side by side, which are worth little enough.

    Raises:
        rounds.Wrong: the runs have not the same reference or interpreter.
    """
    for what, one, other in (
        ("reference", earlier["reference"], now["reference"]),
        ("interpreter", earlier["versions"]["python"], now["versions"]["python"]),
    ):
        if one != other:
            raise rounds.Wrong(f"runs with another {what} cannot be compared: {one} then, {other} now")
    before = {row["name"]: row["ratio"] for row in earlier["rows"]}
    both = [(row["name"], before[row["name"]], row["ratio"]) for row in now["rows"] if row["name"] in before]
    return [f"{name:26}  {then:6.2f} then  {since:6.2f} now" for name, then, since in both]


def _figures(stage: Stage, rows: Sequence[Row], latencies: Mapping[str, loop.Outcome]) -> dict[str, Any]:
    setting = stage.setting
    slow = {
        name: {**loop.percentiles(one.latencies), "generator": one.own, "calls": one.calls}
        for name, one in latencies.items()
    }
    return {
        "reference": stage.reference,
        "rounds": setting.rounds,
        "plan": asdict(setting.plan),
        "versions": versions(),
        "load": os.getloadavg(),
        "usage_events": stage.events(list(rows)),
        "rows": [asdict(row) for row in rows],
        "open_loop": slow,
    }


def _report(stage: Stage, rows: Sequence[Row], found: Mapping[str, Any]) -> None:
    setting = stage.setting
    print(rounds.text(rows))
    print(f"\nreference: {stage.reference}; medians of {setting.rounds} rounds of {setting.plan.seconds:g} s,")
    print(f"{setting.plan.connections} connections, closed loop, every answer's status, id and content checked")
    if stage.reference.startswith("granian"):
        print("the reference is an application on Granian: these ratios cannot be compared with those to a proxy")
    if found["open_loop"]:
        print(f"\nlatency in us, open loop\n{'':26}     p50      p90      p99    p99.9      max")
    for name, one in found["open_loop"].items():
        shown = "  ".join(f"{one[share + '_us']:7d}" for share in ("p50", "p90", "p99", "p99.9", "max"))
        bound = f"  no figures: the load generator took {one['generator']:.0%} of its core"
        print(f"{name:26} {bound if one['generator'] > rounds.BOTTLENECK else shown}")
    print(f"\nusage events written: {found['usage_events']}")
    print(footer())


def _ratios(rows: Sequence[Row]) -> dict[str, float]:
    return {row.name: row.ratio for row in rows if row.name.startswith("fastgw")}


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench edge", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured, of each contender in each round")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before that")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--pairs", choices=("modern", "all"), default="modern", help="agent and server eras")
    parser.add_argument(
        "--settings", default="", help=f"all, or some of: {', '.join(SETTINGS)}; default: everything on"
    )
    parser.add_argument("--only", default="", help="names or parts of names, comma-separated; the reference stays")
    parser.add_argument(
        "--reference", choices=references.KNOWN, default=references.best(), help="what the ratios are to"
    )
    words = f"the most by which the reference may move between rounds ({rounds.DRIFT})"
    parser.add_argument("--drift", type=float, default=rounds.DRIFT, help=words)
    parser.add_argument("--rate", type=float, default=0.0, help="calls per second of an open loop; left out: none")
    shape = ("NAME", "PID", "URL", "ERA", "TOOL")
    words = "a gateway that runs already, in front of --backends"
    parser.add_argument("--other", nargs=5, action="append", default=[], metavar=shape, help=words)
    words = "ports of `bench backend`s that run already, one of each era"
    parser.add_argument("--backends", nargs=2, type=int, default=(0, 0), metavar=("MODERN", "LEGACY"), help=words)
    parser.add_argument("--flat", action="store_true", help="cost with few and many tools and agents instead")
    words = "results or arguments of a megabyte through reference and gateway instead"
    parser.add_argument("--large", choices=("results", "arguments"), help=words)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios there, as SVG")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="show the ratios of an earlier --json beside these"
    )
    parser.add_argument("--gate", type=Path, metavar="FILE", help="compare with committed ratios")
    parser.add_argument("--renew", type=Path, metavar="FILE", help="write this run's ratios as those to commit")
    return parser.parse_args(argv)


def _setting(args: argparse.Namespace) -> Setting:
    return Setting(
        plan=loop.Plan(args.connections, args.seconds, args.warm),
        rounds=args.rounds,
        pairs=tuple((agent, server) for agent in ERAS for server in ERAS)
        if args.pairs == "all"
        else (("modern",) * 2,),
        settings=tuple(SETTINGS) if args.settings == "all" else tuple(filter(None, args.settings.split(","))),
        only=tuple(filter(None, args.only.split(","))),
        reference=args.reference,
        drift=args.drift,
        backends=tuple(args.backends),
        others=tuple(tuple(one) for one in args.other),
    )


def main(argv: list[str]) -> int:
    """Run it; the table goes to stdout, progress to stderr."""
    args = _arguments(argv)
    # A terminated benchmark still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        setting = _setting(args)
        with Large(setting, args.large) if args.large else (Flat if args.flat else Stage)(setting) as stage:
            rows = stage.measure()
            latencies = stage.latencies(args.rate, args.seconds, TURNS) if args.rate else {}
            found = _figures(stage, rows, latencies)
            _report(stage, rows, found)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n")
            if args.plot:
                args.plot.write_text(plot.svg(found))
            if args.compare:
                print("\n".join(compare(json.loads(args.compare.read_text()), found)))
            if args.renew:
                gate.renew(args.renew, stage.reference, _ratios(rows))
            if args.gate:
                return gate.passed(args.gate, stage.reference, _ratios(rows), lambda _: _ratios(stage.measure()))
            return 0
    except (rounds.Wrong, LostProcess, NotStarted, NotAsMeant, Refused, OSError, ValueError) as exc:
        print(f"no figures: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
