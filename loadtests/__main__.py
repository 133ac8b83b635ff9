"""`python -m loadtests SCENARIO`: starts two servers and the gateway, lets Locust run against it, exits as Locust does.

Exit codes: 0 within the budgets, 1 not, 2 could not be started, or what was to happen beside the load did not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from bench.gateway import NotAsMeant
from bench.started import ROOT, NotStarted
from loadtests.fleet import Fleet, fleet
from loadtests.scenarios import SCENARIOS, Scenario

MOST_SECONDS, MOST_STREAMS = 600, 5000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
RESULTS = ROOT / "loadtests" / "results"


def main() -> int:
    """One bounded run on loopback."""
    listed = "\n".join(f"  {name:<17}{one.about}" for name, one in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=tuple(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--seconds", type=int, default=30, help=f"at most {MOST_SECONDS}; 30 unless said")
    parser.add_argument("--streams", type=int, help=f"in `streams`, at most {MOST_STREAMS}")
    parser.add_argument("--budgets", type=Path, default=ROOT / "loadtests" / "budgets.yaml", help="another file")
    parser.add_argument("--ui", action="store_true", help="Locust's web page, until Ctrl-C")
    parser.add_argument("--host", help="a gateway that runs, on loopback: its endpoint's URL; its API key is in KEY")
    parser.add_argument("--call", default="{}", help='what to call there: {"name": "...", "arguments": {...}}')
    args = parser.parse_args()
    scenario = SCENARIOS[args.scenario]
    if not (1 <= args.seconds <= MOST_SECONDS and 0 <= (args.streams or 0) <= MOST_STREAMS):
        parser.error(f"at most {MOST_SECONDS} seconds and {MOST_STREAMS} streams")
    if args.host and (scenario.beside or scenario.settings or scenario.streams or "name" not in json.loads(args.call)):
        parser.error("a gateway of one's own takes steady, burst or overload, and --call")
    if args.host and urlsplit(args.host).hostname not in LOOPBACK:
        parser.error("loopback only: this is a load generator")
    if importlib.util.find_spec("locust") is None:
        print("locust is not installed here: requirements/load.in", file=sys.stderr)
        return 2
    try:
        return run(args)
    except (NotStarted, NotAsMeant) as exc:
        print(exc, file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Start everything, let Locust run, stop everything; Locust's exit code."""
    scenario, report = SCENARIOS[args.scenario], RESULTS / f"{args.scenario}.html"
    around = {
        "LOAD_SCENARIO": args.scenario,
        "LOAD_SECONDS": f"{args.seconds}",
        "LOAD_STREAMS": f"{args.streams or ''}",
    }
    around["LOAD_BUDGETS"] = str(args.budgets.resolve())
    RESULTS.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "locust", "--loglevel", "WARNING", "--html", str(report), "--stop-timeout", "3"]
    command += ["-f", "loadtests/locustfile.py"]
    command += ["--web-host", "127.0.0.1"] if args.ui else ["--headless", "--only-summary"]
    with ExitStack() as stack:
        running = None
        if args.host:
            around |= {"LOAD_URL": args.host, "LOAD_KEYS": os.environ.get("KEY", ""), "LOAD_CALL": args.call}
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtests-")))
            running = stack.enter_context(fleet(scenario, folder))
            there = running.gateway
            around |= {"LOAD_URL": f"http://127.0.0.1:{there.port}/mcp", "LOAD_KEYS": ",".join(there.keys)}
            around |= {"LOAD_GATEWAY": str(there.pid)}
        if args.ui:
            print("http://127.0.0.1:8089 has the run; Ctrl-C ends it", flush=True)
        code = attend(command, around, running, scenario)
    print(f"report: {report.relative_to(ROOT)}")
    return code


def attend(command: list[str], around: dict[str, str], running: Fleet | None, scenario: Scenario) -> int:
    """Let Locust run, and happen beside it what the scenario says; Locust's exit code.

    Raises:
        NotAsMeant: nothing did.
    """
    locust = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **around})
    following = time.monotonic() + scenario.every
    try:
        while locust.poll() is None:
            time.sleep(0.1)
            if running and scenario.beside and time.monotonic() > following:
                running.happen(scenario.beside)
                following = time.monotonic() + scenario.every
    except KeyboardInterrupt:
        pass  # Locust has heard it too, and ends in its own way
    except BaseException:
        locust.terminate()
        raise
    finally:
        locust.wait()
    if running and scenario.beside:
        print(f"{scenario.beside}: {running.done} times")
        if not running.done:
            raise NotAsMeant(f"{scenario.beside}: never; more seconds are needed")
    return locust.returncode


if __name__ == "__main__":
    sys.exit(main())
