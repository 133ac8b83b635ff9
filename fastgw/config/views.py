"""What each class of agents sees on one endpoint: grants, and its lists encoded.

Knows: agents, policies, and that agents who see the same share one view. Refuses to know: names, catalogues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastgw.catalog.arms import arms_for
from fastgw.catalog.instructions import joined
from fastgw.catalog.listing import PAGE, Entry, encoded, fingerprint
from fastgw.config.blocks import Arms, Block, Part, UriBlock
from fastgw.config.making import Making
from fastgw.config.snapshot import Grant, Listing, Page, View
from fastgw.config.workshop import Workshop
from fastgw.mcp import names
from fastgw.policy.authorise import Applying, Rules
from fastgw.policy.match import Match
from fastgw.policy.principal import ANONYMOUS, Principal
from fastgw.policy.traits import Seen, Traits
from fastgw.policy.uris import UriRules

Pages = dict[tuple[int, bool, tuple[Entry, ...]], Page]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything an endpoint has, in the order of lists.

    Args:
        tools: the first block is that of the entries of `tools:`, the only one that tells agents apart.
    """

    tools: Sequence[Block]
    prompts: Sequence[Block]
    resources: Sequence[UriBlock]
    templates: Sequence[UriBlock]


@dataclass(frozen=True, slots=True)
class Class:
    """Agents that no policy and no route tells apart, and the arms that they could take."""

    applying: Applying
    uri_rules: UriRules
    arms: Arms


@dataclass(frozen=True, slots=True)
class Sight:
    """Whatever makes a view: views with equal ones are one."""

    tools: tuple[Part, ...]
    prompts: tuple[Part, ...]
    resources: tuple[Part, ...]
    templates: tuple[Part, ...]
    uri_rules: UriRules


class Classes:
    """The classes of one endpoint's agents.

    Args:
        workshop: has the agents and the policies.
        path: of the endpoint.
        entries: the block of the entries of `tools:`.
    """

    def __init__(self, workshop: Workshop, path: str, entries: Block) -> None:
        self.of: dict[str, Class] = {}
        """By name of the agent; agents of one class have one object."""
        rules, split = workshop.rules, entries.split
        traits = Traits([*_matches(rules), *(arm.match for offer in split for arm in offer.route.arms if arm.match)])
        by_traits: dict[Seen, Class] = {}
        for principal in (ANONYMOUS, *workshop.agents.values()):
            seen = traits.of(principal)
            if seen not in by_traits:
                by_traits[seen] = _class(rules, path, entries, principal)
            self.of[principal.agent] = by_traits[seen]


@dataclass(frozen=True, slots=True)
class Built:
    """A view, and its pages by what stands on them."""

    view: View
    pages: Pages


class Views:
    """The views of one endpoint, each built once; those of the last compile that are still the same are taken over.

    Args:
        making: the endpoint.
        parts: all it has.
    """

    def __init__(self, making: Making, parts: Parts) -> None:
        workshop, path = making.workshop, making.path
        self._making = making
        self.built: list[View] = []
        self._parts = parts
        entries = parts.tools[0]
        self._classes = workshop.kept(("classes", path), (entries,), lambda: Classes(workshop, path, entries))
        self._by_class: dict[int, int] = {}
        self._places: dict[Sight, int] = {}
        self._pages: Pages = {}
        self._before = workshop.exchanged(("views", path), dict[Sight, Built]())
        self._now: dict[Sight, Built] = workshop.last(("views", path))
        for built in self._before.values():
            self._pages.update(built.pages)

    def index(self, agent: str) -> int:
        """The place in `built` of what this agent sees."""
        found = self._classes.of[agent]
        place = self._by_class.get(id(found))
        if place is None:
            place = self._by_class[id(found)] = self._placed(self._sight(found))
        return place

    def guides(self) -> tuple[str, ...]:
        """See `Endpoint.guides`; call it when all agents have their view."""
        making, own = self._making, self._making.endpoint.instructions
        catalogues = {server: making.goods(server).catalogue for server in making.servers}
        texts = {server: found.instructions for server, found in catalogues.items() if found and found.instructions}
        if not texts:
            return ()
        aliases = {server: making.workshop.settings.servers[server].alias or server for server in texts}
        several = len(making.servers) > 1
        return tuple(
            joined(own, [(aliases[server], text) for server, text in texts.items() if server in seen], named=several)
            for seen in map(_servers, self._places)
        )

    def _sight(self, seen: Class) -> Sight:
        parts, applying, rules = self._parts, seen.applying, seen.uri_rules
        return Sight(
            tuple([block.part(applying, seen.arms) for block in parts.tools]),
            tuple([block.part(applying, seen.arms) for block in parts.prompts]),
            tuple([block.part(rules) for block in parts.resources]),
            tuple([block.part(rules) for block in parts.templates]),
            rules,
        )

    def _placed(self, sight: Sight) -> int:
        place = self._places.get(sight)
        if place is None:
            built = self._now[sight] = self._before.get(sight) or self._build(sight)
            place = self._places[sight] = len(self.built)
            self.built.append(built.view)
        return place

    def _build(self, sight: Sight) -> Built:
        pages: Pages = {}
        shown = {
            names.TOOLS_LIST: sight.tools,
            names.PROMPTS_LIST: sight.prompts,
            names.RESOURCES_LIST: sight.resources,
            names.TEMPLATES_LIST: sight.templates,
        }
        lists = {method: self._listing(parts, pages) for method, parts in shown.items()}
        return Built(View(_grants(sight.tools), _grants(sight.prompts), sight.uri_rules, lists), pages)

    def _listing(self, parts: Sequence[Part], pages: Pages) -> Listing:
        entries = [entry for part in parts for entry in part.entries]
        listed = [name for part in parts for name in part.names]
        return Listing(tuple(self._paged(entries, pages)), fingerprint(listed))

    def _paged(self, entries: Sequence[Entry], pages: Pages) -> Iterator[Page]:
        """The pages of a list; an empty list has one empty page. Views share pages with the same items."""
        for start in range(0, max(len(entries), 1), PAGE):
            part = tuple(entries[start : start + PAGE])
            key = start, start + PAGE < len(entries), part
            page = self._pages.get(key)
            if page is None:
                page = self._pages[key] = Page(encoded(part), start, key[1])
            pages[key] = page
            yield page


def _servers(sight: Sight) -> set[str]:
    """Servers of which something is seen: the others must not be known by what they tell."""
    calls = [grant for part in (*sight.tools, *sight.prompts) for grant in part.grants.values()]
    found = {target.server for grant in calls for arm in grant.arms for target in arm.targets}
    return found | {part.server for part in (*sight.resources, *sight.templates) if part.names}


def _grants(parts: Sequence[Part]) -> dict[str, Grant]:
    found: dict[str, Grant] = {}
    for part in parts:
        found.update(part.grants)
    return found


def _class(rules: Rules, path: str, entries: Block, principal: Principal) -> Class:
    applying = rules.applying(principal, path)
    arms = {offer.route.name: arms_for(offer.route.arms, principal, path) for offer in entries.split}
    return Class(applying, rules.uri_rules(applying), arms)


def _matches(rules: Rules) -> Iterator[Match]:
    return (policy.match for policy in rules.policies or () if policy.match and not policy.shadow)
