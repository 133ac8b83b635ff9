"""`/live` on the admin port: what the status page shows, by server-sent events (HTML standard, section 9.2).

One producer for all viewers, at work only while somebody looks. A viewer is first told everything (`state`), then what
is another than before (`change`): sections, each of them keys with their values, null for a key that has gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from fastgw.admin.orders import STILL_ALLOWED, answer

log = logging.getLogger("fastgw")

MOST_VIEWERS = 32
"""Pages that may be open."""
MOST_UNSENT = 64
"""Events that wait for a viewer; one that does not read is let go, and begins anew when it comes again."""
SHARE = 20
"""What takes long is made more seldom: at most one part in so many of the time is spent on making it."""
AGAIN = 2000
"""Milliseconds after which a page that has lost its connection comes again."""

Section = Mapping[str, Any]
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[Any]]


@dataclass(slots=True)
class LiveSource:
    """A part of what is shown.

    Args:
        make: makes its sections, by name; a value is fit for JSON and not None.
        every: seconds.
        due: when it is made next, in the loop's time: not earlier though all viewers leave and come again meanwhile.
        kept: the names of the sections it has made.
    """

    name: str
    every: float
    make: Callable[[], Awaitable[Mapping[str, Section]]]
    due: float = 0.0
    kept: tuple[str, ...] = ()
    failed: bool = False


@dataclass(slots=True, eq=False)
class Viewer:
    """One open page: what it has not been sent yet, and how it is cut off."""

    cut_off: Callable[[], object]
    unsent: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(MOST_UNSENT))


class LiveFeed:
    """The producer and its viewers."""

    def __init__(self, sources: Sequence[LiveSource], spawn: Spawn) -> None:
        self._sources = sources
        self._spawn = spawn
        self._sections: dict[str, Section] = {}
        self._viewers: set[Viewer] = set()
        self._working: list[asyncio.Task[Any]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Send events until the viewer leaves, is too slow, or may not look any more; 503 where too many look."""
        if len(self._viewers) >= MOST_VIEWERS:
            return answer({"error": f"{MOST_VIEWERS} status pages are open: close some"}, 503)
        headers = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        transport = request.transport
        viewer = Viewer(transport.abort if transport is not None else _nothing)
        still_allowed: Callable[[], bool] = request.get(STILL_ALLOWED, _always)
        self._join(viewer)
        try:
            viewer.unsent.put_nowait(b"retry: %d\n" % AGAIN + _event("state", self._sections))
            while (event := await viewer.unsent.get()) and still_allowed():
                await response.write(event)
        except ConnectionError:
            pass  # it has left
        finally:
            self._leave(viewer)
        return response

    def _join(self, viewer: Viewer) -> None:
        self._viewers.add(viewer)
        if self._working:
            return
        now = asyncio.get_running_loop().time()
        for source in self._sources:
            if source.due <= now:  # what was true when the last viewer left
                for name in source.kept:
                    self._sections.pop(name, None)
        self._working = [self._spawn(self._produce(source), f"live {source.name}") for source in self._sources]

    def _leave(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers:
            for task in self._working:
                task.cancel()
            self._working = []

    async def _produce(self, source: LiveSource) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(source.due - clock())
            begun = clock()
            try:
                made = await source.make()
            except Exception:  # one part that cannot be made must not take the others with it
                if not source.failed:
                    log.exception("the status page's %s cannot be made", source.name)
                source.failed, made = True, {}
            else:
                source.failed = False
                source.kept = tuple(made)
            source.due = begun + max(source.every, SHARE * (clock() - begun))
            self._publish(made)

    def _publish(self, made: Mapping[str, Section]) -> None:
        changed = {}
        for name, section in made.items():
            difference = changes_of(self._sections.get(name, {}), section)
            if difference or name not in self._sections:
                changed[name] = difference
            self._sections[name] = section
        if not changed:
            return
        event = _event("change", changed)
        for viewer in list(self._viewers):
            try:
                viewer.unsent.put_nowait(event)
            except asyncio.QueueFull:
                self._viewers.discard(viewer)
                viewer.cut_off()


def changes_of(before: Section, now: Section) -> dict[str, Any]:
    """What has to be put into `before` so that it is `now`; None for what has to go."""
    fresh = {key: value for key, value in now.items() if key not in before or before[key] != value}
    return fresh | dict.fromkeys(before.keys() - now.keys())


def _event(kind: str, data: Mapping[str, Any]) -> bytes:
    # ASCII: a name that is no Unicode, as JSON lets servers and issuers write one, must not cost all others.
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")


def _always() -> bool:
    return True


def _nothing() -> None:
    """There is no connection to cut."""
