"""Who sees what of an endpoint: what each class of agents has of each section of its lists (the entries of `tools:`, or
one server's offer), and the views put together of that. What is there at all is decided before, in `exposure`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple, TypeVar

from fastgw.catalog.elements import Notice
from fastgw.catalog.route import Arm, Route, arms_for
from fastgw.catalog.tools import joined_instructions
from fastgw.policy.authorise import FREE, ApplyingPolicies, Decision, Rules, ToolPolicies
from fastgw.policy.match import AgentTraits, Principal, Traits
from fastgw.policy.shadow import ShadowRules, ShadowUris, ShadowVerdict, judge_shadow, shadow_uris
from fastgw.policy.uris import UriRules
from fastgw.protocol import names
from fastgw.snapshot.cache import EndpointBuilder
from fastgw.snapshot.curation import ShownTool
from fastgw.snapshot.model import Grant, Item, ListEntry, Listing, View, VisibleSection, fingerprint, granted

T = TypeVar("T")
SPARE = 100
"""Classes beyond twice those in use from which on the others are forgotten."""


@dataclass(slots=True, eq=False)
class ExposedTool:
    """One tool or prompt of an endpoint; never changed.

    Args:
        sources: `server/tool` of every target.
        shown: for each arm, what those are shown whose first arm it is; None for an arm without a target here.
        origin: the definition it was made of; None where it was made of several things.
    """

    route: Route
    sources: Sequence[str]
    shown: tuple[ShownTool | None, ...]
    policies: ToolPolicies
    origin: object = None
    notices: tuple[Notice, ...] = ()
    plain: Item | None = field(init=False)
    """What all have of it whom no policy looks at more closely; None where that depends on who asks."""
    policy_key: object = field(init=False)
    """Equal for those of which policies say the same to everyone."""

    def __post_init__(self) -> None:
        arms, policies, shown = self.route.arms, self.policies, self.shown[0]
        alike = len(arms) == 1 and arms[0].match is None
        item = (self.route.name, Grant(True, (), self.route, arms), shown.entry) if shown is not None else None
        self.plain = item if alike else None
        # Of one target, policies tell nothing else apart; of several, what each allows counts by itself.
        one = self.plain is not None and len(self.sources) == 1
        by_source = policies.by_source.get(self.sources[0], 0)
        self.policy_key = (policies.by_name, by_source, policies.deny) if one else self

    def shown_to(self, taken: Arm) -> ShownTool:
        """What those are shown whose first arm this is; arms left over for a class keep their targets."""
        pairs = zip(self.route.arms, self.shown, strict=True)
        return next(shown for arm, shown in pairs if shown is not None and arm.targets is taken.targets)


@dataclass(frozen=True, slots=True, eq=False)
class AgentClass:
    """Agents that no policy and no route tells apart.

    Args:
        arms: those that they could take, for every route that tells agents apart.
        shadow: `applying` with the policies in shadow; None where none of these changes it.
    """

    applying: ApplyingPolicies
    uri_rules: UriRules
    arms: Mapping[str, tuple[Arm, ...]]
    shadow: ApplyingPolicies | None = None
    shadow_uris: ShadowUris | None = None


class Section(ABC):
    """One section of a list."""

    def __init__(self) -> None:
        self._by_class: dict[object, VisibleSection] = {}
        self._by_content: dict[object, VisibleSection] = {}

    @abstractmethod
    def visible_to(self, agents: AgentClass) -> VisibleSection:
        """What a class has of it; where two have the same it is one object."""

    def _once(
        self, deciding: object, make: Callable[[AgentClass], VisibleSection], agents: AgentClass
    ) -> VisibleSection:
        """What `make` makes for a class; classes that are equal in what is `deciding` have the same."""
        found = self._by_class.get(deciding)
        if found is None:
            made = make(agents)
            content = tuple(map(id, made.items)), tuple(made.shadow.items())
            found = self._by_class[deciding] = self._by_content.setdefault(content, made)
        return found

    def keep(self, shown: Mapping[int, VisibleSection]) -> None:
        """Forget all but these, by `id`."""
        self._by_class = {key: one for key, one in self._by_class.items() if id(one) in shown}
        self._by_content = {key: one for key, one in self._by_content.items() if id(one) in shown}


class ToolSection(Section):
    """Tools or prompts."""

    def __init__(self, rules: Rules, exposed: Sequence[ExposedTool], notices: Sequence[Notice] = ()) -> None:
        super().__init__()
        self.notices = (*notices, *(notice for one in exposed for notice in one.notices))
        self.exposed = {one.route.name: one for one in exposed}
        self.routes = {name: one.route for name, one in self.exposed.items()}
        self.telling_apart = [one.route for one in exposed if one.plain is None]
        """The routes that tell agents apart."""
        self._rules = rules
        self._items: dict[object, Item] = {}
        self._whole = tuple([one.plain for one in exposed if one.plain is not None])
        # Ten thousand tools are a few hundred kinds, which alone are judged for each class of agents.
        kinds = {one.policy_key: one for one in exposed}
        self._kinds = list(kinds.values())
        places = {key: place for place, key in enumerate(kinds)}
        self._exposed = [(one, places[one.policy_key]) for one in exposed]

    def visible_to(self, agents: AgentClass) -> VisibleSection:
        arms = tuple([agents.arms[route.name] for route in self.telling_apart])
        return self._once((agents.applying, arms, agents.shadow), self._visible_to, agents)

    def keep(self, shown: Mapping[int, VisibleSection]) -> None:
        super().keep(shown)
        used = {id(item) for one in self._by_content.values() for item in one.items}
        self._items = {key: item for key, item in self._items.items() if id(item) in used}

    def _visible_to(self, agents: AgentClass) -> VisibleSection:
        items = tuple(self._visible(agents))
        servers = frozenset([to.server for _, grant, _ in items if grant for arm in grant.arms for to in arm.targets])
        return VisibleSection(items, self._whole, servers, dict(self._otherwise(agents)))

    def _visible(self, agents: AgentClass) -> Iterator[Item]:
        decisions = [self._judge(one, agents) for one in self._kinds]
        for one, kind in self._exposed:
            decision = decisions[kind]
            if decision is FREE and one.plain is not None:
                yield one.plain
            elif decision is not None:
                yield self._item(one, agents.arms.get(one.route.name, one.route.arms), decision)

    def _otherwise(self, agents: AgentClass) -> Iterator[tuple[str, ShadowVerdict]]:
        """Those that policies in shadow would decide otherwise for these agents."""
        if agents.shadow is None:
            return
        verdicts = [self._judge_shadow(one, agents, agents.shadow) for one in self._kinds]
        for one, kind in self._exposed:
            if (verdict := verdicts[kind]) is not None:
                yield one.route.name, verdict

    def _judge(self, one: ExposedTool, agents: AgentClass) -> Decision | None:
        sources = _reached(one, agents)
        return self._rules.judge(one.policies, sources, agents.applying) if sources else None

    def _judge_shadow(self, one: ExposedTool, agents: AgentClass, shadow: ApplyingPolicies) -> ShadowVerdict | None:
        sources = _reached(one, agents)
        return judge_shadow(self._rules, one.policies, sources, agents.applying, shadow) if sources else None

    def _item(self, one: ExposedTool, arms: tuple[Arm, ...], decision: Decision) -> Item:
        route = one.route
        key = route.name, arms, decision
        found = self._items.get(key)
        if found is None:
            shown = one.shown_to(arms[0])
            if shown.param_headers != route.param_headers:
                route = replace(route, param_headers=shown.param_headers)
            grant = Grant(decision.allowed, decision.conditions, route, arms)
            found = self._items[key] = route.name, grant, shown.entry
        return found


def _reached(one: ExposedTool, agents: AgentClass) -> Sequence[str]:
    """`server/tool` of every target that these agents could reach."""
    if one.plain is not None:
        return one.sources
    return [f"{target.server}/{target.tool}" for arm in agents.arms[one.route.name] for target in arm.targets]


class ExposedUri(NamedTuple):
    """A resource or template: as agents know it, how its server spells it, what else it is called, how it is listed."""

    uri: str
    own: str
    known_as: tuple[str, ...]
    entry: ListEntry


class UriSection(Section):
    """The resources, or the templates, of one server."""

    def __init__(self, server: str, exposed: Sequence[ExposedUri]) -> None:
        super().__init__()
        self._server = server
        self._exposed = exposed
        self._whole: tuple[Item, ...] = tuple([(one.uri, None, one.entry) for one in exposed])

    def visible_to(self, agents: AgentClass) -> VisibleSection:
        return self._once(agents.uri_rules, self._visible_to, agents)

    def _visible_to(self, agents: AgentClass) -> VisibleSection:
        permit, server = agents.uri_rules.permit_listed, self._server
        pairs = zip(self._exposed, self._whole, strict=True)
        visible = tuple([item for one, item in pairs if permit(one.uri, server, one.own, one.known_as)])
        return VisibleSection(visible, self._whole, frozenset([server] if visible else []))


EndpointSections = Mapping[str, Sequence[Section]]
"""All of an endpoint, by list method, in the order of lists. Of the tools, the first section is that of the entries of
`tools:`, the only one that tells agents apart."""
ViewKey = tuple[tuple[UriRules, ShadowUris | None], tuple[tuple[VisibleSection, ...], ...]]
"""Whatever makes a view: views with equal ones are one."""


class EndpointViews(NamedTuple):
    """`Endpoint.views`, `guides`, `view_of`, and, where `traits` are given, `view_of_class`."""

    views: tuple[View, ...]
    guides: tuple[str, ...]
    view_of: dict[str, int]
    traits: Traits
    view_of_class: dict[AgentTraits, int]


def views_of(
    builder: EndpointBuilder, sections: EndpointSections, agents: Sequence[Principal], strangers: Sequence[Principal]
) -> EndpointViews:
    """The views of these agents, and of the classes of those known by claims alone; views of the last compile that are
    still the same are taken over.
    """
    cache, path, entries = builder.cache, builder.path, sections[names.TOOLS_LIST][0]
    assert isinstance(entries, ToolSection)
    classes = cache.kept(("classes", path), (entries,), lambda: AgentClasses(cache.rules, path, entries))
    class_of = {one.agent: classes.of(one) for one in agents}
    # Of a class that is known already there is nothing to find out while all sections are what they were.
    parts = tuple([part for every in sections.values() for part in every])
    known: dict[AgentClass, ViewKey] = cache.kept(("keys", path), parts, dict)
    keys = {
        one: known.get(one) or _key(one, sections)
        for one in dict.fromkeys([*class_of.values(), *map(classes.of, strangers)])
    }
    known |= keys
    if len(classes.by_traits) > 2 * len(keys) + SPARE:
        _forget_all_but(keys, classes, known, parts)
    before: Mapping[ViewKey, View] = cache.last(("views", path)) or {}
    views = {key: before.get(key) or _view(key, tuple(sections)) for key in dict.fromkeys(keys.values())}
    cache.kept(("views", path), (views,), lambda: views)
    place_of_key = {key: place for place, key in enumerate(views)}
    place_of = {one: place_of_key[key] for one, key in keys.items()}
    return EndpointViews(
        tuple(views.values()),
        _guides(builder, tuple(views)),
        {agent: place_of[one] for agent, one in class_of.items()},
        classes.traits,
        {traits: place_of[one] for traits, one in classes.by_traits.items() if one in place_of},
    )


def _forget_all_but(
    keys: Mapping[AgentClass, ViewKey],
    classes: AgentClasses,
    known: dict[AgentClass, ViewKey],
    parts: Sequence[Section],
) -> None:
    """Forget what was found of classes that nobody is in any more: with the claims of tokens new ones come for ever."""
    classes.keep(keys)
    for gone in known.keys() - keys.keys():
        del known[gone]
    shown = {id(section): section for _, every in keys.values() for section in chain.from_iterable(every)}
    for part in parts:
        part.keep(shown)


def _key(one: AgentClass, sections: EndpointSections) -> ViewKey:
    visible = [tuple([part.visible_to(one) for part in every]) for every in sections.values()]
    return (one.uri_rules, one.shadow_uris), tuple(visible)


def _view(key: ViewKey, methods: Sequence[str]) -> View:
    (rules, uris), visible = key
    sections = dict(zip(methods, visible, strict=True))
    items = {method: [item for section in shown for item in section.items] for method, shown in sections.items()}
    lists = {
        method: Listing(tuple([entry for _, _, entry in every]), fingerprint([name for name, _, _ in every]))
        for method, every in items.items()
    }
    tools, prompts = (granted(items[method]) for method in (names.TOOLS_LIST, names.PROMPTS_LIST))
    changed = [joined(one.shadow for one in sections[method]) for method in (names.TOOLS_LIST, names.PROMPTS_LIST)]
    shadow = ShadowRules(changed[0], changed[1], uris) if uris is not None or any(changed) else None
    return View(tools, prompts, rules, lists, sections, shadow)


def _guides(builder: EndpointBuilder, keys: Sequence[ViewKey]) -> tuple[str, ...]:
    catalogues = {server: builder.catalogues.offer[server].catalogue for server in builder.servers}
    texts = {server: found.instructions for server, found in catalogues.items() if found and found.instructions}
    guides = []
    for _, visible in keys if texts else ():
        # The others must not be known by what they tell.
        seen = frozenset[str]().union(*[section.servers for sections in visible for section in sections])
        shown = [(builder.catalogues.alias(server), text) for server, text in texts.items() if server in seen]
        guides.append(joined_instructions(builder.endpoint.instructions, shown, named=len(builder.servers) > 1))
    return tuple(guides)


def joined(sections: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """All of them in one; of ten thousand names at each compile none is looked at by itself."""
    found: dict[str, T] = {}
    for section in sections:
        found.update(section)
    return found


class AgentClasses:
    """The classes of agents at one endpoint, as they come; agents of one class have one object."""

    def __init__(self, rules: Rules, path: str, entries: ToolSection) -> None:
        self._rules, self._path, self._routes = rules, path, entries.telling_apart
        policies = [policy.match for policy in rules.policies or () if policy.match]
        arms = [arm.match for route in self._routes for arm in route.arms if arm.match]
        self.traits = Traits([*policies, *arms])
        self.by_traits: dict[AgentTraits, AgentClass] = {}
        self._known: dict[int, tuple[Principal, AgentClass]] = {}

    def of(self, principal: Principal) -> AgentClass:
        """Its class; each compile asks for the same ones, and gives the same objects."""
        known = self._known.get(id(principal))
        if known is not None:
            return known[1]
        own = self.traits.of(principal)
        if own not in self.by_traits:
            arms = {route.name: arms_for(route.arms, principal, self._path) for route in self._routes}
            self.by_traits[own] = self._class(principal, arms)
        found = self.by_traits[own]
        self._known[id(principal)] = principal, found
        return found

    def keep(self, present: Container[AgentClass]) -> None:
        """Forget the others."""
        self.by_traits = {traits: one for traits, one in self.by_traits.items() if one in present}
        self._known = {place: known for place, known in self._known.items() if known[1] in present}

    def _class(self, principal: Principal, arms: Mapping[str, tuple[Arm, ...]]) -> AgentClass:
        rules, path = self._rules, self._path
        applying = rules.applying(principal, path)
        found = AgentClass(applying, rules.uri_rules(applying), arms)
        shadow = rules.applying_with_shadow(principal, path) if rules.shadow else applying
        if shadow == applying:
            return found
        return replace(found, shadow=shadow, shadow_uris=shadow_uris(rules, applying, shadow))
