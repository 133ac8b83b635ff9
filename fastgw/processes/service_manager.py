"""What systemd hears of us (`Type=notify-reload`): sd_notify(3), a datagram of lines to the socket in `NOTIFY_SOCKET`.

    READY=1       agents are served; after a reload: it is over, whatever became of it
    RELOADING=1   a SIGHUP has come
    STOPPING=1    the drain has begun

Under anything else there is no such variable, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time

log = logging.getLogger("fastgw")

SOCKET_ENV = "NOTIFY_SOCKET"


def ready(status: str) -> None:
    """Say that agents are served; `status` is a line for whoever asks systemd."""
    _notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    """Say that the configuration is read again: by the clock it is told from an earlier reload."""
    _notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """Say that the drain has begun."""
    _notify("STOPPING=1", "STATUS=calls in flight end")


def _notify(*lines: str) -> None:
    place = os.environ.get(SOCKET_ENV, "")
    if not place:
        return
    # An abstract socket is written with @, and begins with a zero byte.
    address = "\0" + place[1:] if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
            sending.sendto("\n".join(lines).encode(), address)
    except OSError as wrong:
        log.warning("the service manager was not told %s: %s", lines[0], wrong)
