"""Where a call goes: the immutable rows that requests look up."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastgw.policy.match import Match
from fastgw.ports import Deadlines
from fastgw.protocol.params import ParamHeader


@dataclass(frozen=True, slots=True)
class Target:
    """One server's tool, prompt or resource.

    Args:
        server: the server's name in the configuration.
        tool: its own name there; the URI of a resource.
        name_json: `tool` as JSON text, ready to be sent.
        param_headers: headers a modern server wants, by the *server's own* definition.
        renamed: pairs (ours, theirs) of argument names that differ.
        member: the member of `params` that names it, and that `Mcp-Name` repeats: `name`, for resources `uri`; empty
            where neither is sent (`completion/complete`, whose `ref` is a payload).
    """

    server: str
    tool: str
    name_json: bytes
    param_headers: tuple[ParamHeader, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    member: str = "name"


@dataclass(frozen=True, slots=True)
class Checks:
    """What is validated of a call (`validate` of the configuration).

    Args:
        arguments: JSON Schema, as agents are shown it, that `arguments` must fit; None where it is not asked for.
        results: JSON Schema that `structuredContent` must fit; None where it is not asked for.
        pending: the server has never said what the schemas are: no call goes through unchecked.
    """

    arguments: bytes | None = None
    results: bytes | None = None
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Arm:
    """One entry of a route: whose calls, where they go, and how long they may take.

    Args:
        match: whose calls; None for everybody's.
        targets: in order; none where no server of this endpoint brings one.
        deadlines: of its calls, as the settings of its first target say.
        fixed: arguments (our name, JSON text) that are sent whatever the agent says, and that it must not name.
        defaults: arguments (our name, JSON text) that are sent where the agent says nothing.
        checks: schemas that arguments or results must fit, where the configuration asks for it.
        weight: tokens that a call costs in rate limits; 0: none.
    """

    match: Match | None
    targets: tuple[Target, ...]
    deadlines: Deadlines = field(default_factory=Deadlines)
    fixed: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    defaults: tuple[tuple[str, bytes], ...] = ()
    checks: Checks | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """Everything about one exposed tool that does not depend on who calls.

    Args:
        name: as agents see it on this endpoint.
        arms: tried in order; the first whose match holds is taken.
        known_as: every name a deny is tried on: the exposed one, and of each target `server/tool` and `tool`.
        param_headers: headers a modern agent must mirror, by the definition the agent was shown.
    """

    name: str
    arms: tuple[Arm, ...]
    known_as: tuple[str, ...]
    param_headers: tuple[ParamHeader, ...]
