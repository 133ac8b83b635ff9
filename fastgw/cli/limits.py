"""`fastgw limits`: who is near a limit, and making buckets full. Which orders are good, the gateway says."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.client import LARGEST, Place, decoded
from fastgw.cli.terminal import FAILED, USAGE, CommandFailed, line
from fastgw.config.reader import read_settings
from fastgw.config.tree import ConfigError
from fastgw.policy.limits import BucketState

TOKEN_ENV = "FASTGW_ADMIN_TOKEN"
WITHIN = 10.0
"""Seconds for each step of an answer. The gateway gives its workers two."""
WIDEST = 48
"""Letters of a column; what is longer moves the rest of its row."""
WORDS = 300
"""Letters shown of a refusal that is none of fastgw's."""
GONE = "there are no raises any more: edit `limits` in the configuration and have it reloaded (kill -HUP)"
_REACHED_AS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""What listens everywhere is asked here."""


class _Refusals(msgspec.Struct):
    limit: str
    subject: str
    calls: int


class _Report(msgspec.Struct):
    store: dict[str, int]
    buckets: list[BucketState]
    refused: list[_Refusals]


class _Done(msgspec.Struct):
    limit: str
    subject: list[str | None] | None = None


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("limits")
    _add_options(parser, Path("fastgw.yaml"), "")
    parser.set_defaults(run=run, limit=None)
    orders = parser.add_subparsers(metavar="[ORDER]", title="orders, which need the admin token")
    reset = orders.add_parser("reset", help="make buckets full")
    reset.add_argument("limit", metavar="LIMIT", help="its name")
    words = "values of its `by`, in their order; - for a missing one; none: all of its buckets"
    reset.add_argument("subject", metavar="SUBJECT", nargs="*", help=words)
    _add_options(reset, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
    gone = orders.add_parser("raise", prefix_chars="\0", add_help=False)
    gone.add_argument("given", nargs="*")
    gone.set_defaults(run=lambda _: terminal.show_failure(CommandFailed(USAGE, GONE)))


def _add_options(parser: argparse.ArgumentParser, config: Any, admin: Any) -> None:
    words = "names the admin port and its token"
    parser.add_argument("--config", metavar="FILE", type=Path, default=config, help=words)
    parser.add_argument("--admin", metavar="URL", default=admin, help=f"ask here; the token is in {TOKEN_ENV}")
    no = argparse.SUPPRESS if config is argparse.SUPPRESS else False
    parser.add_argument("--json", action="store_true", default=no, help="the answer as it came")


def run(args: argparse.Namespace) -> int:
    """Show how the limits stand, or reset; exit status 0, or 1 where that cannot be done."""
    wanted: dict[str, Any] | None = None
    if args.limit is not None:
        subject = [None if word == "-" else word for word in args.subject]
        wanted = {"limit": args.limit, **({"subject": subject} if subject else {})}
    try:
        text = _answer(args, "/limits" if wanted is None else "/limits/reset", wanted)
        rows = _shown(msgspec.json.decode(text, type=_Report)) if wanted is None else _done(text)
        print(text.rstrip("\n") if args.json else "\n".join(rows))
        return 0
    except CommandFailed as wrong:
        terminal.show_failure(wrong)
    except msgspec.MsgspecError:
        terminal.say("fastgw: the answer is not fastgw's: is this its admin port?")
    except ConfigError as wrong:
        terminal.say(terminal.plain(str(wrong)))
    return FAILED


def _answer(args: argparse.Namespace, path: str, wanted: dict[str, Any] | None) -> str:
    """The JSON that answers: to GET, or to POST where something is wanted.

    Raises:
        ConfigError: the configuration cannot be read.
        CommandFailed: there is no such address, the token cannot be sent, nobody answers, or the gateway says no.
    """
    token = os.environ.get(TOKEN_ENV, "")
    if args.admin:
        url = args.admin if "://" in args.admin else f"http://{args.admin}"
    else:
        admin = read_settings(args.config, os.environ).admin
        host, _, port = admin.listen.rpartition(":")
        if port.strip("0") == "":
            raise CommandFailed(USAGE, "the admin port is a free one: say with --admin which")
        url = f"http://{_REACHED_AS.get(host, host)}:{port}"
        token = token or admin.token or ""
    if re.search(r"[\x00-\x1f\x7f]", token):  # the text of the error that would follow has it whole
        words = "the admin token cannot be sent: there is a line break or another control character in it"
        raise CommandFailed(USAGE, words)
    body = None if wanted is None else json.dumps(wanted).encode()
    with Place(url.rstrip("/") + path, token, WITHIN).asked(body, {"Accept": "application/json"}) as answer:
        text = answer.read(LARGEST)
    found = decoded(text)
    if answer.status != 200:
        error = found.get("error")
        words = error if isinstance(error, str) else text.decode("utf-8", "replace").strip()[:WORDS]
        raise CommandFailed(FAILED, words or "without a word", answer.status)
    return text.decode() if text.isascii() else terminal.encoded(found)


def _done(text: str) -> Iterator[str]:
    done = msgspec.json.decode(text, type=_Done)
    values = "".join(f" {'-' if value is None else value}" for value in done.subject or ())
    yield line(f"{done.limit}{values if done.subject is not None else ', all buckets'}: full")


def _shown(report: _Report) -> Iterator[str]:
    states = (f"{state} ({count} worker{'s' if count != 1 else ''})" for state, count in report.store.items())
    yield line(f"store: {', '.join(states) or 'no worker answers'}")
    fullest = [("limit", "subject", "used", "left")]
    for one in report.buckets:
        left = f"{one.left}/{one.burst}{' at the same time' if one.at_once else ''}"
        fullest.append((one.limit, one.subject, f"{one.used:.0%}", left))
    refused = [("limit", "subject", "calls"), *((one.limit, one.subject, str(one.calls)) for one in report.refused)]
    for title, rows in (("fullest buckets", fullest), ("refused most", refused)):
        if len(rows) > 1:
            yield from ("", title, *_table(rows))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    safe = [[line(cell) for cell in row] for row in rows]
    widths = [min(max(map(len, column)), WIDEST) for column in zip(*safe, strict=True)]
    for row in safe:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
