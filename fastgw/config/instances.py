"""What one address of a server is called: inside by its key, to people by a label.

Knows: that a URL may carry a secret anywhere but in its scheme, host and port (`/s/TOKEN/mcp`, `?key=TOKEN`), so that
no other part of one is ever logged, shown or kept.
Refuses to know: what is done at the address.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

_DEFAULT = {"http": 80, "https": 443}


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
    return f"{host}:{parts.port or _DEFAULT.get(parts.scheme)}"


def origin(url: str) -> str:
    """`scheme://host:port` of a URL."""
    return f"{urlsplit(url).scheme}://{place(url)}"
