"""Admission: the gates that a call passes, in order, before it goes to its server; the last is the `Limiter`."""

from __future__ import annotations

from collections.abc import Awaitable, Sized

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext

MOST_IN_FLIGHT = 10_000
"""Calls one worker carries at a time; above it an answer in no time beats a place in a queue without end."""


class AdmissionGate:
    """One of `Gateway.gates`."""

    def admit(self, context: RequestContext) -> Awaitable[None] | None:
        """Let the call pass, at once or when what is given back is over. Raises a Fault: it may not, now."""
        raise NotImplementedError

    def settle(self, context: RequestContext) -> None:
        """The call is over, however it ended: give back what was taken, if it came as far as this gate at all."""


class AvailabilityGate(AdmissionGate):
    """Bounds the calls that one worker carries, and keeps calls from servers that are under maintenance.

    Args:
        running: the calls.
    """

    def __init__(self, running: Sized) -> None:
        self._running = running
        self.most = MOST_IN_FLIGHT

    def admit(self, context: RequestContext) -> None:
        if len(self._running) > self.most:
            raise Fault(Kind.FULL, retry_after=1)
        assert context.arm is not None
        maintenance = context.snapshot.backends[context.arm.targets[0].server].maintenance
        if maintenance is not None:
            raise Fault(Kind.NO_SERVER, maintenance, data={"reason": "maintenance"}, retry_after=60)
