"""`fastgw backends`: how every instance of every server is, and orders about one. Which are good, the gateway says."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.admin_port import add_options, ask, attempt, table
from fastgw.cli.terminal import CLEAR, line

ORDERS = {
    "drain": "give an instance no new calls, until `close`; those in flight end by themselves",
    "open": "open its breaker in all workers, for its `open_for`",
    "close": "end a drain, and close its breaker in all workers",
}
HEAD = ("instance", "address", "era", "health", "breaker", "in flight", "latency ms", "last error")


class BreakerShown(msgspec.Struct):
    """The breaker of an instance, as `/backends` says."""

    state: str
    opens_for: float | None = None


class ErrorShown(msgspec.Struct):
    """What went wrong at an instance last, as `/backends` says."""

    text: str
    at: str


class InstanceShown(msgspec.Struct):
    """One instance, as `/backends` says."""

    address: str
    health: str
    breaker: BreakerShown
    in_flight: int
    era: str | None = None
    latency_ms: float | None = None
    last_error: ErrorShown | None = None
    drained: Any = False

    @property
    def is_in_order(self) -> bool:
        """Whether calls go there without a second thought."""
        return self.health != "unhealthy" and not self.drained and self.breaker.state == "closed"


class PinsShown(msgspec.Struct):
    """How many tools of a server are not as they are pinned, as `/backends` says."""

    changed: int
    new: int
    removed: int


class ServerShown(msgspec.Struct):
    """One server, as `/backends` says."""

    instances: list[InstanceShown]
    pins: PinsShown | None = None


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("backends")
    words = "again and again, 1 second apart unless said"
    parser.add_argument("--watch", metavar="SECONDS", nargs="?", type=float, const=1.0, help=words)
    add_options(parser)
    parser.set_defaults(run=run)
    orders = parser.add_subparsers(metavar="[ORDER]", title="orders, which need the admin token")
    words = "server and number, as the first column has it, or server/host:port"
    for name, does in ORDERS.items():
        order = orders.add_parser(name, help=does)
        order.add_argument("instance", metavar="INSTANCE", type=_instance, help=words)
        add_options(order, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
        order.set_defaults(run=give, order=name)


@terminal.argument_type
def _instance(text: str) -> dict[str, Any]:
    server, slash, instance = text.partition("/")
    if not slash or not instance:
        raise ValueError("must be server/number, such as data/2, or server/host:port")
    return {"server": server, "instance": int(instance) if instance.isdecimal() else instance}


def run(args: argparse.Namespace) -> int:
    """Show all instances; exit status 0, or 1 where that cannot be done."""
    while (status := attempt(lambda: _show(args))) == 0 and args.watch is not None:
        time.sleep(max(0.1, args.watch))
    return status


def give(args: argparse.Namespace) -> int:
    """Give an order; exit status 0, or 1 where it is not carried out."""

    def show() -> None:
        text = ask(args, f"/backends/{args.order}", args.instance)
        done = msgspec.json.decode(text)
        words = f"{args.instance['server']}/{args.instance['instance']} ({done['instance']}): {args.order}"
        print(text.rstrip("\n") if args.json else line(words))

    return attempt(show)


def _show(args: argparse.Namespace) -> None:
    text = ask(args, "/backends")
    again = args.watch is not None and sys.stdout.isatty()
    shown = text.rstrip("\n") if args.json else "\n".join(_lines(text))
    print((CLEAR if again else "") + shown, flush=True)


def _lines(text: str) -> Iterator[str]:
    servers = msgspec.json.decode(text, type=dict[str, ServerShown])
    yield from table([HEAD, *_rows(servers)])
    for name, server in servers.items():
        counts = msgspec.structs.asdict(server.pins) if server.pins is not None else {}
        if words := ", ".join(f"{count} {kind}" for kind, count in counts.items() if count):
            yield f"{name}: tools are not as pinned: {words}. See fastgw catalogue lock --check"


def _rows(servers: dict[str, ServerShown]) -> Iterator[tuple[str, ...]]:
    for name, server in servers.items():
        for number, one in enumerate(server.instances, 1):
            yield (
                f"{name}/{number}",
                one.address,
                one.era or "-",
                f"{one.health}{', drained' if one.drained else ''}",
                f"open, {one.breaker.opens_for:.1f} s" if one.breaker.opens_for else one.breaker.state,
                str(one.in_flight),
                "-" if one.latency_ms is None else f"{one.latency_ms:.1f}",
                "-" if one.last_error is None else f"{one.last_error.at} {one.last_error.text}",
            )
