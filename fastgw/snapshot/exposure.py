"""Which tools, prompts and resources an endpoint has at all, before it is asked who sees them (`visibility`): what is
taken of its servers, hidden, or routed by entries of `tools:`, under which names, with which definitions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any

from fastgw.catalog.definitions import REPEATABLE, Definition, DefinitionKind, placeholder, tails
from fastgw.catalog.effort import UnusableSchema
from fastgw.catalog.elements import Notice
from fastgw.catalog.metering import Meter, Path, Price, price_of
from fastgw.catalog.naming import ServerNames, assign
from fastgw.catalog.pins import differing
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Deadlines, Route, Target
from fastgw.catalog.uris import ServerUris, Uris
from fastgw.config.rules import match_of
from fastgw.config.schema.tools import PriceSettings, Reserve, TargetSettings
from fastgw.policy.authorise import Rules
from fastgw.policy.match import Match
from fastgw.policy.patterns import PROMPT
from fastgw.protocol import links
from fastgw.protocol.envelope import quote
from fastgw.snapshot.cache import Definitions, EndpointBuilder, Own, times
from fastgw.snapshot.curation import READ_ONLY, ConfiguredArm, Held, ShownTool, checked, curated, trusted
from fastgw.snapshot.model import entry
from fastgw.snapshot.visibility import ExposedTool, ExposedUri, ToolSection, UriSection

CONNECT = 5.0
"""Seconds to connect to a server, at most."""
COMFORTABLE = 48
"""Characters of a name up to which clients that put a prefix of their own before it stay within 64."""

Entries = dict[str, list[tuple[Match | None, tuple[TargetSettings, ...]]]]
"""Entries of `tools:` that lead somewhere: name to arms, each with its targets on this endpoint."""


class Exposure(ABC):
    """The tools, or the prompts, that one endpoint exposes."""

    prefix = ""
    """Before names where they are spoken of: in patterns, and in notices."""

    def __init__(self, builder: EndpointBuilder, rules: Rules, definitions: Mapping[str, Definitions]) -> None:
        self.builder = builder
        self.rules = rules
        self.definitions = definitions
        self.targeted: set[Own] = set()
        """Those that entries of `tools:` lead to."""

    @abstractmethod
    def configured(self, name: str, arm: Arm) -> ConfiguredArm:
        """An arm with a target, as the settings say.

        Raises:
            UnusableSchema: something is asked for that cannot be done for this tool.
        """

    def own_names(self, server: str) -> Iterator[str]:
        """The server's own names of those that are to have one here."""
        taken = self.builder.catalogues.filters[server]
        for own in self.definitions[server]:
            source = f"{server}/{own}"
            if (server, own) in self.targeted:
                self.missing(source, "has no name of its own: an entry of `tools` leads to it")
            elif not taken.take_own(self.prefix, server, own):
                self.missing(source, "left out: it is not among `tools` of the server")
            elif not self.hides("", (source,), (source, own)):  # what is hidden by a name it has moves no other
                yield own

    def missing(self, subject: str, why: str) -> None:
        self.builder.missing(f"{self.prefix}{subject}", why)

    def hides(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> bool:
        """`tools:` has no entries for prompts, and hides none."""
        return not self.prefix and self.builder.hides(name, sources, known_as)

    def sections(self, entries: Iterable[str] = ()) -> list[ToolSection]:
        """Server by server."""
        builder, cache, mode = self.builder, self.builder.cache, self.builder.endpoint.naming
        place = self.prefix, builder.path
        asking = cache.as_before((*place, "asking"), tuple(map(self._server_names, builder.servers)))
        naming = cache.kept((*place, "naming"), (asking,), lambda: assign(mode, asking, entries))
        builder.notices.extend(builder.note(f"{self.prefix}{one.subject}", one.text) for one in naming.notices)
        return [self._section(server, naming.names[server]) for server in builder.servers]

    def _server_names(self, server: str) -> ServerNames:
        definitions, alias = self.definitions[server], self.builder.catalogues.alias(server)
        place = self.prefix, self.builder.path, "own names", server
        return self.builder.cache.kept(
            place, (definitions,), lambda: ServerNames(server, alias, tuple(self.own_names(server)))
        )

    def backups(self, server: str) -> list[Definitions]:
        """The tools of a server's backups, pinned and as they are, by which calls of its own are checked."""
        offers = [self.builder.catalogues.offer[one] for one in self.builder.cache.settings.servers[server].backup]
        return [tools for offer in offers for tools in (offer.tools, offer.listed)]

    def _section(self, server: str, named: dict[str, str]) -> ToolSection:
        cache, place, definitions = (
            self.builder.cache,
            (self.prefix, self.builder.path, server),
            self.definitions[server],
        )
        names = cache.as_before((*place, "names"), named)
        backups = self.backups(server)
        before: ToolSection | None = cache.last(place) if not backups else None  # what theirs are is in every row
        return cache.kept(place, (names, definitions, *backups), lambda: self._built(definitions, names, before))

    def _built(self, definitions: Definitions, names: Mapping[str, str], before: ToolSection | None) -> ToolSection:
        """One server's section; what has the name and the definition it had before is taken from there."""
        earlier = before.exposed if before is not None else {}
        notices: list[Notice] = []
        exposed = []
        for own, definition in definitions.items():
            if (name := names.get(own)) is None:
                continue
            one = earlier.get(name)
            if one is None or one.origin is not definition:
                arm = Arm(None, (Target(definition.server, own, quote(own), definition.wanted_headers),))
                one = self.expose(name, (arm,), notices, definition)
            if one is not None:
                exposed.append(one)
        return ToolSection(self.rules, exposed, notices)

    def expose(
        self, name: str, arms: tuple[Arm, ...], notices: list[Notice], origin: object = None
    ) -> ExposedTool | None:
        """One as the operator wants it; None where it is not here."""
        builder = self.builder
        targets = [(target.server, target.tool) for arm in arms for target in arm.targets]
        sources = [f"{server}/{own}" for server, own in targets]
        known_as = builder.catalogues.known_as(name, targets)
        if self.hides(name, sources, known_as):
            return None
        if not builder.takes.take(self.prefix, name, sources):
            subject = sources[0] if origin is not None and not self.prefix else name
            self.missing(subject, "left out: it is not among `tools` of this endpoint")
            return None
        try:
            configured = [self.configured(name, arm) if arm.targets else (arm, None, ()) for arm in arms]
        except UnusableSchema as wrong:
            notices.append(builder.note(name, f"left out: {wrong}"))
            return None
        arms, shown, remarks = zip(*configured, strict=True)
        headers = next(one.param_headers for one in shown if one is not None)
        route = Route(name=name, arms=arms, known_as=known_as, param_headers=headers)
        policies = self.rules.about(name, sources, known_as)
        noted = tuple([builder.note(name, text) for text in dict.fromkeys(chain.from_iterable(remarks))])
        return ExposedTool(route, sources, shown, policies, origin, noted)


class ToolExposure(Exposure):
    """Entries of `tools:` first, then server by server; what an entry leads to has no other name."""

    def __init__(self, builder: EndpointBuilder) -> None:
        super().__init__(builder, builder.cache.rules, builder.tools)
        self._entries: Entries = builder.cache.kept(("entries", builder.path), (), self._entries_here)
        arms = [arm for entry in self._entries.values() for arm in entry]
        self.targeted = {(to.server, to.tool) for _, targets in arms for to in targets}

    def sections(self, entries: Iterable[str] = ()) -> list[ToolSection]:
        """The section of the entries, and one of each server."""
        servers = dict.fromkeys(server for server, _ in sorted(self.targeted))
        own = [self.definitions[server] for server in servers]
        definitions = (*own, *chain.from_iterable(map(self.backups, servers)))
        place = "section of entries", self.builder.path
        section = self.builder.cache.kept(place, definitions, self._entry_section)
        return [section, *super().sections(self._entries)]

    def configured(self, name: str, arm: Arm) -> ConfiguredArm:
        builder, target = self.builder, arm.target
        place = name, f"{target.server}/{target.tool}"
        given = builder.catalogues.places.chain(*place)
        # While the first one's server has never answered, agents see the next one's that is known.
        known = next((one for one in arm.targets if builder.answered(one.server)), target)
        definition = self._definition(known.server, known.tool)
        arm = Arm(
            arm.match,
            arm.targets,
            deadlines_of(builder, target.server, given),
            weight=first(given, "weight", 1),
            repeatable=self._trusted("repeatable", name, arm, REPEATABLE) or False,
            failover_on=first(given, "failover_on", ("unavailable",)),
            tool_error=first(given, "tool_error", None),
            cache=self._trusted("cache", name, arm, READ_ONLY) or 0.0,
            meters=tuple(self._meters(name, arm)),
            reserve=_reserve(first(given, "reserve", None)),
            scopes=self._scopes(name, arm),
        )
        arm, shown, remarks = curated(name, arm, given, definition, known.renamed)
        arm = checked(name, arm, given, self._held(arm))
        if len(name) > COMFORTABLE:
            remarks = (f"is longer than {COMFORTABLE} characters: clients that add a prefix may refuse it", *remarks)
        return arm, shown, remarks

    def _trusted(self, key: str, name: str, arm: Arm, hints: Sequence[str]) -> Any:
        """The least of what is said of each target, see `trusted`; None where one of them is not trusted: a call may
        end up at any.
        """
        places, found = self.builder.catalogues.places, []
        for to in arm.targets:
            place = name, f"{to.server}/{to.tool}"
            definition = self._definition(to.server, to.tool)
            found.append(trusted(key, places.exact(*place), places.chain(*place), definition, hints))
        return None if None in found else min(found)

    def _held(self, arm: Arm) -> Iterator[Held]:
        """What is held with another input schema, of the targets and their backups: a call may end up at each."""
        for to in arm.targets:
            for server in (to.server, *self.builder.cache.settings.servers[to.server].backup):
                offer = self.builder.catalogues.offer[server]
                one = offer.tools.get(to.tool)
                if one is None and to.tool in offer.listed:  # a backup's, new there and not approved
                    yield offer.listed[to.tool], to.renamed
                elif one is not None and one.present is not None and "inputSchema" in differing(one, one.present):
                    yield one.present, to.renamed

    def _scopes(self, name: str, arm: Arm) -> tuple[str, ...]:
        """What is asked for by any target, in the order of the file: a call may end up at each."""
        places = self.builder.catalogues.places
        chains = [places.chain(name, f"{to.server}/{to.tool}") for to in arm.targets]
        return tuple(dict.fromkeys(scope for chain in chains for scope in first(chain, "scopes", ())))

    def _meters(self, name: str, arm: Arm) -> Iterator[Meter]:
        """Of the targets and their backups, as far as there is anything to measure."""
        settings, servers = self.builder.catalogues.places, self.builder.cache.settings.servers
        for to in arm.targets:
            for server in (to.server, *servers[to.server].backup):
                given = settings.chain(name, f"{server}/{to.tool}")
                tokens, price = first(given, "tokens", None), first(given, "price", None)
                if tokens is not None:
                    places = _path(tokens.in_), _path(tokens.out), tokens.up_to
                    yield Meter(server, to.tool, *places, price=_price(price))
                elif price is not None:
                    yield Meter(server, to.tool, price=_price(price))

    # -- entries of `tools:` --------------------------------------------------------------------------------------

    def _entries_here(self) -> Entries:
        servers, found = self.builder.servers, {}
        for key, tool in self.builder.catalogues.entries.items():
            written = [(match_of(arm.match, arm.except_), arm.to) for arm in tool.route] or [(None, tool.to)]
            arms = [(match, tuple([to for to in targets if to.server in servers])) for match, targets in written]
            if any(targets for _, targets in arms):
                found[key] = arms
            else:
                self.missing(key, "its entry in `tools` leads to no server of this endpoint")
        return found

    def _entry_section(self) -> ToolSection:
        notices: list[Notice] = []
        exposed = [one for name in self._entries if (one := self._expose_entry(name, notices))]
        return ToolSection(self.rules, exposed, notices)

    def _expose_entry(self, name: str, notices: list[Notice]) -> ExposedTool | None:
        arms = []
        for match, targets in self._entries[name]:
            known = []
            for to in targets:
                if not self.builder.answered(to.server) or to.tool in self.definitions[to.server]:
                    headers = self._definition(to.server, to.tool).wanted_headers
                    known.append(Target(to.server, to.tool, quote(to.tool), headers, tuple(to.arguments.items())))
                else:
                    text = f"{to.server}/{to.tool} is passed over: the server does not bring it"
                    notices.append(self.builder.note(name, text))
            arms.append(Arm(match, tuple(known)))
        if any(arm.targets for arm in arms):
            return self.expose(name, tuple(arms), notices)
        notices.append(self.builder.note(name, "left out: no server brings a tool it points at"))
        return None

    def _definition(self, server: str, own: str) -> Definition:
        return self.definitions[server][own] if self.builder.answered(server) else placeholder(server, own)


def _reserve(written: Reserve | None) -> tuple[int | None, int | None, int | None, int | None]:
    if written is None:
        return None, None, None, None
    cost = None if written.cost is None else int(written.cost * 10**9)
    return written.tokens, written.tokens_in, written.tokens_out, cost


def _path(written: str | None) -> Path:
    return tuple(written.split(".")) if written is not None else ()


def _price(written: PriceSettings | None) -> Price | None:
    if written is None:
        return None
    amounts = written.per_call, written.per_million_tokens_in, written.per_million_tokens_out
    return price_of(*[amount or Decimal() for amount in amounts])


class PromptExposure(Exposure):
    """Server by server; `tools:` has no entries for prompts."""

    prefix = PROMPT

    def __init__(self, builder: EndpointBuilder) -> None:
        offered = {server: builder.catalogues.offer[server].prompts for server in builder.servers}
        super().__init__(builder, builder.cache.prompt_rules, offered)

    def configured(self, name: str, arm: Arm) -> ConfiguredArm:
        target = arm.target
        tails = self.definitions[target.server][target.tool].tails
        shown = ShownTool(entry(quote(name), tails, DefinitionKind.PROMPT.key), ())
        deadlines = deadlines_of(self.builder, target.server)
        return replace(arm, deadlines=deadlines, repeatable=True), shown, ()


def deadlines_of(builder: EndpointBuilder, server: str, chain: Sequence[Given] = ()) -> Deadlines:
    """How long calls of an arm may take: what is said of its first target, nearest place first."""
    settings = builder.cache.settings

    def made() -> Deadlines:
        given = (*chain, times(settings.servers[server]), times(builder.endpoint), times(settings))
        total = first(given, "timeout", 0.0)
        attempt = min(total, first(given, "attempt_timeout", total))
        return Deadlines(
            connect=min(CONNECT, attempt, settings.servers[server].timeout or CONNECT),
            first_byte=attempt,
            # An attempt whose answer is a stream may not be silent for longer than any other.
            idle=min(total, first(given, "idle_timeout", attempt)),
            total=total,
            longest=max(total, first(given, "max_timeout", 0.0)),
        )

    # Ten thousand tools share a handful; the entries live as long as the cache, so their places tell them apart.
    return builder.cache.kept(("deadlines", builder.path, server, *map(id, chain)), (), made)


# -- resources ----------------------------------------------------------------------------------------------------


def reading_of(builder: EndpointBuilder) -> tuple[Uris, dict[str, Arm], list[UriSection], list[UriSection]]:
    """`Endpoint.uris` and `readers`, resources and templates by server; tools name pages as agents do."""
    cache, path, mode, only = builder.cache, builder.path, builder.endpoint.naming, builder.takes.uris
    found = [one for server in builder.servers if (one := _server_uris(builder, server)) is not None]
    servers = cache.as_before(("server uris", path), tuple(found))
    uris = cache.kept(("uris", path), (servers,), lambda: Uris(mode, servers, only))
    builder.notices.extend(builder.note(one.subject, one.text) for one in uris.tables.notices)
    builder.tools = {server: _definitions(builder, server, uris) for server in builder.servers}
    readers = {one.server: Arm(None, (), deadlines_of(builder, one.server), repeatable=True) for one in servers}
    resources, templates = (
        [_section(builder, kind, one.server, uris) for one in servers]
        for kind in (DefinitionKind.RESOURCE, DefinitionKind.TEMPLATE)
    )
    return uris, readers, resources, templates


def _server_uris(builder: EndpointBuilder, server: str) -> ServerUris | None:
    """The server's URIs; None where it declares no resources, or none of them are taken."""
    offer, taken = builder.catalogues.offer[server], builder.catalogues.filters[server]
    if "resources" not in offer.declares or taken.no_uris or builder.takes.no_uris:
        return None
    alias = builder.catalogues.alias(server)
    backups = tuple([(one, builder.catalogues.alias(one)) for one in builder.cache.settings.servers[server].backup])
    return ServerUris(server, alias, tuple(offer.resources), tuple(offer.templates), taken.uris, backups)


def _section(builder: EndpointBuilder, kind: DefinitionKind, server: str, uris: Uris) -> UriSection:
    """What of it is listed, in the server's order; the rest is hidden or not taken."""
    cache, path, offer = builder.cache, builder.path, builder.catalogues.offer[server]
    listed = offer.resources if kind is DefinitionKind.RESOURCE else offer.templates
    named = cache.kept(
        (kind, "named", path, server),
        (uris, listed),
        lambda: tuple(
            [(uri, own, uris.known_as(server, own)) for own in listed if (uri := uris.listed(server, own)) is not None]
        ),
    )
    places = cache.as_before((kind, "uris", path, server), named)
    return cache.kept(
        (kind, path, server),
        (places, listed),
        lambda: UriSection(
            server,
            [ExposedUri(uri, own, also, entry(quote(uri), listed[own].tails, kind.key)) for uri, own, also in places],
        ),
    )


def _definitions(builder: EndpointBuilder, server: str, uris: Uris) -> Definitions:
    """The server's tools; those that point at a resource (`_meta.ui.resourceUri`) name it as agents know it."""
    cache, path, tools = builder.cache, builder.path, builder.catalogues.offer[server].tools
    if not uris.rewrites(server):
        return tools
    expose = partial(uris.exposed, server)

    def pointed(tool: Definition) -> Definition:
        if b"resourceUri" not in tool.members.get("_meta", b""):
            return tool
        members = links.definition(tool.members, expose)
        return replace(tool, members=members, tails=tails(members))

    made = cache.kept(
        ("pointed", path, server), (tools, uris), lambda: {name: pointed(tool) for name, tool in tools.items()}
    )
    return cache.as_before(("definitions", path, server), made)
