"""What makes the connections to one address of a server, and how they are opened."""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from fastgw.snapshot.model import Address, Backend
from fastgw.upstream.transports import tls as files
from fastgw.upstream.transports.http import Destination, HttpTransport


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """All that makes two pools of connections different.

    Args:
        url: http or https URL; user information in it is not sent.
        max_reply: most bytes of an answer's body, decoded; of an event stream only what waits to be read is bounded.
        tls: (ca, cert, key) paths, each None where not given; unused for http.
        server_name: the name that the server's certificate must carry; None: the URL's host.
        host: value of `Host`; None: the URL's host and port.
        shown: the URL as it may be shown.
    """

    url: str
    max_reply: int
    tls: tuple[str | None, str | None, str | None] = (None, None, None)
    server_name: str | None = None
    host: str | None = None
    shown: str = ""


def settings_of(backend: Backend, instance: Address, max_reply: int) -> TransportSettings:
    """The settings of the pool to one instance."""
    return TransportSettings(instance.url, max_reply, backend.tls, backend.server_name, backend.host, instance.shown)


def open_transport(settings: TransportSettings, max_connections: int = 512) -> HttpTransport:
    """A `ports.Wire` to one instance of a server. Call it in a running event loop; it opens no connection yet.

    Args:
        settings: where to, and how.
        max_connections: most connections at a time; a call beyond it waits for its connect deadline.

    Raises:
        ValueError: unusable URL or TLS files.
    """
    target = URL(settings.url)
    if target.scheme not in ("http", "https") or not target.raw_host:
        raise ValueError("a server needs an http or https URL with a host")
    context = files.context(*settings.tls) if target.scheme == "https" else None
    there = Destination(target, context, settings.host, settings.server_name, settings.shown)
    return HttpTransport(there, settings.max_reply, max_connections)
