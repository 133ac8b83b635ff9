"""The charge-back page: its sums, and that nothing in it is markup or a formula that came with an event."""

from __future__ import annotations

import csv
import datetime
import io
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

from fastgw.usage.answers import answer
from fastgw.usage.questions import question
from fastgw.usage.report import TITLES, Report, account_question
from tests.usage.events import line, spooled


def made(folder: Path, name: str = "acme-eng") -> Report:
    month = question({"month": ["2026-10"]}, datetime.date(2026, 11, 1))
    return Report(name, month.begin, month.end, answer(folder, account_question(name, month), {}))


def test_sums_by_everything(tmp_path: Path) -> None:
    spooled(
        tmp_path,
        [
            line(1, "0.000000001", team="a"),
            line(2, "2", team="b", outcome="timeout", tokensIn=None),
            line(3, team="b", timestamp="2026-10-31T23:59:59.999Z"),
            line(4, "9", currency="EUR", project=None),
            line(5, "100", billingAccount="other"),
            line(6, "100", billingAccount=None),
            line(7, "100", timestamp="2026-11-01T00:00:00Z"),
        ],
    )
    (euro, euros, _), (dollar, dollars, groups) = made(tmp_path).parts()
    assert (euro, euros) == ("EUR", (1, 0, 1250, 487, Decimal(9)))
    assert (dollar, dollars) == ("USD", (3, 1, 2500, 1461, Decimal("2.000000001")))
    assert groups["team"] == [("b", 2, 1, 1250, 974, Decimal(2)), ("a", 1, 0, 1250, 487, Decimal("0.000000001"))]
    assert [row[:2] for row in groups["day"]] == [("2026-10-03", 2), ("2026-10-31", 1)]
    assert set(groups) == set(TITLES)
    rows = list(csv.reader(io.StringIO(made(tmp_path).csv())))
    assert rows[0] == ["by", "name", "calls", "errors", "tokens_in", "tokens_out", "cost", "currency"]
    assert ["total", "acme-eng", "3", "1", "2500", "1461", "2.000000001", "USD"] in rows
    assert ["project", "", "1", "0", "1250", "487", "9.00", "EUR"] in rows
    assert [row[-2] for row in csv.reader(io.StringIO(made(tmp_path, "-").csv())) if row[0] == "total"] == ["100.00"]


class _Page(HTMLParser):
    """The tags of a page, and its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_names_are_text_on_the_page_and_in_a_spreadsheet(tmp_path: Path) -> None:
    script, formula = "<script>alert(1)</script>&\"'", '=HYPERLINK("http://x")'
    spooled(tmp_path, [line(1, "1", team=script, tool=formula, billingAccount=script)])
    page = made(tmp_path, script).html()
    found = _Page(page)
    assert "script" not in found.tags
    assert found.texts.count(script) == 2
    assert "http-equiv" not in page
    assert "src=" not in page
    assert "@media print" in page
    assert ["tool", f"'{formula}"] in [row[:2] for row in csv.reader(io.StringIO(made(tmp_path, script).csv()))]


def test_nothing_was_called(tmp_path: Path) -> None:
    assert "No calls." in made(tmp_path).html()
    assert made(tmp_path).csv().count("\n") == 1


def test_nothing_has_a_price(tmp_path: Path) -> None:
    spooled(tmp_path, [line(1)])
    assert "no prices" in made(tmp_path).html()
