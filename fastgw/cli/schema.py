"""`fastgw schema`: the JSON Schema of the configuration file, on stdout."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastgw.config.schema.json_schema import schema


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("schema", help="print the JSON Schema of the configuration")
    parser.set_defaults(run=run, func=run)


def run(_args: argparse.Namespace) -> int:
    """Print the schema; exit status 0."""
    print(json.dumps(schema(), indent=2))
    return 0
