"""One endpoint in the making: its servers, what its parts are made from, and what the operator should hear.

Knows: the workshop, and which definitions hold on this endpoint. Refuses to know: agents and policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import ToolDefinition
from fastgw.config.filters import Filter
from fastgw.config.settings import Endpoint
from fastgw.config.stock import NOTHING, Goods, Stock
from fastgw.config.workshop import Workshop

Definitions = Mapping[str, ToolDefinition]
"""A server's tools by own name, with URIs as this endpoint exposes them. The same object while nothing has changed."""


@dataclass(slots=True)
class Making:
    """One endpoint in the making.

    Args:
        servers: its servers in the order of the configuration.
        taken: what its `tools` take.
        tools: definitions by server, once its URIs are settled.
    """

    workshop: Workshop
    path: str
    endpoint: Endpoint
    servers: tuple[str, ...]
    taken: Filter
    tools: dict[str, Definitions] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)

    @property
    def stock(self) -> Stock:
        """What holds on every endpoint."""
        return self.workshop.stock

    def goods(self, server: str) -> Goods:
        """What a server brings."""
        return self.stock.goods[server]

    def answered(self, server: str) -> bool:
        """Whether it has ever said what it brings."""
        return self.stock.goods[server] is not NOTHING

    def note(self, subject: str, text: str) -> Notice:
        """A remark for the operator about this endpoint."""
        return Notice(subject, text, self.path)


def making_of(workshop: Workshop, path: str, endpoint: Endpoint) -> Making:
    """An endpoint before anything of it is made."""
    known = workshop.settings.servers
    names = known if endpoint.servers is None else endpoint.servers
    servers = tuple(server for server in known if server in names)
    return Making(workshop, path, endpoint, servers, Filter(endpoint.tools))
