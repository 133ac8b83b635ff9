"""The tables behind the URIs of one endpoint: what is listed as what, and what leads where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastgw.catalog.aliases import Aliases
from fastgw.catalog.elements import Notice
from fastgw.catalog.templates import Marks, Template, compiled, unused
from fastgw.policy.patterns import Patterns
from fastgw.policy.uris import LONGEST, UriRules

ROUTED = 65536
"""Characters of one server's templates that are tried on URIs: what a stranger's URI may cost."""
MOST_COMPARED = 500_000
"""Templates, and steps of those that begin alike, that are compared with others for one endpoint: a quarter of a second
at worst. Whatever is left then is shown with its server's alias. Thirty servers with thirty each stay below it."""
LONGEST_ALIAS = 1024
"""Characters by which a URI that agents name may be longer than its server's own."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_WEB = re.compile("https?:", re.IGNORECASE)
_UI = re.compile("ui://", re.IGNORECASE)
_UI_HOST = re.compile("ui://[^/{}]+/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServerUris:
    """One server's URIs on an endpoint.

    Args:
        server: its name in the configuration.
        alias: what stands before `+` in a URI that leads to it.
        uris: of the resources it lists, in its order.
        templates: texts of its templates, in its order.
        only: what the configuration takes of it: tried on its own URIs and template texts; None for all.
    """

    server: str
    alias: str
    uris: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    only: Patterns | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """Where a URI leads: a server, and its own spelling of the URI there."""

    server: str
    uri: str


def is_visible(uri: str, longest: int = LONGEST) -> bool:
    """Whether it may be asked for: 1 to 8,192 characters, none of them a control character, and no space at either end,
    which most parsers drop (WHATWG URL, 4.4): to the server it would be another URI than to the policies.
    """
    return 0 < len(uri) <= longest and _CONTROL.search(uri) is None and uri == uri.strip()


class Layout:
    """The tables of one endpoint: what is listed as what, and what leads where.

    Args:
        mode, shelves, only: as of `Uris`.
    """

    __slots__ = ("resources", "templates", "notices", "_mode", "_aliases", "_takes", "_only", "_raw", "_moved",
                 "_routed", "_steps", "_spent", "_shelves")  # fmt: skip

    def __init__(self, mode: str, shelves: Sequence[ServerUris], only: Patterns | None) -> None:
        self.resources: dict[tuple[str, str], str] = {}
        self.templates: dict[tuple[str, str], str] = {}
        self.notices: list[Notice] = []
        self._mode = mode
        self._shelves = shelves
        self._aliases = Aliases((shelf.server, shelf.alias) for shelf in shelves)
        self._takes = {shelf.server: UriRules(shelf.only) for shelf in shelves}
        self._only = UriRules(only)
        self._raw: dict[str, Owned] = {}
        self._moved: set[str] = set()
        self._routed: dict[str, list[tuple[str, Template]]] = {}
        self._steps: Counter[str] = Counter()
        self._spent = 0
        listed = [(shelf.server, uri) for shelf in shelves for uri in self._asking(shelf, shelf.uris)]
        read = [(shelf.server, one) for shelf in shelves for one in self._read(shelf)]
        brought = Counter(
            name for name, _ in {*((uri, by) for by, uri in listed), *((one.form, by) for by, one in read)}
        )
        self._name_resources(listed, brought)
        self._name_templates(read, brought)
        if mode == "on_collision":
            for own, shown in (*self.resources.items(), *self.templates.items()):
                if shown != own[1]:
                    self._note(*own, f"is called {shown} here")

    def owner(self, uri: str) -> Owned | None:
        """As of `Uris`."""
        found = self._raw.get(uri) or self._unlisted(uri)
        return found if found is not None and self._only.permit(uri, found.server, found.uri) else None

    def exposed(self, server: str, uri: str, effort: int) -> tuple[str, int]:
        """As of `Uris`, for servers of this endpoint where URIs are rewritten; and what is left of the effort.

        Args:
            effort: steps of templates that may be tried. Where they are too many, the URI is shown with its alias:
                such a one leads to its server whatever its templates are.
        """
        own = server, uri
        listed = self.resources.get(own) or self.templates.get(own)
        if listed is not None:
            return listed, effort
        if _WEB.match(uri) or not is_visible(uri):
            return uri, effort
        effort -= self._effort(uri)
        if effort >= 0 and self._leads(uri) == Owned(server, uri):
            return uri, effort
        return self._made(server, uri), effort

    def known_as(self, server: str, uri: str) -> tuple[str, ...]:
        """As of `Uris`."""
        return () if self._mode == "none" else (self._aliases.form(server, uri),)

    def _effort(self, uri: str) -> int:
        """Steps that it may take to look for the template of a URI; on a long one each costs more."""
        return self._steps.get(uri.partition(":")[0], 0) * (1 + len(uri) // 4096)

    def _asking(self, shelf: ServerUris, texts: Sequence[str]) -> Iterator[str]:
        """What of a shelf asks to be listed, each once."""
        for text in dict.fromkeys(texts):
            if not is_visible(text):
                shown = text if len(text) <= 100 else text[:100] + "..."
                self._note(shelf.server, repr(shown), f"left out: no URI of 1 to {LONGEST} characters")
            elif texts is shelf.templates:
                if shelf.only is None or shelf.only.fits(text):
                    yield text
            elif self._takes[shelf.server].permit(text, shelf.server, text):
                yield text

    def _read(self, shelf: ServerUris) -> Iterator[Template]:
        """A shelf's templates, compiled; what is beyond the budget is read as one that nothing fits."""
        spent = 0
        for text in self._asking(shelf, shelf.templates):
            spent += len(text)
            template = (
                compiled(text) if spent <= ROUTED else unused(text, f"is beyond {ROUTED} characters of templates")
            )
            if template.wrong:
                self._note(shelf.server, text, f"fits no URI: it {template.wrong}")
            yield template

    def _name_resources(self, listed: Sequence[tuple[str, str]], brought: Counter[str]) -> None:
        made: list[tuple[str, str]] = []
        for server, uri in listed:
            if self._stays(uri):
                if uri in self._raw:
                    self._note(server, uri, self._hidden(uri))
                    continue
            elif self._mode == "always" or brought[uri] > 1 or self._aliases.is_second(uri):
                made.append((server, uri))
                continue
            self._raw[uri] = Owned(server, uri)
            self.resources[server, uri] = uri
        self._moved.update(uri for _, uri in made)
        self.resources.update((own, self._made(*own)) for own in made)

    def _name_templates(self, read: Sequence[tuple[str, Template]], brought: Counter[str]) -> None:
        kept = {uri: owned.server for uri, owned in self._raw.items()}
        for server, one in read:
            own = server, one.text
            leads = bool(one.scheme) or self._falls_back(one.text)
            if self._stays(one.text):
                if not leads or kept.setdefault(one.form, server) != server:
                    self._note(*own, self._hidden(one.text) if leads else "hidden: it leads nowhere without an alias")
                    continue
            elif self._mode == "always" or brought[one.form] > 1 or not leads or self._strays(server, one):
                self.templates[own] = self._made(*own)
                continue
            self.templates[own] = one.text
            # Its text too leads there: completion names templates by it, and one without an expression is a URI.
            self._raw.setdefault(one.text, Owned(*own))
            if one.scheme:
                self._routed.setdefault(one.scheme, []).append((server, one))
                self._steps[one.scheme] += 1 + len(one.steps or ())

    def _stays(self, text: str) -> bool:
        """Whether nothing ever rewrites it."""
        return self._mode == "none" or _WEB.match(text) is not None

    def _strays(self, server: str, one: Template) -> bool:
        """Whether a template may expand into what leads to another server: by an alias, or by a wider template."""
        if self._aliases.read(one.text) is not None or (_UI.match(one.text) and not _UI_HOST.match(one.text)):
            return True
        marks = Marks(one.sample)
        for by, other in self._routed.get(one.scheme, ()):
            if by == server:  # its own come last
                return False
            self._spent += 1 + (len(other.steps or ()) if marks.text.startswith(other.prefix) else 0)
            if self._spent > MOST_COMPARED or other.fits(marks):
                return True
        return False

    def _hidden(self, text: str) -> str:
        reason = "naming is none" if self._mode == "none" else "web addresses are never renamed"
        return f"hidden: its URI is taken, and {reason}"

    def _note(self, server: str, text: str, remark: str) -> None:
        self.notices.append(Notice(f"{server}/{text}", remark))

    def _leads(self, uri: str) -> Owned | None:
        """Where it leads, before it is asked what the endpoint takes."""
        return self._raw.get(uri) or self._unlisted(uri)

    def _unlisted(self, uri: str) -> Owned | None:
        if not is_visible(uri, LONGEST + LONGEST_ALIAS):
            return None
        if self._mode != "none" and (read := self._aliases.read(uri)) is not None:
            return self._taken(*read)
        if uri in self._moved:
            return None
        marks = Marks(uri)
        for server, template in self._routed.get(uri.partition(":")[0], ()):
            if template.fits(marks) and (found := self._taken(server, uri)) is not None:
                return found
        return self._taken(self._shelves[0].server, uri) if self._falls_back(uri) else None

    def _falls_back(self, text: str) -> bool:
        """Whether it leads to the only server there is, unless something else is said of it."""
        return len(self._shelves) == 1 and (self._mode != "always" or _WEB.match(text) is not None)

    def _taken(self, server: str, uri: str) -> Owned | None:
        taken = is_visible(uri) and self._takes[server].permit(uri, server, uri)
        return Owned(server, uri) if taken else None

    def _made(self, server: str, text: str) -> str:
        """With the server's alias; with its second one where a server lists what looks like the first."""
        form = self._aliases.form(server, text)
        return self._aliases.second_form(server, text) if form in self._raw else form
