"""What would become of one call, and why: what `fastgw explain` says, as data.

The verdict is the gateway's own (`compile_snapshot`, `arm_for`, `refused_by`, `Uris`, `UriRules`). The reasons are
found beside it; where the two disagreed, the verdict would be right and the reasons wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fastgw.catalog.arguments import filled
from fastgw.catalog.arms import arm_for
from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.tools import Catalogue
from fastgw.config.conditions import policies_of
from fastgw.config.instance_urls import place
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import Settings
from fastgw.errors import Fault
from fastgw.policy.authorise import refused_by
from fastgw.policy.limits import CallSubject
from fastgw.policy.principal import Claim
from fastgw.protocol.envelope import NotAMessage, NotJson
from fastgw.snapshot.missing import Here, absent, absent_uri, led
from fastgw.snapshot.model import Grant
from fastgw.snapshot.question import Case, ExplainQuestion
from fastgw.snapshot.trace import (
    Asked,
    Considered,
    CountingLimits,
    Names,
    Quoted,
    considered,
    counting,
    outcome,
    quoted,
    reasons,
)

_UNJUDGED = b"[]"
"""Arguments that no condition can judge."""

Settle = Callable[[Arm, bytes], bytes]
"""Fills in and checks arguments as the gateway does; raises `Fault` where it would refuse them."""


@dataclass(frozen=True, slots=True)
class Taking:
    """One arm of a route, in its order; `why` says why it is not taken."""

    number: int
    taken: bool
    why: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the call goes. `credential` is its kind; instances are `host:port`.

    Args:
        renamed: argument names: ours to theirs.
        known: something of the server is kept: it has answered once.
    """

    server: str
    name: str
    instances: tuple[str, ...]
    credential: str
    renamed: dict[str, str]
    known: bool
    maintenance: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is said.

    Args:
        sent: whether the call would go to a server.
        verdict: why, in one line.
        seen: whether the agent finds the name at all.
        absence: where nobody finds it, why.
        led: of a resource: by what its URI leads to the server.
        route: the arms.
        rules: every policy, in order; None where no `policies` are written: everything is allowed.
        goals: targets of the arm that is taken; the first is called.
        seconds: `total`, `max` (where progress lets the total start anew), `attempt`, `idle`.
        fixed, defaults: names of arguments that the configuration settles.
        validates: what is checked against schemas: `arguments`, `results`.
        limits: those that count it, where it is sent.
        quotas: what would limit it besides, if quotas were active in this release.
    """

    kind: str
    name: str
    agent: str
    claims: dict[str, Claim]
    endpoint: str
    sent: bool = False
    verdict: str = ""
    seen: bool = False
    absence: tuple[str, ...] = ()
    led: str = ""
    route: tuple[Taking, ...] = ()
    rules: tuple[Considered, ...] | None = None
    goals: tuple[Goal, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    validates: tuple[str, ...] = ()
    limits: tuple[CountingLimits, ...] = ()
    quotas: tuple[Quoted, ...] = ()


def explain(
    settings: Settings, catalogues: Mapping[str, Catalogue], question: ExplainQuestion, settle: Settle
) -> Explanation:
    """What would become of the call.

    Args:
        catalogues: the last of every server that has ever answered.

    Raises:
        NoSuch: the agent or the endpoint is not in the configuration.
    """
    found = Case(settings, catalogues, question)
    start = Explanation(
        question.kind, question.name, found.principal.agent, dict(found.principal.claims), question.endpoint
    )
    if found.outside:
        return replace(start, verdict=found.outside)
    if question.kind == "resource":
        return _read(found, start)
    return _called(found, start, settle)


# -- tools and prompts --------------------------------------------------------------------------------------------


def _called(found: Case, start: Explanation, settle: Settle) -> Explanation:
    question, routes = found.question, found.routes()
    route = routes.get(question.name)
    if route is None:
        why = absent(_here(found, routes), question.kind, question.name)
        return replace(start, verdict=f"refused: there is no such {question.kind} here", absence=why)
    grant = found.grants().get(question.name)
    arm = arm_for(grant.arms, question.arguments) if grant is not None else None
    asked, fault = _settled(found.asked, arm, settle)
    names = Names(question.kind, question.name, _reachable(route, grant, asked), route.known_as)
    told = replace(
        start,
        seen=grant is not None,
        route=_takings(route, found.asked),
        rules=_rules(found, names, asked),
        quotas=tuple(quoted(found.settings, names, asked)),
    )
    if grant is None:
        word = "the policies keep it from this agent" if names.sources else "no arm of the route is for this agent"
        return replace(told, verdict=f"refused: {word}, for which there is no such {question.kind}")
    if arm is not None:
        told = _aimed(found, told, arm, arm.targets)
    if fault is not None:
        return replace(told, verdict=f"refused: {fault.message}")
    decided = _decided(told, grant, arm, asked.arguments)
    if not decided.sent or arm is None:
        return decided
    target = arm.targets[0]
    matter = CallSubject(question.kind, question.name, target.server, target.tool)
    return replace(decided, limits=tuple(counting(found.settings, matter, asked, arm.weight)))


def _settled(asked: Asked, arm: Arm | None, settle: Settle) -> tuple[Asked, Fault | None]:
    """The call with its arguments as they would be sent, which is how policies see them."""
    if arm is None or not (arm.fixed or arm.defaults or arm.checks or arm.targets[0].renamed):
        return asked, None
    try:
        return replace(asked, arguments=settle(arm, asked.arguments or b"{}")), None
    except Fault as fault:
        return asked, fault


def _decided(told: Explanation, grant: Grant, arm: Arm | None, arguments: bytes) -> Explanation:
    """The verdict on a call of what the agent sees: the same steps as on the path, in the same order."""
    policy = refused_by(grant, arguments) if grant.conditions else None
    if policy is not None:
        return replace(told, verdict=f"refused: the policy {policy} does not allow these arguments")
    if arm is None:
        return replace(told, verdict="refused: no arm of the route takes these arguments")
    return _unless_closed(told)


def _unless_closed(told: Explanation) -> Explanation:
    """Sent, unless the server cannot be called at all."""
    goal = told.goals[0]
    if goal.maintenance is not None:
        return replace(told, verdict=f"refused: {goal.server} is under maintenance")
    if not goal.instances:
        return replace(told, verdict=f"refused: {goal.server} has no address: `command` is not active in this release")
    return replace(told, sent=True, verdict=f"sent to {goal.server} as {goal.name}")


def _reachable(route: Route, grant: Grant | None, asked: Asked) -> tuple[str, ...]:
    """`server/name` of every target that some arguments could reach."""
    arms = grant.arms if grant is not None else _open(route, asked)
    return tuple(f"{target.server}/{target.tool}" for arm in arms for target in arm.targets)


def _open(route: Route, asked: Asked) -> list[Arm]:
    found = []
    for arm in route.arms:
        left = arm.match.for_class(asked.principal, asked.endpoint) if arm.match else None
        if arm.match is not None and left is None:
            continue
        if not arm.targets:
            break
        found.append(arm)
        if left is None or not left.looks_at_arguments:
            break
    return found


def _takings(route: Route, asked: Asked) -> tuple[Taking, ...]:
    """Every arm and why it is not taken; what stops the search is said where it stops."""
    found: list[Taking] = []
    stopped = ""
    for number, arm in enumerate(route.arms, 1):
        targets = tuple(f"{target.server}/{target.tool}" for target in arm.targets)
        is_for = arm.match is None or arm.match.static_holds(asked.principal, asked.endpoint)
        sent = _as_sent(arm, asked)
        holds = outcome(arm.match, sent)
        why = (stopped,) if stopped else reasons(arm.match, sent) if holds is not True else ()
        taken = not stopped and holds is True and bool(targets)
        if taken:
            stopped = f"arm {number} comes first"
        elif not stopped and is_for and not targets:
            why = ("it leads to no server of this endpoint, and no later arm is for whom it was written",)
            stopped = f"arm {number} ends the search"
        elif not stopped and holds is None:
            stopped = f"arm {number} cannot be judged by these arguments, which ends the search"
        found.append(Taking(number, taken, why, targets))
    return tuple(found)


def _as_sent(arm: Arm, asked: Asked) -> Asked:
    """The call as an arm looks at it: with its own fixed and default arguments."""
    if not (arm.fixed or arm.defaults):
        return asked
    try:
        return replace(asked, arguments=filled(asked.arguments, arm.fixed, arm.defaults))
    except (NotAMessage, NotJson):
        return replace(asked, arguments=_UNJUDGED)


# -- resources ----------------------------------------------------------------------------------------------------


def _read(found: Case, start: Explanation) -> Explanation:
    uri = found.question.name
    owned = found.compiled.uris.owner(uri)
    if owned is None or owned.server not in found.compiled.readers:
        why = absent_uri(_here(found, {}), found.compiled.uris, uri)
        return replace(start, verdict="refused: the URI leads nowhere here", absence=why)
    known_as = found.compiled.uris.known_as(owned.server, owned.uri)
    names = Names("resource", uri, (f"{owned.server}/{owned.uri}",), (owned.server, owned.uri, *known_as))
    told = replace(
        start,
        led=led(found.compiled.uris, uri, owned),
        rules=_rules(found, names, found.asked),
        quotas=tuple(quoted(found.settings, names, found.asked)),
    )
    arm = found.compiled.readers[owned.server]
    told = _aimed(found, told, arm, (Target(owned.server, owned.uri, b"", member="uri"),))
    if not found.view.uri_rules.permit(uri, owned.server, owned.uri, known_as):
        return replace(told, verdict="refused: the policies do not let this agent read it")
    decided = _unless_closed(replace(told, seen=True))
    matter = CallSubject("resource", uri, owned.server, owned.uri, known_as)
    limits = counting(found.settings, matter, found.asked, arm.weight) if decided.sent else ()
    return replace(decided, limits=tuple(limits))


# -- where it goes ------------------------------------------------------------------------------------------------


def _aimed(found: Case, told: Explanation, arm: Arm, targets: tuple[Target, ...]) -> Explanation:
    times, checks = arm.deadlines, arm.checks
    return replace(
        told,
        goals=tuple(_goal(found, target) for target in targets),
        seconds={"total": times.total, "max": times.longest, "attempt": times.first_byte, "idle": times.idle},
        fixed=tuple(name for name, _ in arm.fixed),
        defaults=tuple(name for name, _ in arm.defaults),
        validates=tuple(
            word for word in ("arguments", "results") if checks is not None and getattr(checks, word) is not None
        ),
    )


def _goal(found: Case, target: Target) -> Goal:
    server = found.settings.servers[target.server]
    return Goal(
        server=target.server,
        name=target.tool,
        instances=tuple(place(one.url) for one in server.url),
        credential=_credential(server),
        renamed=dict(target.renamed),
        known=target.server in found.catalogues,
        maintenance=server.maintenance,
    )


def _credential(server: ServerSettings) -> str:
    """The kind of it, never a value; `none` where the server asks for none."""
    kinds = [
        next(kind for kind in ("bearer", "basic", "header", "oauth") if getattr(one, kind) is not None)
        for one in server.credential
    ]
    return ", ".join(dict.fromkeys(kinds)) or "none"


def _here(found: Case, routes: Mapping[str, Route]) -> Here:
    servers, endpoint = found.compiled.servers, found.endpoint_settings
    return Here(found.settings, found.catalogues, endpoint, servers, routes, found.notices)


def _rules(found: Case, names: Names, asked: Asked) -> tuple[Considered, ...] | None:
    policies = policies_of(found.settings.policies)
    return None if policies is None else tuple(considered(one, names, asked) for one in policies)
