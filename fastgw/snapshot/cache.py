"""What the compiles of one configuration share: the settings made ready, what each server offers, and whatever the last
compile made.

What is kept is made of *ingredients*, compared by identity: every step is a pure function of its ingredients and of the
settings, and whatever may be equal though made anew goes through `as_before` first. So a compile that finds one
server's catalogue changed makes what follows from that one, and equals a compile from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastgw.catalog.definitions import Definition
from fastgw.catalog.elements import Notice
from fastgw.catalog.naming import SEPARATOR, shortened
from fastgw.catalog.precedence import Given, Precedence
from fastgw.catalog.route import Deadlines
from fastgw.catalog.tools import LISTS, Catalogue
from fastgw.config.rules import policies_of
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.policy.authorise import Rules
from fastgw.policy.match import Principal
from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns, by_slash, is_wild, of_kind

T = TypeVar("T")
Place = Hashable
"""What is kept: its kind, path of the endpoint, server. There are as many as the settings have of these."""
Own = tuple[str, str]
"""A server's name and its own name for a tool or prompt."""
TIMES = ("timeout", "max_timeout", "idle_timeout")
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
        self.missing: list[Notice] | None = None
        """Where a list stands here, compiles take down what each endpoint does not have, and why."""
        self._kept: dict[Place, tuple[tuple[object, ...], Any]] = {}

    def kept(self, place: Place, ingredients: tuple[object, ...], make: Callable[[], T]) -> T:
        """What was made the last time where its ingredients are the same objects, else what `make` makes."""
        found = self._kept.get(place)
        if found is None or not _same(found[0], ingredients):
            found = self._kept[place] = ingredients, make()
        made: T = found[1]
        return made

    def as_before(self, place: Place, value: T) -> T:
        """The value of the last time where it equals this one, so that it is the same ingredient."""
        found = self._kept.get(place)
        if found is None or found[1] != value:
            self._kept[place] = (), value
            return value
        kept: T = found[1]
        return kept

    def exchanged(self, place: Place, value: T) -> T:
        """The value of the last time, and this one for the next; itself where there is none."""
        earlier: T = self._kept.get(place, ((), value))[1]
        self._kept[place] = (), value
        return earlier

    def last(self, place: Place) -> Any:
        """What was made the last time, whatever of; None where there is nothing."""
        found = self._kept.get(place)
        return None if found is None else found[1]


class Filter:
    """The key `tools:` of a server or an endpoint: it is taken what is named there, and nothing else."""

    def __init__(self, texts: Sequence[str] | None) -> None:
        self.names = {kind: NameFilter(None if texts is None else of_kind(kind, texts)) for kind in ("", PROMPT)}
        self.uris = None if texts is None else Patterns(of_kind(RESOURCE, texts))
        """Tried on URIs; None takes all."""

    @property
    def no_uris(self) -> bool:
        """Whether no resource can be taken."""
        return self.uris is not None and not self.uris.texts


class NameFilter:
    """Patterns over names, and those with a slash over `server/name`; None takes everything."""

    def __init__(self, texts: Sequence[str] | None) -> None:
        self._everything = texts is None
        self._names, self._sources = by_slash(texts or ())

    def take(self, name: str, sources: Sequence[str]) -> bool:
        """Whether a tool or prompt is taken: by its name, or by `server/name` of every target."""
        return self._everything or self._names.fits(name) or all(map(self._sources.fits, sources))

    def give(self, server: str, own: str) -> bool:
        """Whether a server's own one is taken: by its own name, or by `server/name`."""
        return self.take(own, (own,)) or self.take(own, (f"{server}/{own}",))


@dataclass(frozen=True, slots=True, eq=False)
class ServerOffer:
    """All that one server offers, by its own names. What is equal to that of the last time is the same object."""

    catalogue: Catalogue | None = None
    tools: dict[str, Definition] = field(default_factory=dict)
    prompts: dict[str, Definition] = field(default_factory=dict)
    resources: dict[str, Definition] = field(default_factory=dict)
    templates: dict[str, Definition] = field(default_factory=dict)
    declares: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()


