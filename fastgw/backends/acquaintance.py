"""Getting to know one instance of a server: which era it speaks, what it declares, how its lists are asked for.

Knows: when what an instance said of itself counts, and when it is asked again. Refuses to know: what it lists, and when
anybody looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastgw.backends.changes import Listener
from fastgw.backends.directory import KEEPER, Directory
from fastgw.backends.fetch import SHEETS
from fastgw.backends.inquiry import Reach
from fastgw.backends.pages import Pages, legacy_pages, modern_pages
from fastgw.backends.probe import Found, probe
from fastgw.backends.seen import Seen
from fastgw.faults import Fault
from fastgw.mcp.names import MODERN_VERSION, Era
from fastgw.ports import UpstreamSession

ANSWER_WITHIN = 10.0
"""Seconds for what a modern server declares."""


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

    async def meet(self, seen: Seen) -> None:
        """Find its era out. A legacy verdict counts only when `initialize` confirms it: a proxy's passing 404 to an
        unknown method must not turn a modern server into a legacy one.

        Raises:
            Fault: it cannot be told.
        """
        asker = self._reach.asker(seen.key)
        found = await probe(asker, self._reach.ours, seen.server.watched.era)
        version = found.version
        if found.era is Era.LEGACY:
            version = (await self._opened(seen)).version
        seen.probed_at = seen.asked_at = self._reach.clock()
        self._note_found(seen, found, version or MODERN_VERSION)

    async def _opened(self, seen: Seen) -> UpstreamSession:
        """The gateway's own session, opened anew now and then where nothing else would tell what a server that was
        upgraded declares: its session has no id that could have died, or there is no list to ask for in it.
        """
        session = await self._directory.open(seen.key, KEEPER)
        declared = self._directory.declared(seen.key)
        if seen.found is not None and (not session.id or not any(sheet.is_asked(declared) for sheet in SHEETS)):
            session = await self._directory.open(seen.key, KEEPER, session.id)
        return session

    async def ask_again(self, seen: Seen) -> None:
        """What a modern server declares may change while it runs. Other answers prove nothing: its lists will tell."""
        if seen.found is None or seen.found.era is not Era.MODERN:
            return
        seen.asked_at = self._reach.clock()
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                found = await probe(self._reach.asker(seen.key), self._reach.ours, seen.server.watched.era)
        except (Fault, TimeoutError):
            return
        if found.era is Era.MODERN and found.capabilities is not None:
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

    def declared(self, seen: Seen) -> frozenset[str] | None:
        """Names of the capabilities an instance declares; None where it does not say."""
        if seen.found is None or seen.found.era is Era.MODERN:
            return seen.found.capabilities if seen.found is not None else None
        return self._directory.declared(seen.key)
