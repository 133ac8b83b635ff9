"""The connections of one worker, by instance: opened by a snapshot, closed when no call can be on them any more."""

from __future__ import annotations

import asyncio
import logging

from fastgw.config.instance_urls import place
from fastgw.errors import Fault, Kind
from fastgw.ports import Transport
from fastgw.snapshot.model import Snapshot
from fastgw.upstream.tasks import BackgroundTasks
from fastgw.upstream.transports.settings import TransportSettings, open_transport, settings_of

log = logging.getLogger("fastgw")

_GRACE = 5.0
"""Seconds beyond a call's own deadline before its connection may go."""


class ConnectionPools:
    """Pools by what they connect to; a reload keeps those that stay the same."""

    def __init__(self, tasks: BackgroundTasks) -> None:
        self._tasks = tasks
        self._pools: dict[TransportSettings, Transport] = {}
        self._now: dict[str, Transport] = {}
        self._leaving: dict[str, Transport] = {}

    def connect(self, snapshot: Snapshot) -> set[str]:
        """Have a pool for every instance of the snapshot; the instance keys it has."""
        found: dict[str, Transport] = {}
        for backend in snapshot.backends.values():
            for instance in backend.instances:
                key = settings_of(backend, instance, snapshot.max_reply)
                wire = self._pools.get(key) or _opened(key)
                if wire is not None:
                    found[instance.key] = self._pools[key] = wire
        gone = {name: wire for name, wire in self._now.items() if found.get(name) is not wire}
        self._leaving = {name: wire for name, wire in {**self._leaving, **gone}.items() if name not in found}
        self._now = found
        return set(found)

    def retire(self, longest: float) -> None:
        """Close what no snapshot uses, once the calls that took an earlier one (`longest` seconds) must be over."""
        used = set(map(id, self._now.values()))
        for key in [key for key, wire in self._pools.items() if id(wire) not in used]:
            wire = self._pools.pop(key)
            asyncio.get_running_loop().call_later(longest + _GRACE, self._let_go, wire)

    def find(self, instance: str) -> Transport:
        """The pool of an instance.

        Raises:
            Fault: NO_SERVER for an instance that a reload took away, or whose TLS files cannot be used.
        """
        wire = self._now.get(instance) or self._leaving.get(instance)
        if wire is None:
            raise Fault(Kind.NO_SERVER, data={"reason": "down"}, retry_after=1, repeatable=True)
        return wire

    async def close(self) -> None:
        """Close every connection."""
        for wire in self._pools.values():
            await wire.close()

    def _let_go(self, wire: Transport) -> None:
        self._leaving = {name: one for name, one in self._leaving.items() if one is not wire}
        self._tasks.spawn(wire.close(), "close a wire")


def _opened(key: TransportSettings) -> Transport | None:
    """A pool; None where its TLS files cannot be used: one bad server must not keep a snapshot from the others."""
    try:
        return open_transport(key)
    except ValueError as wrong:
        log.error("%s: %s", place(key.url), wrong)
        return None
