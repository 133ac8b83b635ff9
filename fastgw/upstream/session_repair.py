"""The session that a call goes in, another where its server has lost that one, and the log level set in it.

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

The log level is set once, before the first call that wants messages of it:

    never set, or another level, or a new session      set before the next call goes
    being set                                          calls of that session wait for it, for a while
    refused, or not answered                           counts as set: the server was asked, and calls go on
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault
from fastgw.upstream import legacy
from fastgw.upstream.call_context import Attempt, Spawn
from fastgw.upstream.classify import ReplyKind, new_id
from fastgw.upstream.controller import ControllerPort, UpstreamSession
from fastgw.upstream.instances import Instance
from fastgw.upstream.rpc import RpcClient, is_alive

JUST_OPENED = 1.0
"""Seconds in which a session that was there a moment ago is not doubted, unless its server says that it is gone."""

PATIENCE = Deadlines(connect=2.0, first_byte=2.0, idle=2.0, total=2.0)
"""What setting a level may take of the time of the call that waits for it; of a short one it is half at most."""

LOWEST = "debug"
"""For sessions that calls of several levels share: each of them then gets what it wants of all messages."""


class SessionRepair:
    """What one worker does about sessions."""

    def __init__(self, controller: ControllerPort, spawn: Spawn) -> None:
        self._controller = controller
        self._spawn = spawn

    async def provide(self, attempt: Attempt, instance: Instance) -> None:
        """Have a session that is not suspect. Raises Fault: what `ControllerPort.open_session` raises."""
        known = instance.sessions.get(attempt.identity)
        attempt.session = session = known or await self._open(attempt, instance, None)
        suspect, times = instance.suspects.get(attempt.identity, ("", 0)) if instance.suspects else ("", 0)
        if not times or suspect != session.id:
            return
        client = _client(attempt, instance, self._spawn).within(attempt.remaining_deadlines().total / 2)
        if times == 1 and await is_alive(client, session):
            return
        try:
            await self._renew(attempt, instance)
        except Fault:
            if times == 1 or not await is_alive(client, session):
                raise
            instance.sessions.setdefault(attempt.identity, session)  # the only one there is, and it answers

    async def replace_session(self, attempt: Attempt, instance: Instance, kind: ReplyKind) -> bool:
        """Whether the call, whose session is dead or refused, is to be asked again in another. Raises Fault: no other
        can be had.
        """
        session = attempt.session
        if session.opened >= attempt.begun:
            if attempt.lost is not None:
                # The agent keeps what a server has in the old session; where that cannot be, the new one stays.
                key, identity = attempt.address.key, attempt.identity
                with suppress(Fault):
                    kept = await attempt.in_time(self._controller.keep_session(key, identity, attempt.lost, session))
                    instance.sessions[identity] = kept
            return False
        is_young = session.opened >= attempt.begun - JUST_OPENED
        if attempt.lost is None and is_young and kind is not ReplyKind.SESSION_DEAD:
            return False
        attempt.lost = session
        try:
            await self._renew(attempt, instance)
        except Fault:
            instance.sessions.setdefault(attempt.identity, session)  # it may be good for other calls
            raise
        return attempt.session != session and (not attempt.session.id or attempt.session.id != session.id)

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
        identity = attempt.identity
        instance.drop(identity)
        try:
            try:
                session = await self._asked(attempt, dead)
            except Fault as fault:
                is_ours = attempt.opens_with is not None and fault.data.get("reason") == "credential"
                if not is_ours or attempt.renew is None or not await attempt.renew(attempt):
                    raise
                session = await self._asked(attempt, dead)  # by another token
        except Fault:
            instance.found_era = None  # if it no longer speaks so, what the snapshot says counts again
            raise
        instance.keep(identity, session)
        return session

    async def _asked(self, attempt: Attempt, dead: UpstreamSession | None) -> UpstreamSession:
        asked = self._controller.open_session(attempt.address.key, attempt.identity, dead, attempt.opens_with)
        return await attempt.in_time(asked)


def _client(attempt: Attempt, instance: Instance, spawn: Spawn) -> RpcClient:
    """For a question on behalf of a call, which shows what the call shows."""
    return RpcClient(instance.http, replace(attempt.backend, headers=attempt.credential), spawn)


async def settle_level(attempt: Attempt, instance: Instance, spawn: Spawn) -> None:
    """Come back when the session of an attempt has the level that its call wants, or the time for it is over.

    The session gets exactly that level if no other agent's calls go there. `Call.log_level_set` counts the agent's
    changes of it: another worker may have set another in between.
    """
    call, identity = attempt.call, attempt.identity
    level, turn = LOWEST, 0
    if identity.startswith("session:") and call.log_level is not None:
        level, turn = call.log_level, call.log_level_set
    wanted = attempt.session.id, level, turn
    known, task = instance.levels.get(identity, (None, None))
    if known != wanted:
        client = replace(_client(attempt, instance, spawn), deadlines=PATIENCE)
        task = spawn(_set_level(level, attempt, client, task), "set a session's log level")
        instance.levels[identity] = wanted, task
    if task is not None and not task.done():
        # A call that is withdrawn meanwhile leaves the question to those that wait beside it.
        await asyncio.wait((task,), timeout=min(PATIENCE.total, attempt.remaining_deadlines().total / 2))


async def _set_level(level: str, attempt: Attempt, client: RpcClient, before: asyncio.Task[None] | None) -> None:
    session, credential, upstream_id = attempt.session, attempt.credential, new_id()
    if before is not None:  # two levels at once: the newer one must arrive last
        await asyncio.wait((before,), timeout=PATIENCE.total)
    with suppress(Fault):  # the call that waits finds out for itself whether the server is there
        body = legacy.set_level(level, upstream_id)
        await client.ask(legacy.headers(credential, session), body, upstream_id, session)
