"""`fastgw check`: what is wrong with a configuration, what of it this release leaves out, what tools will be called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import Catalogue
from fastgw.config.complaint import ConfigError
from fastgw.config.inactive import inactive
from fastgw.config.lint import lint
from fastgw.config.reader import ReadConfig, read
from fastgw.config.schema.settings import Settings
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.upstream.discovery.kept import recall


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
    reading = _read(args.config, os.environ)
    if reading is None:
        return 1
    notices = inactive(reading.settings, reading.root)
    stopping = [notice for notice in notices if notice.restricts]
    if stopping and not args.allow_inactive:
        print(f"{args.config}: not safe to run as it is; --allow-inactive runs it without these settings:")
        print("\n".join(map(str, stopping)))
    else:
        print(f"{args.config}: ok")
    told = [notice for notice in notices if not notice.restricts or args.allow_inactive]
    for notice in (*told, *lint(reading.settings, reading.root), *_catalogue(reading.settings)):
        print(f"note: {notice}")
    return 1 if stopping and not args.allow_inactive else 0


def _read(path: Path, environ: Mapping[str, str]) -> ReadConfig | None:
    """The file; None, with the complaints on stderr, where it cannot be used at all."""
    try:
        return read(path, environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None


def kept(settings: Settings) -> dict[str, Catalogue]:
    """The last catalogues, as they are kept under `data`; none of a server that has never answered."""
    folder = Path(settings.data) / "catalogue"
    recalled = {server: recall(folder, server, ()) for server in settings.servers}
    return {server: found[0] for server, found in recalled.items() if found is not None}


def _catalogue(settings: Settings) -> tuple[Notice, ...]:
    """What is to be said of names, by the last catalogues; nothing where there are none."""
    catalogues = kept(settings)
    return compile_snapshot(settings, Learned(catalogues), 0)[1] if catalogues else ()
