"""What each of these programs prints: the tools it listed and the result of its call, or what it told its user instead.

Runs in the client's own environment, so it imports nothing beyond the standard library.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

TOOL, ARGUMENTS = "db-query", {"sql": "select name from customers where id = 5"}


def tell(ask: Callable[[str, str], Awaitable[dict[str, Any]]]) -> None:
    """Run `ask(url, key)`, the last two words of the command line; print {"tools", "result"} or {"error", "within"}."""
    try:
        told = asyncio.run(ask(*sys.argv[-2:]))
    except Exception as wrong:
        told = {"error": words(wrong), "within": [words(one) for one in members(wrong)]}
    print(json.dumps(told, default=str))


def words(wrong: BaseException) -> str:
    """The last line of a traceback."""
    return f"{type(wrong).__name__}: {wrong}"


def members(wrong: BaseException) -> Iterator[BaseException]:
    """What an exception group holds, at any depth; nothing for another exception."""
    for one in getattr(wrong, "exceptions", ()):
        yield from members(one) if hasattr(one, "exceptions") else [one]
