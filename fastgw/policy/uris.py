"""Which URIs a class of agents may read, by the `resource:` patterns of the policies that apply to it.

Knows: that one URI has several spellings. Refuses to know: servers, catalogues, and whether the resource exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastgw.policy.patterns import Patterns

NONE = Patterns(())


@dataclass(frozen=True, slots=True)
class UriRules:
    """What policies say of URIs, for one class of agents.

    Args:
        allow: patterns without `resource:`; None where there are no policies: everything.
        deny: likewise.
    """

    allow: Patterns | None = None
    deny: Patterns = NONE

    def permit(self, exposed: str, server: str, own: str) -> bool:
        """Whether the class may read a URI.

        Args:
            exposed: as the agent names it.
            server, own: where it leads, and how that server spells it.
        """
        raise NotImplementedError


ANY_URI = UriRules()
