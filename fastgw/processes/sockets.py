"""The sockets that are taken once, before anything is forked, and outlive every child."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from fastgw.config.addresses import authority
from fastgw.processes.plan import Plan
from fastgw.telemetry.spans import spans_socket


class PortTaken(OSError):
    """An address of the configuration cannot be taken; its text is fit for the user."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where the processes are found.

    Args:
        address, admin_address: (host, port) as bound.
        link: path of the controller's socket.
        store: path of the socket of the store that the supervisor runs; None where it runs none.
        holder: bound to `address`, never listening: keeps the port ours while no worker is up.
        admin, ipc_server: listening; handed to whoever is the controller.
        spans: datagrams of workers for whoever is the usage process.
    """

    address: tuple[str, int]
    admin_address: tuple[str, int]
    link: str
    holder: socket.socket
    admin: socket.socket
    ipc_server: socket.socket
    spans: socket.socket
    store: str | None = None

    @classmethod
    def take(cls, plan: Plan, folder: Path) -> Sockets:
        """Bind everything; `folder` is ours alone (0700), for the controller's socket.

        Raises:
            PortTaken: `listen` or `admin` cannot be bound.
        """
        probe = _bound("listen", plan.listen, shared=0)
        address = probe.getsockname()[:2]
        # Another gateway of the same user shares ports as workers do; without sharing, the probe has found it.
        probe.close()
        holder = _bound("listen", address, shared=1)
        admin = _bound("admin", plan.admin, shared=0)
        admin.listen(256)
        link = str(folder / "controller")
        ipc_server = socket.socket(socket.AF_UNIX)
        ipc_server.bind(link)
        Path(link).chmod(0o600)
        ipc_server.listen(256)
        spans = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        spans.bind(spans_socket(link))
        store = str(folder / "store") if plan.store.kind == "embedded" else None
        return cls(address, admin.getsockname()[:2], link, holder, admin, ipc_server, spans, store)


def _bound(key: str, address: tuple[str, int], shared: int) -> socket.socket:
    host, port = address
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        bound.bind(where)
        if not shared:
            # Two sockets that may reuse an address can both bind it; only one can listen.
            bound.listen(1)
    except OSError as wrong:
        raise PortTaken(f"{key}: {authority(host, port)} cannot be taken: {wrong.strerror or wrong}") from None
    return bound
