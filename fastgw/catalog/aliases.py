"""The alias of a server inside a URI: `alias+file:///x`, and `ui://alias/x`, and back again.

A scheme has small letters, digits, `.` and `-` (RFC 3986, section 3.1), so an alias with anything else is written in
those; a `+` ends it. Each server has a second alias that ends in a hash, for where a stranger lists a URI that begins
like the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

_FOREIGN = re.compile("[^a-z0-9.-]")
_UI = "ui://"


class Aliases:
    """The aliases of one endpoint.

    Args:
        pairs: server and alias as the configuration has them.
    """

    __slots__ = ("_first", "_second", "_servers")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = sorted(pairs, key=lambda pair: (_folded(pair[1]) != pair[1], pair))  # those that need no change first
        self._first: dict[str, str] = {}
        self._second: dict[str, str] = {}
        self._servers: dict[str, str] = {}
        folded = [_folded(alias) for _, alias in pairs]
        for (server, alias), plain in zip(pairs, folded, strict=True):
            kept = plain == alias or folded.count(plain) == 1
            name = plain if kept and plain not in self._servers else self._hashed(plain, server, set(folded))
            self._first[server] = name
            self._servers[name] = server
        for server, _ in pairs:
            name = self._hashed(self._first[server], server, set(folded))
            self._second[server] = name
            self._servers[name] = server

    def form(self, server: str, uri: str) -> str:
        """The URI, or the text of a template, with the alias of a server of this endpoint."""
        return _joined(self._first[server], uri)

    def second_form(self, server: str, uri: str) -> str:
        """The same with its second alias."""
        return _joined(self._second[server], uri)

    def read(self, uri: str) -> tuple[str, str] | None:
        """Server and its own URI; None where no alias stands before it."""
        alias, plus, own = uri.partition("+")
        server = self._servers.get(alias)
        if server is not None and plus and own:
            return server, own
        if uri[: len(_UI)].lower() == _UI:
            alias, _, rest = uri[len(_UI) :].partition("/")
            server = self._servers.get(alias)
            if server is not None and rest:
                return server, uri[: len(_UI)] + rest
        return None

    def is_second(self, uri: str) -> bool:
        """Whether a second alias stands before it: such a URI always leads to that server."""
        found = self.read(uri)
        return found is not None and uri == self.second_form(*found)

    def _hashed(self, name: str, server: str, taken: set[str]) -> str:
        digest = sha256(server.encode("utf-8", "surrogatepass")).hexdigest()
        cuts = (f"{name}-{digest[:digits]}" for digits in range(8, len(digest) + 1))
        return next(cut for cut in cuts if cut not in taken and cut not in self._servers)


def _joined(alias: str, uri: str) -> str:
    if uri[: len(_UI)].lower() == _UI and len(uri) > len(_UI):
        return f"{uri[: len(_UI)]}{alias}/{uri[len(_UI) :]}"
    return f"{alias}+{uri}"


def _folded(alias: str) -> str:
    """The nearest alias that may begin a scheme."""
    plain = _FOREIGN.sub("-", alias.lower())
    return plain if "a" <= plain[:1] <= "z" else f"s{plain}"
