"""What each class of agents sees on one endpoint: grants, and its lists encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastgw.catalog.arms import arms_for
from fastgw.catalog.listing import PAGE, ListEntry, encoded, fingerprint
from fastgw.catalog.tools import joined_instructions
from fastgw.policy.authorise import ApplyingPolicies, Rules
from fastgw.policy.match import AgentClass, Match, Traits
from fastgw.policy.principal import ANONYMOUS, Principal
from fastgw.policy.uris import UriRules
from fastgw.protocol import names
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.endpoint_builder import EndpointBuilder
from fastgw.snapshot.model import Grant, Listing, Page, View
from fastgw.snapshot.sections import Arms, Section, SectionView, UriSection

Pages = dict[tuple[int, bool, tuple[ListEntry, ...]], Page]


@dataclass(frozen=True, slots=True)
class EndpointSections:
    """Everything an endpoint has, in the order of lists.

    Args:
        tools: the first block is that of the entries of `tools:`, the only one that tells agents apart.
    """

    tools: Sequence[Section]
    prompts: Sequence[Section]
    resources: Sequence[UriSection]
    templates: Sequence[UriSection]


@dataclass(frozen=True, slots=True)
class Class:
    """Agents that no policy and no route tells apart, and the arms that they could take."""

    applying: ApplyingPolicies
    uri_rules: UriRules
    arms: Arms


@dataclass(frozen=True, slots=True)
class ViewKey:
    """Whatever makes a view: views with equal ones are one."""

    tools: tuple[SectionView, ...]
    prompts: tuple[SectionView, ...]
    resources: tuple[SectionView, ...]
    templates: tuple[SectionView, ...]
    uri_rules: UriRules


class Classes:
    """The classes of one endpoint's agents.

    Args:
        workshop: has the agents and the policies.
        path: of the endpoint.
        entries: the block of the entries of `tools:`.
    """

    def __init__(self, cache: CompileCache, path: str, entries: Section) -> None:
        self.of: dict[str, Class] = {}
        """By name of the agent; agents of one class have one object."""
        rules, split = cache.rules, entries.split
        traits = Traits([*_matches(rules), *(arm.match for offer in split for arm in offer.route.arms if arm.match)])
        by_traits: dict[AgentClass, Class] = {}
        for principal in (ANONYMOUS, *cache.agents.values()):
            seen = traits.of(principal)
            if seen not in by_traits:
                by_traits[seen] = _class(rules, path, entries, principal)
            self.of[principal.agent] = by_traits[seen]


@dataclass(frozen=True, slots=True)
class BuiltView:
    """A view, and its pages by what stands on them."""

    view: View
    pages: Pages


class Views:
    """The views of one endpoint, each built once; those of the last compile that are still the same are taken over.

    Args:
        making: the endpoint.
        parts: all it has.
    """

    def __init__(self, builder: EndpointBuilder, parts: EndpointSections) -> None:
        cache, path = builder.cache, builder.path
        self._making = builder
        self.built: list[View] = []
        self._parts = parts
        entries = parts.tools[0]
        self._classes = cache.kept(("classes", path), (entries,), lambda: Classes(cache, path, entries))
        self._by_class: dict[int, int] = {}
        self._places: dict[ViewKey, int] = {}
        self._pages: Pages = {}
        self._before = cache.exchanged(("views", path), dict[ViewKey, BuiltView]())
        self._now: dict[ViewKey, BuiltView] = cache.last(("views", path))
        for built in self._before.values():
            self._pages.update(built.pages)

    def index(self, agent: str) -> int:
        """The place in `built` of what this agent sees."""
        found = self._classes.of[agent]
        place = self._by_class.get(id(found))
        if place is None:
            place = self._by_class[id(found)] = self._placed(self._view_key(found))
        return place

    def guides(self) -> tuple[str, ...]:
        """See `Endpoint.guides`; call it when all agents have their view."""
        builder, own = self._making, self._making.endpoint.instructions
        catalogues = {server: builder.offer(server).catalogue for server in builder.servers}
        texts = {server: found.instructions for server, found in catalogues.items() if found and found.instructions}
        if not texts:
            return ()
        aliases = {server: builder.cache.settings.servers[server].alias or server for server in texts}
        several = len(builder.servers) > 1
        return tuple(
            joined_instructions(
                own, [(aliases[server], text) for server, text in texts.items() if server in seen], named=several
            )
            for seen in map(_servers, self._places)
        )

    def _view_key(self, seen: Class) -> ViewKey:
        parts, applying, rules = self._parts, seen.applying, seen.uri_rules
        return ViewKey(
            tuple([block.part(applying, seen.arms) for block in parts.tools]),
            tuple([block.part(applying, seen.arms) for block in parts.prompts]),
            tuple([block.part(rules) for block in parts.resources]),
            tuple([block.part(rules) for block in parts.templates]),
            rules,
        )

    def _placed(self, view_key: ViewKey) -> int:
        place = self._places.get(view_key)
        if place is None:
            built = self._now[view_key] = self._before.get(view_key) or self._build(view_key)
            place = self._places[view_key] = len(self.built)
            self.built.append(built.view)
        return place

    def _build(self, view_key: ViewKey) -> BuiltView:
        pages: Pages = {}
        shown = {
            names.TOOLS_LIST: view_key.tools,
            names.PROMPTS_LIST: view_key.prompts,
            names.RESOURCES_LIST: view_key.resources,
            names.TEMPLATES_LIST: view_key.templates,
        }
        lists = {method: self._listing(parts, pages) for method, parts in shown.items()}
        return BuiltView(View(_grants(view_key.tools), _grants(view_key.prompts), view_key.uri_rules, lists), pages)

    def _listing(self, parts: Sequence[SectionView], pages: Pages) -> Listing:
        entries = [entry for part in parts for entry in part.entries]
        listed = [name for part in parts for name in part.names]
        return Listing(tuple(self._paged(entries, pages)), fingerprint(listed))

    def _paged(self, entries: Sequence[ListEntry], pages: Pages) -> Iterator[Page]:
        """The pages of a list; an empty list has one empty page. Views share pages with the same items."""
        for start in range(0, max(len(entries), 1), PAGE):
            part = tuple(entries[start : start + PAGE])
            key = start, start + PAGE < len(entries), part
            page = self._pages.get(key)
            if page is None:
                page = self._pages[key] = Page(encoded(part), start, key[1])
            pages[key] = page
            yield page


def _servers(view_key: ViewKey) -> set[str]:
    """Servers of which something is seen: the others must not be known by what they tell."""
    calls = [grant for part in (*view_key.tools, *view_key.prompts) for grant in part.grants.values()]
    found = {target.server for grant in calls for arm in grant.arms for target in arm.targets}
    return found | {part.server for part in (*view_key.resources, *view_key.templates) if part.names}


def _grants(parts: Sequence[SectionView]) -> dict[str, Grant]:
    found: dict[str, Grant] = {}
    for part in parts:
        found.update(part.grants)
    return found


def _class(rules: Rules, path: str, entries: Section, principal: Principal) -> Class:
    applying = rules.applying(principal, path)
    arms = {offer.route.name: arms_for(offer.route.arms, principal, path) for offer in entries.split}
    return Class(applying, rules.uri_rules(applying), arms)


def _matches(rules: Rules) -> Iterator[Match]:
    return (policy.match for policy in rules.policies or () if policy.match and not policy.shadow)
