"""What the operator should hear about the catalogue: a tool left out, a name moved."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MOVED = re.compile(r"is called .* here|hidden: its (name|URI) is taken.*", re.DOTALL)
"""The words of `naming` and `uri_layout` for a name or URI that several servers want, or that is too long."""


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

    @property
    def moves(self) -> bool:
        """Whether it tells of a name or URI that is another one here, or hidden, because it is taken or too long."""
        return _MOVED.fullmatch(self.text) is not None

    def __str__(self) -> str:
        where = f"{self.endpoint}: " if self.endpoint else ""
        return f"{where}{self.subject}: {self.text}"
