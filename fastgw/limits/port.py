"""What limits need of a store, and how it says no: the port that `connection.RedisConnection` fills."""

from __future__ import annotations

from typing import Protocol


class StoreAway(Exception):
    """The store did not do what it was asked; `kind` says why, in one word for metrics."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


class StoreConnection(Protocol):
    """What limits need of a store."""

    async def decide(self, keys: list[str], argument: bytes) -> object:
        """Run the script once.

        Raises:
            StoreAway: it was not run, or nobody knows.
        """
        ...

    async def reopen(self) -> None:
        """Begin anew: what was learned of servers and connections may be wrong."""
        ...

    async def close(self) -> None:
        """End all connections."""
        ...
