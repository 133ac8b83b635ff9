"""The usage process: feeds sinks from the spool, turns closed spool files into the archive, deletes what is done, looks
for what is unusual; sends spans, where `traces` says so.

It writes how it is into a file beside the controller's socket, which the controller reads when metrics are asked for:
that works however badly the disk or the controller do. What it does may be killed at any point and done again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import select
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgw.config.rules import can_export
from fastgw.config.schema.settings import UsageSettings
from fastgw.processes import child
from fastgw.processes.plan import Plan
from fastgw.processes.sockets import Sockets
from fastgw.telemetry import logs
from fastgw.telemetry.counters import Series
from fastgw.telemetry.process import resident_bytes
from fastgw.usage.feed import SinkFeed, position_file
from fastgw.usage.sinks import make_sink
from fastgw.usage.spool_files import is_closed, spool_files

log = logging.getLogger("fastgw")

GIVES_WAY = 10
"""How much lower than the workers' its priority is (`nice`)."""
KEEP_EVERY = 2.0
"""Seconds between two looks at which spool files can be archived or deleted."""
TELL_EVERY = 0.5
"""Seconds between two reports for the metrics."""
LOCK = "lock"
"""The file under `data/usage` that is locked by the usage process that works there."""
LOOK_EVERY = 60.0
SHARE = 20
"""Seconds between two looks for what is unusual, at least; and so many times as long as one takes."""
FLUSH_FOR = 0.8
"""Seconds in which sinks get what they have not got yet, when told to stop."""


class Orders:
    """What the supervisor says, in lines: `log LEVEL FORM`, which is obeyed here, and `stop`."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._rest = control, b""
        self._poll = select.poll()  # select(2) takes no descriptor beyond 1,023
        self._poll.register(control, select.POLLIN)

    def end(self) -> bool:
        """Whether the supervisor says stop within `TELL_EVERY` seconds, or is gone."""
        if not self._poll.poll(TELL_EVERY * 1000):
            return False
        heard = self._control.recv(4096)
        *lines, self._rest = (self._rest + heard).split(b"\n")
        orders = [line.decode().split() for line in lines]
        for words in orders:
            if words[:1] == ["log"]:
                logs.change(*words[1:])
        return not heard or ["stop"] in orders


class UsageProcess:
    """The feeds and the spool at work.

    Args:
        base: where relative `file:` paths start. `folder`: `data/usage`.
        told: the file that the controller reads.
    """

    def __init__(self, settings: UsageSettings, base: Path, told: Path) -> None:
        self.folder = base / "usage"
        self._spool = self.folder / "spool"
        self._keep = settings.keep
        self._told = told
        self._lost: dict[str, int] = {}
        self._closed: set[str] = set()
        self._size = 0
        self._archive: Any = None
        self._archive_errors = 0
        self._forgotten: date | None = None
        self._finder: Any = None
        self._look_at = 0.0
        self._blind = False
        positions = self.folder / "positions"
        is_first = not positions.exists()
        sinks = {sink.url: sink for sink in settings.sinks}
        self._forget_others(positions, set(sinks))
        make = partial(make_sink, base=base)
        self.feeds = [SinkFeed(sink, make, self.folder, from_now=not is_first) for sink in sinks.values()]
        self._keeping = threading.Thread(target=self._keep_always, name="usage keeper", daemon=True)
        self.spans: list[Any] = []
        """What exports spans (`telemetry.span_export.SpanExport`), if anything does, once it is there."""

    def run(self, orders: Orders) -> None:
        """Work until the supervisor says stop, and then for `FLUSH_FOR` at most."""
        for feed in self.feeds:
            feed.start()
        self._keeping.start()
        self._tell()
        while not orders.end():
            self._tell()
        until = time.monotonic() + FLUSH_FOR
        for feed in self.feeds:
            feed.finish(until)
        for one in self.spans:
            one.finish()
            one.join(until)
        for feed in self.feeds:
            feed.join(until + 0.1)
        self._tell()

    # -- the spool -------------------------------------------------------------------------------------------------

    def _keep_always(self) -> None:
        last = ""
        while True:
            try:
                self.tidy(time.time())
                last = ""
            except Exception as wrong:  # whatever it is: the spool would fill the disk
                if str(wrong) != last:  # told once
                    log.exception("the usage events under data")
                last = str(wrong)
            begun = time.monotonic()
            if begun >= self._look_at:
                self._look_for_anomalies()
                self._look_at = begun + max(LOOK_EVERY, SHARE * (time.monotonic() - begun))
            time.sleep(KEEP_EVERY)

    def tidy(self, now: float) -> None:
        """Archive what is closed, and delete the spool files that everybody has, or that are too old."""
        names = spool_files(self._spool)
        self._closed &= set(names)
        self._archive_closed(now)
        size = 0
        for name in names:
            path = self._spool / name
            with suppress(FileNotFoundError):
                found = path.stat()
                size += found.st_size
                if name not in self._closed and _nobody_writes(path):
                    self._closed.add(name)
                if name in self._closed:
                    self._delete_if_done(path, is_old=found.st_mtime < now - self._keep)
        self._size = size

    def _delete_if_done(self, path: Path, *, is_old: bool) -> None:
        late = [feed for feed in self.feeds if not feed.has(path.name)]
        if not late and self._archive is not None and self._archive.contains(path):
            path.unlink()
        elif is_old:
            for feed in late:
                position = feed.files.get(path.name)
                feed.skipped += _lines_after(path, position.offset if position is not None else 0)
            path.unlink()

    def _archive_closed(self, now: float) -> None:
        """An archive that fails keeps the spool files, which questions read as well, and costs no sink anything."""
        closed = [self._spool / name for name in sorted(self._closed)]
        try:
            if self._archive is None:
                self._archive = open_archive(self.folder)
            day = datetime.fromtimestamp(now - self._keep, UTC).date()
            if day != self._forgotten:
                self._archive.forget_before(day)
                self._forgotten = day
            self._archive.convert(closed)
        except Exception:  # whatever it is: it is tried again
            self._archive_errors += 1
            if self._archive_errors == 1:
                log.exception("usage events cannot be archived")

    def _look_for_anomalies(self) -> None:
        """In the thread that archives, so that no file goes while it is read."""
        try:
            if self._finder is None:
                self._finder = open_finder(self.folder, self._keep)
            self._finder.look()
            self._blind = False
        except Exception as wrong:  # noqa: BLE001 - whatever it is: it is tried again
            if not self._blind:
                log.error("anomalies cannot be looked for: %r", wrong)
            self._blind = True

    def _forget_others(self, positions: Path, urls: set[str]) -> None:
        """A sink that is named again later begins anew."""
        kept = {position_file(self.folder, url) for url in urls}
        for file in positions.glob("*.json"):
            if file not in kept:
                with suppress(OSError):
                    file.unlink()

    # -- what operators see ----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        found: list[tuple[Series, float]] = [
            (("fastgw_usage_events_lost_total", "sink"), sum(feed.lost for feed in self.feeds)),
            (("fastgw_usage_spool_bytes",), self._size),
            (("fastgw_process_cpu_seconds_total", "usage"), round(time.process_time(), 3)),
            (("fastgw_process_resident_memory_bytes", "usage"), resident_bytes()),
            (("fastgw_usage_archive_errors_total",), self._archive_errors),
            (("fastgw_usage_archive_spoiled_total",), 0 if self._archive is None else self._archive.spoiled),
        ]
        for label in {feed.label: None for feed in self.feeds}:
            same = [feed for feed in self.feeds if feed.label == label]  # two streams of one Redis, say
            found.append((("fastgw_usage_sink_lag_seconds", label), round(max(feed.lag for feed in same), 3)))
            found.append((("fastgw_usage_sink_errors_total", label), sum(feed.errors for feed in same)))
        for one in self.spans:
            found.extend(one.counts())
        hidden = self._told.with_suffix(".tmp")
        with suppress(OSError):
            hidden.write_text(json.dumps(found))
            hidden.replace(self._told)


def open_archive(folder: Path) -> Any:
    """The archive in `data/usage`; DuckDB is loaded here, and in no other process."""
    return import_module("fastgw.usage.archive").Archive(folder)


def open_finder(folder: Path, keep: float) -> Any:
    """What looks for anomalies in `data/usage`; it needs DuckDB as well."""
    return import_module("fastgw.usage.hourly").AnomalyFinder(folder, keep)


def lock_alone(folder: Path, orders: Orders) -> int:
    """Wait until no usage process of another gateway works in `folder`, and keep it so: the descriptor to hold.

    Two archives would each leave out what the other takes in. Whoever works there sees to the workers of both.
    -1 where the supervisor says stop meanwhile, or is gone.
    """
    last = ""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise
        except OSError as wrong:
            is_taken = isinstance(wrong, BlockingIOError)
            words = f"another gateway's usage process works in {folder}, for both" if is_taken else str(wrong)
            if words != last:
                log.warning("usage events wait: %s", words)
            last = words
        else:
            return fd
        if orders.end():
            return -1


def _nobody_writes(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return is_closed(fd)
    finally:
        os.close(fd)


def _lines_after(path: Path, offset: int) -> int:
    with path.open("rb") as file:
        file.seek(offset)
        return sum(piece.count(b"\n") for piece in iter(partial(file.read, 1 << 20), b""))


def status_file(link: str) -> Path:
    """Where the usage process says how it is: beside the controller's socket at `link`."""
    return Path(link).with_name("usage.json")


