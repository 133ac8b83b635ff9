"""One call's whole life in here: what each verb of the path found out, for the verbs after it and for `settle`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastgw.catalog.route import Arm
from fastgw.limits.batch import AwaitedAdmission
from fastgw.policy.match import ANONYMOUS, Principal
from fastgw.policy.verdict import LimitVerdict
from fastgw.protocol.call import Call
from fastgw.protocol.headers import VERSION
from fastgw.snapshot.model import Address, Endpoint, Grant, Snapshot, View

if TYPE_CHECKING:
    from fastgw.gateway.dialects.dialect import Dialect


@dataclass(slots=True, eq=False)
class RequestContext:
    """Filled in by the verbs from top to bottom.

    Args:
        request_id: the id agents, logs and usage events share.
        snapshot: taken once by `accept`, kept to the end.
        started: CLOCK_MONOTONIC seconds when the request arrived.
        timestamp: Unix seconds when it had been read.
        headers: by lower-case name; `twice`: names that came more than once.
        reply_to: the JSON-RPC id that a refusal answers, as JSON text; `null` until one is known.
        method: the JSON-RPC method, as soon as it is known.
        identified: whether `principal` is known to be who calls.
        client: (address, port) of the connection; None where the server does not say.
        admission: what it asked of the limits; stands here before that is waited for.
        verdict: what the limits said; None where none speaks of it.
        waited: seconds spent waiting for servers.
        held: bytes of its body that count against the worker's budget.
        over: its answer is complete, or nobody waits for it.
        body_due: CLOCK_MONOTONIC seconds by which its body must be here; 0 while none is awaited.
        cors: headers that let a browser hand its answer to the page that asked; empty for everybody else.
        when_old: what is to be done once if it takes longer than most.
        outcome: how it ended, in the words of usage events; *cancelled* until something better is known.
    """

    request_id: str
    snapshot: Snapshot
    endpoint: Endpoint
    dialect: Dialect
    headers: dict[bytes, bytes]
    twice: frozenset[bytes]
    started: float
    timestamp: float = 0.0
    reply_to: bytes = b"null"
    method: str = ""
    identified: bool = False
    principal: Principal = ANONYMOUS
    view: View | None = None
    call: Call | None = None
    grant: Grant | None = None
    arm: Arm | None = None
    instance: Address | None = None
    tool: str | None = None
    attempts: int = 0
    waited: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    held: int = 0
    outcome: str = "cancelled"
    status: int = 499
    error_code: int | None = None
    refused_by: str | None = None
    client: Sequence[Any] | None = None
    admission: AwaitedAdmission | None = None
    verdict: LimitVerdict | None = None
    task: asyncio.Task[Any] | None = None
    left: bool = False
    withdrawn: bool = False
    expired: bool = False
    over: bool = False
    body_due: float = 0.0
    too_slow: bool = False
    cors: Sequence[tuple[bytes, bytes]] = ()
    when_old: Callable[[], None] | None = None

    @property
    def bare(self) -> bool:
        """Whether the request names no protocol revision in its headers."""
        return VERSION not in self.headers

    def close(self) -> None:
        """It is over. It lets its own task and watcher go: as cycles they cost 20 us per call in the collector."""
        self.over = True
        self.when_old = None
        self.task = None

    def leave(self) -> None:
        """The agent is gone and that ends its call: what awaits on its behalf is interrupted."""
        if not self.left and self.task is not None:
            self.left = True
            self.task.cancel()

    def withdraw(self) -> None:
        """The agent is there but has cancelled its call: interrupted likewise, and not answered."""
        self.withdrawn = True
        self.leave()

    def expire(self) -> None:
        """The worker that carries it ends now: interrupted, and answered."""
        if self.task is not None and not self.left:
            self.expired = True
            self.task.cancel()

    def grow_old(self, now: float) -> None:
        """It takes longer than most do, and has taken until `now` (CLOCK_MONOTONIC seconds)."""
        if 0.0 < self.body_due < now and self.task is not None:
            self.body_due = 0.0
            self.too_slow = True
            self.task.cancel()
        if self.when_old is not None:
            when_old, self.when_old = self.when_old, None
            when_old()
