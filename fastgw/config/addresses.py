"""Under which addresses the gateway may be asked: values of `Host` and `Origin`.

Knows: `listen`, `public_url`, and that this machine is always allowed to ask. Refuses to know: requests.

Anything else is refused, because a page in a browser can point a name of its own at us (2026-07-28, Transports,
Streamable HTTP, Security Warning).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastgw.config.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ANY = ("0.0.0.0", "[::]")
_DEFAULT = {"http": 80, "https": 443}


def hosts(settings: Settings) -> frozenset[str]:
    """Allowed values of `Host` in lower case, each without and with its port."""
    bound, _, port = settings.listen.rpartition(":")
    names = [*LOOPBACK, *([] if bound in ANY else [bound.lower()])]
    found = {*names, *(f"{name}:{port}" for name in names)}
    public = _authority(settings.public_url)
    if public is not None:
        _, name, own = public
        found |= {name, f"{name}:{own}", f"{name}:{port}"}
    return frozenset(found)


def origins(settings: Settings) -> frozenset[str]:
    """Allowed values of `Origin` in lower case: the public one, and this machine's with and without the port."""
    port = settings.listen.rpartition(":")[2]
    found = {f"{scheme}://{name}{end}" for scheme in _DEFAULT for name in LOOPBACK for end in ("", f":{port}")}
    public = _authority(settings.public_url)
    if public is not None:
        scheme, name, own = public
        found.add(f"{scheme}://{name}" if own == _DEFAULT[scheme] else f"{scheme}://{name}:{own}")
    return frozenset(found)


def _authority(url: str) -> tuple[str, str, int] | None:
    """Scheme, host (an IPv6 one in brackets) and port."""
    parts = urlsplit(url.lower())
    if parts.scheme not in _DEFAULT or not parts.hostname:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, name, parts.port or _DEFAULT[parts.scheme]
