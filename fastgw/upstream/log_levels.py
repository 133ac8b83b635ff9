"""The log level of a session at a server: set once, before the first call that wants messages of it.

never set, or another level, or a new session      set before the next call goes
being set                                          calls of that session wait for it, for a while
refused, or not answered                           counts as set: the server was asked, and calls go on
"""

from __future__ import annotations

import asyncio

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault
from fastgw.upstream import legacy
from fastgw.upstream.call_context import Attempt, Spawn
from fastgw.upstream.ids import new_id
from fastgw.upstream.instances import Instance
from fastgw.upstream.rpc import RpcClient

PATIENCE = Deadlines(connect=2.0, first_byte=2.0, idle=2.0, total=2.0)
"""What setting a level may take of the time of the call that waits for it; of a short one it is half at most."""

LOWEST = "debug"
"""For sessions that calls of several levels share: each of them then gets what it wants of all messages."""

_OWN = "session:"


async def settle(attempt: Attempt, instance: Instance, spawn: Spawn) -> None:
    """Come back when the session of an attempt has the level that its call wants, or the time for it is over.

    The session gets exactly that level if no other agent's calls go there. `Call.log_level_set` counts the agent's
    changes of it: another worker may have set another in between.
    """
    call, identity = attempt.call, attempt.identity
    level, turn = LOWEST, 0
    if identity.startswith(_OWN) and call.log_level is not None:
        level, turn = call.log_level, call.log_level_set
    wanted = attempt.session.id, level, turn
    task = instance.setting.get(identity)
    if instance.levels.get(identity) != wanted:
        instance.levels[identity] = wanted
        client = RpcClient(instance.http, attempt.backend, spawn, PATIENCE)
        work = _set(level, attempt, instance, client, task)
        task = instance.setting[identity] = spawn(work, "set a session's log level")
    if task is not None:
        # A call that is withdrawn meanwhile leaves the question to those that wait beside it.
        await asyncio.wait((task,), timeout=min(PATIENCE.total, attempt.left().total / 2))


async def _set(
    level: str, attempt: Attempt, instance: Instance, client: RpcClient, before: asyncio.Task[None] | None
) -> None:
    session, credential = attempt.session, attempt.credential
    try:
        if before is not None:  # two levels at once: the newer one must arrive last
            await asyncio.wait((before,), timeout=PATIENCE.total)
        upstream_id = new_id()
        body = legacy.set_level(level, upstream_id)
        await client.ask(legacy.headers(credential, session), body, upstream_id, session)
    except Fault:
        pass  # the call that waits finds out for itself whether the server is there
    finally:
        if instance.setting.get(attempt.identity) is asyncio.current_task():
            del instance.setting[attempt.identity]
