"""`fastgw keys`: makes API keys, lists those of a configuration, says who uses which, and has them expire.

The configuration is the operator's file: what must be changed in it is shown, and done only where `--write` says so.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fastgw.auth.keys import PREFIX, digest
from fastgw.cli.admin_port import table
from fastgw.cli.snippets import CLIENTS, URL, snippet
from fastgw.cli.terminal import FAILED, USAGE, CommandFailed, argument_type, line, plain
from fastgw.cli.usage import NOT_SET, AnySecret, usage_of
from fastgw.config.key_edits import UnusualForm, replace_file, with_expiry
from fastgw.config.reader import ReadConfig, read
from fastgw.config.schema.agents import KeySettings, moment
from fastgw.config.schema.servers import http_url
from fastgw.config.tree import Position, entry_at, locate
from fastgw.usage.answers import CannotAnswer, answer
from fastgw.usage.questions import Question

BYTES = 32
"""Random bytes of a key: 256 bits."""
USUAL = "/mcp"
SOON = 7 * 86400
"""Seconds: when the alert about keys that expire is raised too."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("keys")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="print a new key and its entry for `agents`")
    new.add_argument("--agent", type=_agent, default="my-agent", help="name of the agent (default: my-agent)")
    new.add_argument("--expires", metavar="TIME", type=_time, help="a day (to its end, UTC), or 2036-01-31T12:00:00Z")
    words = f"and what it takes: {', '.join(CLIENTS)}"
    new.add_argument("--for", dest="client", metavar="CLIENT", choices=CLIENTS, help=words)
    where = new.add_mutually_exclusive_group()
    where.add_argument("--url", type=argument_type(http_url), default=URL, help=f"the MCP endpoint ({URL})")
    words = "the endpoint by its public_url; an agent in it gets one key more"
    where.add_argument("--config", metavar="FILE", type=Path, help=words)
    new.set_defaults(run=run)
    shown = actions.add_parser("list", help="list the keys of a configuration: whose, until when, where they stand")
    used = actions.add_parser("used", help="say who has called with which key, how often, and when last")
    for one in (shown, used):
        _add_config(one)
        one.add_argument("--agent", metavar="NAME", help="only of this one")
        one.add_argument("--json", action="store_true", help="as JSON")
    used.add_argument("--days", metavar="N", type=_days, default=30, help="of the last N days (30)")
    words = "the folder `data`, where it is not that of the configuration"
    used.add_argument("--data", metavar="FOLDER", type=Path, help=words)
    shown.set_defaults(run=show)
    used.set_defaults(run=show_used)
    expire = actions.add_parser("expire", help="have a key expire at a time")
    revoke = actions.add_parser("revoke", help="have a key expire now")
    for one in (expire, revoke):
        _add_config(one)
        words = "key:f784e848 as `list` has it, more digits of its hash, or -: the key itself, from standard input"
        one.add_argument("key", metavar="KEY", help=words)
        one.add_argument("--write", action="store_true", help="change the file, instead of saying how")
        one.set_defaults(run=end)
    expire.add_argument("--at", metavar="TIME", type=_time, required=True, help="a day, or 2036-01-31T12:00:00Z")
    revoke.set_defaults(at=None)


def _add_config(parser: argparse.ArgumentParser) -> None:
    words = "the configuration (fastgw.yaml); its secrets are not needed"
    parser.add_argument("--config", metavar="FILE", type=Path, default=Path("fastgw.yaml"), help=words)


@argument_type
def _agent(name: str) -> str:
    if not re.fullmatch(r"[^\x00-\x20\x7f:*?]+", name):
        raise ValueError("an agent's name has no spaces, colons, * or ?")
    return name


@argument_type
def _time(text: str) -> str:
    moment(text)
    return text