NOTHING = ServerOffer()


class ServerCatalogues:
    """What holds on every endpoint: the settings about tools, made ready, and what each server offers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.notices: list[Notice] = []
        self.offer = dict.fromkeys(settings.servers, NOTHING)
        written = {key: tool.model_fields_set - {"to", "route"} for key, tool in settings.tools.items()}
        self.places = Precedence(
            {key: {name: getattr(tool, name) for name in written[key]} for key, tool in settings.tools.items()}
        )
        self.filters = {name: Filter(server.tools) for name, server in settings.servers.items()}
        self.deadlines: dict[object, Deadlines] = {}
        """By what they follow from, and by themselves: a snapshot of 10,000 tools travels with a handful of objects."""
        self.entries = {key: tool for key, tool in settings.tools.items() if tool.to or tool.route}
        for key in [key for key in self.entries if is_wild(key) or "/" in key]:
            self.notices.append(Notice(key, "left out: `to` and `route` need a plain name"))
            del self.entries[key]

    def take(self, catalogues: Mapping[str, Catalogue | None]) -> None:
        """Go by these catalogues from now on: by server, None or missing where it has never answered."""
        self.offer = {server: _offer(server, catalogues.get(server), last) for server, last in self.offer.items()}

    def alias(self, server: str) -> str:
        """What stands before `__` in names."""
        return self.settings.servers[server].alias or server

    def known_as(self, name: str, targets: Iterable[Own]) -> tuple[str, ...]:
        """Every name a deny is tried on: as agents see it (empty: none yet), and all it has or could have had."""
        known = [name] if name else []
        for server, own in targets:
            whole = f"{self.alias(server)}{SEPARATOR}{own}"
            known += (f"{server}/{own}", own, whole, shortened(whole))
        return tuple(dict.fromkeys(known))


def times(place: ServerSettings | EndpointSettings | Settings) -> Given:
    """What a place beside `tools:` says about the time of calls."""
    return {key: seconds for key in TIMES if (seconds := getattr(place, key)) is not None}


def _same(earlier: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return len(earlier) == len(now) and all(a is b for a, b in zip(earlier, now, strict=True))


def _offer(server: str, catalogue: Catalogue | None, last: ServerOffer) -> ServerOffer:
    if catalogue is None:
        return NOTHING
    if catalogue is last.catalogue:
        return last
    if last is NOTHING:
        # Its dictionaries are empty, and must not be taken for those of a server that has said so.
        last = ServerOffer()
    twice: list[str] = []
    lists: dict[str, Any] = {name: _by_key(getattr(catalogue, name), getattr(last, name), twice) for name in LISTS}
    notices = (*catalogue.notices, *(Notice(f"{server}/{key}", "listed twice: the first is used") for key in twice))
    return ServerOffer(catalogue, declares=_declared(catalogue), notices=notices, **lists)


def _by_key(listed: Iterable[Definition], last: dict[str, Definition], twice: list[str]) -> dict[str, Definition]:
    """Definitions by key, the first of each; those that equal the earlier ones are these."""
    found: dict[str, Definition] = {}
    for one in listed:
        if one.key in found:
            twice.append(one.key)
            continue
        earlier = last.get(one.key)
        found[one.key] = earlier if earlier is not None and earlier == one else one
    return last if _same(tuple(found.values()), tuple(last.values())) else found


def _declared(catalogue: Catalogue) -> frozenset[str]:
    """The capabilities; of a catalogue that knows none (an older release kept it) what its lists hold."""
    if catalogue.capabilities:
        return catalogue.capabilities
    held = {"resources": catalogue.resources or catalogue.templates, "prompts": catalogue.prompts}
    return frozenset(name for name, listed in held.items() if listed)
