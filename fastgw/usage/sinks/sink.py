"""What every sink is to the feed that delivers to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit


class SinkDown(Exception):
    """Nothing or not all was taken; the same lines are to be delivered again later. Its words are fit for a log."""


class Sink(Protocol):
    """A place that gets every event at least once. Used by one thread."""

    lost: int
    """Events that this place will never take."""

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Hand over events, each a JSON object without a line break; blocks for some seconds at most.

        Raises:
            SinkDown: some were not taken. Exactly the same lines are delivered next.
        """

    def close(self) -> None:
        """Close what is open; nothing is delivered by it."""


def is_local(url: str) -> bool:
    """Whether a delivery costs about nothing, so that there is no need to gather."""
    return url == "stdout" or url.startswith("file:")


def label_of(url: str) -> str:
    """What metrics and logs call a sink: scheme and host, for a path may hold a secret; a file by its path."""
    if is_local(url):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
