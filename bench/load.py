"""The load generator as a command, against something that already listens on loopback.

Knows: the command line, sessions of legacy agents. Refuses to know: how calls are timed (`bench.loop`).

Usage: `python -m bench load --port 8080 --key fgw_...`; exit code 1 when any answer was wrong.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import uvloop

from bench import processes
from bench.crowd import run_many
from bench.handshake import close_sessions, open_sessions
from bench.loop import Outcome, Plan, run
from bench.messages import Target


def with_sessions(target: Target, connections: int) -> Target:
    """The target with a session of its own for each connection, where the era has sessions.

    Raises:
        handshake.Refused: the target gives none.
    """
    return replace(target, sessions=open_sessions(target, connections)) if target.era == "legacy" else target


def show(outcome: Outcome) -> dict[str, float | int | list[str]]:
    """The outcome in plain words and numbers: microseconds, calls, calls per second."""
    shares = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}
    return {
        "calls": outcome.calls,
        "errors": outcome.errors,
        "rate": round(outcome.rate, 1),
        "cpu_us_per_call": round(outcome.cpu_per_call, 1),
        **{f"{name}_us": outcome.latencies.percentile(share) for name, share in shares.items()},
        "late_p99_us": outcome.late.percentile(99),
        "samples": list(outcome.samples),
    }


def main(argv: list[str]) -> int:
    """One run against something that already listens on loopback."""
    parser = argparse.ArgumentParser(prog="python -m bench load", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/mcp")
    parser.add_argument("--era", choices=("modern", "legacy"), default="modern")
    parser.add_argument("--tool", default="echo")
    parser.add_argument("--key", default="", help="API key")
    parser.add_argument("--size", type=int, default=0, help="padding the backend was told to add")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--rate", type=float, default=0.0, help="calls per second, open loop; left out: closed loop")
    parser.add_argument("--processes", type=int, default=1, help="of this generator; connections and rate are for each")
    parser.add_argument("--pid", type=int, default=0, help="meter the CPU of this process and all below it")
    args = parser.parse_args(argv)
    bare = Target(args.port, args.era, args.path, args.tool, args.key, args.size)
    target = with_sessions(bare, args.connections)
    plan = Plan(args.connections, args.seconds, args.warm, args.rate)
    meter = (lambda: processes.read(args.pid)) if args.pid else (lambda: None)
    if args.processes > 1:
        outcome = run_many(target, plan, args.processes, meter)
    else:
        outcome = uvloop.run(run(target, plan, meter))
    close_sessions(target)
    print(json.dumps(show(outcome), indent=1))
    return 1 if outcome.errors else 0
