"""Where a call goes: the immutable rows that requests look up, and which arm of a route a call takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fastgw.catalog.metering import Meter
from fastgw.policy.match import Match, Principal
from fastgw.policy.quotas import Amounts
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members
from fastgw.protocol.headers import ParamHeader

Pairs = tuple[tuple[str, bytes], ...]
"""Argument names and the JSON text of each value."""
WhyNot = list[list[str]]
"""For each arm that was looked at, in order: why it is not taken. Nothing where it may be."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long one exchange with a server may take, in seconds. `total` counts from the start of the exchange.

    `granted` is what the whole call had, of which `total` is left; 0.0 where that is the same. `longest` bounds the
    whole call, whose total starts anew with progress; 0.0 where it never does.
    """

    connect: float = 5.0
    first_byte: float = 55.0
    idle: float = 55.0
    total: float = 55.0
    granted: float = 0.0
    longest: float = 0.0

    @property
    def whole(self) -> float:
        """Seconds that agents are told of where the total has passed: the one the configuration grants."""
        return self.granted or self.total

    def left(self, spent: float) -> Deadlines:
        """What is left after so many seconds of an exchange: its total does not start anew."""
        left = max(0.01, self.total - spent)
        return replace(self, total=left, connect=min(self.connect, left), granted=self.whole)

    def renewed(self, started: float, now: float) -> tuple[float, float]:
        """When the total passes that starts anew at `now`, and which seconds have passed then: its own or `longest`.

        Args:
            started: when the exchange began that these are of, by the same clock.
        """
        last = started + self.total - self.whole + max(self.longest, self.whole)
        again = now + self.whole
        return (again, self.whole) if again < last else (last, max(self.longest, self.whole))


@dataclass(frozen=True, slots=True)
class Target:
    """One server's tool, prompt or resource: `tool` is its own name there, or its URI; `name_json` that as JSON text.

    Args:
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
    """The schemas that arguments or results must fit (`validate` of the configuration); `pending` where the server has
    never said what they are: no call goes through unchecked. `present`: those that servers have now of a tool that is
    held, of every server where a call may end up.
    """

    arguments: bytes | None = None
    results: bytes | None = None
    pending: bool = False
    present: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One entry of a route: whose calls, where they go, and how long they may take.

    Args:
        targets: in order; none where no server of this endpoint brings one.
        fixed, defaults: arguments, by our names, as `filled` sends them.
        weight: tokens that a call costs in rate limits; 0: none.
        repeatable: a second run does no harm.
        failover_on: what sends a call to the next target: `unavailable`, `timeout`, `throttled`, `tool_error`.
        tool_error: pattern of error texts that count as `tool_error`; None: none does.
        cache: seconds for which results of its calls are kept; 0.0: none is.
        reserve: tokens, tokens in, tokens out and billionths of the currency that a call reserves in quotas; None: as
            many as its dearest of late. See `reservation`.
        meters: of the servers whose answers are measured; none where nobody asks what they use or cost.
        scopes: that an access token must have for it.
    """

    match: Match | None
    targets: tuple[Target, ...]
    deadlines: Deadlines = field(default_factory=Deadlines)
    fixed: Pairs = field(default=(), repr=False)
    defaults: Pairs = ()
    checks: Checks | None = None
    weight: int = 1
    repeatable: bool = False
    failover_on: tuple[str, ...] = ("unavailable",)
    tool_error: str | None = None
    cache: float = 0.0
    meters: tuple[Meter, ...] = ()
    reserve: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None)
    scopes: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        """Whose its calls are for limits, maintenance and `requestState`: the first, and there is one."""
        return self.targets[0]

    def reservation(self, dearest: tuple[int, int, int] = (0, 0, 0)) -> Amounts:
        """What a call reserves in quotas, money in billionths: what is written, else as much as the `dearest` calls of
        late took (tokens in, tokens out, money); never less than one unit, or than a price for each call.
        """
        a, b, c = dearest
        least = max([0, *[one.price.cost(0, 0) for one in self.meters if one.price is not None]])
        tokens, tokens_in, tokens_out, cost = self.reserve
        return (
            1,
            max(1, a + b) if tokens is None else tokens,
            max(1, a) if tokens_in is None else tokens_in,
            max(1, b) if tokens_out is None else tokens_out,
            max(1, c, least) if cost is None else max(cost, least),
        )

    def meter(self, server: str, tool: str) -> Meter | None:
        """That of the server that answered, or was tried last."""
        for meter in self.meters:
            if meter.server == server and meter.tool == tool:
                return meter
        return None


@dataclass(frozen=True, slots=True)
class Route:
    """Everything about one exposed tool that does not depend on who calls.

    Args:
        arms: tried in order; the first whose match holds is taken.
        known_as: every name a deny is tried on: the exposed one, and of each target `server/tool` and `tool`.
        param_headers: headers a modern agent must mirror, by the definition the agent was shown.
    """

    name: str
    arms: tuple[Arm, ...]
    known_as: tuple[str, ...]
    param_headers: tuple[ParamHeader, ...]


def arms_for(arms: Sequence[Arm], principal: Principal, endpoint: str, trace: WhyNot | None = None) -> tuple[Arm, ...]:
    """The arms an agent's calls can take, each with what is left to ask of the arguments.

    Empty where none can be: then the tool does not exist for that agent. Nothing follows an arm that takes every call,
    nor one without a target here: whoever it was written for must not fall through to what was written for others.
    """
    left: list[Arm] = []
    for arm in arms:
        why = _noted(trace)
        match = arm.match.for_class(principal, endpoint, why) if arm.match else None
        if match is None and arm.match is not None:
            continue
        if not arm.targets:
            if why is not None:
                why.append("it leads to no server of this endpoint, and whom it is for takes no later arm")
            break
        if match is None:
            return (*left, arm)
        if not match.looks_at_arguments:
            return (*left, replace(arm, match=None))
        left.append(replace(arm, match=match))
    return tuple(left)


def arm_for(arms: Sequence[Arm], arguments: bytes, trace: WhyNot | None = None) -> Arm | None:
    """The arm that a call takes; None where none does, and the tool does not exist for this call.

    Arguments that cannot be judged take no arm, not even a later one: whoever splits calls by their arguments must not
    be deceived by a member that stands twice. An arm looks at what it would send: its fixed and default arguments too.

    Args:
        arguments: JSON text of `params.arguments`; empty where the call has none.
    """
    for arm in arms:
        why = None if trace is None else _noted(trace)
        if arm.match is None:
            return arm
        sent = arguments
        if arm.fixed or arm.defaults:
            try:
                sent = filled(arguments, arm.fixed, arm.defaults)
            except (NotAMessage, NotJson) as wrong:
                if why is not None:
                    why.append(f"the arguments cannot be judged: {wrong}")
                return None
        judgement = arm.match.judge(sent, why)
        if judgement is not False:
            return arm if judgement else None
    return None


def _noted(trace: WhyNot | None) -> list[str] | None:
    if trace is None:
        return None
    trace.append([])
    return trace[-1]


def filled(arguments: bytes, fixed: Pairs, defaults: Pairs) -> bytes:
    """The arguments that are sent: the agent's own byte for byte in its order, then `defaults` that it does not name (a
    `null` is a value, too), and `fixed`, which it must not name, nor imitate in another case.

    Raises:
        NotAMessage: no object, a member twice, or a fixed argument: agents do not see those, so it is one that there
            is not.
        NotJson: not JSON.
    """
    found = {} if arguments in (b"", b"null") else members(arguments)
    taken = {name.casefold() for name, _ in fixed}
    for name in found if fixed else ():
        if name.casefold() in taken:
            raise NotAMessage(f"there is no argument {name[:64]!r}")
    filled_in = {name: value for name, value in defaults if name not in found}
    return emit({**found, **filled_in, **dict(fixed)})
