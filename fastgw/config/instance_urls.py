"""What one address of a server is called: inside by its key, to people by a label."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
_USER = re.compile(r"//[^/]*@")
_MOST_SHOWN = 200
"""Characters of an address."""


def instance_key(server: str, url: str) -> str:
    """`Instance.key`: what an instance's pool, sessions and era are filed under. It holds the URL: never show it."""
    return f"{server}|{url}"


def label(instance: str) -> str:
    """An instance's key as it may be logged: `server at host:port`."""
    server, _, url = instance.partition("|")
    return f"{server} at {place(url)}"


@lru_cache(maxsize=4096)
def place(url: str) -> str:
    """`host:port` of a URL, an IPv6 host in brackets."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or DEFAULT_PORTS.get(parts.scheme)}"


def origin(url: str) -> str:
    """`scheme://host:port` of a URL."""
    return f"{urlsplit(url).scheme}://{place(url)}"


def shown_url(written: str) -> str:
    """A URL as operators may see it: as it stands in the file, its references not filled in, without a query."""
    return written.partition("?")[0].partition("#")[0]


def unshown(url: str, shown: str) -> set[str]:
    """Parts of a URL that operators must not see: its query and the values in it, what came by reference in its path.

    `url` has its references filled in; `shown` is the same by `shown_url`.
    """
    parts = urlsplit(url)
    found = {parts.query, *(value for _, value in parse_qsl(parts.query))}
    found |= {part for part in parts.path.split("/") if part not in urlsplit(shown).path.split("/")}
    return found | {quote(one) for one in found} | {unquote(one) for one in found}


def redacted(location: str, url: str, shown: str) -> str:
    """Where a server redirects to, as operators may see it: no query, no user, and no part that came by reference.

    `location` is the value of `Location`; `url` and `shown` are as in `unshown`.
    """
    try:
        whole = urljoin(shown, shown_url(location))
    except ValueError:  # it is no address
        whole = shown_url(location)
    text = _USER.sub("//", "".join(letter for letter in whole if letter.isprintable()))
    real, written = urlsplit(url).path.split("/"), urlsplit(shown).path.split("/")
    if len(real) != len(written):
        return origin(url)
    secret = {part: reference for part, reference in zip(real, written, strict=True) if part and part != reference}
    for part, reference in secret.items():
        text = text.replace(part, reference)
    if any(unquote(part) in unquote(text) for part in secret):
        return origin(url)  # it came back in another spelling
    return text[:_MOST_SHOWN]
