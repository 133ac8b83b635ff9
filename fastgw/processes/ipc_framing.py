"""Frames between our own processes: four bytes of length (big endian), then a pickled tuple.

Pickle is fit for this alone: the socket lies in a folder of ours (0700) and the peer's user is checked.
"""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from fastgw.processes import garbage

MOST = 256 * 1024 * 1024
"""Bytes of one frame."""

LARGE = 256 * 1024
"""Bytes from which a frame holds a snapshot: much that lives long and has no cycles."""

Message = tuple[Any, ...]


class BadMessage(Exception):
    """The peer does not speak this protocol; the connection is of no use any more."""


def pack(message: Message) -> bytes:
    """The frame of `message`.

    Raises:
        BadFrame: it is larger than the bound.
    """
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    if len(body) > MOST:
        raise BadMessage(f"a frame of {len(body)} bytes")
    return len(body).to_bytes(4, "big") + body


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end of the stream, also one in the middle of a frame.

    Raises:
        BadFrame: over the bound, or not a pickled tuple.
    """
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MOST:
            raise BadMessage(f"a frame of {length} bytes")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        message = _unpickled(body)
    except Exception as wrong:
        raise BadMessage(repr(wrong)) from wrong
    if not isinstance(message, tuple) or not message:
        raise BadMessage("not a message")
    return message


def _unpickled(body: bytes) -> Any:
    if len(body) < LARGE:
        return pickle.loads(body)
    with garbage.undisturbed():
        return pickle.loads(body)
