"""One way into an endpoint: what a request there must bring, and what it becomes.

Knows: what the ways in have in common. Refuses to know: which there are.
"""

from __future__ import annotations

from typing import Protocol

from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift.door import Door
from fastgw.gateway.lift.face import Face, Recognised, Refused


class Entrance(Protocol):
    """`verb` is the usual HTTP method; the face is how its agents are spoken to until more is known."""

    verb: str

    @property
    def face(self) -> Face: ...

    def verbs(self, exchange: Exchange) -> tuple[str, ...]:
        """Every HTTP method it takes."""
        ...

    def brings_body(self, exchange: Exchange) -> bool:
        """Whether there is a body to be read.

        Raises:
            Fault: BAD_MEDIA_TYPE, NOT_ACCEPTABLE.
        """
        ...

    def lift(self, exchange: Exchange, body: bytes, door: Door) -> Recognised | list[Recognised | Refused]:
        """What the request asks for: one message, or a batch of them.

        Raises:
            Fault: the request as a whole is refused; `exchange.reply_to` is the id to answer.
        """
        ...
