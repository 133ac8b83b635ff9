"""The life of one process that serves: warming, active, draining; never back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

State = Literal["warming", "active", "draining"]


class Lifecycle:
    """How far a worker is."""

    def __init__(self) -> None:
        self.state: State = "warming"
        self._leaving: list[Callable[[], None]] = []

    @property
    def draining(self) -> bool:
        """Whether answers should end their connection and streams should end."""
        return self.state == "draining"

    def on_drain(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once when the drain begins (at once if it has); what is returned takes it back."""
        if self.draining:
            callback()
            return lambda: None
        self._leaving.append(callback)
        return lambda: self._leaving.remove(callback) if callback in self._leaving else None

    def activate(self) -> None:
        """The worker serves, with a snapshot that every worker has."""
        if self.state == "warming":
            self.state = "active"

    def drain(self) -> None:
        """Nothing new is wanted; what runs is brought to its end."""
        if self.draining:
            return
        self.state = "draining"
        leaving, self._leaving = self._leaving, []
        for callback in leaving:
            callback()
