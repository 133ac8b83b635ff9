"""One door to the two ways of speaking HTTP with a server.

Knows: their names in the configuration. Refuses to know: how either works.
"""

from __future__ import annotations

from yarl import URL

from fastgw.backends import tls as files
from fastgw.backends.fallback import SessionWire
from fastgw.backends.lean import LeanWire

TLSFiles = tuple[str | None, str | None, str | None]


def open_wire(
    url: str, *, transport: str, tls: TLSFiles, max_reply: int, max_connections: int = 512
) -> LeanWire | SessionWire:
    """A `ports.Wire` to one instance of a server. Call it in a running event loop; it opens no connection yet.

    Args:
        url: http or https URL; user information in it is not sent.
        transport: `lean` (pooled connections, own exchange) or `session` (aiohttp's client, a connection per call).
        tls: (ca, cert, key) paths, each None where not given; unused for http.
        max_reply: most bytes of an answer's body; of an event stream only what waits to be read is bounded.
        max_connections: most connections at a time; a call beyond it waits for its connect deadline.

    Raises:
        ValueError: unknown transport, unusable URL or TLS files.
    """
    target = URL(url)
    if target.scheme not in ("http", "https") or not target.raw_host:
        raise ValueError("a server needs an http or https URL with a host")
    context = files.context(*tls) if target.scheme == "https" else None
    if transport == "lean":
        return LeanWire(target, context, max_reply, max_connections)
    if transport == "session":
        return SessionWire(target, context, max_reply, max_connections)
    raise ValueError(f"unknown transport {transport!r}; there are lean and session")
