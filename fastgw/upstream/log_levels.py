"""Which log level each session at a server has been told, and telling it once where that is not what is wanted.

not told, or told another level, or a new session -> told before the next call goes
being told                                        -> calls of that session wait for it, for a while
refused, or not answered                          -> counts as told: the server was asked, and calls go on
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastgw.errors import Fault
from fastgw.ports import Deadlines, UpstreamSession
from fastgw.protocol.call import Call
from fastgw.upstream import legacy
from fastgw.upstream.call_context import Spawn
from fastgw.upstream.ids import new_id
from fastgw.upstream.rpc import RpcClient

PATIENCE = Deadlines(connect=2.0, first_byte=2.0, idle=2.0, total=2.0)
"""What setting a level may take of the time of the call that waits for it; of a short one it is half at most."""

LOWEST = "debug"
"""For sessions that calls of several levels share: each of them then gets what it wants of all messages."""

_OWN = "session:"

Key = tuple[str, str]
"""Whose session at which instance: (instance key, identity)."""


@dataclass(frozen=True, slots=True)
class WantedLevel:
    """What a session is to be told.

    Args:
        session: its id.
        level: the lowest level of messages it is to send.
        turn: counts the agent's changes of its mind: another worker may have told it another level in between.
    """

    session: str
    level: str
    turn: int


def wanted(call: Call, identity: str, session: UpstreamSession) -> WantedLevel:
    """What this call wants its session to be told: exactly its level if no other agent's calls go there."""
    if identity.startswith(_OWN) and call.log_level is not None:
        return WantedLevel(session.id, call.log_level, call.log_level_set)
    return WantedLevel(session.id, LOWEST, 0)


class SessionLogLevels:
    """What one worker has told sessions.

    Args:
        spawn: `BackgroundTasks.spawn`.
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._told: dict[Key, WantedLevel] = {}
        self._telling: dict[Key, asyncio.Task[None]] = {}

    async def tell(
        self, key: Key, wanted: WantedLevel, session: UpstreamSession, client: RpcClient, left: float
    ) -> None:
        """Come back when the session has been told, or the time for it is over.

        Args:
            key: whose session, for `forget`.
            wanted: what it is to be told.
            session: the session.
            asker: puts questions to its server; with `PATIENCE`.
            left: seconds that the call has left.
        """
        task = self._telling.get(key)
        if self._told.get(key) != wanted:
            self._told[key] = wanted
            work = self._tell(key, wanted, session, client, task)
            task = self._telling[key] = self._spawn(work, "tell a session its log level")
        if task is not None:
            # A call that is withdrawn meanwhile leaves the question to those that wait beside it.
            await asyncio.wait((task,), timeout=min(PATIENCE.total, left / 2))

    def forget(self, key: Key) -> None:
        """This session is no more."""
        self._told.pop(key, None)

    async def _tell(
        self,
        key: Key,
        wanted: WantedLevel,
        session: UpstreamSession,
        client: RpcClient,
        before: asyncio.Task[None] | None,
    ) -> None:
        try:
            if before is not None:  # two levels at once: the newer one must arrive last
                await asyncio.wait((before,), timeout=PATIENCE.total)
            upstream_id = new_id()
            body = legacy.set_level(wanted.level, upstream_id)
            await client.ask(legacy.headers(client.backend, session), body, upstream_id, session)
        except Fault:
            pass  # the call that waits finds out for itself whether the server is there
        finally:
            if self._telling.get(key) is asyncio.current_task():
                del self._telling[key]
