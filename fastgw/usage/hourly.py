"""Roll-ups of usage events by hour, one small file for each hour that is over, and what is unusual in the newest.

Every event is counted while its hour lasts, and once more when the hour is over; after that the file stands for it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fastgw.errors import ERROR_OUTCOMES
from fastgw.usage.anomalies import (
    HISTORY,
    SUBJECTS,
    Findings,
    History,
    HourCounts,
    Rollup,
    Subject,
    anomalies,
    begun,
    compared_with,
    findings_file,
)
from fastgw.usage.answers import events_of
from fastgw.usage.archive import working_database
from fastgw.usage.columns import literal
from fastgw.usage.manifest import parquet_path, read_manifest
from fastgw.usage.spool_files import begun_at, spool_files

log = logging.getLogger("fastgw")

T = TypeVar("T")

HOUR = 3600
MOST = 1000
"""Agents, tools and servers of an hour, each, that are told apart: those with the most calls."""
LONGEST = 200
"""Letters of a name."""
SETTLED = 300.0
"""Seconds after the end of an hour in which its last events come."""
EARLIER = 120.0
"""Seconds by which a call may have begun before the spool file that has its event."""
MOST_SEEN = 50_000
"""Agents of which it is remembered since when they have been there; of one more, half of them, those gone longest."""
KEPT = 200
"""Anomalies that are remembered."""
MOST_AN_HOUR = 50
"""New ones: after that an hour is unusual altogether, and more of them tell nobody anything."""
TIMED: Final = ("ok", "tool_error", "timeout")
"""Outcomes of calls whose server's time counts: others end early."""
FORM = "%Y-%m-%dT%H"


