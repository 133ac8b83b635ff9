"""The way one request went, kept for whatever has to follow it: a cancel, a resumed stream, the answer to a
question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from fastgw.ports import Deadlines, Transport, UpstreamSession
from fastgw.protocol.names import Era
from fastgw.snapshot.model import Backend

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]
"""`BackgroundTasks.spawn`: runs work beside the caller and logs its failure under the name."""

NO_SESSION = UpstreamSession("", "")

ASIDE = Deadlines(connect=2.0, first_byte=5.0, idle=5.0, total=5.0)
"""For messages nobody waits for."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """One request's way to its server.

    Args:
        id: our JSON-RPC id, as JSON text.
        era: how the server is spoken to.
        wire: connections to the instance.
        backend: whose credential goes along.
        session: of a legacy server; `NO_SESSION` for a modern one.
        deadlines: of the whole exchange.
        started: loop time when it began.
        spawn: for messages sent aside.
        limit: most bytes of one event.
    """

    id: bytes
    era: Era
    transport: Transport
    backend: Backend
    session: UpstreamSession
    deadlines: Deadlines
    started: float
    spawn: Spawn
    limit: int = 64 * 1024 * 1024

    def left(self) -> Deadlines:
        """The deadlines of a further request on behalf of the same exchange: its total does not start anew."""
        return remaining(self.deadlines, self.started)


def remaining(deadlines: Deadlines, started: float) -> Deadlines:
    """What is left of an exchange that began at loop time `started`."""
    spent = asyncio.get_running_loop().time() - started
    if spent < 0.001:
        return deadlines
    left = max(0.01, deadlines.total - spent)
    return replace(deadlines, total=left, connect=min(deadlines.connect, left), granted=deadlines.whole)
