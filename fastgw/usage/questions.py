"""Questions about usage events: what may be asked, and the SQL that asks it.

Only names of the two tables below become SQL; whatever a user typed beside them travels as a parameter.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence

import msgspec

from fastgw.errors import ERROR_OUTCOMES

KEYS = {
    "team": "team",
    "project": "project",
    "billing_account": "billing_account",
    "agent": "agent",
    "credential": "credential",
    "user": '"user"',
    "tool": "tool",
    "server": "server",
    "model": "coalesce(alias, server)",
    "outcome": "outcome",
    "currency": "currency",
    "day": "strftime(timestamp, '%Y-%m-%d')",
    "hour": "strftime(timestamp, '%Y-%m-%dT%H:00Z')",
}
"""What events are told apart by, and where it stands in them. `model`: the server's alias, else its name. UTC."""
TIMES = {"day": "CAST(timestamp AS DATE)", "hour": "date_trunc('hour', timestamp)"}
"""What is grouped by instead, as it is much quicker; the few groups then are formatted."""

_PARTS = {
    "calls": "count(*)",
    "errors": f"count(*) FILTER (WHERE outcome IN {ERROR_OUTCOMES})",
    "tokens_in": "sum(tokens_in)",
    "tokens_out": "sum(tokens_out)",
    "cost": "sum(cost)",
    "bytes": "sum(bytes_in + bytes_out)",
    "last_used": "max(timestamp)",
}
"""Of one group and, where percentiles are asked for, one bucket of latencies; these are added up, times compared."""
_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}
METRICS = (
    "calls",
    "errors",
    "error_rate",
    "p50",
    "p95",
    "p99",
    "tokens_in",
    "tokens_out",
    "cost",
    "bytes",
    "last_used",
)
"""What can be counted: p50 to p99 in milliseconds of the whole call, cost in the currency of the events; `last_used` is
when the newest call began, as text.
"""
STEP = 1.01
"""Width of a bucket of latencies, whose middle stands for all in it: so a percentile is at most 0.5 % off."""

PARAMETERS = ("by", "metric", "where", "month", "day", "from", "to", "top", "least")
"""All there is in `question`, as options and in URLs."""
NOBODY = "-"
"""In `where`: nothing is known."""


