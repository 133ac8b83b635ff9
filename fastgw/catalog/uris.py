"""Whose a URI is on one endpoint, and how agents see it: its server's own, or `alias+uri`.

1. `none`: nothing is rewritten; of two servers with one URI the one written first keeps it, the other's is hidden.
`on_collision`: what two servers list becomes `alias+uri` for both. `always`: everything does. `ui://x` becomes
`ui://alias/x` (MCP Apps know their pages by the scheme); web addresses are never rewritten: the first keeps them.
2. A URI leads where its alias says; else where it is listed just so; else to the first server with a simple template
that agents see as it is and that it fits; else, where one server alone has resources, to that one.
3. What would not lead back to its server is shown with its alias: a link, a URI that looks like an alias, a template
that is not simple or may expand into what an earlier server's takes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from typing import NamedTuple
from urllib.parse import quote

from fastgw.catalog.elements import Notice
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import LONGEST, UriRules, forms

LONGEST_TEMPLATE = 512

_VARIABLE = r"[A-Za-z0-9_%][A-Za-z0-9_.%]*+(?>(?:\*|:[1-9][0-9]{0,3}+)?)"
_NAMES = f"{_VARIABLE}(?>(?:,{_VARIABLE})*)"
_PLAIN = r"(?>(?:[^{}]|\{" + _NAMES + r"\})*)"
_SIMPLE = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.\-]*+:{_PLAIN}"
    + (r"(?>(?:\{\+" + _NAMES + rf"\}}(?>(?:/{_PLAIN})?))?)")
    + (r"(?>(?:\{/" + _NAMES + r"\})*)(?>(?:\{[?&]" + _NAMES + r"\})*)")
)
_EXPRESSION = re.compile(r"\{([+#./;?&]?)([^{}]*)\}")
_RUNS = {"": "[^/?#]*", "+": ".*", "?": r"(?>(?:\?[^#]*+)?)", "&": "(?>(?:&[^#]*+)?)"}
_RESERVED = "!#$&'()*+,/:;=?@[]~%"
"""Characters of literals that expand to themselves (RFC 6570, section 3.1); others may stand encoded or not."""

MOST_ROUTED = 100
"""Templates of one server that are tried on URIs; those after them are shown with its alias."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_WEB = re.compile("https?:", re.IGNORECASE)
_UI = re.compile("ui://", re.IGNORECASE)


class Owned(NamedTuple):
    """Where a URI leads: a server, and its own spelling of the URI there."""

    server: str
    uri: str