@argument_type
def _days(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ValueError("must be a number of days from 1 to 9999")
    return int(text)


# -- a new one -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Print a key, its entry and the client's snippet; exit status 0, or 1 where the configuration cannot be read."""
    url, others, place = args.url, [], None
    if args.config is not None:
        settings, root, _ = read(args.config, AnySecret(os.environ))
        paths = [USUAL] if settings.endpoints is None else list(settings.endpoints)
        url = settings.public_url[0] + (USUAL if USUAL in paths or not paths else paths[0])
        if NOT_SET in url and args.client is not None:
            raise CommandFailed(USAGE, "`public_url` takes a variable that is not set: set it, or say --url")
        if args.agent in settings.agents:
            others = [_entry(one.sha256, _shown(one)) for one in settings.agents[args.agent].key]
            place = locate(root, ("agents", args.agent, "key"))
    key = PREFIX + secrets.token_urlsafe(BYTES)
    entry = _entry(digest(key), args.expires)
    agents = {"agents": {args.agent: {"key": [*others, entry] if others else entry}}}
    print(f"# the key, shown this once:\n# {key}")
    if place is not None:
        print(f"# beside those that are there; takes the place of the `key` at {line(str(place))}")
    print(yaml.safe_dump(agents, allow_unicode=True, width=1000, sort_keys=False), end="")
    if args.client is not None:
        print(f"\n{snippet(args.client, url, key)}")
    return 0


def _entry(digits: str, expires: str | None) -> Any:
    return f"sha256:{digits}" if expires is None else {"sha256": digits, "expires": expires}


# -- those that are there ------------------------------------------------------------------------------------------


class ListedKey(NamedTuple):
    """One key of a configuration; `at`: its place in the list of its agent."""

    agent: str
    key: KeySettings
    at: int
    state: str
    place: Position

    @property
    def name(self) -> str:
        """As usage events have it."""
        return f"key:{self.key.sha256[:8]}"


def _listed(config: ReadConfig) -> Iterator[ListedKey]:
    now = time.time()
    for name, agent in sorted(config.settings.agents.items()):
        for at, key in enumerate(agent.key):
            place = entry_at(config.root, ("agents", name, "key", at)).position
            yield ListedKey(name, key, at, "disabled" if agent.disabled else _state(key, now), place)


def _state(key: KeySettings, now: float) -> str:
    if key.expires is None or key.expires > now + SOON:
        return "good"
    return "expires soon" if key.expires > now else "expired"


def _shown(key: KeySettings) -> str | None:
    """When it expires, in UTC; None: never."""
    return None if key.expires is None else datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show(args: argparse.Namespace) -> int:
    """List the keys; exit status 0, or 1 where the configuration cannot be read."""
    found = _listed(read(args.config, AnySecret(os.environ)))
    rows = [
        (one.agent, one.name, _shown(one.key), one.state, str(one.place))
        for one in found
        if args.agent in (None, one.agent)
    ]
    _print(args, ("agent", "key", "expires", "state", "at"), rows)
    return 0


def show_used(args: argparse.Namespace) -> int:
    """Say who has used which key, and which nobody has; exit status 0, or 1 where that cannot be found out."""
    keys = {(one.agent, one.name): one for one in _listed(read(args.config, AnySecret(os.environ)))}
    data = args.data or usage_of(args.config)[0]
    end = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)  # clocks of other machines may be ahead
    whose = (("agent", (args.agent,)),) if args.agent else ()
    begin = end - timedelta(days=args.days + 1)
    asked = Question(("agent", "credential"), ("last_used", "calls"), begin, end, whose)
    try:
        answers = answer(data.absolute() / "usage", asked, {})
    except CannotAnswer as wrong:
        raise CommandFailed(FAILED, str(wrong)) from None
    calls = {(str(row[0]), str(row[1])): (str(row[2]), row[3]) for row in answers if str(row[1]).startswith("key:")}
    unused = [one for one in keys if one not in calls and args.agent in (None, one[0])]
    rows: list[tuple[Any, ...]] = [
        (*one, *counts, keys[one].state if one in keys else "gone") for one, counts in calls.items()
    ]
    rows += [(*one, None, 0, keys[one].state) for one in unused]
    _print(args, ("agent", "key", "last_used", "calls", "state"), rows)
    return 0


def _print(args: argparse.Namespace, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if args.json:
        print(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=1))
        return
    for text in table([head, *(["-" if cell is None else str(cell) for cell in row] for row in rows)]):
        print(text)


# -- their end -----------------------------------------------------------------------------------------------------


def end(args: argparse.Namespace) -> int:
    """Have a key expire, or say how; exit status 0, 1 where that cannot be done, 2 where it is typed wrong."""
    every = list(_listed(read(args.config, AnySecret(os.environ))))
    one = _named(args.key, every)
    file = Path(one.place.file)
    when = args.at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if args.at is None and one.state == "expired":
        raise CommandFailed(FAILED, f"{one.name} of {one.agent} has expired already ({_shown(one.key)})")
    try:
        text = file.read_bytes().decode()
        changed = with_expiry(text, one.place.file, (one.agent, one.at), when)
        if args.write:
            replace_file(file, changed)
    except UnusualForm:
        words = f"{one.place}: not a form that is changed by itself: write {{sha256: ..., expires: {when}}} there"
        raise CommandFailed(FAILED, words) from None
    except OSError as wrong:
        raise CommandFailed(FAILED, f"{file}: {wrong.strerror}") from None
    was, new = text.splitlines(), changed.splitlines()
    for words in difflib.unified_diff(was, new, str(file), str(file), n=0, lineterm=""):
        print(plain(words))
    left = sum(other.agent == one.agent and other.at != one.at and other.state != "expired" for other in every)
    print(f"# other keys of {line(one.agent)} that are good: {left or 'none, then it is let in no more'}")
    print(f"# {'written; running gateways apply it by themselves' if args.write else 'not written: --write does it'}")
    return 0


def _named(typed: str, every: list[ListedKey]) -> ListedKey:
    """The one key that is meant. Raises CommandFailed."""
    if typed.startswith(PREFIX):
        words = "a key itself does not belong on a command line, which others can read: - takes it from standard input"
        raise CommandFailed(USAGE, words)
    digits = digest(sys.stdin.readline().strip()) if typed == "-" else typed.partition(":")[2] or typed
    if not re.fullmatch("[0-9a-fA-F]{8,64}", digits):
        raise CommandFailed(USAGE, "which key? key:f784e848 as `fastgw keys list` has it, or - and the key itself")
    found = [one for one in every if one.key.sha256.startswith(digits.lower())]
    if len(found) > 1:
        raise CommandFailed(USAGE, f"several keys begin so: {', '.join(one.key.sha256 for one in found)}")
    if not found:
        raise CommandFailed(FAILED, f"no agent has a key {digits[:8]}")
    return found[0]
