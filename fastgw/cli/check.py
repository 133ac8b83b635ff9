"""`fastgw check`: what is wrong with a configuration, and what of it this release leaves out.

Knows: how findings are printed. Refuses to know: how they are found.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgw.config.complaint import ConfigError
from fastgw.config.inactive import Notice, inactive
from fastgw.config.reader import read


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("check", help="say what is wrong with a configuration")
    parser.add_argument("--config", type=Path, default=Path("fastgw.yaml"), help="the file (default: ./fastgw.yaml)")
    parser.add_argument(
        "--allow-inactive",
        action="store_true",
        help="accept settings that restrict and are not active in this release",
    )
    parser.set_defaults(run=run, func=run)


def run(args: argparse.Namespace) -> int:
    """Check the file; exit status 0 where `run` with the same options would start, else 1."""
    notices = check(args.config, os.environ)
    if notices is None:
        return 1
    stopping = [notice for notice in notices if notice.restricts]
    if stopping and not args.allow_inactive:
        print(f"{args.config}: not safe to run as it is; --allow-inactive runs it without these settings:")
        print("\n".join(map(str, stopping)))
    else:
        print(f"{args.config}: ok")
    told = [notice for notice in notices if not notice.restricts or args.allow_inactive]
    for notice in told:
        print(f"note: {notice}")
    return 1 if stopping and not args.allow_inactive else 0


def check(path: Path, environ: Mapping[str, str]) -> list[Notice] | None:
    """What is inactive in the file; None, with the complaints on stderr, where it cannot be used at all."""
    try:
        reading = read(path, environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None
    return inactive(reading.settings, reading.root)
