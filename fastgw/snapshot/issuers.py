"""Who says whose a request is beside API keys: issuers of access tokens, and proxies that name agents in a header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from fastgw.config.schema.agents import IssuerSettings
from fastgw.policy.match import Claim
from fastgw.policy.networks import Networks

ClaimPath = tuple[str, ...]
"""The members to follow, outermost first."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, and what its tokens say of agents.

    Args:
        name: in the configuration; its agents are called `name:...`.
        url: what tokens must say in `iss`, to the letter.
        audience: for whom tokens must be, each as `canonical` has it; empty: for the endpoint that is called.
        algorithms: that signatures may have.
        agent_id, user_id, claims: where in a token these stand; of claims with our names.
        fixed: claims that every agent of this issuer has.
        scopes: that clients are told to log in with.
        introspected: which tokens are asked about, in place of being verified here; opaque ones are no JWT.
    """

    name: str
    url: str
    audience: frozenset[str]
    algorithms: frozenset[str]
    agent_id: ClaimPath
    user_id: ClaimPath | None
    claims: tuple[tuple[str, ClaimPath], ...]
    fixed: tuple[tuple[str, Claim], ...]
    scopes: tuple[str, ...] = ()
    introspected: Literal["none", "opaque", "all"] = "none"


@dataclass(frozen=True, slots=True)
class HeaderIdentity:
    """One kind of agents that proxies name.

    Args:
        name: in the configuration; its agents are called `name:...`.
        header: in lower case.
        trusted: the proxies.
        fixed: claims that all its agents have.
    """

    name: str
    header: bytes
    trusted: Networks
    fixed: tuple[tuple[str, Claim], ...]


def header_identity_of(name: str, settings: IssuerSettings) -> HeaderIdentity | None:
    """An entry of `identity`; None for one that is known by something else than a header."""
    if settings.header is None:
        return None
    header = settings.header
    return HeaderIdentity(name, header.name.lower().encode(), Networks.of(header.from_), tuple(settings.set.items()))


def issuer_of(name: str, settings: IssuerSettings) -> Issuer | None:
    """An entry of `identity`; None for one that is known by something else than tokens."""
    if settings.issuer is None:
        return None
    return Issuer(
        name=name,
        url=settings.issuer,
        audience=frozenset(map(canonical, settings.audience)),
        algorithms=frozenset(settings.algorithms),
        agent_id=settings.agent_id,
        user_id=settings.user_id,
        claims=tuple(settings.claims.items()),
        fixed=tuple(settings.set.items()),
        scopes=tuple(settings.scopes),
        introspected="none" if settings.introspection is None else settings.introspection.tokens,
    )


_LEFT_OUT = re.compile(r"[\x00-\x20]")
"""What `urlsplit` does not see."""


def canonical(resource: str) -> str:
    """An audience as it is compared: of a URL scheme and host in lower case, without a slash at the end (RFC 8707,
    section 2; RFC 3986, section 6.2.2.1). What is no URL is compared to the letter.
    """
    try:
        parts = urlsplit(resource)
    except ValueError:
        return resource
    if not parts.scheme or not parts.netloc or _LEFT_OUT.search(resource):
        return resource
    return parts._replace(netloc=parts.netloc.lower(), path=parts.path.rstrip("/")).geturl()
