"""What each class of agents has on one endpoint: grants, and its lists encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastgw.catalog.listing import PAGE, ListEntry, encoded, fingerprint
from fastgw.catalog.route import arms_for
from fastgw.catalog.tools import joined_instructions
from fastgw.policy.match import ANONYMOUS, AgentTraits, Traits
from fastgw.policy.uris import UriRules
from fastgw.protocol import names
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.endpoint_builder import EndpointBuilder
from fastgw.snapshot.model import Grant, Listing, Page, View
from fastgw.snapshot.sections import AgentClass, Section, SectionView, UriSection

Pages = dict[tuple[int, bool, tuple[ListEntry, ...]], Page]
"""Pages of lists by what stands on them: number of the first item, whether more follow, the items."""


EndpointSections = Mapping[str, Sequence[Section | UriSection]]
"""All of an endpoint, by list method, in the order of lists. Of the tools, the first section is that of the entries of
`tools:`, the only one that tells agents apart."""
ViewKey = tuple[UriRules, tuple[tuple[SectionView, ...], ...]]
"""Whatever makes a view: views with equal ones are one."""


class Views:
    """The views of one endpoint, each built once; those of the last compile that are still the same are taken over."""

    def __init__(self, builder: EndpointBuilder, sections: EndpointSections) -> None:
        cache, path = builder.cache, builder.path
        self.built: list[View] = []
        self._builder = builder
        self._sections = sections
        entries = sections[names.TOOLS_LIST][0]
        assert isinstance(entries, Section)
        self._classes = cache.kept(("classes", path), (entries,), lambda: _agent_classes(cache, path, entries))
        self._by_class: dict[int, int] = {}
        self._places: dict[ViewKey, int] = {}
        self._now: dict[ViewKey, tuple[View, Pages]] = {}
        self._before = cache.exchanged(("views", path), self._now)
        self._pages: Pages = {}
        for _, pages in self._before.values():
            self._pages.update(pages)

    def index(self, agent: str) -> int:
        """The place in `built` of the view of this agent."""
        found = self._classes[agent]
        place = self._by_class.get(id(found))
        if place is None:
            view_key = self._view_key(found)
            if view_key not in self._places:
                view = self._now[view_key] = self._before.get(view_key) or self._build(view_key)
                self._places[view_key] = len(self.built)
                self.built.append(view[0])
            place = self._by_class[id(found)] = self._places[view_key]
        return place

    def guides(self) -> tuple[str, ...]:
        """`Endpoint.guides`; call it when all agents have their view."""
        builder = self._builder
        catalogues = {server: builder.offer(server).catalogue for server in builder.servers}
        texts = {server: found.instructions for server, found in catalogues.items() if found and found.instructions}
        if not texts:
            return ()
        guides = []
        for view_key in self._places:
            shown = _servers(view_key)
            heard = [(builder.catalogues.alias(server), text) for server, text in texts.items() if server in shown]
            guides.append(joined_instructions(builder.endpoint.instructions, heard, named=len(builder.servers) > 1))
        return tuple(guides)

    def _view_key(self, agents: AgentClass) -> ViewKey:
        rules, every = agents.uri_rules, self._sections.values()
        return rules, tuple(
            [
                tuple([one.view(agents) if isinstance(one, Section) else one.part(rules) for one in sections])
                for sections in every
            ]
        )

    def _build(self, view_key: ViewKey) -> tuple[View, Pages]:
        pages: Pages = {}
        shown = dict(zip(self._sections, view_key[1], strict=True))
        lists = {}
        for method, views in shown.items():
            entries = [entry for view in views for entry in view.entries]
            listed = [name for view in views for name in view.names]
            lists[method] = Listing(tuple(self._paged(entries, pages)), fingerprint(listed))
        tools, prompts = _grants(shown[names.TOOLS_LIST]), _grants(shown[names.PROMPTS_LIST])
        return View(tools, prompts, view_key[0], lists), pages

    def _paged(self, entries: Sequence[ListEntry], pages: Pages) -> Iterator[Page]:
        """The pages of a list; an empty list has one empty page. Views share pages with the same items."""
        for start in range(0, max(len(entries), 1), PAGE):
            items = tuple(entries[start : start + PAGE])
            key = start, start + PAGE < len(entries), items
            page = self._pages.get(key)
            if page is None:
                page = self._pages[key] = Page(encoded(items), start, key[1], items)
            pages[key] = page
            yield page


def _agent_classes(cache: CompileCache, path: str, entries: Section) -> dict[str, AgentClass]:
    """The class of every agent, by its name; agents of one class have one object."""
    rules, split = cache.rules, entries.split
    policies = [policy.match for policy in rules.policies or () if policy.match and not policy.shadow]
    traits = Traits([*policies, *(arm.match for route in split for arm in route.arms if arm.match)])
    by_traits: dict[AgentTraits, AgentClass] = {}
    found = {}
    for principal in (ANONYMOUS, *cache.agents.values()):
        own = traits.of(principal)
        if own not in by_traits:
            applying = rules.applying(principal, path)
            arms = {route.name: arms_for(route.arms, principal, path) for route in split}
            by_traits[own] = AgentClass(applying, rules.uri_rules(applying), arms)
        found[principal.agent] = by_traits[own]
    return found


def _servers(view_key: ViewKey) -> set[str]:
    """Servers of which something is seen: the others must not be known by what they tell."""
    views = [view for each in view_key[1] for view in each]
    calls = [grant for view in views for grant in view.grants.values()]
    found = {target.server for grant in calls for arm in grant.arms for target in arm.targets}
    return found | {view.server for view in views if view.server and view.names}


def _grants(views: Sequence[SectionView]) -> dict[str, Grant]:
    return {name: grant for view in views for name, grant in view.grants.items()}
