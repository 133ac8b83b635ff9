"""An event loop in a thread of its own, where servers outlive the test that talks to them.

with aside() as loop:
    stage = loop.enter(scene(folder))      # an async context manager, left at the end
    loop.run(story(stage))                 # a coroutine, its answer or its exception
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """The loop, as the test's own thread sees it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self._thread.start()

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for it."""
        return asyncio.run_coroutine_threadsafe(story, self._loop).result()

    def enter(self, block: AbstractAsyncContextManager[T]) -> T:
        """Enter the block; it is left when the loop ends."""
        return self.run(self._stack.enter_async_context(block))

    def end(self) -> None:
        """Leave every block, then stop."""
        try:
            self.run(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@contextmanager
def aside() -> Iterator[Aside]:
    """A loop for as long as the block lasts."""
    loop = Aside()
    try:
        yield loop
    finally:
        loop.end()
