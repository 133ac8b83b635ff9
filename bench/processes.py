"""CPU time of a whole process tree, as Linux counts it in /proc/<pid>/stat (proc(5)).

The sum runs over every living process of the tree: its own time and that of its children that died and were waited
for (`cutime`, `cstime`). One that vanishes without being waited for, or leaves the tree, is told by `spent`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")


class LostProcess(Exception):
    """A process of the tree ended between two readings: what was measured is not what was meant."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a tree. `members` are (pid, start time), so that a reused pid is another process."""

    seconds: float
    members: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    parent: int
    ticks: int
    started: int


def read(root: int) -> Reading:
    """CPU seconds used so far by `root` and all below it.

    Raises:
        LostProcess: `root` does not live.
        OSError: there is no /proc.
    """
    stats = [stat for folder in PROC.iterdir() if folder.name.isdigit() and (stat := _stat(folder)) is not None]
    children: dict[int, list[_Stat]] = {}
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
    tree = [stat for stat in stats if stat.pid == root]
    if not tree:
        raise LostProcess(f"process {root} has ended")
    for stat in tree:
        tree.extend(children.get(stat.pid, ()))
    return Reading(sum(stat.ticks for stat in tree) * TICK, frozenset((stat.pid, stat.started) for stat in tree))


def spent(before: Reading, after: Reading) -> float:
    """CPU seconds of the tree between two readings.

    Raises:
        LostProcess: a process that was there is gone, whether or not its time could still be counted.
    """
    gone = before.members - after.members
    if gone:
        raise LostProcess(f"ended while measured: pid {', '.join(str(pid) for pid, _ in sorted(gone))}")
    return after.seconds - before.seconds


def _stat(folder: Path) -> _Stat | None:
    try:
        text = (folder / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command in parentheses may itself hold spaces and parentheses: fields count from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return _Stat(int(folder.name), int(fields[1]), user + system + children_user + children_system, int(fields[19]))
