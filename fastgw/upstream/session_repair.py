"""The session that a call goes in, and another where its server has lost that one.

| one identity's session at one instance, as this worker knows it | event | then |
|---|---|---|
| none | a call | the one that the controller has, or opens |
| known | the call is answered | stays; no suspicion is left |
| known | the answer is suspect | suspect, on every worker: the agent hears the answer, for the call may have run |
| suspect | the next call | `ping`: stays if it answers; replaced if not, and if it is suspect twice in a row |
| known | dead; or refused, unless it was there a moment ago | replaced, and the call asked again |
| opened for this call | dead or refused | this was about the call: back to the one before, or stays |
| replaced | no other can be had | the old one stays; what the server said of this call is handed on |

Replaced: by one that a call beside this one brought, that another worker has, or a new one. An identity's session is
opened once however many calls ask.
"""

from __future__ import annotations

from fastgw.errors import Fault
from fastgw.upstream.call_context import Attempt, Spawn
from fastgw.upstream.classify import ReplyKind
from fastgw.upstream.controller import Controller, UpstreamSession
from fastgw.upstream.instances import Instance
from fastgw.upstream.rpc import RpcClient, is_alive

JUST_OPENED = 1.0
"""Seconds in which a session that was there a moment ago is not doubted, unless its server says that it is gone."""


class SessionRepair:
    """What one worker does about sessions.

    Args:
        controller: has the sessions of all workers.
        spawn: `BackgroundTasks.spawn`.
    """

    def __init__(self, controller: Controller, spawn: Spawn) -> None:
        self._controller = controller
        self._spawn = spawn

    async def provide(self, attempt: Attempt, instance: Instance) -> None:
        """Have a session that is not suspect.

        Raises:
            Fault: what `Controller.open_session` raises.
        """
        known = instance.sessions.get(attempt.identity)
        attempt.session = session = known or await self._open(attempt, instance, None)
        suspect, times = instance.suspects.get(attempt.identity, ("", 0)) if instance.suspects else ("", 0)
        if not times or suspect != session.id:
            return
        client = RpcClient(instance.http, attempt.backend, self._spawn).within(attempt.left().total / 2)
        if times == 1 and await is_alive(client, session):
            return
        try:
            await self._renew(attempt, instance)
        except Fault:
            if times == 1 or not await is_alive(client, session):
                raise
            instance.sessions.setdefault(attempt.identity, session)  # the only one there is, and it answers

    async def replaced(self, attempt: Attempt, instance: Instance, means: ReplyKind) -> bool:
        """Whether the call, whose session is dead or refused, is to be asked again in another.

        Raises:
            Fault: no other can be had.
        """
        session = attempt.session
        if session.opened >= attempt.begun:
            if attempt.lost is not None:
                await self._go_back(attempt, instance, attempt.lost)
            return False
        is_young = session.opened >= attempt.begun - JUST_OPENED
        if attempt.lost is None and is_young and means is not ReplyKind.SESSION_DEAD:
            return False
        attempt.lost = session
        try:
            await self._renew(attempt, instance)
        except Fault:
            instance.sessions.setdefault(attempt.identity, session)  # it may be good for other calls
            raise
        return attempt.session != session and (not attempt.session.id or attempt.session.id != session.id)

    async def suspect(self, attempt: Attempt) -> None:
        """Have every worker suspect it, before the agent hears the answer: its next call may come to another one."""
        await self._controller.suspect_session((attempt.address.key, attempt.identity), attempt.session.id)

    async def _go_back(self, attempt: Attempt, instance: Instance, old: UpstreamSession) -> None:
        """The agent keeps what a server has in the old session; where that cannot be, the new one stays."""
        key, identity = attempt.address.key, attempt.identity
        try:
            kept = await attempt.in_time(self._controller.keep_session(key, identity, old, attempt.session))
        except Fault:
            return
        instance.sessions[identity] = kept

    async def _renew(self, attempt: Attempt, instance: Instance) -> None:
        """Have another session in place of a lost one; a call beside this one may have brought it already."""
        known = instance.sessions.get(attempt.identity)
        if known is None or known == attempt.session:
            known = await self._open(attempt, instance, attempt.session)
            if known.id and known.id == attempt.session.id and known.opened < attempt.begun - JUST_OPENED:
                known = await self._open(attempt, instance, known)  # it was found alive, but that is a while ago
            instance.suspects.pop(attempt.identity, None)
        attempt.session = known

    async def _open(self, attempt: Attempt, instance: Instance, dead: UpstreamSession | None) -> UpstreamSession:
        key, identity = attempt.address.key, attempt.identity
        instance.drop(identity)
        try:
            session = await attempt.in_time(self._controller.open_session(key, identity, dead))
        except Fault:
            instance.heard = None  # if it no longer speaks as we heard, the snapshot's word counts again
            raise
        instance.keep(identity, session)
        return session
