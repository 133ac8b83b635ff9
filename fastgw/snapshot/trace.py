"""What would become of one call, and why: the trace that `fastgw explain` shows.

One endpoint is compiled for one agent, and the functions that decide calls are asked in their order, each with a trace
where it takes down what fails. Each policy is asked alone, too, by the code that asks them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastgw.catalog.pins import ToolChange
from fastgw.catalog.route import Arm, Route, Target, arm_for, arms_for
from fastgw.catalog.tools import Catalogue
from fastgw.config.instance_urls import place
from fastgw.config.rules import limits_of, match_of, policies_of, quotas_of
from fastgw.config.schema.agents import AgentSettings
from fastgw.config.schema.settings import Settings
from fastgw.errors import Fault
from fastgw.policy.authorise import ApplyingPolicies, Policy, Rules, refused_by
from fastgw.policy.limits import ApplyingLimits, CallSubject, LimitRule, applying, applying_rules, override_table
from fastgw.policy.match import ANONYMOUS, Claim, Principal
from fastgw.policy.patterns import PROMPT
from fastgw.policy.quotas import CALLS, KINDS, Amounts, Quota, amount_shown
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import DEFAULT_ENDPOINT, Learned, compile_snapshot, endpoints_of
from fastgw.snapshot.missing import Compiled, leads_by, why_missing, why_uri_missing
from fastgw.snapshot.model import Grant, View

FillIn = Callable[[Arm, bytes], bytes]
"""Fills in and checks arguments as the gateway does; raises `Fault` where it would refuse them."""
Record = dict[str, Any]
_OUTRIGHT = ApplyingPolicies(1)
"""Of one policy: it applies, whatever the arguments."""
_CREDENTIALS = ("bearer", "basic", "header", "oauth")


class NoSuch(ValueError):
    """The call is of an agent, or to an endpoint, that the configuration does not have."""


@dataclass(frozen=True, slots=True)
class TracedCall:
    """The call that is asked about.

    Args:
        kind: `tool`, `prompt` or `resource`.
        name: as agents see it; of a resource its URI.
        claims: of an agent that stands in no configuration; None: the one of that name in it.
        arguments: JSON text; empty for a call without.
        scopes: of an access token; None: of an agent that needs none.
        refusal: why its credential is not taken; empty where it is, or is not looked at.
    """

    kind: str
    name: str
    agent: str
    claims: Mapping[str, Claim] | None = None
    endpoint: str = DEFAULT_ENDPOINT
    arguments: bytes = b""
    scopes: frozenset[str] | None = None
    refusal: str = ""


@dataclass(slots=True)
class Trace:
    """Everything that is said, as `fastgw explain --json` prints it: docs/commands.md says what the members are."""

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
    route: tuple[Record, ...] = ()
    rules: tuple[Record, ...] | None = None
    shadow: Record | None = None
    goals: tuple[Record, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    failover: Record = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    validates: tuple[str, ...] = ()
    quotas: tuple[Record, ...] = ()
    scopes: tuple[str, ...] = ()
    limits: tuple[Record, ...] = ()


def trace(settings: Settings, catalogues: Mapping[str, Catalogue], call: TracedCall, fill_in: FillIn) -> Trace:
    """What would become of the call.

    Args:
        catalogues: the last of every server that has ever answered.

    Raises:
        NoSuch: the agent or the endpoint is not in the configuration.
    """
    endpoints = endpoints_of(settings)
    if call.endpoint not in endpoints:
        raise NoSuch(f"there is no endpoint {call.endpoint}; there are {', '.join(endpoints) or 'none'}")
    principal, why = _who(settings, call, endpoints[call.endpoint].auth)
    found = Trace(call.kind, call.name, principal.agent, dict(principal.claims), call.endpoint, verdict=why)
    if not found.verdict:
        tracer = _Tracer(settings, catalogues, call, principal, found)
        found.verdict = tracer.read() if call.kind == "resource" else tracer.called(fill_in)
    return found


def _who(settings: Settings, call: TracedCall, auth: tuple[str, ...] | None) -> tuple[Principal, str]:
    """Who calls, and why it does not come in at all: empty where it does."""
    if auth == ("none",):
        return ANONYMOUS, ""
    if call.claims is not None:
        return Principal(call.agent, dict(call.claims)), call.refusal
    if call.agent == ANONYMOUS.agent:
        return ANONYMOUS, "refused: this endpoint lets nobody in without a credential"
    name, colon, _ = call.agent.partition(":")
    identity = settings.identity.get(name) if colon else None
    if identity is not None and identity.header is not None:
        closed = auth is not None and name not in auth
        words = f"refused: {name} is no way in here, these are: {', '.join(auth or ())}" if closed else ""
        return Principal(call.agent, dict(identity.set)), words
    if call.agent not in settings.agents:
        raise NoSuch(f"there is no agent {call.agent}; --claims asks for one that is not in the configuration")
    agent, why = settings.agents[call.agent], ""
    if agent.disabled:
        why = "refused: the agent is disabled"
    elif auth is not None and "keys" not in auth:
        why = f"refused: no API key opens this endpoint; its ways in are {', '.join(auth)}"
    return Principal(call.agent, dict(agent.claims)), why


@dataclass(slots=True)
class _Tracer:
    """Fills in the trace of one call.

    Args:
        sources: `server/name` of every target that could be reached.
        known_as: every name a deny is tried on; of a resource what else it is called.
        owned: of a resource: its server, and its URI there.
        changes: of each server, what is not as it is pinned.
    """

    settings: Settings
    catalogues: Mapping[str, Catalogue]
    call: TracedCall
    principal: Principal
    found: Trace
    sources: Sequence[str] = ()
    known_as: Sequence[str] = ()
    owned: tuple[str, str] = ("", "")
    changes: Mapping[str, Sequence[ToolChange]] = field(default_factory=dict)

    def called(self, fill_in: FillIn) -> str:
        """The verdict on a tool or prompt: the same steps as on the path, in the same order."""
        call, found = self.call, self.found
        here, view = self._compiled(self.settings)
        routes, grants = here.endpoint.routes, view.grants
        if call.kind == "prompt":
            # Without policies the agent has what is there for anybody.
            free = self._compiled(self.settings.model_copy(update={"policies": None}))[1].prompts
            routes, grants = {name: grant.route for name, grant in free.items()}, view.prompts
        if call.name not in routes:
            found.absence = why_missing(here, call.kind, call.name, routes)
            return f"refused: there is no such {call.kind} here"
        route, grant = routes[call.name], grants.get(call.name)
        passed: list[list[str]] = []
        judged: list[list[str]] = []
        arms = arms_for(route.arms, self.principal, call.endpoint, passed)
        arm = arm_for(arms, call.arguments, judged)
        self.sources = [f"{target.server}/{target.tool}" for one in arms for target in one.targets]
        self.known_as = route.known_as
        found.seen, found.route = grant is not None, tuple(_arms(route, passed, judged))
        arguments, fault = call.arguments, None
        if grant is not None and arm is not None:
            self._add_targets(arm, arm.targets)
            if arm.fixed or arm.defaults or arm.checks or arm.target.renamed:
                try:
                    arguments = fill_in(arm, arguments or b"{}")
                except Fault as refused:
                    fault = refused
        found.rules, found.shadow = (
            self._rules(arguments),
            self._shadow(view, grant, arguments if arm is not None and fault is None else None),
        )
        if grant is None:
            word = "the policies keep it from this agent" if arms else "no arm of the route is for this agent"
            return f"refused: {word}, for which there is no such {call.kind}"
        if fault is not None:
            return f"refused: {fault.message}"
        policy = refused_by(grant, arguments) if grant.conditions else None
        if policy is not None:
            return f"refused: the policy {policy} does not allow these arguments"
        if arm is None:
            return "refused: no arm of the route takes these arguments"
        found.scopes = arm.scopes
        if call.scopes is not None and (lacked := [one for one in arm.scopes if one not in call.scopes]):
            return f"refused: the access token lacks {', '.join(lacked)}"
        target = arm.target
        return self._send(CallSubject(call.kind, call.name, target.server, target.tool), arguments, arm)

    def read(self) -> str:
        """The verdict on a resource."""
        uri, found = self.call.name, self.found
        here, view = self._compiled(self.settings)
        uris, readers = here.endpoint.uris, here.endpoint.readers
        owned = uris.owner(uri)
        if owned is None or owned.server not in readers:
            found.absence = why_uri_missing(here, uri)
            return "refused: the URI leads nowhere here"
        server, own = self.owned = owned.server, owned.uri
        self.sources, self.known_as = (f"{server}/{own}",), uris.known_as(server, own)
        found.led = leads_by(uris, uri, owned)
        self._add_targets(readers[server], (Target(server, own, b"", member="uri"),))
        found.rules = self._rules(b"")
        found.seen = uris.permits(view.uri_rules, uri, owned)
        if view.shadow is not None and view.shadow.uris is not None:
            policy = view.shadow.uris.otherwise(lambda rules: uris.permits(rules, uri, owned), allowed=found.seen)
            found.shadow = _otherwise(policy, allowed=found.seen)
        if not found.seen and view.uri_rules.permit_listed(uri, server, own, self.known_as):
            return "refused: its spelling is not canonical"
        if not found.seen:
            return "refused: the policies do not let this agent read it"
        subject = CallSubject("resource", uri, server, own, uris.known_as(server, own))
        return self._send(subject, b"", readers[server])

    def _compiled(self, settings: Settings) -> tuple[Compiled, View]:
        """The endpoint for this agent alone, all that the compile had to say of it, and what the agent has."""
        path, anonymous = self.call.endpoint, self.principal is ANONYMOUS
        agents = {self.principal.agent: AgentSettings.model_construct(key=(), claims=dict(self.principal.claims))}
        endpoint = endpoints_of(settings)[path].model_copy(update={"auth": ("none",) if anonymous else None})
        cache = CompileCache(settings.model_copy(update={"agents": agents, "endpoints": {path: endpoint}}))
        cache.missing = []
        snapshot, notices = compile_snapshot(cache.settings, Learned(dict(self.catalogues)), 0, cache)
        compiled = Compiled(snapshot.endpoints[path], cache.catalogues, (*cache.missing, *notices))
        view = compiled.endpoint.view_for(self.principal)
        assert view is not None, "it was compiled for this agent"
        if self.call.kind == "tool":
            self.changes = {server: offer.changes or () for server, offer in cache.catalogues.offer.items()}
        return compiled, view

    # -- policies -------------------------------------------------------------------------------------------------

    def _rules(self, arguments: bytes) -> tuple[Record, ...] | None:
        policies = policies_of(self.settings.policies)
        return None if policies is None else tuple(self._policy(one, arguments) for one in policies)

    def _policy(self, policy: Policy, arguments: bytes) -> Record:
        why: list[str] = []
        enforced = replace(policy, shadow=False)
        alone = Rules([enforced]).applying(self.principal, self.call.endpoint, why)
        applies: bool | None = bool(alone.outright)
        for _, match in alone.left:
            if self.call.kind == "resource":
                why.append("it looks at arguments, and a read has none")
            else:
                applies = match.judge(arguments, why)
        # An allow is shown where it fits any target, whether or not that is enough.
        each = [(source,) for source in self.sources] or [("",)]
        allows = tuple(
            text for text in policy.allow if any(self._allows(Policy("", None, (text,), ()), one) for one in each)
        )
        all_but = ("*", "prompt:*", "resource:*")
        denies = tuple(
            text for text in policy.deny if not self._allows(Policy("", None, all_but, (text,)), self.sources)
        )
        effect = "none"
        if denies and applies is not False:
            effect = "denies"
        elif allows and applies:
            effect = "allows" if self._allows(enforced, self.sources) else "allows in part"
        found: Record = {"policy": policy.name, "applies": applies, "why": tuple(why), "shadow": policy.shadow}
        return {**found, "allows": allows, "denies": denies, "effect": effect}

    def _shadow(self, view: View, grant: Grant | None, arguments: bytes | None) -> Record | None:
        """What policies in shadow would change of a call with these arguments; None: of one that is refused anyway."""
        if view.shadow is None or arguments is None:
            return None
        kept = view.shadow.prompts if self.call.kind == "prompt" else view.shadow.tools
        allowed, verdict = grant is not None and refused_by(grant, arguments) is None, kept.get(self.call.name)
        return None if verdict is None else _otherwise(verdict.otherwise(arguments, allowed=allowed), allowed=allowed)

    def _allows(self, policy: Policy, sources: Sequence[str]) -> bool:
        """Whether a policy alone would allow it to whomever it speaks of."""
        rules = Rules([policy], PROMPT if self.call.kind == "prompt" else "")
        if self.call.kind == "resource":
            return rules.uri_rules(_OUTRIGHT).permit_listed(self.call.name, *self.owned, self.known_as)
        return rules.judge(rules.about(self.call.name, sources, self.known_as), sources, _OUTRIGHT) is not None

    # -- where it goes, and what counts it ------------------------------------------------------------------------

    def _add_targets(self, arm: Arm, targets: Sequence[Target]) -> None:
        found, times = self.found, arm.deadlines
        found.goals = tuple(map(self._target, targets))
        found.seconds = {"total": times.total, "max": times.longest, "attempt": times.first_byte, "idle": times.idle}
        found.failover = {"on": arm.failover_on, "repeatable": arm.repeatable, "tool_error": arm.tool_error}
        found.fixed, found.defaults = tuple(name for name, _ in arm.fixed), tuple(name for name, _ in arm.defaults)
        found.validates = tuple(
            word for word in ("arguments", "results") if getattr(arm.checks, word, None) is not None
        )

    def _target(self, target: Target) -> Record:
        server = self.settings.servers[target.server]
        matches = [(one, match_of(one.match, None)) for one in server.credential]
        who = self.principal, self.call.endpoint
        fitting = [one for one, match in matches if match is None or match.for_class(*who) is not None]
        kinds = [kind for one in fitting[:1] for kind in _CREDENTIALS if getattr(one, kind) is not None]
        return {
            "server": target.server,
            "name": target.tool,
            "instances": tuple(place(one.url) for one in server.url),
            "credential": next(iter(kinds), "none for this agent" if server.credential else "none"),
            "renamed": dict(target.renamed),
            "known": target.server in self.catalogues or target.server in self.settings.lock,
            "change": next((str(one) for one in self.changes.get(target.server, ()) if one.tool == target.tool), None),
            "maintenance": server.maintenance,
            "backup": server.backup,
        }

    def _send(self, subject: CallSubject, arguments: bytes, arm: Arm) -> str:
        """The verdict on what is allowed: sent, unless the server cannot be called at all."""
        found, target = self.found, self.found.goals[0]
        servers = [name for one in found.goals for name in (one["server"], *one["backup"])]
        if all(self.settings.servers[name].maintenance is not None for name in servers):
            return f"refused: {target['server']} is under maintenance"
        if not target["instances"]:
            return f"refused: {target['server']} has no address: `command` is not active in this release"
        found.sent = True
        found.quotas = tuple(
            self._account(quota, subject, arm)
            for quota, match in applying_rules(quotas_of(self.settings), self.principal, self.call.endpoint)
            if (match is None or match.judge(arguments) is not False) and _speaks(quota, subject)
        )
        found.limits = tuple(
            {**self._counting(one, subject, arguments), "weight": arm.weight, "shadow": one.limit.shadow}
            for one in applying(limits_of(self.settings), self.principal, self.call.endpoint)
            if one.counts(arguments) and _speaks(one.limit, subject)
        )
        return f"sent to {target['server']} as {target['name']}"

    def _account(self, quota: Quota, subject: CallSubject, arm: Arm) -> Record:
        period = quota.period
        learned = tuple(KINDS[at] for at in quota.kinds if at != CALLS and arm.reserve[at - 1] is None)
        return {
            "name": quota.name,
            "by": quota.by,
            "subject": self._values(quota, subject),
            "per": period.per or None,
            "timezone": period.zone if period.per else None,
            "rolling": period.rolling / 1000 or None,
            "amounts": _amounts(quota, quota.amounts),
            "reserves": _amounts(quota, quota.units(arm.reservation())),
            "learned": learned,
            "shadow": quota.shadow,
        }

    def _values(self, rule: LimitRule, subject: CallSubject) -> tuple[str | None, ...]:
        """Of the rule's `by`: which bucket or account it is."""
        found = rule.subject_reader(self.call.endpoint, subject)(self.principal)
        return found if isinstance(found, tuple) else (found,)

    def _counting(self, one: ApplyingLimits, subject: CallSubject, arguments: bytes) -> Record:
        limit, table = one.limit, one.table_for(arguments)
        rate, at = None, None
        if limit.rate is not None:
            written = next(each for each in self.settings.limits if each.name == limit.name)
            tables = [override_table(limit, each) for each in limit.overrides]
            at = tables.index(table.table) if table.table in tables else None
            rate = str((at is not None and written.overrides[at].rate) or written.rate)
        return {
            "name": limit.name,
            "by": limit.by,
            "bucket": self._values(limit, subject),
            "rate": rate,
            "burst": None if table.rate is None else table.rate.burst,
            "override": None if at is None else at + 1,
            "in_flight": limit.in_flight,
        }


def _otherwise(policy: str | None, *, allowed: bool) -> Record | None:
    return None if policy is None else {"policy": policy, "would": "refuse" if allowed else "allow"}


def _speaks(rule: LimitRule, subject: CallSubject) -> bool:
    return rule.tools is None or rule.tools.take(subject)


def _amounts(quota: Quota, amounts: Amounts) -> dict[str, int | str]:
    """Those that the quota counts, by their kind."""
    return {KINDS[at]: amount_shown(at, amounts[at], quota.unit) for at in quota.kinds}


def _arms(route: Route, passed: Sequence[list[str]], judged: Sequence[list[str]]) -> Iterator[Record]:
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
