"""`fastgw diff`: what a reload would change, as the running gateway says, or what tells two files apart."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.admin_port import add_options, ask
from fastgw.cli.check import kept
from fastgw.cli.terminal import FAILED, USAGE, CommandFailed
from fastgw.config.reader import read_settings
from fastgw.config.tree import ConfigError
from fastgw.snapshot.changes import changes

MOST_NAMES = 8
"""Agents or tools named on one line."""
WITHIN = 60.0
"""Seconds for an answer."""


class _Name(msgspec.Struct):
    endpoint: str
    kind: str
    name: str
    before: list[str] | None
    after: list[str] | None


class _Access(msgspec.Struct):
    endpoint: str
    agents: list[str]
    gains: list[str]
    loses: list[str]


class _Setting(msgspec.Struct):
    setting: str
    change: str
    before: Any = None
    after: Any = None


class _Changes(msgspec.Struct):
    names: list[_Name]
    access: list[_Access]
    settings: list[_Setting]
    unknown: list[str]
    needs_restart: list[str] = []


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("diff")
    words = "two files to compare, the old one first; none: the running gateway and the file that it would read"
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help=words)
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show what is another; exit status 0 where nothing is, 1 where something is, 2 where it cannot be told."""
    if len(args.files) not in (0, 2):
        terminal.say("fastgw diff: name two files, or none to ask the running gateway")
        return USAGE
    try:
        text = _of_files(*args.files) if args.files else ask(args, "/config/diff", within=WITHIN)
        found = msgspec.json.decode(text, type=_Changes)
    except (CommandFailed, ConfigError) as wrong:
        terminal.say(terminal.plain(str(wrong)))  # what is wrong with a file has lines
        return USAGE
    except msgspec.MsgspecError:
        terminal.say("fastgw: the answer is not fastgw's: is this its admin port?")
        return USAGE
    lines = [text.rstrip("\n")] if args.json else [terminal.line(line) for line in _shown(found)]
    print("\n".join(lines) or "no change")
    return FAILED if found.names or found.access or found.settings or found.needs_restart else 0


def _of_files(old: Path, new: Path) -> str:
    """What a gateway would say that runs with `old`, by the catalogues kept under the `data` of both."""
    before, after = (read_settings(file, os.environ) for file in (old, new))
    return terminal.encoded(changes(before, after, kept(before) | kept(after)))


def _shown(found: _Changes) -> Iterator[str]:
    for row in found.names:
        what = f"{row.endpoint}: {row.kind.removesuffix('s')} {row.name}"
        if row.before is None or row.after is None:
            yield f"{'+' if row.before is None else '-'} {what} -> {_some(row.after or row.before or ())}"
        else:
            yield f"~ {what}: {_some(row.before)} -> {_some(row.after)}"
    for who in found.access:
        parts = ((verb, names) for verb, names in (("gains", who.gains), ("loses", who.loses)) if names)
        words = "; ".join(f"{verb} {_some(names)}" for verb, names in parts)
        yield f"! {who.endpoint}: {_some(who.agents)}: {words}"
    for one in found.settings:
        sign = {"added": "+", "removed": "-"}.get(one.change, "~")
        values = "" if one.before is one.after is None else f": {_value(one.before)} -> {_value(one.after)}"
        yield f"{sign} {one.setting}{values}"
    if found.needs_restart:
        yield f"a restart is needed for {', '.join(found.needs_restart)}"
    if found.unknown:
        yield f"not known is what these bring, which have never answered: {_some(found.unknown)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
