"""What the operator should hear about the catalogue: a tool left out, a name moved.

Knows: nothing but its shape. Refuses to know: where it is shown (`check`, `/catalogue`, the log).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """One remark.

    Args:
        subject: what it is about: `server/tool`, a name, an endpoint.
        text: what happened, in plain words.
        endpoint: path of the endpoint where it happened; empty where it holds everywhere.
    """

    subject: str
    text: str
    endpoint: str = ""

    def __str__(self) -> str:
        where = f"{self.endpoint}: " if self.endpoint else ""
        return f"{where}{self.subject}: {self.text}"
