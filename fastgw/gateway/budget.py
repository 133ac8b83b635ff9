"""How much memory the bodies of one worker's requests may hold together."""

from __future__ import annotations

from dataclasses import dataclass

FREE = 64 * 1024
"""Bytes of a body that count for nothing: nearly every call is smaller."""


@dataclass(slots=True)
class Budget:
    """Bytes left of `left`; whoever takes gives back once, in `settle`."""

    left: int = 256 * 1024 * 1024

    def take(self, count: int) -> bool:
        """Whether there was room for `count` bytes; they are taken then."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        """Return what was taken."""
        self.left += count
