"""Admission: the gates that a call passes, in order, before it goes to its server; the last is the `Limiter`."""

from __future__ import annotations

from collections.abc import Sized

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext

MOST_IN_FLIGHT = 10_000
"""Calls one worker carries at a time; above it an answer in no time beats a place in a queue without end."""


class AdmissionGate:
    """One of `Gateway.gates`."""

    async def admit(self, context: RequestContext) -> None:
        """Let the call pass. Raises a Fault: it may not, now."""
        raise NotImplementedError

    def settle(self, context: RequestContext) -> None:
        """The call is over, however it ended: give back what was taken, if it came as far as this gate at all."""


class CapacityGate(AdmissionGate):
    """Bounds the calls that one worker carries.

    Args:
        running: them.
    """

    def __init__(self, running: Sized) -> None:
        self._running = running
        self.most = MOST_IN_FLIGHT

    async def admit(self, context: RequestContext) -> None:
        if len(self._running) > self.most:
            raise Fault(Kind.FULL, retry_after=1)


class MaintenanceGate(AdmissionGate):
    """Keeps calls from servers that the configuration says are under maintenance."""

    async def admit(self, context: RequestContext) -> None:
        assert context.arm is not None
        backend = context.snapshot.backends[context.arm.target.server]
        if backend.maintenance is not None:
            raise Fault(Kind.NO_SERVER, backend.maintenance, data={"reason": "maintenance"}, retry_after=60)
