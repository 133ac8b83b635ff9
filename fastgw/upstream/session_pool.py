"""The upstream sessions of one server, and which one gives way when there is no place for another.

    the agent that asks has its even share  ->  its own that was unused longest
    it has less                             ->  the one unused longest of the agent that holds most

So an agent that opens one session after another ends its own, never those of agents who hold fewer.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from fastgw.ports import UpstreamSession

Key = tuple[str, str]
"""(instance key, identity). An identity is `agent:NAME`, `session:NAME:ID` (an agent's own session; an id has no
colon, a name may have), or `ANYONE`."""

ANYONE = "*"
"""Whose session it is where a server's sessions are shared."""


@dataclass(slots=True)
class HeldSession:
    """One session; `used` in monotonic seconds."""

    session: UpstreamSession
    used: float


@dataclass(slots=True)
class SessionPool:
    """Sessions of one server, the one unused longest first, and how many more are being opened."""

    held: OrderedDict[Key, HeldSession] = field(default_factory=OrderedDict)
    opening: int = 0

    def is_full(self, places: int) -> bool:
        """Whether there is no place for one more."""
        return len(self.held) + self.opening >= places

    def gives_way(self, identity: str, places: int) -> Key | None:
        """The session that makes room for one of this identity; None where none is held that may."""
        asking = agent_of(identity)
        holds = Counter(agent_of(key[1]) for key in self.held)
        most = max(holds.values(), default=0)
        is_served = holds[asking] * len({*holds, asking}) >= places
        giving = {asking} if is_served else {agent for agent, number in holds.items() if number == most}
        return next((key for key in self.held if agent_of(key[1]) in giving), None)


def agent_of(identity: str) -> str:
    """The agent that an identity belongs to; empty for anyone's."""
    kind, _, rest = identity.partition(":")
    return rest.rpartition(":")[0] if kind == "session" else rest


def is_of(identity: str, session: str) -> bool:
    """Whether an identity is this session of an agent."""
    return identity.startswith("session:") and identity.rpartition(":")[2] == session
