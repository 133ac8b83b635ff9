"""`fastgw import`: an `mcpServers` file becomes a configuration on stdout; what to set, by name, goes to stderr."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from fastgw.config.importer import Imported, NotAClientsFile, imported

LARGEST = 16 * 2**20
"""Bytes of the file."""
_BESIDE = re.compile(r'("(?:[^"\\]|\\.)*+")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*[}\]])', re.DOTALL)


class NotReadable(ValueError):
    """The file cannot be read; the text says why."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("import", help="turn an mcpServers file into a configuration")
    parser.add_argument("file", metavar="FILE", type=Path, help="the client's file, such as .mcp.json")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="where to write it; it must not exist (default: stdout)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; exit status 0, or 1 where the file is none or the result cannot be written."""
    try:
        found = imported(_document(args.file))
    except (NotReadable, NotAClientsFile) as wrong:
        print(f"fastgw import: {args.file}: {wrong}", file=sys.stderr)
        return 1
    if args.out is None:
        print(found.text, end="")
    elif (wrong_path := _write(args.out, found.text)) is not None:
        print(f"fastgw import: {args.out}: {wrong_path}", file=sys.stderr)
        return 1
    _tell(found)
    return 0


def _document(path: Path) -> Any:
    """The file decoded; comments and commas at the end of a list, which editors let people write, are left out.

    Raises:
        NotReadable: no file, too large, or no JSON.
    """
    try:
        with path.open("rb") as source:
            raw = source.read(LARGEST + 1)
    except OSError as wrong:
        raise NotReadable(f"cannot be read: {wrong.strerror}") from None
    if len(raw) > LARGEST:
        raise NotReadable("is larger than 16 MiB")
    try:
        text = raw.decode("utf-8-sig")
        text = _TRAILING.sub(lambda found: found[1] or "", _BESIDE.sub(lambda found: found[1] or " ", text))
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise NotReadable("is nested too deep") from None
    except json.JSONDecodeError as wrong:
        raise NotReadable(f"is no JSON: {wrong.msg}, line {wrong.lineno}") from None
    except ValueError as wrong:
        raise NotReadable(f"is no JSON: {_without_content(wrong)}") from None


def _without_content(wrong: ValueError) -> str:
    """What is wrong, without a piece of the file: that may be a secret."""
    return "it is not UTF-8" if isinstance(wrong, UnicodeDecodeError) else str(wrong)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one map")
    return found


def _write(path: Path, text: str) -> str | None:
    """Write a new file, readable by its owner only; what went wrong, None where nothing did."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        return "exists already; it is left as it is"
    except OSError as wrong:
        return f"cannot be written: {wrong.strerror}"
    return None


def _tell(found: Imported) -> None:
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if found.variables:
        print("set these variables before `fastgw check` and `fastgw run`:", file=sys.stderr)
        print("\n".join(f"  {name}" for name in found.variables), file=sys.stderr)