class Question(msgspec.Struct, frozen=True):
    """What is asked: `metrics` of events from `begin` to before `end` (UTC, without a zone), for each value of `by`.

    `where`: (key, values that it may have; None: unknown). `top`: only so many, the greatest of the first metric.
    `least`: only rows with so many calls. `most`: no more rows than that, whatever was typed.
    """

    by: tuple[str, ...]
    metrics: tuple[str, ...]
    begin: datetime.datetime
    end: datetime.datetime
    where: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    top: int | None = None
    least: int = 1
    most: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row of the answer, in their order."""
        return (*self.by, *self.metrics)

    @property
    def mixes_currencies(self) -> bool:
        """Whether money of several currencies could be added up."""
        told_apart = "currency" in self.by or any(key == "currency" and len(values) == 1 for key, values in self.where)
        return "cost" in self.metrics and not told_apart


def question(parameters: Mapping[str, Sequence[str]], today: datetime.date) -> Question:
    """The question that options or a URL's parameters ask, each with all its values; `today` is in UTC.

    Raises:
        ValueError: it cannot be asked; words for whoever typed it.
    """
    if strange := [name for name in parameters if name not in PARAMETERS]:
        raise ValueError(f"there is no parameter {strange[0]!r}; there are {', '.join(PARAMETERS)}")
    begin, end = _period({name: _single(parameters, name) for name in ("month", "day", "from", "to")}, today)
    return Question(
        _names("by", parameters.get("by", ()), tuple(KEYS)),
        _names("metric", parameters.get("metric") or ("calls", "errors", "error_rate", "cost"), METRICS),
        begin,
        end,
        _conditions(parameters.get("where", ())),
        _number(parameters, "top"),
        _number(parameters, "least") or 1,
    )


def sql(asked: Question, events: str) -> str:
    """The query for `asked` of `events`, a FROM item with the columns of the archive.

    Its parameters are those of `values`; its columns those of `Question.columns`, then the first and the last currency
    of anything that cost something, where they must be the same.
    """
    parts = [name for name in _PARTS if name in (*asked.metrics, "calls", "errors")]
    quantiles = [name for name in _PERCENTILES if name in asked.metrics]
    keys = [f"{TIMES.get(key, KEYS[key])} AS key{number}" for number, key in enumerate(asked.by)]
    bucket = f"CAST(floor(ln(greatest(latency_us, 1)) / ln({STEP})) AS INTEGER) AS bucket"
    inner = [*keys, *([bucket, "count(latency_us) AS timed"] if quantiles else ())]
    inner += [f"{_PARTS[name]} AS {name}" for name in parts]
    more = ["bucket"] if quantiles else []
    if asked.mixes_currencies:
        inner.append("currency AS money")  # quicker than the least and the greatest of them
        more.append("money")
    names = [f"key{number}" for number in range(len(asked.by))]
    conditions = ["timestamp >= $begin", "timestamp < $end", *_where(asked)]
    source = _joined(asked, events)
    query = f"WITH grouped AS (SELECT {', '.join(inner)} FROM {source} WHERE {' AND '.join(conditions)}"  # noqa: S608
    query += f" GROUP BY {', '.join([*names, *more]) or '()'})"
    source = "grouped"
    if quantiles:
        same = f"PARTITION BY {', '.join(names)}" if names else ""
        running = f"sum(timed) OVER ({same} ORDER BY bucket) AS upto, sum(timed) OVER ({same}) AS total"
        query += f", running AS (SELECT *, {running} FROM grouped)"  # noqa: S608
        source = "running"
    shown = [
        KEYS[key].replace("timestamp", name) if key in TIMES else name
        for name, key in zip(names, asked.by, strict=True)
    ]
    outer = [f'{name} AS "{key}"' for name, key in zip(shown, asked.by, strict=True)]
    outer += [f"{_metric(name)} AS {name}" for name in asked.metrics]
    money = f"money) FILTER (WHERE {source}.cost IS NOT NULL)"
    first, last = (
        (f"min(min({money}) OVER ()", f"max(max({money}) OVER ()") if asked.mixes_currencies else ("NULL",) * 2
    )
    outer += [f"{first} AS first_currency", f"{last} AS last_currency"]
    query += f" SELECT {', '.join(outer)} FROM {source} GROUP BY {', '.join(names) or '()'}"  # noqa: S608
    query += f" HAVING sum(calls) >= {asked.least:d}"
    limits = [limit for limit in (asked.top, asked.most) if limit]
    return f"{query} ORDER BY {_order(asked)}{f' LIMIT {min(limits):d}' if limits else ''}"


def values(asked: Question, aliases: Mapping[str, str]) -> dict[str, object]:
    """Parameters of the query; `aliases` of servers by their names."""
    found: dict[str, object] = {"begin": asked.begin, "end": asked.end}
    for number, (_, wanted) in enumerate(asked.where):
        found[f"where{number}"] = [value for value in wanted if value is not None]
    if _needs_aliases(asked):
        found |= {"servers": list(aliases), "aliases": list(aliases.values())}
    return found


def _metric(name: str) -> str:
    if name == "error_rate":
        return "CAST(sum(errors) / nullif(sum(calls), 0) AS DECIMAL(9, 6))"
    if name == "last_used":
        return "strftime(max(last_used), '%Y-%m-%dT%H:%M:%SZ')"
    if name in _PERCENTILES:
        # The nearest rank: the first bucket up to which there are so many.
        first = f"min(bucket) FILTER (WHERE upto * 100 >= total * {_PERCENTILES[name]} AND timed > 0)"
        return f"CAST(pow({STEP}, {first} + 0.5) / 1000 AS DECIMAL(18, 3))"
    return f"sum({name})"


def _order(asked: Question) -> str:
    """By time where time is asked for and not the greatest; otherwise the greatest first."""
    keys = [f"{number + 1} ASC NULLS LAST" for number in range(len(asked.by))]
    greatest = f"{len(asked.by) + 1} DESC NULLS LAST"
    in_time = asked.top is None and set(asked.by) & set(TIMES)
    return ", ".join(keys if in_time else [greatest, *keys])


def _where(asked: Question) -> list[str]:
    found = []
    for number, (key, wanted) in enumerate(asked.where):
        has = f"list_contains(CAST($where{number} AS VARCHAR[]), {KEYS[key]})"
        found.append(f"(({has}) OR {KEYS[key]} IS NULL)" if None in wanted else has)
    return found


def _needs_aliases(asked: Question) -> bool:
    return "model" in (*asked.by, *(key for key, _ in asked.where))


def _joined(asked: Question, events: str) -> str:
    if not _needs_aliases(asked):
        return events
    pairs = "SELECT unnest(CAST($servers AS VARCHAR[])) AS named, unnest(CAST($aliases AS VARCHAR[])) AS alias"
    return f"{events} LEFT JOIN ({pairs}) ON named = server"


def _names(what: str, texts: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Names out of a table, several in one text joined by commas; each once."""
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: there is no {name[:80]!r}; there are {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _conditions(texts: Sequence[str]) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """Each key once, with all values it may have."""
    found: dict[str, list[str | None]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or any("\ud800" <= letter <= "\udfff" for letter in value):  # bytes that are no UTF-8
            raise ValueError("where: must be key=value, such as team=payments; key=- where nothing is known")
        (name,) = _names("where", [key.replace(",", " ")], tuple(KEYS))
        found.setdefault(name, []).append(None if value == NOBODY else value)
    return tuple((key, tuple(wanted)) for key, wanted in found.items())


def _single(parameters: Mapping[str, Sequence[str]], name: str) -> str | None:
    texts = parameters.get(name, ())
    if len(texts) > 1:
        raise ValueError(f"{name} is given twice")
    return texts[0] if texts else None


def _number(parameters: Mapping[str, Sequence[str]], name: str) -> int | None:
    text = _single(parameters, name)
    if text is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError(f"{name} must be a number from 1 to 999999, not {text[:80]!r}")
    return None if text is None else int(text)


def _period(given: Mapping[str, str | None], today: datetime.date) -> tuple[datetime.datetime, datetime.datetime]:
    """From the beginning to before the end, UTC; this month where nothing is said."""
    month, day, begin, end = (given[name] for name in ("month", "day", "from", "to"))
    if (month is not None) + (day is not None) + (begin is not None or end is not None) > 1:
        raise ValueError("one of month, day, and from and to")
    if day is not None:
        named = {"today": today, "yesterday": today - datetime.timedelta(days=1)}
        start = _moment("day", named[day].isoformat() if day in named else day)
        return start, start + datetime.timedelta(days=1)
    if begin is not None or end is not None:
        first = _moment("from", begin) if begin else datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - UTC throughout
        last = _moment("to", end) if end else datetime.datetime(9999, 1, 1)  # noqa: DTZ001
        if first >= last:
            raise ValueError("from must be before to, which is not part of it")
        return first, last
    return _month(month or "this", today)


def _month(text: str, today: datetime.date) -> tuple[datetime.datetime, datetime.datetime]:
    first = today.replace(day=1)
    if text == "last":
        first = (first - datetime.timedelta(days=1)).replace(day=1)
    elif text != "this":
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}", text):
            raise ValueError(f"month must be as 2026-10, or this, or last, not {text[:80]!r}")
        first = _moment("month", f"{text}-01").date()
    start = datetime.datetime(first.year, first.month, 1)  # noqa: DTZ001
    return start, (start + datetime.timedelta(days=32)).replace(day=1)


def _moment(name: str, text: str) -> datetime.datetime:
    """A day's beginning, or a minute of it as 2026-10-03T14:30, UTC."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z?)?", text):
            raise ValueError
        found = datetime.datetime.fromisoformat(text.removesuffix("Z"))
        if not 1970 <= found.year < 9999:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name} must be a day as 2026-10-03, or a time of UTC, not {text[:80]!r}") from None
    return found
