"""The tools and prompts of one endpoint, before it is asked who may see them: names, routes, definitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fastgw.catalog.definitions import Definition, DefinitionKind, placeholder
from fastgw.catalog.effort import UnusableSchema
from fastgw.catalog.elements import Notice
from fastgw.catalog.listing import entry
from fastgw.catalog.naming import Naming, ServerNames, assign
from fastgw.catalog.precedence import Given, first
from fastgw.catalog.route import Arm, Deadlines, Route, Target
from fastgw.config.rules import match_of
from fastgw.config.schema.tools import TargetSettings
from fastgw.policy.authorise import Rules
from fastgw.policy.match import Match
from fastgw.policy.patterns import PROMPT
from fastgw.protocol.envelope import quote
from fastgw.snapshot.cache import Own, times
from fastgw.snapshot.curation import SettledArm, ShownTool, curated
from fastgw.snapshot.endpoint_builder import Definitions, EndpointBuilder
from fastgw.snapshot.sections import Section, SectionRow

CONNECT = 5.0
"""Seconds to connect to a server, at most."""
COMFORTABLE = 48
"""Characters of a name up to which clients that put a prefix of their own before it stay within 64."""

Entries = dict[str, list[tuple[Match | None, tuple[TargetSettings, ...]]]]
"""Entries of `tools:` that lead somewhere: name to arms, each with its targets on this endpoint."""


class Offers(ABC):
    """The tools, or the prompts, of one endpoint: the servers' own ones are named, each becomes a row of a section."""

    prefix = ""
    """Before names where they are spoken of: in patterns, and in notices."""

    def __init__(self, builder: EndpointBuilder, rules: Rules, definitions: Mapping[str, Definitions]) -> None:
        self.builder = builder
        self.rules = rules
        self.definitions = definitions
        self.targeted: set[Own] = set()
        """Those that entries of `tools:` lead to."""

    @abstractmethod
    def settled(self, name: str, arm: Arm) -> SettledArm:
        """An arm with a target, as the settings say.

        Raises:
            UnusableSchema: something is asked for that cannot be done for this tool.
        """

    def wanted(self, server: str) -> Iterator[str]:
        """Of a server's own names those that want one here."""
        given = self.builder.catalogues.filters[server].names[self.prefix]
        for own in self.definitions[server]:
            source = f"{server}/{own}"
            if (server, own) in self.targeted:
                self.missing(source, "has no name of its own: an entry of `tools` leads to it")
            elif not given.give(server, own):
                self.missing(source, "left out: it is not among `tools` of the server")
            elif not self.hides("", (source,), (source, own)):  # what is hidden by a name it has moves no other
                yield own

    def missing(self, subject: str, why: str) -> None:
        self.builder.missing(f"{self.prefix}{subject}", why)

    def sections(self, entries: Iterable[str] = ()) -> list[Section]:
        """Server by server."""
        cache, path, mode = self.builder.cache, self.builder.path, self.builder.endpoint.naming
        asking = tuple(map(self._server_names, self.builder.servers))
        asking = cache.as_before((self.prefix, "asking", path), asking)
        naming = cache.kept((self.prefix, "naming", path), (asking,), lambda: assign(mode, asking, entries))
        self.builder.notices.extend(
            self.builder.note(f"{self.prefix}{one.subject}", one.text) for one in naming.notices
        )
        return [self._section(one, naming) for one in asking]

    def _server_names(self, server: str) -> ServerNames:
        place, definitions = (self.prefix, "wanted", self.builder.path, server), self.definitions[server]
        wanted = self.builder.cache.kept(place, (definitions,), lambda: tuple(self.wanted(server)))
        return ServerNames(server, self.builder.catalogues.alias(server), wanted)

    def _section(self, asking: ServerNames, naming: Naming) -> Section:
        cache, path, server = self.builder.cache, self.builder.path, asking.server
        named = tuple([(own, name) for own in asking.tools if (name := naming.names.get((server, own))) is not None])
        names = cache.as_before((self.prefix, "names", path, server), named)
        place, definitions = (self.prefix, "section", path, server), self.definitions[server]
        before: Section | None = cache.last(place)
        return cache.kept(place, (names, definitions), lambda: self._built(names, definitions, before))

    def _built(self, names: Sequence[tuple[str, str]], definitions: Definitions, before: Section | None) -> Section:
        """One server's section; what has the name and the definition it had before is taken from there."""
        earlier = before.rows if before is not None else {}
        notices: list[Notice] = []
        rows = []
        for own, name in names:
            definition = definitions[own]
            row = earlier.get(name)
            if row is None or row.origin is not definition:
                arm = Arm(None, (Target(definition.server, own, quote(own), definition.param_headers),))
                row = self.row(name, (arm,), notices, definition)
            if row is not None:
                rows.append(row)
        return Section(self.rules, rows, notices)

    def row(self, name: str, arms: tuple[Arm, ...], notices: list[Notice], origin: object = None) -> SectionRow | None:
        """One as the operator wants it; None where it is not here."""
        builder = self.builder
        targets = [(target.server, target.tool) for arm in arms for target in arm.targets]
        sources = tuple([tuple([f"{target.server}/{target.tool}" for target in arm.targets]) for arm in arms])
        flat = [source for row in sources for source in row]
        known_as = builder.catalogues.known_as(name, targets)
        if self.hides(name, flat, known_as):
            return None
        if not builder.taken.names[self.prefix].take(name, flat):
            subject = flat[0] if origin is not None and not self.prefix else name
            self.missing(subject, "left out: it is not among `tools` of this endpoint")
            return None
        try:
            settled = [self.settled(name, arm) if arm.targets else SettledArm(arm, None) for arm in arms]
        except UnusableSchema as wrong:
            notices.append(builder.note(name, f"left out: {wrong}"))
            return None
        shown = tuple([one.shown for one in settled])
        headers = next(one.param_headers for one in shown if one is not None)
        route = Route(name=name, arms=tuple([one.arm for one in settled]), known_as=known_as, param_headers=headers)
        remarks = dict.fromkeys([text for one in settled for text in one.remarks])
        bits = self.rules.bits(name, flat, known_as)
        return SectionRow(route, sources, shown, bits, origin, tuple([builder.note(name, text) for text in remarks]))

    def hides(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> bool:
        return False


class Tools(Offers):
    """Entries of `tools:` first, then server by server; what an entry leads to has no other name."""

    def __init__(self, builder: EndpointBuilder) -> None:
        super().__init__(builder, builder.cache.rules, builder.tools)
        self._entries: Entries = builder.cache.kept(("entries", builder.path), (), self._entries_here)
        arms = [arm for entry in self._entries.values() for arm in entry]
        self.targeted = {(to.server, to.tool) for _, targets in arms for to in targets}

    def sections(self, entries: Iterable[str] = ()) -> list[Section]:
        """The section of the entries, and one of each server."""
        servers = dict.fromkeys(server for server, _ in sorted(self.targeted))
        definitions = tuple([self.definitions[server] for server in servers])
        place = "section of entries", self.builder.path
        section = self.builder.cache.kept(place, definitions, self._entry_section)
        return [section, *super().sections(self._entries)]

    def hides(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> bool:
        return self.builder.hides(name, sources, known_as)

    def settled(self, name: str, arm: Arm) -> SettledArm:
        builder, target = self.builder, arm.target
        chain = builder.catalogues.places.chain(name, f"{target.server}/{target.tool}")
        # While the first one's server has never answered, agents see the next one's that is known.
        known = next((one for one in arm.targets if builder.answered(one.server)), target)
        definition = self._definition(known.server, known.tool)
        arm = Arm(arm.match, arm.targets, deadlines_of(builder, target.server, chain), weight=first(chain, "weight", 1))
        found = curated(name, arm, chain, definition, known.renamed)
        if len(name) > COMFORTABLE:
            long = f"is longer than {COMFORTABLE} characters: clients that add a prefix may refuse it"
            found = replace(found, remarks=(long, *found.remarks))
        return found

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

    def _entry_section(self) -> Section:
        notices: list[Notice] = []
        rows = [row for name in self._entries if (row := self._entry_row(name, notices))]
        return Section(self.rules, rows, notices)

    def _entry_row(self, name: str, notices: list[Notice]) -> SectionRow | None:
        arms = []
        for match, targets in self._entries[name]:
            known = []
            for to in targets:
                if not self.builder.answered(to.server) or to.tool in self.definitions[to.server]:
                    headers = self._definition(to.server, to.tool).param_headers
                    known.append(Target(to.server, to.tool, quote(to.tool), headers, tuple(to.arguments.items())))
                else:
                    text = f"{to.server}/{to.tool} is passed over: the server does not bring it"
                    notices.append(self.builder.note(name, text))
            arms.append(Arm(match, tuple(known)))
        if any(arm.targets for arm in arms):
            return self.row(name, tuple(arms), notices)
        notices.append(self.builder.note(name, "left out: no server brings a tool it points at"))
        return None

    def _definition(self, server: str, own: str) -> Definition:
        return self.definitions[server][own] if self.builder.answered(server) else placeholder(server, own)


class Prompts(Offers):
    """Server by server; `tools:` has no entries for prompts."""

    prefix = PROMPT

    def __init__(self, builder: EndpointBuilder) -> None:
        offered = {server: builder.offer(server).prompts for server in builder.servers}
        super().__init__(builder, builder.cache.prompt_rules, offered)

    def settled(self, name: str, arm: Arm) -> SettledArm:
        target = arm.target
        tails = self.definitions[target.server][target.tool].tails
        shown = ShownTool(entry(quote(name), tails, DefinitionKind.PROMPT.key), (), b"")
        return SettledArm(replace(arm, deadlines=deadlines_of(self.builder, target.server)), shown)


def deadlines_of(builder: EndpointBuilder, server: str, chain: Sequence[Given] = ()) -> Deadlines:
    """How long calls of an arm may take: what is said of its first target, nearest place first."""
    known, settings = builder.catalogues.deadlines, builder.cache.settings
    # The entries live as long as the catalogues, so that each is known by its place in memory.
    key = builder.path, server, *map(id, chain)
    found = known.get(key)
    if found is None:
        given = (*chain, times(settings.servers[server]), times(builder.endpoint), times(settings))
        total = first(given, "timeout", 0.0)
        made = Deadlines(
            connect=min(CONNECT, settings.servers[server].timeout or CONNECT),
            first_byte=min(total, first(given, "attempt_timeout", total)),
            idle=min(total, first(given, "idle_timeout", total)),
            total=total,
            longest=max(total, first(given, "max_timeout", 0.0)),
        )
        found = known[key] = known.setdefault(made, made)
    return found
