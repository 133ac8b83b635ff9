"""`fastgw run`: the gateway itself, in the foreground."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgw.config.files import ConfigFiles
from fastgw.config.inactive import inactive
from fastgw.config.lint import at_start
from fastgw.config.reader import ReadConfig, read
from fastgw.config.tree import ConfigError, ConfigProblem, locate
from fastgw.processes.plan import Plan, plan_of


class NotSafe(Exception):
    """The file demands what this release cannot do, and leaving it out would open a door."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("run")
    parser.add_argument("--config", type=Path, default=Path("fastgw.yaml"), help="the file (default: ./fastgw.yaml)")
    words = "run without the settings that restrict and are not active in this release"
    parser.add_argument("--allow-inactive", action="store_true", help=words)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve; exit status 0 after a drain, 1 where it could not start."""
    path = args.config.absolute()

    def plan(files: ConfigFiles) -> Plan:
        return read_plan(path, dict(os.environ), files, allow_inactive=args.allow_inactive)

    gc.disable()  # until children are forked: it takes a tenth of the start, and finds nothing
    try:
        # What is wrong with the file is said before the rest, which takes a second to import, is needed.
        reading = read(path, dict(os.environ))
        settings = [one for one in inactive(reading.root) if args.allow_inactive or not one.restricts]
        for notice in (*settings, *at_start(reading.settings, reading.root)):
            print(f"note: {notice}", file=sys.stderr)
        assembly, supervisor = import_module("fastgw.processes.assembly"), import_module("fastgw.processes.supervisor")
        return int(supervisor.launch(assembly.parts(plan)))
    except (NotSafe, OSError) as wrong:
        print(wrong, file=sys.stderr)
        return 1


def unservable(reading: ReadConfig) -> Iterator[ConfigProblem]:
    """What the listener does not take, though it is a certificate and its key."""
    if reading.tls is not None and (why := import_module("fastgw.processes.tls_trial").refused(reading.tls)):
        yield ConfigProblem(locate(reading.root, ("tls",)), f"this certificate cannot be served: {why}")


def read_plan(path: Path, environ: dict[str, str], files: ConfigFiles, *, allow_inactive: bool) -> Plan:
    """The plan of a configuration that may be run; ConfigError where it cannot be used, NotSafe where it may not."""
    reading = read(path, environ, files)
    for problem in unservable(reading):
        raise ConfigError(problem)
    stopping = [notice for notice in inactive(reading.root) if notice.restricts]
    if stopping and not allow_inactive:
        lines = "\n".join(map(str, stopping))
        raise NotSafe(f"{lines}\n{path}: not safe to run as it is; --allow-inactive runs it without these settings")
    return replace(plan_of(reading.settings), files=files, tls=reading.tls)
