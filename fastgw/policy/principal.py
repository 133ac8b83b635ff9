"""An agent after its credential was verified."""

from __future__ import annotations

from dataclasses import dataclass, field

Claim = str | tuple[str, ...]
"""A claim's value: text, or several texts. Numbers and booleans are compared as text and kept as text."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    Args:
        agent: the agent's name, as it stands in policies and usage events.
        claims: claim name to value; what a credential says about the agent.
        credential: which credential it showed: `key:` and the first 8 hex digits of its SHA-256; None if anonymous.
        user: the person behind the agent, where the credential names one.
    """

    agent: str
    claims: dict[str, Claim] = field(default_factory=dict, hash=False)
    credential: str | None = None
    user: str | None = None


ANONYMOUS = Principal("anonymous")