def told_by_usage(link: str) -> dict[Series, float]:
    """The series that the usage process has written last; none where it has not."""
    try:
        found: list[Any] = json.loads(status_file(link).read_bytes())
    except (OSError, ValueError):
        return {}
    return {tuple(series): value for series, value in found}


def run(plan: Plan, places: Sockets, control: socket.socket) -> None:
    """The whole life of a forked usage process; returns when it was told to stop."""
    child.raise_files()
    os.nice(GIVES_WAY)
    spans: list[Any] = []
    threading.Thread(target=_export_spans, args=(plan, places.spans, spans), name="span export", daemon=True).start()
    orders = Orders(control)
    if lock_alone(plan.data / "usage", orders) >= 0:  # held until this process ends
        process = UsageProcess(plan.usage, plan.data, status_file(places.link))
        process.spans = spans
        process.run(orders)


def _export_spans(plan: Plan, workers: socket.socket, spans: list[Any]) -> None:
    """Beside everything else: its packages take a while to load."""
    found = span_export(plan, workers)
    if found is not None:
        found.start()
        spans.append(found)


def span_export(plan: Plan, workers: socket.socket) -> Any:
    """What exports the spans that `workers` send; None where that is not wanted, or not possible."""
    if plan.traces is None:
        return None
    if not can_export():
        log.error("no span is sent: the packages for `traces` are missing. pip install 'fastgw[otel]'")
        return None
    try:
        exports = import_module("fastgw.telemetry.span_export").SpanExport
        return exports(plan.traces, plan.usage.gateway or platform.node(), workers)
    except Exception:  # of usage events nothing may be lost for that
        log.exception("spans cannot be exported")
        return None