class AnomalyFinder:
    """The roll-ups in `folder`, which is `data/usage`; for one thread, the one that archives.

    Args:
        keep: seconds for which events are kept, and so no roll-up longer.
        clock: Unix seconds.
    """

    def __init__(self, folder: Path, keep: float, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._rollups = folder / "hourly"
        self._kept = min(HISTORY, int(keep // HOUR))
        self._clock = clock
        self._hours: dict[int, Rollup] = {}
        """Those that the hour at hand is compared with, as far as they were read."""
        self._seen: dict[Subject, list[int]] = {}
        """In which hour an agent was seen first, and last."""
        self._findings = _read(findings_file(folder), Findings) or Findings()
        self._written = b""
        self._lacks_past = True
        self._load()

    def look(self) -> None:
        """Roll up what is over, at most a day of it, and judge the hour at hand once all of the past is known.

        Raises:
            OSError: the disk refuses. duckdb.Error: DuckDB does. What was not done is done next time.
        """
        now = self._clock()
        hour = int(now // HOUR)
        self._forget(hour)
        finished = self._roll_up_finished(now)
        if not self._lacks_past:
            current = [(hour, *counted) for counted in self._counted(hour, hour + 1)]
            for over, rollup, servers in [*finished[-1:], *current]:
                if over >= hour - 1:
                    self._judge(over, rollup, servers)
        self._write_down()

    # -- roll-ups --------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """See who was there in which hours."""
        self._rollups.mkdir(parents=True, exist_ok=True, mode=0o700)
        for hour in sorted(self._known()):
            self._note(hour, _read(self._file(hour), Rollup) or Rollup())

    def _known(self) -> set[int]:
        """Hours that have a file."""
        return {number for path in self._rollups.glob("*.json") if (number := _number(path.stem)) is not None}

    def _file(self, hour: int) -> Path:
        return self._rollups / f"{_begin(hour):{FORM}}.json"

    def _note(self, hour: int, rollup: Rollup) -> None:
        for name in rollup.counts.get("agent", ()):
            first_last = self._seen.setdefault(("agent", name), [hour, hour])
            first_last[:] = min(first_last[0], hour), max(first_last[1], hour)
        if len(self._seen) > MOST_SEEN:  # an issuer can give every token another name
            self._seen = dict(sorted(self._seen.items(), key=lambda one: one[1][1])[-MOST_SEEN // 2 :])

    def _forget(self, hour: int) -> None:
        """Let go of what is too old, and of what a clock that was wrong has made of hours that are not over."""
        for other in self._known():
            if not hour - self._kept <= other < hour:
                self._file(other).unlink(missing_ok=True)
                self._hours.pop(other, None)
        self._seen = {subject: times for subject, times in self._seen.items() if times[1] >= hour - self._kept}
        self._findings.anomalies = [one for one in self._findings.anomalies if one.found <= self._clock() + HOUR]

    def _roll_up_finished(self, now: float) -> list[tuple[int, Rollup, dict[str, str]]]:
        """Hours of one day that are over and have no file, the newest: each is given one."""
        last = int((now - SETTLED) // HOUR)
        first = max(self._first_hour(last), last - self._kept)
        known = self._known()
        all_missing = [hour for hour in range(first, last) if hour not in known]
        missing = [hour for hour in all_missing if hour // 24 == all_missing[-1] // 24]
        self._lacks_past = len(missing) < len(all_missing)
        if not missing:
            return []
        made = []
        for hour, (rollup, servers) in enumerate(self._counted(missing[0], missing[-1] + 1), missing[0]):
            if hour in missing:
                _write(self._file(hour), msgspec.json.encode(rollup))
                self._note(hour, rollup)
                made.append((hour, rollup, servers))
        return made

    def _first_hour(self, unless: int) -> int:
        """The first of which there may be events."""
        days = [date.fromisoformat(file.day) for file in read_manifest(self._folder).parquet]
        begun = [at for name in spool_files(self._folder / "spool")[:1] if (at := begun_at(name))]
        midnights = [datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() for day in days]
        return int(min([*midnights, *begun], default=unless * HOUR) // HOUR)

    def _counted(self, first: int, end: int) -> list[tuple[Rollup, dict[str, str]]]:
        """The roll-up of each hour from number `first` to before `end`, and the servers of its tools."""
        found: list[tuple[Rollup, dict[str, str]]] = [(Rollup(), {}) for _ in range(first, end)]
        files = self._sources(first, end)
        if not files:
            return found
        given: dict[str, object] = {name: [literal(path) for path in paths] for name, paths in files.items()}
        given |= {"begin": _begin(first), "end": _begin(end), "most": MOST}
        with working_database(self._folder) as database:
            rows = database.execute(_query(files), given).fetchall()
        for hour, kind, name, server, *counts in rows:
            rollup, servers = found[int(hour.replace(tzinfo=UTC).timestamp() // HOUR) - first]
            of_kind = rollup.counts.setdefault(kind, {})
            if len(of_kind) == MOST:  # one more than that was asked for
                rollup.least[kind] = counts[0]
                continue
            of_kind[name] = HourCounts(*counts)
            if kind == "tool" and server is not None:
                servers[name] = server
        return found

    def _sources(self, first: int, end: int) -> dict[str, list[Path]]:
        """Files that may have events of these hours; a Parquet file's name too begins with when it was made."""
        begin = float(first * HOUR)
        manifest = read_manifest(self._folder)
        days = {f"{_begin(hour):%Y-%m-%d}" for hour in range(first, end)}
        of_days = [one.name for one in manifest.parquet if one.day in days and begun_at(one.name) >= begin]
        spool = set(spool_files(self._folder / "spool")) - set(manifest.spool)
        lines = [name for name in sorted(spool) if begin - EARLIER <= begun_at(name) < end * HOUR]
        found = {
            "parquet": [parquet_path(self._folder, name) for name in of_days],
            "lines": [path for name in lines if (path := self._folder / "spool" / name).stat().st_size],
        }
        return {name: paths for name, paths in found.items() if paths}

    # -- what is unusual -------------------------------------------------------------------------------------------

    def _judge(self, hour: int, rollup: Rollup, servers: dict[str, str]) -> None:
        """Write down what is unusual; what was known of this hour gets its newest numbers."""
        wanted = compared_with(hour)
        known = self._known() & wanted
        self._hours = {other: self._hours.get(other) or _read(self._file(other), Rollup) or Rollup() for other in known}
        first_seen = {subject: times[0] for subject, times in self._seen.items()}
        new = anomalies(hour, rollup, History(self._hours, first_seen), servers)
        found = {one.key: one for one in self._findings.anomalies}
        room = MOST_AN_HOUR - Counter(one.hour for one in found.values())[begun(hour)]
        for one in new:
            before = found.get(one.key)
            room -= before is None
            if before is not None or room >= 0:
                at = self._clock() if before is None else before.found
                found[one.key] = msgspec.structs.replace(one, found=at)
        self._findings.anomalies = sorted(found.values(), key=lambda one: -one.found)[:KEPT]

    def _write_down(self) -> None:
        known = self._known()
        self._findings.history_since = begun(min(known)) if known else None
        text = msgspec.json.encode(self._findings)
        if text != self._written:
            _write(findings_file(self._folder), text)
            self._written = text


def _query(files: Iterable[str]) -> str:
    """Counts by hour of each agent, tool and server; of each of these `$most`, and one more where there are more."""
    names = ", ".join(f"left({one}, {LONGEST}) AS {one}" for one in SUBJECTS)
    took = f"CASE WHEN attempts > 0 AND outcome IN {TIMED} THEN ln(greatest(latency_us - overhead_us, 1)) END"
    which = " ".join(f"WHEN grouping({one}) = 0 THEN '{one}'" for one in SUBJECTS)
    name = " ".join(f"WHEN grouping({one}) = 0 THEN {one}" for one in SUBJECTS)
    sets = ", ".join(f"(hour, {one})" for one in SUBJECTS)
    return f"""
        WITH events AS (
            SELECT date_trunc('hour', timestamp) AS hour, {names}, server AS of_server,
                outcome IN {ERROR_OUTCOMES} AS failed, {took} AS took
            FROM ({events_of(files)}) WHERE timestamp >= $begin AND timestamp < $end
        ), counted AS (
            SELECT hour, CASE {which} END AS kind, CASE {name} END AS name, any_value(of_server) AS server,
                count(*) AS calls, count(*) FILTER (WHERE failed) AS errors, count(took) AS timed,
                coalesce(sum(took), 0) AS log_sum, coalesce(sum(took * took), 0) AS log_squares
            FROM events GROUP BY GROUPING SETS ({sets})
        )
        SELECT * FROM counted WHERE name IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY hour, kind ORDER BY calls DESC, name) <= $most + 1
        ORDER BY hour, kind, calls DESC, name
    """  # noqa: S608 - names of ours alone


def _begin(hour: int) -> datetime:
    """UTC, without a zone, as events have it."""
    return datetime(1970, 1, 1) + timedelta(hours=hour)  # noqa: DTZ001


def _number(stem: str) -> int | None:
    try:
        return int(datetime.strptime(stem, FORM).replace(tzinfo=UTC).timestamp() // HOUR)
    except ValueError:
        return None


def _read(path: Path, form: type[T]) -> T | None:
    """What a file holds; None where there is none, or none of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except FileNotFoundError:
        return None
    except ValueError as wrong:
        log.warning("%s is not used: %s", path, wrong)
        return None


def _write(path: Path, text: bytes) -> None:
    """Replace a file as a whole; it names agents, so it is for nobody else."""
    hidden = path.with_suffix(".tmp")
    hidden.touch(mode=0o600)
    hidden.write_bytes(text)
    hidden.replace(path)
