"""`fastgw limits`: who is near a limit, and making buckets full. Which orders are good, the gateway says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from fastgw.cli.admin_port import add_options, ask, attempt, table
from fastgw.cli.terminal import line
from fastgw.policy.limits import BucketState


class _Refusals(msgspec.Struct):
    limit: str
    subject: str
    calls: int


class _Report(msgspec.Struct):
    store: dict[str, int]
    buckets: list[BucketState]
    refused: list[_Refusals]


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("limits")
    add_options(parser)
    parser.set_defaults(run=run)
    orders = parser.add_subparsers(metavar="[ORDER]", title="orders, which need the admin token")
    order = orders.add_parser("reset", help="make buckets full")
    order.add_argument("limit", metavar="LIMIT", help="its name")
    words = "values of its `by`, in their order; - for a missing one; none: all of its buckets"
    order.add_argument("subject", metavar="SUBJECT", nargs="*", help=words)
    add_options(order, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
    order.set_defaults(run=reset)


def run(args: argparse.Namespace) -> int:
    """Show how the limits stand; exit status 0, or 1 where that cannot be done."""

    def show() -> None:
        text = ask(args, "/limits")
        print(text.rstrip("\n") if args.json else "\n".join(_shown(msgspec.json.decode(text, type=_Report))))

    return attempt(show)


def reset(args: argparse.Namespace) -> int:
    """Make buckets full; exit status 0, or 1 where that cannot be done."""
    subject = [None if word == "-" else word for word in args.subject]

    def show() -> None:
        text = ask(args, "/limits/reset", {"limit": args.limit, **({"subject": subject} if subject else {})})
        words = " ".join((args.limit, *args.subject)) if subject else f"{args.limit}, all buckets"
        print(text.rstrip("\n") if args.json else line(f"{words}: full"))

    return attempt(show)


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
            yield from ("", title, *table(rows))
