"""Free ports for servers whose port stands in a file before they open it.

A port that the system gives for 0 may be taken by an outgoing connection before the server gets to it. These lie
below the range from which systems take those, and each pytest-xdist worker draws from a part of its own.
"""

from __future__ import annotations

import itertools
import os
import socket

FIRST, EACH, PARTS = 20_000, 1_000, 10


def _drawn() -> itertools.cycle[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PARTS
    begin = FIRST + worker * EACH
    offset = os.getpid() % EACH
    return itertools.cycle([begin + (offset + step) % EACH for step in range(EACH)])


_DRAWN = _drawn()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, not given before by this process."""
    for port in itertools.islice(_DRAWN, EACH):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")
