"""What would become of one call, and why: the trace that `fastgw explain` shows.

One endpoint is compiled for one agent, and the functions that decide calls are asked in their order, each with a trace
where it takes down what fails. Each policy is asked alone, too, by the code that asks them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastgw.catalog.arms import arm_for, arms_for
from fastgw.catalog.route import Arm, Route, Target
from fastgw.catalog.tools import Catalogue
from fastgw.config.conditions import match_of, policies_of
from fastgw.config.instance_urls import place
from fastgw.config.limits import limits_of, tools_of
from fastgw.config.schema.agents import AgentSettings
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.errors import Fault
from fastgw.policy.authorise import ApplyingPolicies, Policy, Rules, refused_by
from fastgw.policy.limits import CallSubject, Limit, applying, override_table
from fastgw.policy.patterns import PROMPT
from fastgw.policy.principal import ANONYMOUS, Claim, Principal
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import DEFAULT_ENDPOINT, Learned, compile_snapshot
from fastgw.snapshot.missing import Compiled, leads_by, why_missing, why_uri_missing
from fastgw.snapshot.model import Grant

Settle = Callable[[Arm, bytes], bytes]
"""Fills in and checks arguments as the gateway does; raises `Fault` where it would refuse them."""
Part = dict[str, Any]
_OUTRIGHT = ApplyingPolicies(1, 0)
"""Of one policy: it applies, whatever the arguments."""


class NoSuch(ValueError):
    """The call is of an agent, or to an endpoint, that the configuration does not have."""


@dataclass(frozen=True, slots=True)
class TracedCall:
    """The call that is asked about.

    Args:
        kind: `tool`, `prompt` or `resource`.
        name: as agents see it; of a resource its URI.
        claims: of an agent that stands in no configuration; None: the one of that name in it.
        endpoint: path.
        arguments: JSON text; empty for a call without.
    """

    kind: str
    name: str
    agent: str
    claims: Mapping[str, Claim] | None = None
    endpoint: str = DEFAULT_ENDPOINT
    arguments: bytes = b""


@dataclass(slots=True)
class Trace:
    """Everything that is said, as `fastgw explain --json` prints it.

    Args:
        sent: whether the call would go to a server.
        verdict: why, in one line.
        seen: whether the agent finds the name at all.
        absence: where nobody finds it, why.
        led: of a resource: by what its URI leads to the server.
        route: the arms: `number`, `taken`, `why` not, `targets`.
        rules: the policies: `policy`, `shadow`, whether it `applies` (None: the arguments cannot be judged), `why` not,
            patterns by which it `allows` and `denies`, and its `effect` alone: `allows`, `allows in part` (not every
            target), `denies`, `none`. None where no `policies` are written: everything is allowed.
        goals: the targets of the arm that is taken, of which the first is called: `server`, `name` there, `instances`
            (`host:port`), kind of the `credential`, `renamed` arguments (ours to theirs), whether it is `known` (it has
            answered once), `maintenance`.
        seconds: `total`, `max` (where progress lets the total start anew), `attempt`, `idle`.
        fixed, defaults: names of arguments that the configuration settles.
        validates: what is checked against schemas: `arguments`, `results`.
        limits: those that count it, where it is sent: `name`, `by`, `bucket` (the values of `by`), `rate` as written,
            `burst`, `override` (number of the one that holds), `in_flight`, `weight` of the call, `shadow`.
        quotas: those that would count it, if quotas were active in this release.
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
    route: tuple[Part, ...] = ()
    rules: tuple[Part, ...] | None = None
    goals: tuple[Part, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    validates: tuple[str, ...] = ()
    limits: tuple[Part, ...] = ()
    quotas: tuple[Part, ...] = ()


def trace(settings: Settings, catalogues: Mapping[str, Catalogue], call: TracedCall, settle: Settle) -> Trace:
    """What would become of the call.

    Args:
        catalogues: the last of every server that has ever answered.

    Raises:
        NoSuch: the agent or the endpoint is not in the configuration.
    """
    endpoints = {DEFAULT_ENDPOINT: EndpointSettings()} if settings.endpoints is None else settings.endpoints
    if call.endpoint not in endpoints:
        raise NoSuch(f"there is no endpoint {call.endpoint}; there are {', '.join(endpoints) or 'none'}")
    auth = endpoints[call.endpoint].auth
    principal = ANONYMOUS if auth == ("none",) else _principal(settings, call)
    found = Trace(call.kind, call.name, principal.agent, dict(principal.claims), call.endpoint)
    found.verdict = _kept_out(settings, call, auth)
    if not found.verdict:
        tracer = _Tracer(settings, catalogues, call, principal, found)
        found.verdict = tracer.read() if call.kind == "resource" else tracer.called(settle)
    return found


def _principal(settings: Settings, call: TracedCall) -> Principal:
    if call.claims is not None:
        return Principal(call.agent, dict(call.claims))
    if call.agent == ANONYMOUS.agent:
        return ANONYMOUS
    if call.agent not in settings.agents:
        raise NoSuch(f"there is no agent {call.agent}; --claims asks for one that is not in the configuration")
    claims = settings.agents[call.agent].claims
    return Principal(call.agent, {name: one[0] if len(one) == 1 else one for name, one in claims.items()})


def _kept_out(settings: Settings, call: TracedCall, auth: tuple[str, ...] | None) -> str:
    """Why the agent does not come in at all; empty where it does."""
    if auth == ("none",) or call.claims is not None:
        return ""
    if call.agent == ANONYMOUS.agent:
        return "refused: this endpoint lets nobody in without a credential"
    if settings.agents[call.agent].disabled:
        return "refused: the agent is disabled"
    if auth is not None and "keys" not in auth:
        return f"refused: no API key opens this endpoint; its ways in are {', '.join(auth)}"
    return ""


@dataclass(slots=True)
class _Tracer:
    """Fills in the trace of one call; its methods that say so give the verdict."""

    settings: Settings
    catalogues: Mapping[str, Catalogue]
    call: TracedCall
    principal: Principal
    found: Trace

    def called(self, settle: Settle) -> str:
        """The verdict on a tool or prompt: the same steps as on the path, in the same order."""
        call, found = self.call, self.found
        here = self._compiled(self.settings)
        routes = here.endpoint.routes if call.kind == "tool" else self._prompts()
        if call.name not in routes:
            found.absence = why_missing(here, call.kind, call.name, routes)
            return f"refused: there is no such {call.kind} here"
        route, grant = routes[call.name], self._grants(here).get(call.name)
        passed: list[list[str]] = []
        judged: list[list[str]] = []
        arms = arms_for(route.arms, self.principal, call.endpoint, passed)
        arm = arm_for(arms, call.arguments, judged)
        sources = [f"{target.server}/{target.tool}" for one in arms for target in one.targets]
        found.seen, found.route = grant is not None, tuple(_arms(route, passed, judged))
        arguments, fault = call.arguments, None
        if grant is not None and arm is not None:
            self._aim(arm, arm.targets)
            if arm.fixed or arm.defaults or arm.checks or arm.targets[0].renamed:
                try:
                    arguments = settle(arm, arguments or b"{}")
                except Fault as refused:
                    fault = refused
        self._ask_policies(_Subject(call, sources, route.known_as), arguments)
        if grant is None:
            word = "the policies keep it from this agent" if sources else "no arm of the route is for this agent"
            return f"refused: {word}, for which there is no such {call.kind}"
        if fault is not None:
            return f"refused: {fault.message}"
        policy = refused_by(grant, arguments) if grant.conditions else None
        if policy is not None:
            return f"refused: the policy {policy} does not allow these arguments"
        if arm is None:
            return "refused: no arm of the route takes these arguments"
        target = arm.targets[0]
        return self._send(CallSubject(call.kind, call.name, target.server, target.tool), arguments, arm.weight)

    def read(self) -> str:
        """The verdict on a resource."""
        uri, here, found = self.call.name, self._compiled(self.settings), self.found
        uris, readers = here.endpoint.uris, here.endpoint.readers
        owned = uris.owner(uri)
        if owned is None or owned.server not in readers:
            found.absence = why_uri_missing(here, uri)
            return "refused: the URI leads nowhere here"
        server, own, known_as = owned.server, owned.uri, uris.known_as(owned.server, owned.uri)
        found.led = leads_by(uris, uri, owned)
        self._aim(readers[server], (Target(server, own, b"", member="uri"),))
        self._ask_policies(_Subject(self.call, (f"{server}/{own}",), known_as, (server, own)), b"")
        view = here.endpoint.views[here.endpoint.view_of[self.principal.agent]]
        found.seen = view.uri_rules.permit(uri, server, own, known_as)
        if not found.seen:
            return "refused: the policies do not let this agent read it"
        return self._send(CallSubject("resource", uri, server, own, known_as), b"", readers[server].weight)

    def _compiled(self, settings: Settings) -> Compiled:
        """The endpoint for this agent alone, and all that the compile had to say of it."""
        path, anonymous = self.call.endpoint, self.principal is ANONYMOUS
        agents = {self.principal.agent: AgentSettings.model_construct(key=(), claims=dict(self.principal.claims))}
        endpoint = (settings.endpoints or {}).get(path, EndpointSettings())
        endpoint = endpoint.model_copy(update={"auth": ("none",) if anonymous else None})
        cache = CompileCache(settings.model_copy(update={"agents": agents, "endpoints": {path: endpoint}}))
        cache.missing = []
        snapshot, notices = compile_snapshot(cache.settings, Learned(dict(self.catalogues)), 0, cache)
        return Compiled(snapshot.endpoints[path], cache.catalogues, (*cache.missing, *notices))

    def _grants(self, here: Compiled) -> Mapping[str, Grant]:
        view = here.endpoint.views[here.endpoint.view_of[self.principal.agent]]
        return view.grants if self.call.kind == "tool" else view.prompts

    def _prompts(self) -> Mapping[str, Route]:
        """What is there for anybody."""
        free = self._compiled(self.settings.model_copy(update={"policies": None}))
        return {name: grant.route for name, grant in self._grants(free).items()}

    def _ask_policies(self, subject: _Subject, arguments: bytes) -> None:
        policies = policies_of(self.settings.policies)
        if policies is not None:
            self.found.rules = tuple(subject.traced(one, self.principal, arguments) for one in policies)

    def _aim(self, arm: Arm, targets: Sequence[Target]) -> None:
        found, times, checks = self.found, arm.deadlines, arm.checks
        found.goals = tuple(self._goal(target, self.settings.servers[target.server]) for target in targets)
        found.seconds = {"total": times.total, "max": times.longest, "attempt": times.first_byte, "idle": times.idle}
        found.fixed, found.defaults = tuple(name for name, _ in arm.fixed), tuple(name for name, _ in arm.defaults)
        if checks is not None:
            found.validates = tuple(word for word in ("arguments", "results") if getattr(checks, word) is not None)

    def _goal(self, target: Target, server: ServerSettings) -> Part:
        kinds = [
            next(kind for kind in ("bearer", "basic", "header", "oauth") if getattr(one, kind) is not None)
            for one in server.credential
        ]
        return {
            "server": target.server,
            "name": target.tool,
            "instances": tuple(place(one.url) for one in server.url),
            "credential": ", ".join(dict.fromkeys(kinds)) or "none",
            "renamed": dict(target.renamed),
            "known": target.server in self.catalogues,
            "maintenance": server.maintenance,
        }

    def _send(self, matter: CallSubject, arguments: bytes, weight: int) -> str:
        """The verdict on what is allowed: sent, unless the server cannot be called at all."""
        found, goal = self.found, self.found.goals[0]
        if goal["maintenance"] is not None:
            return f"refused: {goal['server']} is under maintenance"
        if not goal["instances"]:
            return f"refused: {goal['server']} has no address: `command` is not active in this release"
        quotas = [
            Limit(one.name, one.by, match_of(one.match, one.except_), tools_of(one.tools), shadow=one.mode == "shadow")
            for one in self.settings.quotas
        ]
        found.sent = True
        found.limits = tuple(self._limits(limits_of(self.settings), matter, arguments, weight))
        found.quotas = tuple(self._limits(quotas, matter, arguments, weight))
        return f"sent to {goal['server']} as {goal['name']}"

    def _limits(self, limits: Sequence[Limit], matter: CallSubject, arguments: bytes, weight: int) -> Iterator[Part]:
        """Those that count the call."""
        written = {limit.name: limit for limit in self.settings.limits}
        for one in applying(limits, self.principal, self.call.endpoint):
            limit = one.limit
            if not one.counts(arguments) or not (limit.tools is None or limit.tools.take(matter)):
                continue
            subject, tariff = limit.subject(self.principal, self.call.endpoint, matter), one.tariff_for(arguments)
            tables = [override_table(limit, each) for each in limit.overrides]
            at = tables.index(tariff.table) if tariff.table in tables else None
            rate = written[limit.name].rate if limit.figures is not None else None
            if at is not None:
                rate = written[limit.name].overrides[at].rate or rate
            yield {
                "name": limit.name,
                "by": limit.by,
                "bucket": subject if isinstance(subject, tuple) else (subject,),
                "rate": None if rate is None else str(rate),
                "burst": None if tariff.figures is None else tariff.figures.burst,
                "override": None if at is None else at + 1,
                "in_flight": limit.in_flight,
                "weight": weight,
                "shadow": limit.shadow,
            }


def _arms(route: Route, passed: Sequence[list[str]], judged: Sequence[list[str]]) -> Iterator[Part]:
    """Every arm, by the traces of `arms_for` and of `arm_for`, which looks at what the former leaves."""
    asked, last = iter(judged), 0
    for number, arm in enumerate(route.arms, 1):
        why = passed[number - 1] if number <= len(passed) else None
        if why == []:
            why = next(asked, None)
        if why is not None:
            last = number
        targets = tuple(f"{target.server}/{target.tool}" for target in arm.targets)
        reasons = (f"the search ends at arm {last}",) if why is None else tuple(why)
        yield {"number": number, "taken": why == [], "why": reasons, "targets": targets}


@dataclass(frozen=True, slots=True)
class _Subject:
    """What policies are asked about.

    Args:
        sources: `server/name` of every target that could be reached.
        known_as: every name a deny is tried on; of a resource what else it is called.
        owned: of a resource: its server, and its URI there.
    """

    call: TracedCall
    sources: Sequence[str]
    known_as: Sequence[str]
    owned: tuple[str, str] = ("", "")

    def traced(self, policy: Policy, principal: Principal, arguments: bytes) -> Part:
        """One policy, see `Trace.rules`."""
        why: list[str] = []
        enforced = replace(policy, shadow=False)
        alone = Rules([enforced]).applying(principal, self.call.endpoint, why)
        applies: bool | None = bool(alone.outright)
        for _, match in alone.left:
            if self.call.kind == "resource":
                why.append("it looks at arguments, and a read has none")
            else:
                applies = match.judge(arguments, why)
        allows = tuple(text for text in policy.allow if self._fits(text))
        all_but = ("*", "prompt:*", "resource:*")
        denies = tuple(text for text in policy.deny if not self._allows(Policy("", None, all_but, (text,))))
        effect = "none"
        if denies and applies is not False:
            effect = "denies"
        elif allows and applies:
            effect = "allows" if self._allows(enforced) else "allows in part"
        return {
            "policy": policy.name,
            "applies": applies,
            "why": tuple(why),
            "shadow": policy.shadow,
            "allows": allows,
            "denies": denies,
            "effect": effect,
        }

    def _allows(self, policy: Policy) -> bool:
        """Whether a policy alone would allow it to whomever it speaks of."""
        rules = Rules([policy], PROMPT if self.call.kind == "prompt" else "")
        if self.call.kind == "resource":
            return rules.uri_rules(_OUTRIGHT).permit(self.call.name, *self.owned, self.known_as)
        bits = rules.bits(self.call.name, self.sources, self.known_as)
        return rules.judge(bits, self.sources, _OUTRIGHT) is not None

    def _fits(self, text: str) -> bool:
        """Whether a pattern of an `allow` fits it, or any of its targets."""
        policy = Policy("", None, (text,), ())
        return any(replace(self, sources=(source,))._allows(policy) for source in self.sources or ("",))
