"""Getting to know one instance of a server: which era it speaks, what it declares, how its lists are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from fastgw.backends.capabilities import NOTHING, Said
from fastgw.backends.changes import Listener
from fastgw.backends.directory import KEEPER, Directory, ModernOnly, own_identity
from fastgw.backends.fetch import SHEETS
from fastgw.backends.inquiry import Asker, Reach, is_alive
from fastgw.backends.pages import Pages, legacy_pages, modern_pages
from fastgw.backends.probe import DISCOVER_WITHIN, LEGACY_LIFETIME, MODERN, Found, probe
from fastgw.backends.seen import Seen
from fastgw.faults import Fault
from fastgw.mcp.names import MODERN_VERSION, Era
from fastgw.ports import UpstreamSession

_STRIKES = 2
"""Rounds that may fail in one session before the gateway tries another."""


class Acquaintance:
    """What instances say of themselves.

    Args:
        reach: how servers are reached.
        directory: has the gateway's own session at each legacy instance.
        on_era: called with an instance whose era was found.
    """

    def __init__(self, reach: Reach, directory: Directory, on_era: Callable[[Seen], None]) -> None:
        self._reach = reach
        self._directory = directory
        self._on_era = on_era

    def is_due(self, seen: Seen) -> bool:
        """Whether its era is to be found out, or looked at again."""
        found = seen.found
        if found is None or found.failure:
            return True
        return found.era is Era.LEGACY and self._reach.clock() - seen.probed_at > LEGACY_LIFETIME

    async def meet(self, seen: Seen) -> None:
        """Find its era out. A legacy verdict counts only when `initialize` confirms it: a proxy's passing 404 to an
        unknown method must not turn a modern server into a legacy one.

        Raises:
            Fault: it cannot be told.
        """
        asker = self._reach.asker(seen.key)
        found = await probe(asker, self._reach.ours, seen.server.watched.era)
        version = found.version
        if found.era is Era.MODERN:
            found = await self._with_sessions(seen, asker, found)
        else:
            try:
                version = (await self._opened(seen, asker)).version
            except ModernOnly:
                if seen.server.watched.era == Era.LEGACY.value:
                    raise
                found = replace(MODERN, failure=found.failure)
            except Fault as fault:
                if found.failure:
                    fault.detail = f"{fault.detail or fault.message}; server/discover before it: {found.failure}"
                raise
        said = found.said if found.era is Era.MODERN else self._directory.said(seen.key)
        if said is not NOTHING and said.declares is None:
            seen.note("does not say what it has (`capabilities`): every list is asked for")
        if found.failure:
            seen.note(f"fails at server/discover ({found.failure}), and answers initialize")
        seen.probed_at = seen.asked_at = self._reach.clock()
        self._note_found(seen, found, version or MODERN_VERSION)

    async def _opened(self, seen: Seen, asker: Asker) -> UpstreamSession:
        """The gateway's own session, opened anew where what was asked in it failed twice; also now and then where
        nothing else would tell what a server that was upgraded declares: its session has no id that could have died, or
        there is no list to ask for in it.
        """
        identity = own_identity(asker.backend)
        session = await self._directory.open(seen.key, identity)
        declared = self._directory.said(seen.key).declares
        silent = not session.id or not any(sheet.is_asked(declared) for sheet in SHEETS)
        if seen.strikes >= _STRIKES or (seen.found is not None and silent):
            seen.strikes = 0
            # One that agents have, too, is not taken from under them while it answers.
            if identity == KEEPER or not await is_alive(asker, session):
                session = await self._directory.open(seen.key, identity, session)
        return session

    async def _with_sessions(self, seen: Seen, asker: Asker, found: Found) -> Found:
        """Whether a modern server also has sessions: then agents that need one get theirs there."""
        if seen.server.watched.era == Era.MODERN.value:
            return found
        try:
            async with asyncio.timeout(DISCOVER_WITHIN):  # the opening goes on; its lists must not wait for it
                session = await self._opened(seen, asker)
                if not await is_alive(asker, session):
                    await self._directory.open(seen.key, own_identity(asker.backend), session)
        except TimeoutError:
            seen.sessions_due = True  # it may be slow to start: the next round looks again
            return found
        except Fault:
            return found
        return replace(found, has_sessions=True)

    async def ask_again(self, seen: Seen) -> None:
        """What a modern server declares may change while it runs. Other answers prove nothing: its lists will tell."""
        if seen.found is None or seen.found.era is not Era.MODERN:
            return
        asker = self._reach.asker(seen.key)
        seen.asked_at = self._reach.clock()
        try:
            found = await probe(asker, self._reach.ours, seen.server.watched.era)
        except Fault:
            return
        if found.era is not Era.MODERN or found.said.declares is None:
            return
        if seen.sessions_due or seen.asked_at - seen.probed_at > LEGACY_LIFETIME:
            seen.sessions_due, seen.probed_at = False, seen.asked_at
            found = await self._with_sessions(seen, asker, found)
        else:
            found = replace(found, has_sessions=seen.found.has_sessions)
        self._note_found(seen, found, found.version)

    def _note_found(self, seen: Seen, found: Found, version: str) -> None:
        old = seen.found
        seen.found, seen.version = found, version
        self._on_era(seen)
        if old is None or (old.era, old.announces) != (found.era, found.announces):
            self._listen(seen, found)

    def _listen(self, seen: Seen, found: Found) -> None:
        if seen.listen is not None:
            seen.listen.cancel()
        listener = Listener(self._reach, self._directory, seen.key, seen.wake.set)
        seen.listen = self._reach.spawn(listener.run(found), f"listen to {seen.label}")

    def pages(self, seen: Seen) -> Pages:
        """How its lists are asked for."""
        asker = self._reach.asker(seen.key)
        if seen.found is not None and seen.found.era is Era.MODERN:
            return modern_pages(asker, self._reach.ours)
        return legacy_pages(asker, self._directory, seen.key)

    def said(self, seen: Seen) -> Said:
        """What an instance says of itself."""
        if seen.found is None:
            return NOTHING
        return seen.found.said if seen.found.era is Era.MODERN else self._directory.said(seen.key)
