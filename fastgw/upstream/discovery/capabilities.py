"""What a server says it can do: `capabilities` of its answer to discover or initialize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_MOST, _LONGEST = 64, 128
"""Names that are kept, and characters of one: they are written to disk, and nobody asks for others."""

ANNOUNCED: Final = {
    "tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged",
}  # fmt: skip
"""Capability to the member of a listen filter that asks for its announcements (2026-07-28, Subscriptions)."""

_MOST_TOLD = 64 * 1024
"""Characters of `instructions` that are kept."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a server says of itself in its answer to discover or initialize.

    Args:
        declares: names of its capabilities; None where it says nothing of them, or was never asked.
        instructions: for agents; empty for none.
    """

    declares: frozenset[str] | None = None
    instructions: str = ""


NOTHING: Final = Declared()


def said_in(result: dict[str, Any]) -> Declared:
    """What such a result says, decoded."""
    instructions = result.get("instructions")
    text = instructions[:_MOST_TOLD] if isinstance(instructions, str) else ""
    return Declared(declared(result.get("capabilities")), text)


def declared(capabilities: Any) -> frozenset[str] | None:
    """Names of the capabilities that are declared; None where the server says nothing of them.

    Args:
        capabilities: the member `capabilities`, decoded. A capability that is null or false is none: some servers write
            out all that they know of.
    """
    if not isinstance(capabilities, dict):
        return None
    names = (name for name, value in capabilities.items() if value is not None and value is not False)
    return frozenset(sorted(name for name in names if len(name) <= _LONGEST)[:_MOST])


def announced(capabilities: Any) -> tuple[str, ...]:
    """Members of a listen filter for the lists whose changes the server announces."""
    if not isinstance(capabilities, dict):
        return ()
    told = {name: capabilities.get(name) for name in ANNOUNCED}
    return tuple(
        ANNOUNCED[name] for name, value in told.items() if isinstance(value, dict) and value.get("listChanged") is True
    )
