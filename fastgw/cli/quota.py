"""`fastgw quota`: how the accounts of quotas stand, and raising one for the rest of its period. Which orders are good,
the gateway says.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from fastgw.cli.admin_port import add_options, ask, attempt, table
from fastgw.cli.terminal import line

COUNTS = ("calls", "tokens", "tokens-in", "tokens-out")


class _Amount(msgspec.Struct):
    amount: int | str
    raised: int | str
    used: int | str
    held: int | str

    @property
    def shown(self) -> tuple[str, str]:
        """What is used, and of how much."""
        whole = Decimal(self.amount) + Decimal(self.raised)
        raised = f" ({_plain(Decimal(self.raised))} of it raised)" if Decimal(self.raised) else ""
        return _plain(Decimal(self.used)), f"{_plain(whole)}{raised}"


class _Account(msgspec.Struct):
    quota: str
    subject: str
    end: str
    amounts: dict[str, _Amount]
    in_flight: int = msgspec.field(name="inFlight")
    share: float = 0.0
    used_up: str | None = msgspec.field(name="usedUp", default=None)


class _Accounts(msgspec.Struct):
    quotas: list[_Account]


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("quota")
    add_options(parser)
    parser.set_defaults(run=run)
    orders = parser.add_subparsers(metavar="[ORDER]", title="orders, which need the admin token")
    order = orders.add_parser("raise", help="add to an account for the rest of its period")
    order.add_argument("quota", metavar="QUOTA", help="its name")
    words = "values of its `by`, in their order; - for a missing one"
    order.add_argument("subject", metavar="SUBJECT", nargs="*", help=words)
    for name in COUNTS:
        order.add_argument(f"--{name}", metavar="N", type=int, help=f"so many {name.replace('-', ' ')} more")
    order.add_argument("--cost", metavar="AMOUNT", type=_money, help="so much money more")
    add_options(order, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
    order.set_defaults(run=raise_account)


def run(args: argparse.Namespace) -> int:
    """Show how the accounts stand; exit status 0, or 1 where that cannot be done."""

    def show() -> None:
        text = ask(args, "/limits")
        if args.json:
            print(text.rstrip("\n"))
        else:
            print("\n".join(_shown(msgspec.json.decode(text, type=_Accounts).quotas)))

    return attempt(show)


def raise_account(args: argparse.Namespace) -> int:
    """Raise an account; exit status 0, or 1 where that cannot be done."""
    subject = [None if word == "-" else word for word in args.subject]
    amounts = {name: getattr(args, name) for name in ("calls", "tokens", "tokens_in", "tokens_out", "cost")}
    given = {name: value for name, value in amounts.items() if value is not None}

    def show() -> None:
        text = ask(args, "/quotas/raise", {"quota": args.quota, "subject": subject, **given})
        more = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in given.items())
        words = f"{' '.join((args.quota, *args.subject))}: {more} more until its period ends"
        print(text.rstrip("\n") if args.json else line(words))

    return attempt(show)


def _shown(accounts: list[_Account]) -> Iterator[str]:
    if not accounts:
        yield "no account has been used"
        return
    rows = [("quota", "subject", "counts", "used", "of", "share", "ends", "used up at this pace")]
    for account in accounts:
        for kind, amount in account.amounts.items():
            used, whole = amount.shown
            share = Decimal(amount.used) / max(Decimal(amount.amount) + Decimal(amount.raised), Decimal("1e-9"))
            rows.append(
                (
                    account.quota, account.subject, kind, used, whole, f"{share:.0%}", account.end,
                    account.used_up or "not before it ends",
                )
            )  # fmt: skip
    yield from table(rows)
    in_flight = sum(account.in_flight for account in accounts)
    yield from (
        "",
        line(f"calls in flight: {in_flight}; by what these cost above their reservation an amount can be passed"),
    )


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _money(text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError("must be an amount such as 50 or 0.5") from None
    return _plain(value)
