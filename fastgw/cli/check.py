"""`fastgw check`: what is wrong with a configuration, what of it this release leaves out, what tools will be called;
and `fastgw schema`: the JSON Schema of the configuration, or the SQL of a sink. Servers are not asked:
their kept catalogues are looked at.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastgw.catalog.tools import Catalogue
from fastgw.cli.run import unservable
from fastgw.config.inactive import inactive
from fastgw.config.lint import lint
from fastgw.config.reader import read
from fastgw.config.schema.settings import Settings, json_schema
from fastgw.config.tree import ConfigError
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.upstream.discovery.kept import recall


def add_parser(subparsers: Any) -> None:
    """Add these commands to the command line."""
    parser = subparsers.add_parser("check")
    parser.add_argument("--config", type=Path, default=Path("fastgw.yaml"), help="the file (default: ./fastgw.yaml)")
    words = "accept settings that restrict and are not active in this release"
    parser.add_argument("--allow-inactive", action="store_true", help=words)
    parser.set_defaults(run=run)
    schema = subparsers.add_parser("schema")
    words = "of the configuration, as JSON Schema (the default), or of the tables for usage events, as SQL"
    schema.add_argument("of", nargs="?", choices=("configuration", "clickhouse"), default="configuration", help=words)
    schema.set_defaults(run=print_schema)


def run(args: argparse.Namespace) -> int:
    """Check the file; exit status 0 where `run` with the same options would start, else 1."""
    reading = read(args.config, os.environ)
    for problem in unservable(reading):
        raise ConfigError(problem)
    settings, root = reading.settings, reading.root
    keys = inactive(root)
    stopping = [key for key in keys if key.restricts and not args.allow_inactive]
    if stopping:
        print(f"{args.config}: not safe to run as it is; --allow-inactive runs it without these settings:")
        print("\n".join(map(str, stopping)))
    else:
        print(f"{args.config}: ok")
    catalogues = kept(settings)
    about_names = compile_snapshot(settings, Learned(catalogues), 0)[1] if catalogues or settings.lock else ()
    for notice in (*[key for key in keys if key not in stopping], *lint(settings, root), *about_names):
        print(f"note: {notice}")
    return 1 if stopping else 0


def print_schema(args: argparse.Namespace) -> int:
    """Print the schema; exit status 0."""
    if args.of == "clickhouse":
        print(files("fastgw.usage.sinks").joinpath("clickhouse.sql").read_text("utf-8"), end="")
    else:
        print(json.dumps(json_schema(), indent=2))
    return 0


def kept(settings: Settings) -> dict[str, Catalogue]:
    """The last catalogues, as they are kept under `data`; none of a server that has never answered."""
    folder = Path(settings.data) / "catalogue"
    recalled = {server: recall(folder, server, ()) for server in settings.servers}
    return {server: found[0] for server, found in recalled.items() if found is not None}
