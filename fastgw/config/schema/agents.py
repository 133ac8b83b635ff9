"""The part of the settings about agents: API keys, and issuers of access tokens."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from fastgw.config.schema.servers import NEVER_FORWARDED, header_name, http_url
from fastgw.config.schema.units import Duration, Flag, Many, Secret, StrictModel, needs, short, some, text_of
from fastgw.policy.match import Claim


def key_hash(value: str) -> str:
    """`sha256:` and 64 hex digits as the digits alone, in lower case; ValueError otherwise, for a key itself too."""
    digits = value.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("must be sha256: and 64 hex digits, as `fastgw keys new` prints it; never the key itself")
    return digits


def moment(value: object) -> float:
    """`2036-01-31` (to the end of that day, UTC) or an RFC 3339 time with a zone, as Unix seconds; else ValueError."""
    text = value if isinstance(value, str) else ""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9][0-9]-[0-9][0-9]", text):
            return (datetime.combine(date.fromisoformat(text), time(), UTC) + timedelta(days=1)).timestamp()
        when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError("must be a day such as 2036-01-31, or a time such as 2036-01-31T12:00:00Z") from None
    if when.tzinfo is None:
        raise ValueError("must say its zone: 2036-01-31T12:00:00Z")
    return when.timestamp()


class KeySettings(StrictModel):
    """One API key of an agent, by its hash.

    `sha256` is kept as 64 hex digits in lower case; `expires` as Unix seconds.
    """

    sha256: Annotated[str, AfterValidator(key_hash)]
    expires: Annotated[float | None, BeforeValidator(moment, json_schema_input_type=str)] = None


def claim_value(value: object) -> Claim:
    """A claim's value as text, a list as a tuple of texts; ValueError for maps, lists in lists and empty lists."""
    if isinstance(value, list | tuple) and value:
        texts = tuple(text_of(one) for one in value)
        return texts[0] if len(texts) == 1 else texts
    return text_of(value)


ClaimValue = Annotated[
    Claim, PlainValidator(claim_value, json_schema_input_type=str | int | float | bool | list[str | int | float | bool])
]


class AgentSettings(StrictModel):
    """One agent with API keys; which key is in use does not change who it is."""

    key: Annotated[Many[Annotated[KeySettings, short("sha256")]], AfterValidator(some)]
    claims: dict[str, ClaimValue] = {}
    disabled: Flag = False


def claim_path(value: object) -> object:
    """`a.b` or `[a, "b.c"]` as the members to follow, outermost first."""
    return tuple(value.split(".")) if isinstance(value, str) else value


ClaimPath = Annotated[tuple[str, ...], BeforeValidator(claim_path, json_schema_input_type=str | list[str])]


class Certificate(StrictModel):
    """Agents known by their TLS certificate."""

    ca: str
    agent_id: Literal["subject", "san_uri"] = "subject"


def _network(value: str) -> str:
    try:
        found = ip_network(value)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8, or an address") from None
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped is not None:
        raise ValueError("must be written as IPv4, which it is")
    return value


Network = Annotated[str, AfterValidator(_network)]


def _naming(value: str) -> str:
    """The name of a header by which a proxy may name agents; ValueError for others."""
    if NEVER_FORWARDED.fullmatch(value) or value.lower().startswith("x-forwarded-"):
        raise ValueError("names no agent: take a header of the proxy's own, such as X-Client-Cert-Subject")
    return header_name(value)


class TrustedHeader(StrictModel):
    """Agents named by a header of a trusted proxy."""

    name: Annotated[str, AfterValidator(_naming)]
    from_: Annotated[Many[Network], AfterValidator(some)] = Field(alias="from")


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that need no shared secret (RFC 7518, section 3.1; RFC 8037)."""


def secure(value: str) -> str:
    """An `https` URL with a host; `http` only where that is this machine. ValueError for anything else."""
    parts = urlsplit(http_url(value))
    if parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
        raise ValueError("must be https: http is for this machine only (localhost, 127.0.0.1, [::1])")
    return value


def is_this_machine(host: str) -> bool:
    """Whether a host, an IPv6 one without brackets, is a loopback address or `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


SecureUrl = Annotated[str, AfterValidator(secure)]


class IntrospectionSettings(StrictModel):
    """Where tokens are asked about (RFC 7662): those that are no JWT, or all."""

    url: SecureUrl
    client_id: str
    client_secret: Secret = Field(repr=False)
    tokens: Literal["opaque", "all"] = "opaque"


class IssuerSettings(StrictModel):
    """One source of agents beside API keys: access tokens, certificates or a trusted header."""

    issuer: SecureUrl | None = None
    certificate: Certificate | None = None
    header: TrustedHeader | None = None
    audience: Many[str] = ()
    jwks_url: SecureUrl | None = None
    stale_keys: Duration = 86400.0
    """How long keys are used that the issuer gave and, since it is away, has not confirmed."""
    agent_id: ClaimPath = ("sub",)
    user_id: ClaimPath | None = None
    claims: dict[str, ClaimPath] = {}
    set: dict[str, ClaimValue] = {}
    algorithms: Annotated[Many[Algorithm], AfterValidator(some)] = get_args(Algorithm)
    scopes: Many[str] = ()
    introspection: IntrospectionSettings | None = None

    _needs = needs("needs exactly one of issuer, certificate, header", "issuer", "certificate", "header", most=1)
