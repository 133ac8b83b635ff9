"""What one call of the script `decide.lua` carries there and back. What comes back is read into the types it must have,
or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1, sha256
from importlib.resources import files

import msgspec

from fastgw.policy.bucket import BucketRate
from fastgw.policy.limits import Subject

VERSION = 1
SOURCE = files("fastgw.limits").joinpath("decide.lua").read_text("utf-8")
DIGEST = sha1(SOURCE.encode(), usedforsecurity=False).hexdigest()
"""By which a server knows the script it was given (EVALSHA)."""

ENFORCE, SHADOW, TAKE, AT_LEAST, FILL = range(5)
"""What an item of a check asks: see `mode` in the script."""
MOST_WORKERS = 100_000
RATE, CALLS = 1, 2
FIRST = 4
"""Place of the first bucket among the script's keys."""


class BadReply(Exception):
    """The store answered something that this version of the script does not say."""


@dataclass(slots=True)
class ScriptRow:
    """One bucket in a call of the script.

    Args:
        key: its name in the store.
        rate: None where calls at the same time are counted.
        most: of those.
        held: tokens that this worker holds and has not spent; of calls, those that run here.
        back: tokens it gives back.
        ahead: tokens, or calls, that it wants in advance.
    """

    key: str
    rate: BucketRate | None = None
    most: int = 0
    held: int = 0
    back: int = 0
    ahead: int = 0


@dataclass(slots=True)
class ScriptRequest:
    """What one call of the script carries.

    Args:
        rows: every bucket once.
        checks: each a flat list of (row counted from 1, cost, mode).
        heartbeat: say that the worker lives, and ask what the whole deployment knows.
        known: epoch that the worker knows; empty: none. In a store of another one nothing is decided.
        resets: of operators, as text: the store repeats each to all workers for some seconds.
    """

    rows: list[ScriptRow] = field(default_factory=list)
    checks: list[list[int]] = field(default_factory=list)
    heartbeat: bool = False
    known: str = ""
    resets: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScriptReply:
    """What it answers.

    Args:
        epoch: another one than before: the store has lost what it had.
        emptied: it is another one than the request knew; nothing was decided.
        workers: seen lately, where it was asked for; else 0.
        resets: those of the last seconds, where the request was a heartbeat.
        held: for each row what the worker holds now.
        checks: for each (place of the refusal or 0, microseconds to wait, bits of shadow refusals, units lacking ...).
    """

    epoch: str
    workers: int
    resets: list[str]
    held: list[int]
    checks: list[list[int]]
    emptied: bool = False


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(tuple[int, str, int, list[str], list[int], list[list[int]]]).decode


class StoreKeys:
    """The names of what a deployment keeps, all in one slot of a cluster."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{{{prefix}}}:{VERSION}:"
        self.epoch, self.workers, self.resets = (self._start + name for name in ("epoch", "workers", "resets"))

    def bucket(self, table: str, subject: Subject) -> str:
        """The key of a bucket: of one length and one alphabet, whatever a claim holds."""
        parts = subject if isinstance(subject, tuple) else (subject,)
        text = msgspec.json.encode([table, *parts])
        return f"{self._start}b:{sha256(text).hexdigest()[:32]}"

    def of(self, request: ScriptRequest) -> list[str]:
        """All keys of a call, in the script's order."""
        return [self.epoch, self.workers, self.resets, *(row.key for row in request.rows)]


def encode(request: ScriptRequest, worker: str, epoch: str) -> bytes:
    """The script's argument.

    Args:
        worker: letters and digits.
        epoch: to begin with where the store has none.
    """
    rows = [
        (at, CALLS, row.most, row.held, row.ahead)
        if row.rate is None
        else (at, RATE, *row.rate, row.held, row.back, row.ahead)
        for at, row in enumerate(request.rows, FIRST)
    ]
    return _ENCODE(
        (VERSION, worker, epoch, int(request.heartbeat), rows, request.checks, request.resets, request.known)
    )


def decode(answer: object, request: ScriptRequest) -> ScriptReply:
    """What the script answered to `request`.

    Raises:
        BadReply: it is no answer of this version to this request.
    """
    if not isinstance(answer, bytes):
        raise BadReply(f"a {type(answer).__name__} instead of bytes")
    try:
        version, epoch, workers, resets, held, checks = _DECODE(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise BadReply(str(wrong)) from None
    if version == VERSION and request.known not in ("", epoch) and not held and not checks:
        return ScriptReply(epoch, 0, [], [], [], emptied=True)
    if version != VERSION or len(held) != len(request.rows) or len(checks) != len(request.checks):
        raise BadReply(f"version {version}, {len(held)} rows, {len(checks)} checks")
    for asked, found in zip(request.checks, checks, strict=True):
        items = len(asked) // 3
        if len(found) != items + 3 or not 0 <= found[0] <= items or min(found) < 0:
            raise BadReply(f"a check of {items} items answered by {found}")
    if not 0 <= workers <= MOST_WORKERS or min(held, default=0) < 0:
        raise BadReply(f"{workers} workers, {held} held")
    return ScriptReply(epoch, workers, resets, held, checks)
