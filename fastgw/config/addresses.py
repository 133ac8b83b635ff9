"""Under which addresses the gateway may be asked: values of `Host` and `Origin`.

Anything else is refused, because a page in a browser can point a name of its own at us (2026-07-28, Transports,
Streamable HTTP, Security Warning).
"""

from __future__ import annotations

from ipaddress import ip_address

from fastgw.config.instance_urls import DEFAULT_PORTS, place
from fastgw.config.schema.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ANY = ("0.0.0.0", "[::]")


def authority(host: str, port: int | str) -> str:
    """`host:port` as it stands in a URL: an IPv6 host, with or without brackets, in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def hosts(settings: Settings) -> frozenset[bytes]:
    """Allowed values of `Host` in lower case, each without and with its port."""
    bound, _, port = settings.listen.rpartition(":")
    names = {(name, port) for name in (*LOOPBACK, *(() if bound in ANY else _spellings(bound.lower())))}
    for host, _, own in (place(url.lower()).rpartition(":") for url in settings.public_url):
        names |= {(name, number) for name in _spellings(host) for number in (own, port)}
    return frozenset(text.encode() for name, number in names for text in (name, f"{name}:{number}"))


def origins(settings: Settings) -> frozenset[str]:
    """Allowed values of `Origin` in lower case: the public ones, and this machine's with and without the port."""
    port = settings.listen.rpartition(":")[2]
    found = {f"{scheme}://{name}{end}" for scheme in DEFAULT_PORTS for name in LOOPBACK for end in ("", f":{port}")}
    for url in settings.public_url:
        scheme, (host, _, own) = url.lower().partition(":")[0], place(url.lower()).rpartition(":")
        end = "" if own == str(DEFAULT_PORTS[scheme]) else f":{own}"
        found |= {f"{scheme}://{name}{end}" for name in _spellings(host)}
    return frozenset(found)


def _spellings(host: str) -> tuple[str, ...]:
    """The host as written, and an IPv6 one as clients write it (RFC 5952): they do not send what was typed."""
    try:
        return (host, f"[{ip_address(host[1:-1]).compressed}]") if host.startswith("[") else (host,)
    except ValueError:
        return (host,)
