"""`fastgw top`: tools, servers and agents of a running gateway, live in a terminal; elsewhere once, as text."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live

from fastgw.cli import terminal
from fastgw.cli.admin_port import add_options, admin_place, attempt, table
from fastgw.cli.live_tables import HEADS, ORDERS, LiveReading, View, page, read, rows, summary
from fastgw.cli.terminal import CommandFailed, line

LOOK_EVERY = 0.1
"""Seconds between two looks at what there is to draw."""
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;]*[@-~]|O.)?")
"""Keys that are no letters."""
_VIEWS: dict[str, View] = {"t": "tools", "s": "servers", "a": "agents"}
_ORDERS = {order[0]: order for order in ORDERS}


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    words = "Of the last minute. Keys: t s a which table, c e p n sorted by what, tab the next table, q quit."
    parser = subparsers.add_parser("top", description=words)
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="between two looks (2)")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show until told to quit; where stdout is no terminal, once. Exit status 0, or 1 where that cannot be done."""
    place = admin_place(args)
    console = Console(highlight=False)
    if args.json or not console.is_terminal or console.is_dumb_terminal:
        return attempt(lambda: _show_once(place, as_json=args.json))
    with _keys() as keys:
        _watch(console, Poller(place, max(0.2, args.every)), keys)
    return 0


def _show_once(place: tuple[str, str], *, as_json: bool) -> None:
    reading = read(place)
    if as_json:
        print(terminal.encoded(msgspec.to_builtins(reading)))
        return
    print(summary(reading))
    print("".join(f"unusual: {line(one.says)}\n" for one in reading.anomalies), end="")
    for view, head in HEADS.items():
        if found := rows(reading, view, "calls"):
            print("", *table([head, *(row.cells for row in found)]), sep="\n")


class Poller(threading.Thread):
    """Asks the gateway again and again, beside what is drawn: a gateway that is away must not hold up a key.

    `reading` is what was said last, `wrong` why nothing has been said since, `version` grows with each of them.
    """

    def __init__(self, place: tuple[str, str], every: float) -> None:
        super().__init__(daemon=True)
        self.reading: LiveReading | None = None
        self.wrong = ""
        self.version = 0
        self._place, self._every = place, every

    def run(self) -> None:
        while True:
            try:
                self.reading, self.wrong = read(self._place), ""
            except CommandFailed as wrong:
                self._failed(str(wrong))
            except msgspec.MsgspecError:
                self._failed("the answer is not that of a fastgw like this one")
            self.version += 1
            time.sleep(self._every)

    def _failed(self, words: str) -> None:
        since = f" since {time.strftime('%H:%M:%S', time.localtime(self.reading.at))}" if self.reading else ""
        self.wrong = f"no answer{since}: {words}"


def _watch(console: Console, poller: Poller, keys: int | None) -> None:
    view: View = "tools"
    order, drawn = "calls", None
    poller.start()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            state = (poller.version, view, order, console.size)
            if state != drawn:
                drawn = state
                live.update(page(poller.reading, poller.wrong, view, order, console.size.height), refresh=True)
            for key in _pressed(keys):
                if key == "q":
                    return
                view, order = _VIEWS.get(key, _after(view) if key == "\t" else view), _ORDERS.get(key, order)


def _after(view: View) -> View:
    views = list(HEADS)
    return views[(views.index(view) + 1) % len(views)]


def _pressed(keys: int | None) -> str:
    """The letters typed within `LOOK_EVERY` seconds; `q` where the terminal has gone."""
    if keys is None:
        time.sleep(LOOK_EVERY)
        return ""
    if not select.select([keys], [], [], LOOK_EVERY)[0]:
        return ""
    try:
        typed = os.read(keys, 1024)
    except OSError:
        typed = b""
    return _SEQUENCE.sub(b"", typed).decode("ascii", "ignore").lower() if typed else "q"


@contextmanager
def _keys() -> Iterator[int | None]:
    """Where keys come from, one by one and unseen; None where stdin is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
