"""One way into an endpoint: what a request there must bring, and what it becomes."""

from __future__ import annotations

from typing import Protocol

from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.agent_sessions import AgentSessions
from fastgw.gateway.dialects.dialect import Dialect, ParsedRequest, RefusedMessage


class EntryPoint(Protocol):
    """`verb` is the usual HTTP method; the face is how its agents are spoken to until more is known."""

    verb: str

    @property
    def dialect(self) -> Dialect: ...

    def verbs(self, context: RequestContext) -> tuple[str, ...]:
        """Every HTTP method it takes."""
        ...

    def brings_body(self, context: RequestContext) -> bool:
        """Whether there is a body to be read.

        Raises:
            Fault: BAD_MEDIA_TYPE, NOT_ACCEPTABLE.
        """
        ...

    def parse(
        self, context: RequestContext, body: bytes, agent_sessions: AgentSessions
    ) -> ParsedRequest | list[ParsedRequest | RefusedMessage]:
        """What the request asks for: one message, or a batch of them.

        Raises:
            Fault: the request as a whole is refused; `context.reply_to` is the id to answer.
        """
        ...
