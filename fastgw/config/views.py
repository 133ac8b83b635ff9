"""What each class of agents sees on one endpoint: grants, and `tools/list` encoded.

Knows: agents, policies, and that agents who see the same share one view. Refuses to know: names, catalogues.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fastgw.catalog.arms import arms_for
from fastgw.catalog.listing import PAGE, Entry, encoded, fingerprint
from fastgw.catalog.route import Arm
from fastgw.config.faces import Face
from fastgw.config.offers import Offer
from fastgw.config.snapshot import Condition, Grant, Listing, Page, View
from fastgw.mcp import names
from fastgw.policy.authorise import FREE, Applying, Bits, Rules, Verdict
from fastgw.policy.match import Match
from fastgw.policy.principal import Principal
from fastgw.policy.traits import Traits

Shown = tuple[Grant, Face]
Row = tuple[Offer, Bits, Shown | None]
"""A tool, the policies that speak of it, and what it looks like to all alike (None: that depends on who asks)."""


class Views:
    """The views of one endpoint, each built once.

    Args:
        path: of the endpoint.
        offers: its tools in the order of lists.
        rules: the policies.
    """

    def __init__(self, path: str, offers: Sequence[Offer], rules: Rules) -> None:
        self.built: list[View] = []
        self._path = path
        self._rules = rules
        self._rows: list[Row] = [(offer, _bits(rules, offer), _alike(offer)) for offer in offers]
        self._split = [offer for offer, _, alike in self._rows if alike is None]
        self._traits = Traits(_matches(rules, self._split))
        self._by_traits: dict[object, int] = {}
        self._by_class: dict[object, int] = {}
        self._by_grants: dict[tuple[int, ...], int] = {}
        self._made: dict[object, Shown] = {}
        self._pages: dict[object, Page] = {}

    def index(self, principal: Principal) -> int:
        """The place in `built` of what this agent sees."""
        traits = self._traits.of(principal)
        found = self._by_traits.get(traits)
        if found is None:
            found = self._by_traits[traits] = self._classified(principal)
        return found

    def _classified(self, principal: Principal) -> int:
        applying = self._rules.applying(principal, self._path)
        arms = {offer.route.name: arms_for(offer.route.arms, principal, self._path) for offer in self._split}
        key = applying, tuple(arms.values())
        found = self._by_class.get(key)
        if found is None:
            found = self._by_class[key] = self._placed(list(self._shown(applying, arms)))
        return found

    def _placed(self, shown: Sequence[Shown]) -> int:
        grants = tuple([id(grant) for grant, _ in shown])
        found = self._by_grants.get(grants)
        if found is None:
            found = self._by_grants[grants] = len(self.built)
            pages = tuple(self._paged([face.entry for _, face in shown]))
            by_name = {grant.route.name: grant for grant, _ in shown}
            self.built.append(View(by_name, lists={names.TOOLS_LIST: Listing(pages, fingerprint(by_name))}))
        return found

    def _shown(self, applying: Applying, arms: dict[str, tuple[Arm, ...]]) -> Iterator[Shown]:
        judge = self._rules.judge
        for offer, bits, alike in self._rows:
            if alike is not None:
                verdict = judge(bits, offer.sources[0], applying)
                if verdict is FREE:
                    yield alike
                elif verdict is not None:
                    yield self._grant(offer, offer.route.arms, verdict)
            elif own := arms[offer.route.name]:
                verdict = judge(bits, _sources(own), applying)
                if verdict is not None:
                    yield self._grant(offer, own, verdict)

    def _grant(self, offer: Offer, arms: tuple[Arm, ...], verdict: Verdict) -> Shown:
        key = offer.route.name, arms, verdict
        found = self._made.get(key)
        if found is None:
            policies = self._rules.policies or ()
            face = _face(offer, arms[0])
            route = offer.route
            if face.param_headers != route.param_headers:
                route = replace(route, param_headers=face.param_headers)
            conditions = tuple(Condition(policies[at].name, allow, match) for at, allow, match in verdict.conditions)
            found = self._made[key] = Grant(route, arms, verdict.allowed, conditions), face
        return found

    def _paged(self, entries: Sequence[Entry]) -> Iterator[Page]:
        """The pages of a list; an empty list has one empty page. Views share pages with the same tools."""
        for start in range(0, max(len(entries), 1), PAGE):
            part = entries[start : start + PAGE]
            more = start + PAGE < len(entries)
            key = start, more, tuple([id(one) for one in part])
            found = self._pages.get(key)
            if found is None:
                found = self._pages[key] = Page(encoded(part), start, more)
            yield found


def _alike(offer: Offer) -> Shown | None:
    arms = offer.route.arms
    face = offer.faces[0]
    if len(arms) == 1 and arms[0].match is None and face is not None:
        return Grant(offer.route, arms, True, ()), face
    return None


def _bits(rules: Rules, offer: Offer) -> Bits:
    flat = [source for row in offer.sources for source in row]
    return rules.bits(offer.route.name, flat, offer.route.known_as)


def _matches(rules: Rules, split: Iterable[Offer]) -> Iterator[Match]:
    yield from (policy.match for policy in rules.policies or () if policy.match and not policy.shadow)
    yield from (arm.match for offer in split for arm in offer.route.arms if arm.match)


def _sources(arms: Iterable[Arm]) -> list[str]:
    return [f"{target.server}/{target.tool}" for arm in arms for target in arm.targets]


def _face(offer: Offer, taken: Arm) -> Face:
    """How the tool looks to those whose first arm this is; arms left over for a class keep their targets."""
    pairs = zip(offer.route.arms, offer.faces, strict=True)
    return next(face for arm, face in pairs if face is not None and arm.targets is taken.targets)
