"""What stands together in a list (entries of `tools:`, or one server's part), and what each class of agents has of
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fastgw.catalog.listing import ListEntry
from fastgw.catalog.notice import Notice
from fastgw.catalog.route import Arm, Route
from fastgw.policy.authorise import FREE, ApplyingPolicies, Bits, Decision, Rules
from fastgw.policy.uris import UriRules
from fastgw.snapshot.model import Grant
from fastgw.snapshot.shown_tools import ShownTool

Arms = Mapping[str, tuple[Arm, ...]]
"""Exposed name to the arms that a class could take, for every route that tells agents apart."""
_UNKNOWN = Decision(False)


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool or prompt of an endpoint.

    Args:
        sources: for each arm of the route, `server/tool` of every target.
        faces: for each arm, how the tool looks to those whose first arm it is; None for an arm without a target here.
    """

    route: Route
    sources: tuple[tuple[str, ...], ...]
    faces: tuple[ShownTool | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SectionRow:
    """An offer, the policies that speak of it, and what it is to all alike (None: that depends on who asks).

    Args:
        like: equal for rows of which policies say the same to everyone.
        origin: the definition it was made of; None where it was made of several things.
        notices: what the operator should hear of it.
    """

    offer: Offer
    bits: Bits
    grant: Grant | None
    like: object
    origin: object = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SectionView:
    """What one class of agents has of a block. Of one block, two parts with the same content are one object.

    Args:
        names: exposed names or URIs, in the order of the list.
        entries: how each is listed.
        grants: by exposed name; none for resources.
        server: whose resources they are.
    """

    names: tuple[str, ...]
    entries: tuple[ListEntry, ...]
    grants: dict[str, Grant]
    server: str = ""


class Section:
    """Tools or prompts.

    Args:
        rules: the policies.
        rows: in the order of lists.
        notices: what the operator should hear of what is not there.
    """

    def __init__(self, rules: Rules, rows: Sequence[SectionRow], notices: Sequence[Notice] = ()) -> None:
        self.notices = (*notices, *(notice for row in rows for notice in row.notices))
        self.rows = {row.offer.route.name: row for row in rows}
        self.routes = {name: row.offer.route for name, row in self.rows.items()}
        self.split = [row.offer for row in rows if row.grant is None]
        self._rules = rules
        self._parts: dict[object, SectionView] = {}
        self._by_grants: dict[tuple[int, ...], SectionView] = {}
        self._made: dict[object, tuple[Grant, ShownTool]] = {}

    def part(self, applying: ApplyingPolicies, arms: Arms) -> SectionView:
        """What a class has of it.

        Args:
            applying: the policies that apply to the class.
            arms: of every route of `split`, the arms that the class could take.
        """
        key = applying, tuple([arms[offer.route.name] for offer in self.split])
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = self._interned(list(self._shown(applying, arms)))
        return found

    def _interned(self, shown: Sequence[tuple[Grant, ShownTool]]) -> SectionView:
        key = tuple([id(grant) for grant, _ in shown])
        found = self._by_grants.get(key)
        if found is None:
            grants = {grant.route.name: grant for grant, _ in shown}
            found = self._by_grants[key] = SectionView(tuple(grants), tuple([face.entry for _, face in shown]), grants)
        return found

    def _shown(self, applying: ApplyingPolicies, arms: Arms) -> Iterator[tuple[Grant, ShownTool]]:
        judge = self._rules.judge
        known: dict[object, Decision | None] = {}
        for row in self.rows.values():
            offer, grant = row.offer, row.grant
            if grant is not None:
                decision = known.get(row.like, _UNKNOWN)
                if decision is _UNKNOWN:
                    decision = known[row.like] = judge(row.bits, offer.sources[0], applying)
                if decision is FREE:
                    yield grant, _only(offer)
                elif decision is not None:
                    yield self._grant(offer, offer.route.arms, decision)
            elif own := arms[offer.route.name]:
                decision = judge(row.bits, _sources(own), applying)
                if decision is not None:
                    yield self._grant(offer, own, decision)

    def _grant(self, offer: Offer, arms: tuple[Arm, ...], decision: Decision) -> tuple[Grant, ShownTool]:
        key = offer.route.name, arms, decision
        found = self._made.get(key)
        if found is None:
            face = _face(offer, arms[0])
            route = offer.route
            if face.param_headers != route.param_headers:
                route = replace(route, param_headers=face.param_headers)
            found = self._made[key] = Grant(route, arms, decision.allowed, decision.conditions), face
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
            permit, server = rules.permit, self._server
            shown = [row for row in self._rows if permit(row.exposed, server, row.own, row.known_as)]
            names = tuple([row.exposed for row in shown])
            part = SectionView(names, tuple([row.entry for row in shown]), {}, server)
            found = self._parts[rules] = self._by_names.setdefault(names, part)
        return found


def row_of(offer: Offer, bits: Bits, origin: object = None, notices: tuple[Notice, ...] = ()) -> SectionRow:
    """The offer as a row; what is the same for everyone is made here."""
    arms = offer.route.arms
    alike = len(arms) == 1 and arms[0].match is None and offer.faces[0] is not None
    sources = offer.sources[0]
    # Of one target, policies tell nothing else apart; of several, what each allows counts by itself.
    like = (bits.by_name, bits.by_source.get(sources[0], 0), bits.deny) if len(sources) == 1 else id(bits)
    return SectionRow(offer, bits, Grant(offer.route, arms, True, ()) if alike else None, like, origin, notices)


def _only(offer: Offer) -> ShownTool:
    face = offer.faces[0]
    assert face is not None
    return face


def _sources(arms: Iterable[Arm]) -> list[str]:
    return [f"{target.server}/{target.tool}" for arm in arms for target in arm.targets]


def _face(offer: Offer, taken: Arm) -> ShownTool:
    """How the tool looks to those whose first arm this is; arms left over for a class keep their targets."""
    pairs = zip(offer.route.arms, offer.faces, strict=True)
    return next(face for arm, face in pairs if face is not None and arm.targets is taken.targets)
