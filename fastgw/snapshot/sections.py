"""The sections of a list (entries of `tools:`, or one server's offer), and what each class of agents has of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fastgw.catalog.elements import Notice
from fastgw.catalog.listing import ListEntry
from fastgw.catalog.route import Arm, Route
from fastgw.policy.authorise import FREE, ApplyingPolicies, Bits, Decision, Rules
from fastgw.policy.uris import UriRules
from fastgw.snapshot.curation import ShownTool
from fastgw.snapshot.model import Grant

Arms = Mapping[str, tuple[Arm, ...]]
"""Exposed name to the arms that a class could take, for every route that tells agents apart."""
_UNKNOWN = Decision(False)


@dataclass(slots=True, eq=False)
class SectionRow:
    """One tool or prompt of an endpoint; never changed.

    Args:
        sources: for each arm of the route, `server/tool` of every target.
        shown: for each arm, what those are shown whose first arm it is; None for an arm without a target here.
    """

    route: Route
    sources: tuple[tuple[str, ...], ...]
    shown: tuple[ShownTool | None, ...]
    bits: Bits
    origin: object = None
    notices: tuple[Notice, ...] = ()
    grant: Grant | None = field(init=False)
    """What it is to all alike whom no policy looks at more closely; None where that depends on who asks."""
    like: object = field(init=False)
    """Equal for rows of which policies say the same to everyone."""

    def __post_init__(self) -> None:
        arms, sources, bits = self.route.arms, self.sources[0], self.bits
        alike = len(arms) == 1 and arms[0].match is None and self.shown[0] is not None
        self.grant = Grant(self.route, arms, True, ()) if alike else None
        # Of one target, policies tell nothing else apart; of several, what each allows counts by itself.
        one = len(sources) == 1
        self.like = (bits.by_name, bits.by_source.get(sources[0], 0), bits.deny) if one else id(bits)

    def shown_to(self, taken: Arm) -> ShownTool:
        """What those are shown whose first arm this is; arms left over for a class keep their targets."""
        pairs = zip(self.route.arms, self.shown, strict=True)
        return next(shown for arm, shown in pairs if shown is not None and arm.targets is taken.targets)


@dataclass(frozen=True, slots=True)
class AgentClass:
    """Agents that no policy and no route tells apart, and the arms that they could take."""

    applying: ApplyingPolicies
    uri_rules: UriRules
    arms: Arms


@dataclass(frozen=True, slots=True, eq=False)
class SectionView:
    """What one class of agents has of a section. Of one section, two views with the same content are one object."""

    names: tuple[str, ...]
    entries: tuple[ListEntry, ...]
    grants: dict[str, Grant]
    server: str = ""
    """Whose resources they are."""


class Section:
    """Tools or prompts."""

    def __init__(self, rules: Rules, rows: Sequence[SectionRow], notices: Sequence[Notice] = ()) -> None:
        self.notices = (*notices, *(notice for row in rows for notice in row.notices))
        self.rows = {row.route.name: row for row in rows}
        self.split = [row.route for row in rows if row.grant is None]
        self._rules = rules
        self._views: dict[object, SectionView] = {}
        self._by_grants: dict[tuple[int, ...], SectionView] = {}
        self._granted: dict[object, tuple[Grant, ShownTool]] = {}

    def view(self, agents: AgentClass) -> SectionView:
        """What a class has of it; its `arms` must know every route of `split`."""
        key = agents.applying, tuple([agents.arms[route.name] for route in self.split])
        found = self._views.get(key)
        if found is None:
            given = list(self._given(agents.applying, agents.arms))
            same = tuple([id(grant) for grant, _ in given])
            found = self._by_grants.get(same)
            if found is None:
                grants = {grant.route.name: grant for grant, _ in given}
                found = SectionView(tuple(grants), tuple([shown.entry for _, shown in given]), grants)
            self._views[key] = self._by_grants[same] = found
        return found

    def _given(self, applying: ApplyingPolicies, arms: Arms) -> Iterator[tuple[Grant, ShownTool]]:
        judge = self._rules.judge
        known: dict[object, Decision | None] = {}
        for name, row in self.rows.items():
            if row.grant is not None:
                decision = known.get(row.like, _UNKNOWN)
                if decision is _UNKNOWN:
                    decision = known[row.like] = judge(row.bits, row.sources[0], applying)
                if decision is FREE and (shown := row.shown[0]) is not None:
                    yield row.grant, shown
                elif decision is not None:
                    yield self._grant(row, row.route.arms, decision)
            elif own := arms[name]:
                sources = [f"{target.server}/{target.tool}" for arm in own for target in arm.targets]
                decision = judge(row.bits, sources, applying)
                if decision is not None:
                    yield self._grant(row, own, decision)

    def _grant(self, row: SectionRow, arms: tuple[Arm, ...], decision: Decision) -> tuple[Grant, ShownTool]:
        route = row.route
        key = route.name, arms, decision
        found = self._granted.get(key)
        if found is None:
            shown = row.shown_to(arms[0])
            if shown.param_headers != route.param_headers:
                route = replace(route, param_headers=shown.param_headers)
            found = self._granted[key] = Grant(route, arms, decision.allowed, decision.conditions), shown
        return found


@dataclass(frozen=True, slots=True, eq=False)
class UriRow:
    """A resource or a template: as agents know it, how its server spells it, what else it is called, and how it is
    listed.
    """

    exposed: str
    own: str
    known_as: tuple[str, ...]
    entry: ListEntry


class UriSection:
    """The resources, or the templates, of one server."""

    def __init__(self, server: str, rows: Sequence[UriRow]) -> None:
        self._server = server
        self._rows = rows
        self._parts: dict[UriRules, SectionView] = {}
        self._by_names: dict[tuple[str, ...], SectionView] = {}

    def part(self, rules: UriRules) -> SectionView:
        """What those have of it whose reads are decided by these rules."""
        found = self._parts.get(rules)
        if found is None:
            permit, server = rules.permit_listed, self._server
            shown = [row for row in self._rows if permit(row.exposed, server, row.own, row.known_as)]
            names = tuple([row.exposed for row in shown])
            part = SectionView(names, tuple([row.entry for row in shown]), {}, server)
            found = self._parts[rules] = self._by_names.setdefault(names, part)
        return found
