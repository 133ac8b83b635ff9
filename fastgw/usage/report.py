"""The charge-back page of a billing account: HTML that needs nothing else and prints well, and CSV."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fastgw.usage.answers import Row, Value, as_csv, text
from fastgw.usage.questions import NOBODY, Question

METRICS = ("calls", "errors", "tokens_in", "tokens_out", "cost")
TITLES = {
    "project": "Projects",
    "team": "Teams",
    "tool": "Tools",
    "server": "Servers",
    "day": "Days (UTC)",
}
HEADS = {"calls": "Calls", "errors": "Errors", "tokens_in": "Tokens in", "tokens_out": "Tokens out", "cost": "Cost"}
UNKNOWN = "-"

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0; overflow-wrap: anywhere } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem }
p { color: #555; margin: .2rem 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; max-width: 24rem }
thead { display: table-header-group } tr { break-inside: avoid }
tbody tr:last-child td { border-bottom: 2px solid #1a1a1a } tfoot td { font-weight: 600; border: 0 }
@page { margin: 15mm }
@media print { body { font-size: 10pt; margin: 0; max-width: none; padding: 0 } h2 { break-after: avoid } }
"""


def account_question(name: str, month: Question) -> Question:
    """What a `Report` is made of: one question, so that its tables agree. `name` `-`: calls that name no account."""
    whose = ("billing_account", (None if name == NOBODY else name,))
    return Question(("currency", *TITLES), METRICS, month.begin, month.end, (whose,))


@dataclass(frozen=True, slots=True)
class Report:
    """What a billing account used from `begin` to before `end`, UTC: the rows that answer `account_question`."""

    name: str
    begin: datetime.datetime
    end: datetime.datetime
    rows: Sequence[Row]

    def parts(self) -> Iterator[tuple[Value, Row, dict[str, list[Row]]]]:
        """For each currency its total, and for each of `TITLES` rows of its value and `METRICS`, the dearest first."""
        for currency in sorted({row[0] for row in self.rows}, key=str):
            mine = [row[1:] for row in self.rows if row[0] == currency]
            groups = {key: _added(mine, number) for number, key in enumerate(TITLES)}
            for key, rows in groups.items():
                rows.sort(key=_in_order if key == "day" else _dearest)
            yield currency, _added([(None,) * len(TITLES) + row[len(TITLES) :] for row in mine], 0)[0][1:], groups

    @property
    def period(self) -> str:
        """In words; the end is the last day of it."""
        return f"{self.begin:%Y-%m-%d} to {self.end - datetime.timedelta(days=1):%Y-%m-%d}"

    def html(self) -> str:
        """The page; whatever comes from events or the command line is escaped."""
        title = f"Usage of {escape(self.name)}, {self.period}"
        body = [f"<h1>{escape(self.name)}</h1>", f"<p>MCP usage, {self.period}, UTC</p>"]
        body += [] if self.rows else ["<p>No calls.</p>"]
        for currency, total, groups in self.parts():
            cost = "no prices" if total[-1] is None else f"{text('cost', total[-1])} {currency or ''}"
            body += [f"<h2>Total: {escape(cost)}</h2>", _table("", [("All calls", *total)], None)]
            for key, rows in groups.items():
                body += [f"<h2>{TITLES[key]}</h2>", _table(key.capitalize(), rows, total)]
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n{chr(10).join(body)}\n</body>\n</html>\n"
        )

    def csv(self) -> str:
        """A row a part: what it is told apart by, its name, metrics, currency."""
        rows: list[Row] = []
        for currency, total, groups in self.parts():
            rows.append(("total", self.name, *total, currency))
            rows += [(key, *row, currency) for key, found in groups.items() for row in found]
        return as_csv(("by", "name", *METRICS, "currency"), rows)


def _added(rows: Iterable[Row], number: int) -> list[Row]:
    """The sums of metrics for each value in column `number`; of what is unknown throughout, unknown."""
    sums: dict[Value, list[Value]] = {}
    for row in rows:
        known = sums.setdefault(row[number], [None] * len(METRICS))
        for place, value in enumerate(row[len(TITLES) :]):
            if value is not None:
                known[place] = value + (known[place] or 0)  # type: ignore[operator] # metrics are numbers
    return [(key, *values) for key, values in sums.items()]


def _in_order(row: Row) -> str:
    return str(row[0])


def _dearest(row: Row) -> tuple[Any, ...]:
    """By cost, then calls; then by name, so that a page does not change."""
    return -(row[-1] or 0), -(row[1] or 0), row[0] is None, str(row[0])  # type: ignore[operator] # metrics are numbers


def _table(head: str, rows: Iterable[Row], total: Row | None) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in (head, *HEADS.values()))
    body = "\n".join(_row(row) for row in rows)
    foot = f"\n<tfoot>{_row(('Total', *total))}</tfoot>" if total is not None else ""
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>{foot}\n</table>"


def _row(row: Row) -> str:
    shown = (
        UNKNOWN if value is None else text(name, value) for name, value in zip(("name", *METRICS), row, strict=True)
    )
    return f"<tr>{''.join(f'<td>{escape(one)}</td>' for one in shown)}</tr>"
