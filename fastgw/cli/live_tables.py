"""What `fastgw top` shows: what it asks the admin port for, and the tables that it makes of the answers.

Names come from servers and identity providers: in a cell they are plain text, never markup, and command no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastgw.admin.call_rows import CallRow, CallRows
from fastgw.cli.admin_port import ask_at
from fastgw.cli.backends import ServerShown
from fastgw.cli.terminal import CommandFailed, line

View = Literal["tools", "servers", "agents"]
HEADS: Final[dict[View, tuple[str, ...]]] = {
    "tools": ("tool", "server", "calls/s", "errors", "p50 ms", "p95 ms", "p99 ms"),
    "servers": ("server", "health", "breaker", "busy", "calls/s", "errors", "p50 ms", "p95 ms", "p99 ms"),
    "agents": ("agent", "calls/s", "errors", "refused"),
}
ORDERS: Final = ("calls", "errors", "p99", "name")
COLUMNS: Final = {"calls": "calls/s", "errors": "errors", "p99": "p99 ms"}
KEYS: Final = "[t]ools [s]ervers [a]gents  by [c]alls [e]rrors [p]99 [n]ame  [q]uit"
WITHIN = 5.0
"""Seconds for an answer."""
RECENT = 7200.0
"""Seconds for which an anomaly is shown."""
HIGH_RATE = 0.05
"""The part of calls that failed from which on it is red."""
NOT_FOUND = 404


class AgentShown(msgspec.Struct):
    """What one agent has done in a window, as `/agents` says."""

    agent: str
    calls: int
    errors: int
    refused: int


class AgentsShown(msgspec.Struct):
    """All of `/agents`."""

    windows: dict[str, list[AgentShown]]


class AnomalyShown(msgspec.Struct):
    """Of an anomaly, as `/anomalies` says."""

    says: str
    found: float


class AnomaliesShown(msgspec.Struct):
    """All of `/anomalies`, the newest first."""

    anomalies: list[AnomalyShown]


class LiveReading(msgspec.Struct):
    """What the gateway said at one time, Unix seconds; `agents` is None where it does not know."""

    at: float
    tools: CallRows
    servers: CallRows
    backends: dict[str, ServerShown]
    agents: list[AgentShown] | None
    anomalies: list[AnomalyShown]


class TableRow(NamedTuple):
    """The cells of a row, whether it is in trouble, and what rows are sorted by."""

    cells: tuple[str, ...]
    is_bad: bool
    calls: float
    errors: float
    p99: float

    def rank(self, order: str) -> tuple[float, str]:
        """The smallest first."""
        return (0.0 if order == "name" else -getattr(self, order), self.cells[0])


def read(place: tuple[str, str]) -> LiveReading:
    """Ask for everything. Raises CommandFailed, msgspec.MsgspecError."""

    def asked(path: str) -> str:
        return ask_at(place, path, within=WITHIN)

    return LiveReading(
        time.time(),
        msgspec.json.decode(asked("/stats/tools"), type=CallRows),
        msgspec.json.decode(asked("/stats/servers"), type=CallRows),
        msgspec.json.decode(asked("/backends"), type=dict[str, ServerShown]),
        _agents(asked),
        msgspec.json.decode(asked("/anomalies"), type=AnomaliesShown).anomalies,
    )


def _agents(asked: Callable[[str], str]) -> list[AgentShown] | None:
    try:
        return msgspec.json.decode(asked("/agents"), type=AgentsShown).windows["1m"]
    except CommandFailed as wrong:
        if wrong.code == NOT_FOUND:
            return None
        raise


def summary(reading: LiveReading) -> str:
    """The whole gateway in a line."""
    total, seconds = reading.tools.total, reading.tools.seconds
    in_order = sum(all(one.is_in_order for one in server.instances) for server in reading.backends.values())
    words = (
        f"fastgw {time.strftime('%H:%M:%S', time.localtime(reading.at))}",
        f"{_rate(total.calls, seconds)} calls/s",
        f"{_share(total.errors, total.calls)} errors",
        f"p99 {_milliseconds(total.p99)} ms",
        f"{in_order}/{len(reading.backends)} servers ok",
    )
    return "  ".join(words)


def rows(reading: LiveReading, view: View, order: str) -> list[TableRow]:
    """The rows of a view, sorted by one of `ORDERS`."""
    made = {"tools": _tools, "servers": _servers, "agents": _agents_rows}[view](reading)
    return sorted(made, key=lambda row: row.rank(order))


def _tools(reading: LiveReading) -> Iterator[TableRow]:
    for one in reading.tools.rows:
        servers = one.servers[0] if len(one.servers) == 1 else f"{len(one.servers)} servers" if one.servers else "-"
        yield _row((one.name or "", servers), one, reading.tools.seconds)


def _servers(reading: LiveReading) -> Iterator[TableRow]:
    called = {one.name: one for one in reading.servers.rows}
    for name in {**reading.backends, **{one.name or "": None for one in reading.servers.rows}}:
        one = called.get(name) or CallRow(name, 0, 0)
        instances = reading.backends[name].instances if name in reading.backends else []
        good = sum(instance.is_in_order for instance in instances)
        health = "-" if not instances else f"{good}/{len(instances)} up"
        states = {instance.breaker.state for instance in instances} - {"closed"}
        busy = sum(instance.in_flight for instance in instances)
        made = _row((name, health, ", ".join(sorted(states)) or "closed", str(busy)), one, reading.servers.seconds)
        yield made._replace(is_bad=made.is_bad or good < len(instances))


def _agents_rows(reading: LiveReading) -> Iterator[TableRow]:
    for one in reading.agents or ():
        cells = (one.agent, _rate(one.calls, reading.tools.seconds), _share(one.errors, one.calls), str(one.refused))
        yield TableRow(cells, one.errors > HIGH_RATE * one.calls, one.calls, one.errors, 0.0)


def _row(cells: tuple[str, ...], one: CallRow, seconds: float) -> TableRow:
    numbers = _rate(one.calls, seconds), _share(one.errors, one.calls), *map(_milliseconds, (one.p50, one.p95, one.p99))
    return TableRow((*cells, *numbers), one.errors > HIGH_RATE * one.calls, one.calls, one.errors, one.p99 or 0.0)


def _rate(calls: int, seconds: float) -> str:
    return f"{calls / seconds if seconds else 0.0:,.1f}"


def _share(errors: int, calls: int) -> str:
    return f"{errors / calls:.1%}" if calls else "-"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def page(reading: LiveReading | None, wrong: str, view: View, order: str, height: int) -> RenderableType:
    """The screen, `height` lines of it: what was said last, and what is wrong since."""
    head = [Text("fastgw: no answer yet" if reading is None else summary(reading), style="bold")]
    if wrong:
        head.append(Text(line(wrong), style="bold red"))
    body: list[RenderableType] = []
    more = 0
    if reading is not None:
        fresh = [one for one in reading.anomalies if one.found > reading.at - RECENT]
        head += [Text(line(f"unusual: {one.says}"), style="yellow") for one in fresh[:1]]
        found = rows(reading, view, order)
        room = max(1, height - len(head) - 2)
        more = max(0, len(found) - room)
        sorted_by = HEADS[view][0] if order == "name" else COLUMNS[order]
        titles = [f"{name}*" if name == sorted_by else name for name in HEADS[view]]
        body.append(_table(titles, found[:room]))
        if view == "agents" and reading.agents is None:
            body.append(Text("this gateway does not say which agents are busy"))
    foot = Text(f"{KEYS}{f'  {more} more' if more else ''}", style="reverse")
    for text in (*head, foot):
        text.no_wrap, text.overflow = True, "ellipsis"
    return Group(*head, *body, foot)


def _table(head: Sequence[str], found: Sequence[TableRow]) -> Table:
    """Names take what numbers leave."""
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="underline")
    words = {"tool", "server", "agent", "health", "breaker"}
    for place, name in enumerate(head):
        justify: Literal["left", "right"] = "left" if name.strip("*") in words else "right"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", ratio=1 if place == 0 else None)
    for row in found:
        table.add_row(*(Text(line(cell)) for cell in row.cells), style="red" if row.is_bad else "")
    return table