class ServerUris(NamedTuple):
    """What a server lists on an endpoint, in its order, the alias of what leads to it, and what the configuration
    takes of it: tried on its own URIs and template texts; None for all. `backups`: name and alias of each.
    """

    server: str
    alias: str
    uris: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    only: Patterns | None = None
    backups: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class UriTables:
    """What is listed as what, and what leads where.

    Args:
        resources, templates: exposed URI or text; what is missing is hidden, or its server may not give it.
        owners: by the URI or text that agents see as it is; None for what is shown with an alias alone.
        routes: servers, and what fits any of their templates that agents see as they are.
    """

    resources: dict[tuple[str, str], str] = field(default_factory=dict)
    templates: dict[tuple[str, str], str] = field(default_factory=dict)
    owners: dict[str, Owned | None] = field(default_factory=dict)
    routes: list[tuple[str, re.Pattern[str]]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    asking: Counter[str] = field(default_factory=Counter)
    kept: dict[str, str] = field(default_factory=dict)

    def shown(self, own: tuple[str, str]) -> str | None:
        """What a resource or template is listed as."""
        return self.resources.get(own) or self.templates.get(own)

    def note(self, own: Owned, remark: str) -> None:
        self.notices.append(Notice("/".join(own), remark))


def _aliased(alias: str, uri: str) -> str:
    scheme, rest = uri[: len("ui://")], uri[len("ui://") :]
    return f"{scheme}{alias}/{rest}" if _UI.match(scheme) and rest else f"{alias}+{uri}"


@dataclass(frozen=True)
class Uris:
    """The URIs of one endpoint. Immutable, pickled to the workers; what is derived is derived at its first use.

    Args:
        servers: those that declare resources, in the order of the configuration.
        only: what the endpoint takes: tried on exposed URIs and on `server/own`; None for all.
    """

    mode: str = "on_collision"
    servers: Sequence[ServerUris] = ()
    only: Patterns | None = None

    def __reduce__(self) -> tuple[type[Uris], tuple[str, Sequence[ServerUris], Patterns | None]]:
        return Uris, (self.mode, self.servers, self.only)

    def owner(self, uri: str) -> Owned | None:
        """Where the URI that an agent names leads; None where it leads nowhere."""
        found = self._leads(uri)
        return found if found is not None and self.permits(self._filters[""], uri, found) else None

    def exposed(self, server: str, uri: str) -> str:
        """The URI, or the text of a template, by which agents know what is `uri` at that server."""
        if not self.rewrites(server):
            return uri
        own = Owned(server, uri)
        if (listed := self.tables.shown(own)) is not None:
            return listed
        stays = _WEB.match(uri) is not None or not _is_visible(uri) or self._leads(uri) == own
        return uri if stays else self._with_alias(own)

    def listed(self, server: str, uri: str) -> str | None:
        """What agents know a resource or template as; None where it is hidden or not taken here."""
        own = Owned(server, uri)
        shown = self.tables.shown(own)
        return shown if shown is not None and self.permits(self._filters[""], shown, own) else None

    def known_as(self, server: str, uri: str) -> tuple[str, ...]:
        """What a URI of a server of this endpoint is called with its alias, whether it is shown so or not; and at its
        backups.
        """
        known: tuple[str, ...] = (_aliased(self._aliases[server], uri),) if self.rewrites(server) else ()
        for name, alias in self._backups.get(server, ()):
            known += (*[f"{name}/{form}" for form in forms(uri)], _aliased(alias, uri))
        return known

    def permits(self, rules: UriRules, exposed: str, owned: Owned) -> bool:
        """Whether rules permit the URI that an agent names: one that its server lists so need not be canonical."""
        permit = rules.permit if self.tables.shown(owned) is None else rules.permit_listed
        return rules.free or permit(exposed, *owned, self.known_as(*owned))

    def rewrites(self, server: str) -> bool:
        """Whether any URI of this server may look different to agents."""
        return server in self._aliases

    @cached_property
    def tables(self) -> UriTables:
        """The tables, worked out once."""
        tables = UriTables()
        resources = [own for one in self.servers for own in self._asking(tables, one, one.uris)]
        templates = [own for one in self.servers for own in self._asking(tables, one, one.templates)]
        patterns = {own: backwards(own.uri) for own in templates}
        forms = {own: own.uri for own in resources} | {own: pattern or own.uri for own, pattern in patterns.items()}
        tables.asking = Counter(form for form, _ in {(form, own.server) for own, form in forms.items()})
        for own in resources:
            if (shown := self._placed(tables, own, own.uri)) is not None:
                tables.resources[own] = shown
                tables.owners[own.uri] = own if shown == own.uri else None
        for server, owns in groupby(templates, lambda own: own.server):
            routed: list[str] = []
            for own in owns:
                pattern = patterns[own] if len(routed) < MOST_ROUTED else None
                form = pattern or (own.uri if self._falls_back(own.uri) else None)
                if (shown := self._placed(tables, own, form)) is not None:
                    tables.templates[own] = shown
                if shown == own.uri:
                    tables.owners.setdefault(shown, own)  # completion names templates by their text
                    routed += [pattern] if pattern else []
            tables.routes += [(server, re.compile("|".join(routed)))] if routed else []
        return tables

    def _asking(self, tables: UriTables, one: ServerUris, texts: Sequence[str]) -> Iterator[Owned]:
        """What of a server asks to be listed, each once."""
        for text in dict.fromkeys(texts):
            if not _is_visible(text):
                tables.note(Owned(one.server, repr(text[:100])), f"left out: no URI of 1 to {LONGEST} characters")
            elif self._filters[one.server].permit_listed(text, one.server, text):
                yield Owned(one.server, text)

    def _placed(self, tables: UriTables, own: Owned, form: str | None) -> str | None:
        """What a resource or template is listed as; None where it is hidden.

        Args:
            form: equal ones want the same URIs; None where none leads to its server without an alias.
        """
        if self.mode == "none" or _WEB.match(own.uri):
            if form is not None and tables.kept.setdefault(form, own.server) == own.server:
                return own.uri
            why = "naming is none" if self.mode == "none" else "web addresses are never renamed"
            taken = f"its URI is taken, and {why}"
            tables.note(own, f"hidden: {taken if form is not None else 'it leads nowhere without an alias'}")
            return None
        if form is not None and self.mode != "always" and tables.asking[form] < 2 and self._read(own.uri) is None:
            expanded = re.sub("[{}]", "", own.uri)  # the names for values
            if all(routed.fullmatch(expanded) is None for _, routed in tables.routes):
                return own.uri
        shown = self._with_alias(own)
        if self.mode == "on_collision":
            tables.note(own, f"is called {shown} here")
        return shown

    def _falls_back(self, text: str) -> bool:
        """Whether it leads to the only server there is, unless something else is said of it."""
        return len(self.servers) == 1 and (self.mode != "always" or _WEB.match(text) is not None)

    def _leads(self, uri: str) -> Owned | None:
        """Where it leads, before it is asked what the endpoint takes."""
        if (read := self._read(uri)) is not None:
            return self._taken(read)
        if uri in self.tables.owners or not _is_visible(uri):
            return self.tables.owners.get(uri)
        fitting = [server for server, routed in self.tables.routes if routed.fullmatch(uri)]
        fitting += [self.servers[0].server] if self._falls_back(uri) else []
        return next((own for server in fitting if (own := self._taken(Owned(server, uri)))), None)

    def _taken(self, own: Owned) -> Owned | None:
        return own if _is_visible(own.uri) and self.permits(self._filters[own.server], own.uri, own) else None

    def _read(self, uri: str) -> Owned | None:
        """Where the alias that stands before a URI leads; None without one."""
        start = uri[: len("ui://")] if _UI.match(uri) else ""
        alias, _, rest = uri[len(start) :].partition("/" if start else "+")
        server = self._servers.get(alias)
        return Owned(server, start + rest) if server is not None and rest else None

    def _with_alias(self, own: Owned) -> str:
        return _aliased(self._aliases[own.server], own.uri)

    @cached_property
    def _backups(self) -> dict[str, tuple[tuple[str, str], ...]]:
        return {one.server: one.backups for one in self.servers if one.backups}

    @cached_property
    def _filters(self) -> dict[str, UriRules]:
        """What each server gives, and what the endpoint takes: under an empty name."""
        return {one.server: UriRules(one.only) for one in self.servers} | {"": UriRules(self.only)}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """What begins a URI that leads to a server, as a scheme can (RFC 3986, 3.1); nothing where none is rewritten.

        Of two aliases that are alike then, one that had to change gets a hash.
        """
        plain = {one.server: re.sub("[^a-z0-9.-]", "-", one.alias.lower()) for one in self.servers}
        names = {server: name if name[:1].isalpha() else f"s{name}" for server, name in plain.items()}
        count = Counter(names.values())
        for server, alias, *_ in self.servers:
            if count[names[server]] > 1 and names[server] != alias:
                names[server] += f"-{sha256(server.encode()).hexdigest()[:8]}"
        return names if self.mode != "none" else {}

    @cached_property
    def _servers(self) -> dict[str, str]:
        return {alias: server for server, alias in self._aliases.items()}


def _is_visible(uri: str) -> bool:
    """Whether it may be asked for: 1 to 8,192 characters, none of them a control character, and no space at either end,
    which most parsers drop (WHATWG URL, 4.4): to the server it would be another URI than to the policies.
    """
    return 0 < len(uri) <= LONGEST and _CONTROL.search(uri) is None and uri == uri.strip()


def backwards(text: str) -> str | None:
    """A URI template read backwards: which URIs may be its expansions (RFC 6570), as a regular expression for
    `fullmatch`; None for one that is not simple.

    Simple is a literal scheme, then literals and `{x}`, one `{+path}` (at the end, or before a literal that begins with
    `/`), and at the very end `{/x}`, then `{?x,y}` and `{&x,y}`. Every expansion fits. What fits need not be one:
    values are taken as wide as servers read them, and a query may hold anything. Equal expressions fit the same URIs:
    names of variables do not show in them.

    Templates and URIs are strangers': groups that could give back without need are atomic, so a fit that fails costs at
    most about the length of the URI times that of the template.
    """
    if len(text) > LONGEST_TEMPLATE or _SIMPLE.fullmatch(text) is None:
        return None
    parts = _EXPRESSION.split(text)
    made = [_literal(parts[0])]
    for at in range(1, len(parts), 3):
        operator, names, literal = parts[at : at + 3]
        following = parts[at + 3] if at + 3 < len(parts) else None
        if operator == "" and following in ("", "+") and not re.search("[/?#]", literal):
            # What follows takes whatever this leaves, so the first place where the literal stands is as good as any.
            made.append(f"(?>[^/?#]*?{_literal(literal)})")
        elif operator == "/":
            made.append("(?>(?:/[^?#]*+)?)" if "*" in names else "(?>(?:/[^/?#]*+)?)" * (names.count(",") + 1))
        else:
            made.append(_RUNS[operator] + _literal(literal))
    return "".join(made)


def _literal(text: str) -> str:
    encoded = [(re.escape(one), quote(one, safe=_RESERVED, errors="surrogatepass")) for one in text]
    return "".join(f"(?:{plain}|{other})" if other[0] == "%" != plain else plain for plain, other in encoded)
