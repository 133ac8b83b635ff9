"""Why a name or a URI leads nowhere on an endpoint, or by what a URI leads to its server: read off what the compile
took down and the tables it made. For the operator; no agent is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastgw.catalog.elements import Notice
from fastgw.catalog.route import Route
from fastgw.catalog.uris import Owned, Uris, backwards
from fastgw.policy.patterns import PROMPT
from fastgw.snapshot.cache import NEVER_ANSWERED, ServerCatalogues
from fastgw.snapshot.model import Endpoint


@dataclass(frozen=True, slots=True)
class Compiled:
    """One endpoint as it was compiled, with notices of what is wrong with it and what it does not have."""

    endpoint: Endpoint
    catalogues: ServerCatalogues
    notices: Sequence[Notice]

    def about(self, subject: str) -> list[str]:
        """The notices about something."""
        return [f"{subject.removeprefix(PROMPT)}: {one.text}" for one in self.notices if one.subject == subject]

    def nothing(self, words: str) -> tuple[str, ...]:
        """These words, and of which servers nothing can be said."""
        silent = [server for server in self.endpoint.servers if self.catalogues.offer[server] is NEVER_ANSWERED]
        if not silent:
            return (words,)
        return (words, f"nothing is kept under `data` yet of {', '.join(silent)}: what comes from there is not known")


def why_missing(here: Compiled, kind: str, name: str, routes: Mapping[str, Route]) -> tuple[str, ...]:
    """Why nobody finds this tool or prompt here: all that is known, at least one reason.

    Args:
        kind: `tool` or `prompt`.
        routes: of that kind, by exposed name.
    """
    prefix = PROMPT if kind == "prompt" else ""
    led_to = {
        shown: {(target.server, target.tool) for arm in route.arms for target in arm.targets}
        for shown, route in routes.items()
    }
    found = here.about(prefix + name)
    for server, offer in here.catalogues.offer.items():
        for own in {**offer.tools, **offer.listed} if kind == "tool" else offer.prompts:
            names = here.catalogues.known_as("", [(server, own)])
            if name not in names:
                continue
            if exposed := [shown for shown, targets in led_to.items() if (server, own) in targets]:
                found.append(f"{server}/{own} is called {', '.join(exposed)} here")
            elif server not in here.endpoint.servers:
                found.append(_elsewhere(server, own, here))
            else:
                found += [line for one in names for line in here.about(prefix + one)]
    return tuple(dict.fromkeys(found)) or here.nothing(f"no server of this endpoint brings a {kind} of that name")


def why_uri_missing(here: Compiled, uri: str) -> tuple[str, ...]:
    """Why a URI, or the text of a template, leads nowhere here: all that is known, at least one reason."""
    found: list[str] = []
    uris = here.endpoint.uris
    for server, offer in here.catalogues.offer.items():
        if uri not in offer.resources and uri not in offer.templates:
            continue
        source, shown = f"{server}/{uri}", uris.tables.shown((server, uri))
        if server not in here.endpoint.servers:
            found.append(_elsewhere(server, uri, here))
        elif shown is not None and uris.owner(shown) is None:
            found.append(f"{source} is left out: it is not among `tools` of this endpoint")
        elif shown is not None and shown != uri:
            found.append(f"{source} is called {shown} here")
        else:
            found += here.about(source) or [f"{source} is left out: it is not among `tools` of the server"]
    return tuple(found) or here.nothing("no server of this endpoint lists it, and no template or alias leads to one")


def leads_by(uris: Uris, uri: str, owned: Owned) -> str:
    """By what a URI, as the agent names it, leads to its server."""
    server, own = owned.server, owned.uri
    if uris.tables.resources.get(owned) == uri or (server, uri) in uris.tables.templates:
        return f"{server} lists it"
    if uri != own:
        return f"it carries the alias of {server}"
    for (by, text), shown in uris.tables.templates.items():
        if by == server and shown == text and (found := backwards(text)) and re.fullmatch(found, uri):
            return f"it fits {text} of {server}"
    return f"{server} alone has resources here"


def _elsewhere(server: str, own: str, here: Compiled) -> str:
    servers = here.catalogues.settings.servers
    if (primary := next((one for one in here.endpoint.servers if server in servers[one].backup), None)) is not None:
        return f"{server}/{own} has no name of its own here: {server} is a backup of {primary}"
    return f"{server}/{own} is not on this endpoint: {server} is not among its servers"
