"""What the compiles of one configuration share: the settings made ready, what each server offers, and whatever the last
compile made; and one endpoint in the making.

What is kept is made of *ingredients*, compared by identity: every step is a pure function of its ingredients and of the
settings, and whatever may be equal though made anew goes through `as_before` first. So a compile that finds one
server's catalogue changed makes what follows from that one, and equals a compile from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastgw.catalog.definitions import Definition, DefinitionKind
from fastgw.catalog.elements import Notice
from fastgw.catalog.naming import LONGEST_OWN, SEPARATOR, shortened
from fastgw.catalog.pins import ToolChange, compared
from fastgw.catalog.precedence import Given, Precedence
from fastgw.catalog.tools import Catalogue
from fastgw.config.rules import policies_of
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.policy.authorise import Rules
from fastgw.policy.match import Principal
from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns, by_slash, is_wild, of_kind
from fastgw.snapshot.issuers import header_identity_of, issuer_of

T = TypeVar("T")
Place = Hashable
"""What is kept: its kind, path of the endpoint, server. There are as many as the settings have of these."""
Own = tuple[str, str]
"""A server's name and its own name for a tool or prompt."""
Definitions = Mapping[str, Definition]
"""A server's tools by own name, with URIs as this endpoint exposes them. The same object while nothing has changed."""
TIMES = ("timeout", "max_timeout", "attempt_timeout", "idle_timeout")
"""Settings of calls that have a place at every level: tool, server, endpoint, top."""


class CompileCache:
    """For the compiles of one configuration, one after the other; another configuration gets another one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalogues = ServerCatalogues(settings)
        policies = policies_of(settings.policies)
        self.rules = Rules(policies)
        self.prompt_rules = Rules(policies, PROMPT)
        self.agents = {
            name: Principal(name, agent.claims) for name, agent in settings.agents.items() if not agent.disabled
        }
        """Every agent that may come in, by name; which key it showed is added per key."""
        identity = settings.identity.items()
        self.issuers = {name: issuer for name, one in identity if (issuer := issuer_of(name, one))}
        self.header_identities = {name: found for name, one in identity if (found := header_identity_of(name, one))}
        self.strangers: Mapping[str, Sequence[Principal]] = {}
        """Of the agents that are known by claims alone and have come so far, by endpoint, one of each class."""
        self.missing: list[Notice] | None = None
        """Where a list stands here, compiles take down what each endpoint does not have, and why."""
        self._kept: dict[Place, tuple[tuple[object, ...], Any]] = {}

    def kept(self, place: Place, ingredients: tuple[object, ...], make: Callable[[], T]) -> T:
        """What was made the last time where its ingredients are the same objects, else what `make` makes."""
        found = self._kept.get(place)
        if found is None or [*map(id, found[0])] != [*map(id, ingredients)]:
            found = self._kept[place] = ingredients, make()
        made: T = found[1]
        return made

    def as_before(self, place: Place, value: T) -> T:
        """The value of the last time where it equals this one, so that it is the same ingredient."""
        before: T | None = self.last(place)
        if before is None or before != value:
            self._kept[place] = (), value
            return value
        return before

    def last(self, place: Place) -> Any:
        """What was made the last time, whatever of; None where there is nothing."""
        found = self._kept.get(place)
        return None if found is None else found[1]


class Filter:
    """The key `tools:` of a server or an endpoint: what is named there is taken, and nothing else; None takes all."""

    def __init__(self, texts: Sequence[str] | None) -> None:
        self._everything = texts is None
        self._by_kind = {kind: by_slash(of_kind(kind, texts or ())) for kind in ("", PROMPT)}
        self.uris = None if texts is None else Patterns(of_kind(RESOURCE, texts))
        """Tried on URIs; None takes all."""
        self.no_uris = self.uris is not None and not self.uris.texts

    def take(self, kind: str, name: str, sources: Sequence[str]) -> bool:
        """Whether a tool or prompt is taken: by its name, or by `server/name` of every target."""
        names, patterns = self._by_kind[kind]
        return self._everything or names.fits(name) or all(map(patterns.fits, sources))

    def take_own(self, kind: str, server: str, own: str) -> bool:
        """Whether a server's own one is taken: by its own name, or by `server/name`."""
        return self.take(kind, own, (own,)) or self.take(kind, own, (f"{server}/{own}",))


@dataclass(frozen=True, slots=True, eq=False)
class ServerOffer:
    """All that one server offers, by its own names. What is equal to that of the last time is the same object.

    `listed` are the tools that it lists now, `tools` those to go by; `changes` tell them from what is pinned, and are
    None where nothing is.
    """

    catalogue: Catalogue | None = None
    listed: dict[str, Definition] = field(default_factory=dict)
    changes: tuple[ToolChange, ...] | None = None
    tools: dict[str, Definition] = field(default_factory=dict)
    prompts: dict[str, Definition] = field(default_factory=dict)
    resources: dict[str, Definition] = field(default_factory=dict)
    templates: dict[str, Definition] = field(default_factory=dict)
    declares: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()


NEVER_ANSWERED = ServerOffer()


