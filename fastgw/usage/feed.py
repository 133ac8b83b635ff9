"""One sink fed from the spool: a thread that delivers batches in order and remembers how far it is.

    following -- nothing new --> following (looks again after POLL)
    following -- delivered --> following, the position moves on
    following -- SinkDown --> down (the same batch again after a pause that grows) -- delivered --> following

The position is written once a second: who is killed delivers again what came since. So events arrive at least once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.sink import Sink, SinkDown, is_local, label_of
from fastgw.usage.spool_files import begun_at, read_piece, spool_files

log = logging.getLogger("fastgw")

POLL = 0.05
"""Seconds between two looks for new events."""
GATHER = 1.0
"""The same where each delivery is a request over the network."""
MOST_EVENTS = 5_000
MOST_BYTES = 4 * 1024 * 1024
"""Of one batch; a single line may be larger."""
SAVE_EVERY = 1.0
"""Seconds between two writings of the position."""
PAUSE, MOST_PAUSE, MOST_LOCAL_PAUSE = 0.1, 30.0, 1.0
"""Seconds before a sink that is down is tried again: at first, at most, at most for one of this machine."""


@dataclass(slots=True)
class FilePosition:
    """How far one spool file is delivered: up to `offset` bytes; `done`: nothing more will come."""

    offset: int = 0
    done: bool = False


class SinkFeed:
    """The feed of one sink.

    Args:
        settings: which sink. `make`: makes it, in the feed's thread.
        folder: `data/usage`. `from_now`: where there is no position yet, skip what the spool has.
    """

    def __init__(
        self, settings: SinkSettings, make: Callable[[SinkSettings], Sink], folder: Path, *, from_now: bool
    ) -> None:
        self.label = label_of(settings.url)
        self.skipped = 0
        """Events that were cut short, or older than `usage.keep` before this sink took them."""
        self.errors = 0
        """Deliveries that failed."""
        self.files: dict[str, FilePosition] = {}
        self._settings = settings
        self._make = make
        self._sink: Sink | None = None
        self._spool = folder / "spool"
        self._position = position_file(folder, settings.url)
        self._caught_up = time.time()
        self._behind = False
        self._is_full = False
        self._listed = -1
        self._waiting: list[str] = []
        self._saved = 0.0
        self._save_failed = False
        self._failures = 0
        self._ending = threading.Event()
        self._until = 0.0
        self._load(from_now=from_now)
        self._thread = threading.Thread(target=self._run, name=f"usage {self.label}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def finish(self, until: float) -> None:
        """Deliver what there is until `until` (monotonic seconds), then end."""
        self._until = until
        self._ending.set()

    def join(self, until: float) -> None:
        """Wait for the end until `until`, and write down how far it came."""
        self._thread.join(max(0.0, until - time.monotonic()))
        self._save()

    @property
    def lost(self) -> int:
        """Events that this sink will never get."""
        return self.skipped + (self._sink.lost if self._sink is not None else 0)

    @property
    def lag(self) -> float:
        """Seconds for which events have been waiting here; 0 where none does."""
        return max(0.0, time.time() - self._caught_up) if self._behind else 0.0

    def has(self, name: str) -> bool:
        """Whether all of this spool file is delivered."""
        found = self.files.get(name)
        return found is not None and found.done

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        gather = POLL if is_local(self._settings.url) else GATHER
        while True:
            ending = self._ending.is_set()
            moved = self._turn()
            if time.monotonic() - self._saved >= SAVE_EVERY:
                self._save()
            if ending and (not moved or time.monotonic() >= self._until):
                break
            if not moved:
                self._ending.wait(gather)
        if self._sink is not None:
            self._sink.close()

    def _turn(self) -> bool:
        """Deliver one batch; whether there is more to do at once."""
        begun = time.time()
        try:
            lines, moves = self._gather()
        except Exception as wrong:  # noqa: BLE001 - as in `_deliver`
            self._failed(wrong)
            return False
        if not lines and not moves:
            self._caught_up, self._behind = begun, False
            return False
        self._behind = True
        if lines and not self._deliver(lines):
            return False
        self.files |= moves
        return self._is_full or self._ending.is_set()

    def _gather(self) -> tuple[list[bytes], dict[str, FilePosition]]:
        """The next batch, and how far it goes in which files."""
        lines: list[bytes] = []
        moves: dict[str, FilePosition] = {}
        size, self._is_full = 0, False
        for name in self._undelivered():
            known = self.files.get(name) or FilePosition()
            if self._is_full:
                break
            try:
                piece = read_piece(self._spool / name, known.offset, MOST_BYTES - size)
            except OSError as wrong:
                log.debug("%s cannot be read: %s", name, wrong)
                continue
            taken = piece.lines[: MOST_EVENTS - len(lines)]
            end = known.offset + sum(map(len, taken)) + len(taken)
            done = piece.is_last and end == piece.end
            if done and piece.cut:
                self.skipped += 1
            if taken or done:
                lines += taken
                size += end - known.offset
                moves[name] = FilePosition(end, done)
            self._is_full = size >= MOST_BYTES // 2 or len(lines) >= MOST_EVENTS
        return lines, moves

    def _undelivered(self) -> list[str]:
        """Files that may have something. While another sink is down for days there are thousands that have not."""
        changed = self._spool.stat().st_mtime_ns if self._spool.exists() else 0
        if changed != self._listed or time.time_ns() - changed < 2e9:
            self._waiting, self._listed = spool_files(self._spool), changed
        self._waiting = [name for name in self._waiting if not self.has(name)]
        return self._waiting

    def _deliver(self, lines: list[bytes]) -> bool:
        """Whether the sink took them, however often they were offered; False at the end only."""
        while True:
            try:
                if self._sink is None:
                    self._sink = self._make(self._settings)
                self._sink.deliver(lines)
            except Exception as wrong:  # noqa: BLE001 - whatever it is: the feed must not end
                self._failed(wrong)
                if self._pause():
                    return False
            else:
                if self._failures:
                    log.warning("usage events reach %s again", self.label)
                self._failures = 0
                return True

    def _failed(self, wrong: Exception) -> None:
        self.errors += 1
        self._failures += 1
        if self._failures == 1:
            known = isinstance(wrong, SinkDown | OSError)
            log.error("usage events wait for %s: %s", self.label, wrong, exc_info=None if known else wrong)

    def _pause(self) -> bool:
        """Wait before the next attempt; whether there is none any more."""
        most = MOST_LOCAL_PAUSE if is_local(self._settings.url) else MOST_PAUSE
        pause = min(most, PAUSE * 2 ** min(self._failures - 1, 20)) * random.uniform(0.5, 1.0)
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self._save()
        if self._ending.is_set():
            time.sleep(min(pause, 0.1))
            return time.monotonic() >= self._until
        self._ending.wait(pause)
        return False

    # -- the position ----------------------------------------------------------------------------------------------

    def _load(self, *, from_now: bool) -> None:
        try:
            told = json.loads(self._position.read_text())
            self.files = {name: FilePosition(offset) for name, offset in told["offsets"].items()}
            self.files |= {name: FilePosition(done=True) for name in told["done"]}
        except FileNotFoundError:
            if from_now:
                self._skip_all()
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as wrong:
            log.error("the position of %s cannot be read, all of the spool is delivered: %s", self.label, wrong)
        waiting = [name for name in spool_files(self._spool) if not self.has(name)]
        if waiting:
            self._caught_up, self._behind = min(self._caught_up, begun_at(waiting[0]) or self._caught_up), True
        self._save()

    def _skip_all(self) -> None:
        """Begin with what comes from now on."""
        for name in spool_files(self._spool):
            path = self._spool / name
            piece = read_piece(path, max(0, path.stat().st_size - MOST_BYTES), MOST_BYTES)
            self.files[name] = FilePosition(piece.end, piece.is_last)

    def _save(self) -> None:
        """Write down how far this feed is; files that are no more are forgotten."""
        self._saved = time.monotonic()
        try:
            there = set(spool_files(self._spool))
            known = {name: position for name, position in list(self.files.items()) if name in there}
            self.files = known
            told = {
                "sink": self.label,
                "offsets": {name: at.offset for name, at in known.items() if not at.done},
                "done": [name for name, at in known.items() if at.done],
            }
            self._position.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            hidden = self._position.with_suffix(".tmp")
            hidden.write_text(json.dumps(told))
            hidden.replace(self._position)
        except OSError as wrong:
            if not self._save_failed:
                log.error("the position of %s cannot be written: %s", self.label, wrong)
            self._save_failed = True
        else:
            self._save_failed = False


def position_file(folder: Path, url: str) -> Path:
    """Where the position of the sink at `url` is kept under `data/usage`."""
    return folder / "positions" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
