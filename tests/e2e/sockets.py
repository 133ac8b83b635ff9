"""Which process has accepted a connection to the gateway (Linux: /proc)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.e2e.gateway import Gateway, until


async def accepted_by(gateway: Gateway, port: int) -> int:
    """Process id of the worker that has the connection from our `port`."""
    listens = int(gateway.root.rpartition(":")[2])

    async def found() -> int:
        inode = _inode(listens, port)
        return next((pid for pid in gateway.children() if inode in _sockets(pid)), 0)

    return int(await until(found))


def _inode(listens: int, port: int) -> str:
    """The socket of the gateway's side, as the links in /proc/<pid>/fd write it; empty before it is accepted."""
    ends = [f"0100007F:{listens:04X}", f"0100007F:{port:04X}"]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends and fields[9] != "0":
            return f"socket:[{fields[9]}]"
    return "-"


def _sockets(pid: int) -> set[str]:
    folder = Path(f"/proc/{pid}/fd")
    found = set()
    with suppress(OSError):
        for link in folder.iterdir():
            with suppress(OSError):
                found.add(str(link.readlink()))
    return found
