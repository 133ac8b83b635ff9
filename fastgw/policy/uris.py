"""Which URIs a class of agents may read, by the `resource:` patterns of the policies that apply to it.

A URI has one canonical spelling. Where patterns decide, what an agent names otherwise is refused, unless its server
lists it word for word: then an allow must hold for the URI as it is and for its normal form, and a deny that fits
either refuses. Patterns are brought into normal form too, so one that is copied from a list means what it says. By
RFC 3986 `+`, letters of other alphabets and the case of paths stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from posixpath import normpath
from urllib.parse import unquote

from fastgw.policy.patterns import NO_PATTERNS, WILD, Patterns

LONGEST = 8192
"""Characters of a URI; longer ones are nobody's."""

_ESCAPES = "2[0-246-9A-Ca-c]|3[A-Ea-e]|40|5[BDEbde]|60|7[BCDbcd]|[89A-Fa-f][0-9A-Fa-f]"
"""Escapes that may stand in a path: not of letters, digits, `-._~`, `/`, a backslash, `?`, `#`, `%`, controls."""
_CANONICAL = re.compile(
    r"(?!(?:[a-z0-9.\-]++\+)?file://(?i:localhost)(?:[:/?#]|\Z))"
    r"(?!(?:https?|wss?)://[^/?#]*(?::(?:80|443)(?:[/?#]|\Z)|[^!-~]|%[89A-Fa-f]))[a-z][a-z0-9+.\-]*+:"
    rf"(?://(?>(?:[^/?#@\\%:]|%(?:{_ESCAPES}))*)(?::[1-9][0-9]*+)?(?=[/?#]|\Z)|(?!/))"
    rf"(?>(?:/(?!/)|[^/\\%?#]|%(?:{_ESCAPES}))*)(?:\?(?>(?:[^\\%#]|%(?:{_ESCAPES}|2[3Ff]|3[Ff]|5[Cc]))*))?"
)
"""Groups are atomic, not possessive: of possessive ones Python before 3.11.5 matches some wrongly (gh-106052)."""
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(.*)", re.DOTALL)
"""Scheme, authority, path, and the rest (RFC 3986, appendix B)."""
_DOTS = re.compile(r"(?:^|[/:\\])\.\.?(?:[/\\?#;:]|\Z)")
_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


@dataclass(frozen=True)
class UriRules:
    """What policies say of URIs, for one class of agents: patterns without `resource:`; allow is None where there are
    no policies: everything.
    """

    allow: Patterns | None = None
    deny: Patterns = NO_PATTERNS

    @cached_property
    def free(self) -> bool:
        """Whether nothing is refused."""
        return self.allow is None and not self.deny.texts

    @cached_property
    def _normal(self) -> tuple[Patterns, Patterns]:
        return _with_forms(self.allow or NO_PATTERNS), _with_forms(self.deny)

    def permit(self, exposed: str, server: str, own: str, known_as: Sequence[str] = ()) -> bool:
        """Whether the class may read a URI that an agent names: one that is not canonical it may not.

        Args:
            known_as: what else it is called, or could be: no other name of it leads round a deny.
        """
        return self.free or (is_canonical(own) and self.permit_listed(exposed, server, own, known_as))

    def permit_listed(self, exposed: str, server: str, own: str, known_as: Sequence[str] = ()) -> bool:
        """The same of what the server lists word for word, a template's text too: canonical or not."""
        if self.free:
            return True
        shown, known = forms(exposed), forms(own)
        if not shown or not known:
            return False
        here, (allow, deny) = [f"{server}/{form}" for form in known], self._normal
        if deny.texts:
            names = {*shown, *known, *here, *known_as, *(one for uri in known_as for one in forms(uri))}
            # The same is retrieved without a fragment (RFC 3986, 3.5), and many servers look at the path alone.
            plain = {one.partition("#")[0] for one in names}
            if deny.fit_any(names | plain | {one.partition("?")[0] for one in plain}):
                return False
        return self.allow is None or all(map(allow.fits, shown)) or all(map(allow.fits, here))


def is_canonical(uri: str) -> bool:
    """Whether it is spelled in the one way that is taken from agents.

    A small scheme; no user, no fragment, and no port that is the scheme's own; no dot segment, no empty one, no
    backslash; escapes only of what has to be escaped, in UTF-8, and not nested. In a host of the web only ASCII: for
    whoever connects to it (IDNA, UTS 46) a wide letter is the usual one.
    """
    if len(uri) > LONGEST or _CANONICAL.fullmatch(uri) is None:
        return False
    plain = unquote(uri)
    return "\ufffd" not in plain and plain == plain.strip() and _DOTS.search(plain) is None


def forms(uri: str) -> tuple[str, ...]:
    """The URI and its normal form (RFC 3986, 6.2; every escape undone, a backslash taken for a slash), each once.

    Nothing where that cannot be told: escaped over five times, longer than 8,192 characters, or with a NUL in it.
    """
    head = "/".join(uri.split("/", 3)[:3])  # with the host, if there is one
    if head == head.lower() and "%" not in uri and "\0" not in uri and is_canonical(uri):
        return (uri,)
    before, plain = "", uri
    for _ in range(6):
        before, plain = plain, unquote(plain, errors="surrogateescape")
    if plain != before or len(uri) > LONGEST or "\0" in plain:
        return ()
    scheme, authority, path, rest = _PARTS.fullmatch(plain.replace("\\", "/")).groups()  # type: ignore[union-attr]
    scheme = (scheme or "").lower()
    # Less its user and the port that its scheme has anyway (RFC 3986, 6.2.2.1, 6.2.3).
    host = (authority or "").rpartition("@")[2].lower().removesuffix(_PORTS.get(scheme, ":")).removesuffix(":")
    if path[:1] == "/" and (not authority or (host == "localhost" and re.search(r"(?:^|\+)file\Z", scheme))):
        authority = host = ""  # there are three ways to say that a file has no host (RFC 8089, appendix B)
    start = (f"{scheme}:" if scheme else "") + ("" if authority is None else f"//{host}")
    plain = normpath("/" + path.lstrip("/"))  # without dots and empty segments (5.2.4)
    end = "/" if plain != "/" and path.endswith(("/", "/.", "/..")) else ""
    return tuple(dict.fromkeys((uri, start + (plain if path[:1] == "/" else plain[1:]) + end + rest)))


def _with_forms(patterns: Patterns) -> Patterns:
    """The patterns and their other forms; none that would be wider for a wildcard that was encoded."""
    found = dict.fromkeys(patterns.texts)
    for text in patterns.texts:
        server, slash, own = text.partition("/")
        others = [*forms(text), *(f"{server}/{form}" for form in (forms(own) if slash and ":" not in server else ()))]
        found.update(dict.fromkeys(one for one in others if sum(map(one.count, WILD)) <= sum(map(text.count, WILD))))
    return Patterns(found)


ANY_URI = UriRules()