class ServerCatalogues:
    """What holds on every endpoint: the settings about tools, made ready, and what each server offers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.notices: list[Notice] = []
        self.offer = dict.fromkeys(settings.servers, NEVER_ANSWERED)
        written = {key: tool.model_fields_set - {"to", "route"} for key, tool in settings.tools.items()}
        self.places = Precedence(
            {key: {name: getattr(tool, name) for name in written[key]} for key, tool in settings.tools.items()}
        )
        self.filters = {name: Filter(server.tools) for name, server in settings.servers.items()}
        self.entries = {key: tool for key, tool in settings.tools.items() if tool.to or tool.route}
        for key in [key for key in self.entries if is_wild(key) or "/" in key]:
            self.notices.append(Notice(key, "left out: `to` and `route` need a plain name"))
            del self.entries[key]

    def take(self, catalogues: Mapping[str, Catalogue | None]) -> None:
        """Go by these catalogues from now on: by server, None or missing where it has never answered."""
        self.offer = {server: self._offer(server, catalogues.get(server), last) for server, last in self.offer.items()}

    def _offer(self, server: str, catalogue: Catalogue | None, last: ServerOffer) -> ServerOffer:
        lock, on_change = self.settings.lock.get(server), self.settings.servers[server].on_change
        if catalogue is None and lock is not None:
            # It has never answered here, and what it brings is known all the same.
            catalogue = last.catalogue or Catalogue(server, lock, capabilities=frozenset(("tools",)))
        if catalogue is None:
            return NEVER_ANSWERED
        if catalogue is last.catalogue:
            return last
        pinned = lock if lock is not None else catalogue.first or None
        # The dictionaries of one that never answered are empty, and no others' may be taken for them.
        last = ServerOffer() if last is NEVER_ANSWERED else last
        return _offer(catalogue, last, pinned if on_change != "accept" else None, on_change)

    def alias(self, server: str) -> str:
        """What stands before `__` in names."""
        return self.settings.servers[server].alias or server

    def known_as(self, name: str, targets: Iterable[Own]) -> tuple[str, ...]:
        """Every name a deny is tried on: as agents see it (empty: none yet), and all it has or could have had."""
        known = [name] if name else []
        for server, own in targets:
            for one in (server, *self.settings.servers[server].backup):
                whole = f"{self.alias(one)}{SEPARATOR}{own}"
                known += (f"{one}/{own}", own, whole, shortened(whole))
        return tuple(dict.fromkeys(known))


def times(place: ServerSettings | EndpointSettings | Settings) -> Given:
    """What a place beside `tools:` says about the time of calls."""
    return {key: seconds for key in TIMES if (seconds := getattr(place, key)) is not None}


def _offer(catalogue: Catalogue, last: ServerOffer, pinned: Iterable[Definition] | None, on_change: str) -> ServerOffer:
    twice: list[str] = []
    others = [kind.field for kind in DefinitionKind if kind is not DefinitionKind.TOOL]
    lists: dict[str, Any] = {name: _by_key(getattr(catalogue, name), getattr(last, name), twice) for name in others}
    tools = listed = _by_key(catalogue.tools, last.listed, twice)
    changes: tuple[ToolChange, ...] | None = None
    if pinned is not None:
        shown, changes = compared(listed, pinned, on_change)
        tools = _by_key(shown, last.tools, twice)
    remarks = [
        *((key, "listed twice: the first is used") for key in twice),
        *((one.tool, str(one)) for one in changes or ()),
    ]
    notices = (*catalogue.notices, *(Notice(f"{catalogue.server}/{key[:LONGEST_OWN]}", text) for key, text in remarks))
    return ServerOffer(catalogue, listed, changes, tools, declares=catalogue.capabilities, notices=notices, **lists)


def _by_key(listed: Iterable[Definition], last: dict[str, Definition], twice: list[str]) -> dict[str, Definition]:
    """Definitions by key, the first of each; those that equal the earlier ones are these."""
    found: dict[str, Definition] = {}
    for one in listed:
        if one.key in found:
            twice.append(one.key)
            continue
        earlier = last.get(one.key)
        found[one.key] = earlier if earlier is not None and earlier == one else one
    return last if [*map(id, found.values())] == [*map(id, last.values())] else found


class EndpointBuilder:
    """One endpoint in the making; `cache.catalogues` is what holds on every endpoint."""

    def __init__(self, cache: CompileCache, path: str, endpoint: EndpointSettings) -> None:
        known = cache.settings.servers
        self.cache = cache
        self.path = path
        self.endpoint = endpoint
        self.catalogues = cache.catalogues
        here = [name for name in known if endpoint.servers is None or name in endpoint.servers]
        # A backup has the tools of the server it stands in for, and shows nothing of its own beside it.
        backups = {backup for name in here for backup in known[name].backup}
        self.servers = tuple(name for name in here if name not in backups)
        self.takes = Filter(endpoint.tools)
        self.tools: dict[str, Definitions] = {}
        self.notices: list[Notice] = []

    def answered(self, server: str) -> bool:
        """Whether it has ever said what it offers."""
        return self.catalogues.offer[server] is not NEVER_ANSWERED

    def note(self, subject: str, text: str) -> Notice:
        """A remark for the operator about this endpoint."""
        return Notice(subject, text, self.path)

    def missing(self, subject: str, why: str) -> None:
        """Take down why something is not there, where that is asked for."""
        if self.cache.missing is not None:
            self.cache.missing.append(self.note(subject, why))

    def hides(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> bool:
        """Whether an entry of `tools:` hides a tool, see `Precedence.hidden`."""
        if not self.catalogues.places.hidden(name, sources, known_as):
            return False
        if self.cache.missing is not None:
            tools = self.cache.settings.tools.items()
            hiding = [key for key, tool in tools if tool.hidden and Patterns([key]).fit_any(known_as)]
            self.missing(name or sources[0], f"hidden by the entry {' and '.join(hiding)} of `tools`")
        return True
