"""Which URIs a class of agents may read, by the `resource:` patterns of the policies that apply to it.

A server may undo percent-encoding once or twice, resolve dots before or after that, fold `//`, take a backslash for a
slash, or hang a whole URI below a folder of its own. So a rule looks at every spelling any of these would read: an
allow must hold for all of them, a deny that fits one refuses. What is done to URIs is done to the patterns too, so that
a pattern copied from a list means what it says. RFC 3986 draws the line: `+`, letters of other alphabets and the case
of paths stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from fastgw.policy.patterns import WILD, Patterns

LONGEST = 8192
"""Characters of a URI; longer ones are nobody's."""
ROUNDS = 5
"""How often percent-encoding may be nested."""
NONE = Patterns(())

_ONLY_SPELLING = re.compile(
    r"[a-z][a-z0-9+.\-]*+:(?!\.|/(?!/)|//localhost)(?://(?!\.)[a-z0-9.\-_~*]*+(?=[/?#]|\Z))?(?:/(?![./])|[^/\\%])*+"
)
"""No encoding, no dots or nothing at the beginning of a segment, no capitals, port or user, one way to say that there
is no host: most URIs."""
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(.*)", re.DOTALL)
"""Scheme, authority, path, and the rest (RFC 3986, appendix B)."""
_DOTS = re.compile(r"(?:^|[/:])\.\.?(?:[/?#]|\Z)")
_SLASHES = re.compile("/{2,}")
_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


@dataclass(frozen=True, slots=True)
class UriRules:
    """What policies say of URIs, for one class of agents.

    Args:
        allow: patterns without `resource:`; None where there are no policies: everything.
        deny: likewise.
    """

    allow: Patterns | None = None
    deny: Patterns = NONE
    free: bool = field(init=False, compare=False)
    """Nothing is refused."""
    _allow: Patterns = field(init=False, compare=False, repr=False)
    _deny: Patterns = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", self.allow is None and not self.deny.texts)
        object.__setattr__(self, "_allow", _spelled_out(self.allow or NONE, spellings))
        object.__setattr__(self, "_deny", _spelled_out(self.deny, normal_forms))

    def __reduce__(self) -> tuple[type[UriRules], tuple[Patterns | None, Patterns]]:
        return UriRules, (self.allow, self.deny)

    def permit(self, exposed: str, server: str, own: str, known_as: Sequence[str] = ()) -> bool:
        """Whether the class may read a URI.

        Args:
            exposed: as the agent names it.
            server, own: where it leads, and how that server spells it.
            known_as: what else it is called, or could be: no other name of it leads round a deny.
        """
        if self.free:
            return True
        shown = spellings(exposed)
        known = shown if own == exposed else spellings(own)
        if shown is None or known is None:
            return False
        here = [f"{server}/{form}" for form in (own, *known)]
        if self.deny.texts and self._refuses([exposed, *shown, own, *known, *here, *_all_spellings(known_as)]):
            return False
        if self.allow is None or (self.allow.fits(exposed) and all(map(self._allow.fits, shown))):
            return True
        return self.allow.fits(here[0]) and all(map(self._allow.fits, here[1:]))

    def _refuses(self, names: list[str]) -> bool:
        """Whether a deny fits any of them, as it is or less its query: many servers look at the path alone."""
        return self._deny.fit_any(names) or self._deny.fit_any([one.partition("?")[0] for one in names if "?" in one])


def spellings(uri: str) -> tuple[str, ...] | None:
    """The normal forms, and all without a fragment: what is retrieved is the same (RFC 3986, section 3.5)."""
    forms = normal_forms(uri)
    cut = [form.partition("#")[0] for form in (uri, *(forms or ())) if "#" in form]
    return forms if forms is None or not cut else tuple(dict.fromkeys((*forms, *cut)))


def _all_spellings(uris: Sequence[str]) -> Iterator[str]:
    for uri in uris:
        yield uri
        yield from spellings(uri) or ()


def normal_forms(uri: str) -> tuple[str, ...] | None:
    """The other spellings a server may take a URI for; none where it has only the one.

    None where they cannot be told: encoded more than five times over, longer than 8,192 characters, or with an encoded
    NUL, at which some read no further.
    """
    if len(uri) > LONGEST:
        return None
    if _ONLY_SPELLING.fullmatch(uri):
        return ()
    stages = [uri]
    while (plain := unquote(stages[-1], errors="surrogateescape")) != stages[-1]:
        if len(stages) > ROUNDS:
            return None
        stages.append(plain)
    if "\0" in stages[-1]:
        return None
    forms = dict.fromkeys(stages)
    for stage in stages:
        forms.update(dict.fromkeys(_cleaned(stage)))
    del forms[uri]
    return tuple(forms)


def _cleaned(uri: str) -> tuple[str, ...]:
    """One stage of decoding: by RFC 3986, section 6.2; with `//` folded; and as one long path, where dots are about."""
    uri = uri.replace("\\", "/")
    scheme, authority, path, rest = _PARTS.fullmatch(uri).groups()  # type: ignore[union-attr]
    scheme = f"{scheme.lower()}:" if scheme else ""
    if path[:1] == "/" and (not authority or _is_here(scheme, authority)):
        authority = ""
    start = scheme if authority is None else f"{scheme}//{_host(scheme, authority)}"
    normal = f"{start}{_without_dots(path)}{rest}"
    if not _DOTS.search(uri):
        return normal, f"{start}{_SLASHES.sub('/', path)}{rest}"
    below = uri[len(scheme) :].lstrip("/")
    slashes = uri[len(scheme) : len(uri) - len(below)]
    return (
        normal,
        f"{start}{_without_dots(_SLASHES.sub('/', path))}{rest}",
        f"{scheme}{slashes}{_without_dots('/' + _SLASHES.sub('/', below))[1:]}",
    )


def _is_here(scheme: str, authority: str) -> bool:
    """Whether a file's host is the one that has none: `file:/x`, `file:///x`, `file://localhost/x` (RFC 8089, B)."""
    return (scheme == "file:" or scheme.endswith("+file:")) and _host(scheme, authority) == "localhost"


def _host(scheme: str, authority: str) -> str:
    """The authority in lower case, less its user and the port that its scheme has anyway (RFC 3986, 6.2.2.1, 6.2.3)."""
    host = authority.rpartition("@")[2].lower()
    return host.removesuffix(_PORTS.get(scheme[:-1], ":")).removesuffix(":")


def _without_dots(path: str) -> str:
    """The path less `.` and `..` (RFC 3986, section 5.2.4)."""
    if "." not in path:
        return path
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            if len(kept) > (kept[:1] == [""]):
                kept.pop()
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)


def _spelled_out(patterns: Patterns, forms_of: Callable[[str], tuple[str, ...] | None]) -> Patterns:
    """The patterns and their other spellings; none that would be wider for a wildcard that was encoded."""
    found = dict.fromkeys(patterns.texts)
    for text in patterns.texts:
        wild = _wild(text)
        forms = [*(forms_of(text) or ())]
        server, slash, own = text.partition("/")
        if slash and ":" not in server:
            forms += [f"{server}/{form}" for form in forms_of(own) or ()]
        found.update(dict.fromkeys(form for form in forms if _wild(form) <= wild))
    return Patterns(found) if len(found) > len(patterns.texts) else patterns


def _wild(text: str) -> int:
    return sum(map(text.count, WILD))


ANY_URI = UriRules()
