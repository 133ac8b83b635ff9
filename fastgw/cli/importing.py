"""`fastgw import`: an `mcpServers` file becomes a configuration on stdout; what to set, by name, goes to stderr."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from fastgw.cli.terminal import FAILED, line, say
from fastgw.config.importer import NotImportable, imported

_BESIDE = re.compile(r'("(?:[^"\\]|\\.)*+")|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*+[}\]])', re.DOTALL)
"""A text, to be kept; or a comment or a comma at the end of a list, which editors let people write."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("import")
    parser.add_argument("file", metavar="FILE", type=Path, help="the client's file, such as .mcp.json")
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to write it, a new file (default: stdout)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; exit status 0, or 1 where the file is none or the result cannot be written."""
    try:
        found = imported(_document(args.file))
        if args.out is not None:
            with open(args.out, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
                out.write(found.text)
    except OSError as wrong:
        say(f"fastgw import: {wrong.filename}: {wrong.strerror}")
        return FAILED
    except (NotImportable, RecursionError) as wrong:
        say(f"fastgw import: {args.file}: {wrong}")
        return FAILED
    if args.out is None:
        print(found.text, end="")
    for note in found.notes:
        say(f"note: {line(note)}")
    if found.variables:
        say("\n  ".join(["set these variables before `fastgw check` and `fastgw run`:", *found.variables]))
    return 0


def _document(path: Path) -> Any:
    try:
        found = json.loads(_BESIDE.sub(lambda found: found[1] or " ", path.read_text(encoding="utf-8-sig")))
        json.dumps(found, ensure_ascii=False).encode()  # refuses halves of surrogate pairs
    except ValueError as wrong:
        raise NotImportable(f"is no JSON: {wrong}") from None
    return found
