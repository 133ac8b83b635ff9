"""`fastgw catalogue lock`: pin the tools of servers, as the running gateway knows them, in the file beside the
configuration; what that changes is shown. The gateway reads it by itself, as it does the configuration.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.pins import CHANGE_KINDS, BadLock, ToolChange, compared, definition_text, dump_lock, load_lock
from fastgw.cli import terminal
from fastgw.cli.admin_port import add_options, ask
from fastgw.cli.terminal import FAILED, USAGE, CommandFailed
from fastgw.config.reader import lock_path, read_lock
from fastgw.config.tree import ConfigError

WITHIN = 60.0
"""Seconds for an answer."""
MOST_COMPARED = 4000
"""Lines of one tool, before and after: 150,000 that a server has chosen for it take hours."""
_SIGNS = dict(zip(CHANGE_KINDS, "~+-", strict=True))


class _Server(NamedTuple):
    """One server: what is pinned (None: nothing yet), what it lists now, and what was noticed about that."""

    name: str
    pinned: tuple[Definition, ...] | None
    now: tuple[Definition, ...]
    notices: tuple[str, ...]

    @property
    def changes(self) -> tuple[ToolChange, ...]:
        return compared({one.key: one for one in self.now}, self.pinned or (), "warn")[1]


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("catalogue")
    orders = parser.add_subparsers(metavar="ORDER", required=True)
    lock = orders.add_parser("lock", help="pin the tools of servers as they are now")
    lock.add_argument("--server", metavar="NAME", action="append", help="this one only; may be given several times")
    lock.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if the file is not as it would be"
    )
    add_options(lock)
    lock.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file, or only compare; exit status 0, with `--check` 1 where something is another, 2 where it cannot be
    told or written.
    """
    try:
        place = lock_path(args.config)
        old = read_lock(place)
        found = msgspec.json.decode(ask(args, "/catalogue/tools", within=WITHIN), type=dict[str, str | None])
        servers = list(_chosen(old, found, args.server))
        left = {name: tools for name, tools in old.items() if args.server or name in found}
        new = {**left, **{one.name: one.now for one in servers}}
        text = dump_lock(new)
        load_lock(text)  # nothing is written that a gateway would refuse
        is_other = text != dump_lock(old)
        if is_other and not args.check:
            target = place.resolve()  # a link stays one
            draft = target.with_name(f"{target.name}.new")
            draft.write_bytes(text)
            draft.replace(target)
    except (CommandFailed, ConfigError, BadLock, RecursionError, OSError) as wrong:
        terminal.say(terminal.plain(str(wrong)))
        return USAGE
    except (msgspec.MsgspecError, ValueError):
        terminal.say("fastgw: the answer is not fastgw's: is this its admin port?")
        return USAGE
    gone = sorted(old.keys() - new.keys())
    if args.json:
        rows = [{"server": one.name, **asdict(change)} for one in servers for change in one.changes]
        print(terminal.encoded({"changes": rows, "removed": gone}))
    else:
        silent = [name for name, tools in found.items() if tools is None and name not in old]
        verdict = "is as it would be written" if not is_other else "would be another" if args.check else "written"
        count = f"{sum(map(len, new.values()))} tools of {len(new)} servers"
        print(terminal.plain("\n".join([*_shown(servers, gone, silent), f"{place}: {verdict}: {count}"])))
    return FAILED if args.check and is_other else 0


def _chosen(
    old: Mapping[str, tuple[Definition, ...]], found: Mapping[str, str | None], names: Sequence[str] | None
) -> Iterator[_Server]:
    """Those that have answered. Raises CommandFailed where a name is no server, or has never."""
    for name in names or [name for name, text in found.items() if text is not None]:
        if (text := found.get(name)) is None:
            known = ", ".join(name for name, text in found.items() if text is not None) or "none"
            raise CommandFailed(USAGE, f"{name} is no server that has answered; these are: {known}")
        tools, notices = parse_definitions(DefinitionKind.TOOL, name, text.encode())
        yield _Server(name, old.get(name), tools, tuple(map(str, notices)))


def _shown(servers: Iterable[_Server], gone: Iterable[str], silent: Sequence[str]) -> Iterator[str]:
    for one in servers:
        yield from (f"! {terminal.line(notice)}" for notice in one.notices)
        if one.pinned is None:
            yield f"+ {one.name}: {len(one.now)} tools"
            continue
        pinned, now = ({tool.key: tool for tool in tools} for tools in (one.pinned, one.now))
        for change in one.changes:
            what = terminal.line(f"{change.tool}: {', '.join(change.members) or change.kind}")
            yield f"{_SIGNS[change.kind]} {one.name}/{what}"
            if change.kind != "removed":
                yield from _difference(pinned.get(change.tool), now[change.tool])
    yield from (f"- {name}: it is no server of the gateway" for name in gone)
    if silent:
        yield f"not pinned, for they have never answered: {', '.join(silent)}"


def _difference(old: Definition | None, new: Definition) -> Iterator[str]:
    """Line by line; each line of a description is one. Of what is too long to be compared, all."""
    before, after = (
        msgspec.json.format(definition_text(one), indent=1).decode().replace("\\n", "\\n\n    ").split("\n")
        if one
        else []
        for one in (old, new)
    )
    if len(before) + len(after) > MOST_COMPARED:
        return chain((f"    -{line}" for line in before), (f"    +{line}" for line in after))
    changed = difflib.unified_diff(before, after, n=1, lineterm="")
    return (f"    {line}" for line in [*changed][2:] if not line.startswith("@@"))
