"""Why a name leads nowhere on an endpoint, or by what a URI leads to its server, for the operator: no agent is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastgw.catalog.naming import prefixed
from fastgw.catalog.notice import Notice
from fastgw.catalog.precedence import Precedence
from fastgw.catalog.route import Route
from fastgw.catalog.templates import Marks, compiled
from fastgw.catalog.tools import Catalogue
from fastgw.catalog.uris import Owned, Uris
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.policy.patterns import Patterns, is_wild
from fastgw.policy.uris import UriRules
from fastgw.snapshot.filters import Filter


@dataclass(frozen=True, slots=True)
class Here:
    """One endpoint as it was compiled.

    Args:
        routes: of the kind that is looked for, by exposed name.
        notices: of the compile.
    """

    settings: Settings
    catalogues: Mapping[str, Catalogue]
    endpoint: EndpointSettings
    servers: tuple[str, ...]
    routes: Mapping[str, Route]
    notices: Sequence[Notice]


def absent(here: Here, kind: str, name: str) -> tuple[str, ...]:
    """Why nobody finds this tool or prompt here: all that is known, at least one reason.

    Args:
        kind: `tool` or `prompt`.
    """
    found = [*_entry(here, name)] if kind == "tool" else []
    for server, own in _bringing(here, kind, name):
        found.extend(_taken_away(here, kind, server, own))
    return tuple(dict.fromkeys(found)) or _unknown(here, f"no server of this endpoint brings a {kind} of that name")


def hiding(settings: Settings, names: Sequence[str]) -> tuple[str, ...]:
    """The keys of `tools:` that say `hidden: true` and fit any of these names."""
    return tuple(key for key, tool in settings.tools.items() if tool.hidden is True and Patterns([key]).fit_any(names))


def absent_uri(here: Here, uris: Uris, uri: str) -> tuple[str, ...]:
    """Why a URI leads nowhere here: all that is known, at least one reason.

    Args:
        uri: as an agent would name it, or the text of a template.
    """
    found = [
        line
        for server, catalogue in here.catalogues.items()
        if uri in [one.key for one in (*catalogue.resources, *catalogue.templates)]
        for line in _uri_taken_away(here, uris, server, uri)
    ]
    return tuple(found) or _unknown(here, "no server of this endpoint lists it, and no template or alias leads to one")


def _uri_taken_away(here: Here, uris: Uris, server: str, uri: str) -> Iterator[str]:
    """What became of a URI, or of a template, that this server lists."""
    source = f"{server}/{uri}"
    if server not in here.servers:
        yield f"{source} is not on this endpoint: {server} is not among its servers"
        return
    if not _takes_uri(here.settings.servers[server].tools, uri, server, uri):
        yield f"{source} is left out: it is not among `tools` of the server"
        return
    own = server, uri
    shown = uris.layout.resources.get(own) or uris.layout.templates.get(own)
    if not _takes_uri(here.endpoint.tools, shown or uri, server, uri):
        yield f"{source} is left out: it is not among `tools` of this endpoint"
    elif shown is not None and shown != uri:
        yield f"{source} is called {shown} here"
    else:
        yield from (f"{source}: {one.text}" for one in here.notices if one.subject == source)


def _takes_uri(texts: Sequence[str] | None, shown: str, server: str, uri: str) -> bool:
    return UriRules(Filter(texts).uris).permit(shown, server, uri)


def led(uris: Uris, uri: str, owned: Owned) -> str:
    """By what a URI leads to its server, in words.

    Args:
        uri: as the agent names it.
        owned: where it leads.
    """
    server, own = owned.server, owned.uri
    listed = uris.layout.resources.get((server, own)) == uri
    if listed or (server, uri) in uris.layout.templates:
        return f"{server} lists it"
    if uri != own:
        return f"it carries the alias of {server}"
    marks = Marks(uri)
    for (by, text), shown in uris.layout.templates.items():
        if by == server and shown == text and compiled(text).fits(marks):
            return f"it fits {text} of {server}"
    return f"{server} alone has resources here"


def _unknown(here: Here, words: str) -> tuple[str, ...]:
    silent = [server for server in here.servers if server not in here.catalogues]
    if not silent:
        return (words,)
    return (words, f"nothing is kept under `data` yet of {', '.join(silent)}: what comes from there is not known")


def _entry(here: Here, name: str) -> Iterator[str]:
    """What is to be said of an entry of `tools:` with that name."""
    tool = here.settings.tools.get(name)
    if tool is None or is_wild(name) or not (tool.to or tool.route):
        return
    targets = [to for arm in tool.route for to in arm.to] or list(tool.to)
    if not any(to.server in here.servers for to in targets):
        yield f"its entry in `tools` leads to no server of this endpoint: {_sources(targets)}"
        return
    names = (name, *(f"{to.server}/{to.tool}" for to in targets), *(to.tool for to in targets))
    sources = [f"{to.server}/{to.tool}" for to in targets]
    if Precedence(_hidden(here.settings)).hidden(name, sources, names):
        yield from (f"hidden by the entry {key} of `tools`" for key in hiding(here.settings, names))
    yield from (one.text for one in here.notices if one.subject == name)
    if not Filter(here.endpoint.tools).takes_tool(name, sources):
        yield "left out: it is not among `tools` of this endpoint"


def _sources(targets: Sequence[object]) -> str:
    return ", ".join(f"{getattr(to, 'server', '')}/{getattr(to, 'tool', '')}" for to in targets)


def _bringing(here: Here, kind: str, name: str) -> Iterator[tuple[str, str]]:
    """The servers that bring what could be meant, and their own name for it."""
    for server, catalogue in here.catalogues.items():
        alias = here.settings.servers[server].alias or server
        own = [tool.name for tool in catalogue.tools] if kind == "tool" else [one.key for one in catalogue.prompts]
        for one in own:
            if name in (one, f"{server}/{one}", f"{alias}__{one}", prefixed(alias, one)):
                yield server, one


def _taken_away(here: Here, kind: str, server: str, own: str) -> Iterator[str]:
    """What became of one server's tool or prompt."""
    source = f"{server}/{own}"
    called = [name for name, route in here.routes.items() if (server, own) in _targets(route)]
    if called:
        yield f"{source} is called {', '.join(called)} here"
        return
    if server not in here.servers:
        yield f"{source} is not on this endpoint: {server} is not among its servers"
        return
    alias = here.settings.servers[server].alias or server
    if not _takes(here.settings.servers[server].tools, kind, own, source):
        yield f"{source} is left out: it is not among `tools` of the server"
    names = (source, own, f"{alias}__{own}", prefixed(alias, own))
    if kind == "tool" and Precedence(_hidden(here.settings)).hidden("", (source,), names):
        yield from (f"{source} is hidden by the entry {key} of `tools`" for key in hiding(here.settings, names))
    pointing = [key for key, tool in here.settings.tools.items() if (server, own) in _pointed_at(tool)]
    if kind == "tool" and pointing:
        yield f"{source} has lost its own name: the entry {', '.join(pointing)} of `tools` leads to it"
    subjects = (source, f"prompt:{source}")
    yield from (f"{source}: {one.text}" for one in here.notices if one.subject in subjects)
    if not _takes(here.endpoint.tools, kind, own, source):
        yield f"{source} is left out: it is not among `tools` of this endpoint"


def _takes(texts: Sequence[str] | None, kind: str, own: str, source: str) -> bool:
    taken = Filter(texts)
    return (taken.takes_tool if kind == "tool" else taken.takes_prompt)(own, (source,))


def _hidden(settings: Settings) -> dict[str, dict[str, bool]]:
    return {key: {"hidden": tool.hidden} for key, tool in settings.tools.items() if tool.hidden is not None}


def _pointed_at(tool: object) -> set[tuple[str, str]]:
    arms = [to for arm in getattr(tool, "route", ()) for to in arm.to]
    return {(to.server, to.tool) for to in (*arms, *getattr(tool, "to", ()))}


def _targets(route: Route) -> set[tuple[str, str]]:
    return {(target.server, target.tool) for arm in route.arms for target in arm.targets}
