"""Under which addresses the gateway may be asked: values of `Host` and `Origin`.

Anything else is refused, because a page in a browser can point a name of its own at us (2026-07-28, Transports,
Streamable HTTP, Security Warning).
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastgw.config.schema.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ANY = ("0.0.0.0", "[::]")
_DEFAULT = {"http": 80, "https": 443}


def authority(host: str, port: int | str) -> str:
    """`host:port` as it stands in a URL: an IPv6 host, with or without brackets, in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def hosts(settings: Settings) -> frozenset[str]:
    """Allowed values of `Host` in lower case, each without and with its port."""
    bound, _, port = settings.listen.rpartition(":")
    names = [*LOOPBACK, *([] if bound in ANY else _spellings(bound.lower()))]
    found = {*names, *(f"{name}:{port}" for name in names)}
    for _, host, own in map(_parts, settings.public_url):
        for name in _spellings(host):
            found |= {name, f"{name}:{own}", f"{name}:{port}"}
    return frozenset(found)


def origins(settings: Settings) -> frozenset[str]:
    """Allowed values of `Origin` in lower case: the public ones, and this machine's with and without the port."""
    port = settings.listen.rpartition(":")[2]
    found = {f"{scheme}://{name}{end}" for scheme in _DEFAULT for name in LOOPBACK for end in ("", f":{port}")}
    for scheme, host, own in map(_parts, settings.public_url):
        end = "" if own == _DEFAULT[scheme] else f":{own}"
        found |= {f"{scheme}://{name}{end}" for name in _spellings(host)}
    return frozenset(found)


def _parts(url: str) -> tuple[str, str, int]:
    """Scheme, host (an IPv6 one in brackets) and port."""
    parts = urlsplit(url.lower())
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return parts.scheme, name, parts.port or _DEFAULT[parts.scheme]


def _spellings(host: str) -> tuple[str, ...]:
    """The host as written, and an IPv6 one as clients write it (RFC 5952): they do not send what was typed."""
    if not host.startswith("["):
        return (host,)
    try:
        return host, f"[{ip_address(host[1:-1]).compressed}]"
    except ValueError:
        return (host,)
