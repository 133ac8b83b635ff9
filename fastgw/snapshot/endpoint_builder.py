"""One endpoint in the making: its servers, what its lists are made from, and what the operator should hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastgw.catalog.definitions import Definition
from fastgw.catalog.elements import Notice
from fastgw.config.schema.settings import EndpointSettings
from fastgw.policy.patterns import Patterns
from fastgw.snapshot.cache import NOTHING, CompileCache, Filter, ServerCatalogues, ServerOffer

Definitions = Mapping[str, Definition]
"""A server's tools by own name, with URIs as this endpoint exposes them. The same object while nothing has changed."""


@dataclass(slots=True)
class EndpointBuilder:
    """One endpoint in the making."""

    cache: CompileCache
    path: str
    endpoint: EndpointSettings
    servers: tuple[str, ...]
    taken: Filter
    tools: dict[str, Definitions] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)

    @property
    def catalogues(self) -> ServerCatalogues:
        """What holds on every endpoint."""
        return self.cache.catalogues

    def offer(self, server: str) -> ServerOffer:
        """What a server offers."""
        return self.catalogues.offer[server]

    def answered(self, server: str) -> bool:
        """Whether it has ever said what it offers."""
        return self.catalogues.offer[server] is not NOTHING

    def note(self, subject: str, text: str) -> Notice:
        """A remark for the operator about this endpoint."""
        return Notice(subject, text, self.path)

    def missing(self, subject: str, why: str) -> None:
        """Take down why something is not there, where that is asked for."""
        if self.cache.missing is not None:
            self.cache.missing.append(self.note(subject, why))

    def hides(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> bool:
        """Whether an entry of `tools:` hides a tool, see `Precedence.hidden`."""
        places = self.catalogues.places
        if not places.can_hide or not places.hidden(name, sources, known_as):
            return False
        if self.cache.missing is not None:
            tools = self.cache.settings.tools.items()
            hiding = [key for key, tool in tools if tool.hidden and Patterns([key]).fit_any(known_as)]
            self.missing(name or sources[0], f"hidden by the entry {' and '.join(hiding)} of `tools`")
        return True


def builder_of(cache: CompileCache, path: str, endpoint: EndpointSettings) -> EndpointBuilder:
    """An endpoint before anything of it is made."""
    known = cache.settings.servers
    names = known if endpoint.servers is None else endpoint.servers
    servers = tuple(server for server in known if server in names)
    return EndpointBuilder(cache, path, endpoint, servers, Filter(endpoint.tools))
