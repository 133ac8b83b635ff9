"""How much memory the workers of a gateway have, so that a test can say what one connection costs (Linux: /proc).

before = memory(gateway)
...
assert memory(gateway) - before < connections * ALLOWED
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.gateway import Gateway

RESIDENT = re.compile(r"^Vm(RSS|Swap):\s+(\d+) kB$", re.MULTILINE)
KIB = 1024
ALLOWED = 256 * KIB
"""Bytes that one slow agent may cost, whatever it does."""


def memory(gateway: Gateway) -> int:
    """Bytes of both workers together, what is swapped out included."""
    return sum(resident(gateway.child(f"worker-{number}")) for number in (1, 2))


def resident(pid: int) -> int:
    """Bytes of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(found[1]) for found in RESIDENT.findall(status)) * KIB


def each(gateway: Gateway, before: int, connections: int) -> float:
    """Bytes that each of so many connections has cost since then."""
    return (memory(gateway) - before) / connections
