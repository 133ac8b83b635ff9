"""A server's prompts, resources and resource templates as it listed them: kept word for word.

Knows: the members of each that the gateway reads, and what older revisions do not know. Refuses to know: names agents
see, policies, and how a catalogue was fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastgw.mcp import names


class Sort(Enum):
    """What a definition defines: the method that lists it, and the member that names it."""

    PROMPT = (names.PROMPTS_LIST, "name")
    RESOURCE = (names.RESOURCES_LIST, "uri")
    TEMPLATE = (names.TEMPLATES_LIST, "uriTemplate")

    @property
    def method(self) -> str:
        """The method that lists it."""
        return self.value[0]

    @property
    def key(self) -> str:
        """The member that names it."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Definition:
    """A prompt, a resource or a template as its server describes it.

    Args:
        server: the server's name in the configuration.
        key: the prompt's own name, the resource's URI, the template's text.
        members: every member but that one: member name to JSON text, in the server's order.
        size: bytes of the definition.
        tails: all that follows the key in a list, for each of `tools.DIALECTS`.
    """

    server: str
    key: str
    members: dict[str, bytes]
    size: int
    tails: tuple[bytes, ...]
