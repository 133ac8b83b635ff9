"""`python -m loadtests`: starts two backends and the gateway, lets Locust run against it, exits as Locust does.

Knows: what runs beside what. Refuses to know: the agents' behaviour and its budget (`loadtests/locustfile.py`).
Exit codes: 0 within budget, 1 not, 2 could not be started.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.gateway import Behind, NotAsMeant, gateway
from bench.started import ROOT, NotStarted, started

TOOLS = {"modern": "echo", "legacy": "echo-legacy"}
MOST_AGENTS, MOST_SECONDS = 500, 600


def main() -> int:
    """One bounded run on loopback."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__.split("\n")[0])
    parser.add_argument("--agents", type=int, default=20, help=f"at the same time, at most {MOST_AGENTS}")
    parser.add_argument("--seconds", type=int, default=20, help=f"at most {MOST_SECONDS}")
    args = parser.parse_args()
    if not (1 <= args.agents <= MOST_AGENTS and 1 <= args.seconds <= MOST_SECONDS):
        parser.error(f"at most {MOST_AGENTS} agents and {MOST_SECONDS} seconds")
    if importlib.util.find_spec("locust") is None:
        print("locust is not installed here: requirements/load.in", file=sys.stderr)
        return 2
    try:
        return run(args.agents, args.seconds)
    except (NotStarted, NotAsMeant) as exc:
        print(exc, file=sys.stderr)
        return 2


def run(agents: int, seconds: int) -> int:
    """Start everything, let Locust run, stop everything; Locust's exit code."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtests-")))
        behind = [Behind(_backend(stack, root, era), era, tool) for era, tool in TOOLS.items()]
        running = stack.enter_context(gateway(behind, root))
        command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "-f", "loadtests/locustfile.py"]
        command += ["-u", str(agents), "-r", str(agents), "-t", f"{seconds}s"]
        command += ["--host", f"http://127.0.0.1:{running.port}"]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, "LOAD_KEY": running.key}, check=False).returncode


def _backend(stack: ExitStack, root: Path, era: str) -> int:
    log = root / f"backend-{era}.log"
    command = [sys.executable, "-m", "bench", "backend", "--era", era, "--name", TOOLS[era], "--tools", "10"]
    stack.enter_context(started(command, log, lambda: b"port=" in log.read_bytes()))
    return int(log.read_text().split("port=")[1].split()[0])


if __name__ == "__main__":
    sys.exit(main())
