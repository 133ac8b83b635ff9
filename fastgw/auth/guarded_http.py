"""Fetching documents of issuers from addresses that may come from outside the configuration.

What the configuration names is the operator's word. Any other address must be https and public, by its name and by
what that resolves to (which is then what is connected to), at the first step and at each redirect: an issuer, or
whoever has taken its place, must not have us ask around inside the network.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import urljoin

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DefaultResolver, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

LARGEST = 1024 * 1024
"""Bytes of a document."""
MOST_REDIRECTS = 3
WITHIN = ClientTimeout(total=10.0, sock_connect=5.0)
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:cache|store)\s*(?:,|$)", re.IGNORECASE)
"""RFC 9111, sections 5.2.2.4 and 5.2.2.5: it is to be asked for again each time."""


class FetchFailed(Exception):
    """No document; its text says why, and is fit for the log."""


class Document(NamedTuple):
    """What was fetched; `max_age`: seconds that it may be kept, as its `Cache-Control` says; None where it does not."""

    content: bytes
    max_age: float | None


def origin_of(url: str) -> str:
    """Scheme, host and port, as they are connected to. Raises ValueError."""
    parts = URL(url)
    return f"{parts.scheme}://{parts.raw_host}:{parts.port}"


async def fetch(url: str, named: Collection[str]) -> Document:
    """The document at `url`, by GET.

    Args:
        named: origins that the configuration names: they may be inside.

    Raises:
        FetchFailed
    """
    try:
        async with asyncio.timeout(WITHIN.total):
            for _ in range(MOST_REDIRECTS + 1):
                found = await _get(url, named)
                if not isinstance(found, str):
                    return found
                url = urljoin(url, found)
    except (ClientError, OSError, TimeoutError, ValueError) as wrong:
        raise FetchFailed(f"{shown(url)}: {why(wrong)}") from None
    raise FetchFailed(f"{shown(url)}: too many redirects")


async def _get(url: str, named: Collection[str]) -> Document | str:
    """The document, or where it is instead."""
    trusted = origin_of(url) in named
    if not trusted:
        _check_address(URL(url))
    connector = TCPConnector(resolver=None if trusted else PublicResolver(), force_close=True)
    headers = {"accept": "application/json", "user-agent": "fastgw"}
    async with (
        ClientSession(connector=connector, timeout=WITHIN, trust_env=False) as session,
        session.get(url, headers=headers, allow_redirects=False) as answer,
    ):
        if answer.status in _REDIRECTS and "location" in answer.headers:
            return answer.headers["location"]
        if answer.status != 200:
            raise FetchFailed(f"{shown(url)}: status {answer.status}")
        said = answer.headers.get("cache-control", "")
        age = 0.0 if _NOT_KEPT.search(said) else float(found[1]) if (found := _MAX_AGE.search(said)) else None
        return Document(await bounded(answer, LARGEST), age)


async def bounded(answer: ClientResponse, most: int) -> bytes:
    """The body of an answer. Raises FetchFailed where it has more bytes, decompressed."""
    found = bytearray()
    async for piece in answer.content.iter_any():
        found += piece
        if len(found) > most:
            raise FetchFailed(f"{shown(str(answer.url))}: more than {most} bytes")
    return bytes(found)


def _check_address(url: URL) -> None:
    """As the connection will read it: `urlsplit` leaves the digits of other scripts alone, which are digits there."""
    place = shown(str(url))
    if url.scheme != "https":
        raise FetchFailed(f"{place}: only https is asked, unless the configuration names the address")
    if url.raw_user is not None or url.raw_password is not None:
        raise FetchFailed(f"{place}: shows a user or a password, which the configuration does not name")
    try:
        address = ip_address((url.raw_host or "").partition("%")[0])
    except ValueError:
        return  # a name: its addresses are looked at when it is resolved
    if not is_public(address):
        raise FetchFailed(f"{place}: is inside the network, and the configuration does not name it")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the Internet: not private, loopback, link-local, reserved or multicast, and no
    such one in the clothes of IPv6 (mapped, 6to4, Teredo, NAT64).
    """
    if isinstance(address, IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(IPv4Address(address.packed[12:]))
        if any(one is not None and not is_public(one) for one in inner):
            return False
        if address.ipv4_mapped is not None or address in _NAT64:
            return True
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address in _PROTOCOLS)


_NAT64 = IPv6Network("64:ff9b::/96")
_PROTOCOLS = ip_network("192.0.0.0/24")
"""Not private in every Python, though nobody of the Internet is there, and clouds have had metadata there."""


class PublicResolver(AbstractResolver):
    """Names to addresses of the Internet; a name that has any other is refused as a whole."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """Raises OSError where there are none, FetchFailed where one is inside."""
        found = await self._resolver.resolve(host, port, family)
        if not all(is_public(ip_address(one["host"].partition("%")[0])) for one in found):
            raise FetchFailed(f"{host} is inside the network, and the configuration does not name it")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def shown(url: str) -> str:
    """Without its user, password and query, which may be what nobody should read."""
    scheme, slashes, rest = url.partition("?")[0].partition("//")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def why(wrong: Exception) -> str:
    """What of an error may be logged: some repeat the whole URL, and what the other end has answered."""
    return str(wrong) if isinstance(wrong, OSError | FetchFailed) and str(wrong) else type(wrong).__name__
