"""The part of the settings about MCP servers: where they are, how they are called, with which credential."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from fastgw.config.instance_urls import shown_url
from fastgw.config.schema.rules import MatchSettings
from fastgw.config.schema.units import (
    Count,
    Duration,
    DurationOrOff,
    Flag,
    Many,
    Secret,
    Share,
    StrictModel,
    Text,
    needs,
    short,
)

FORBIDDEN_HEADERS = re.compile(
    "host|content-(length|type)|transfer-encoding|connection|keep-alive|te|trailer|upgrade|accept(-encoding)?|expect"
    "|proxy-(authorization|connection)|mcp-(session-id|protocol-version|method|name|param-.*)|last-event-id",
    re.IGNORECASE,
)
"""Headers that the exchange writes itself, or that would change its framing."""

NEVER_FORWARDED = re.compile(
    "authorization|cookie2?|x-api-key|proxy-.*|content-.*|mcp-.*|accept-charset|origin|" + FORBIDDEN_HEADERS.pattern,
    re.IGNORECASE,
)
"""Headers of agents that no server gets: credentials, and what is about one hop or its body alone."""


_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_SHORTEST_RSA = 2048
"""Bits (RFC 7518, section 3.3)."""


def http_url(value: str) -> str:
    """An http or https address without user, password and fragment; ValueError for anything else."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user or password: use credential")
    if not parts.hostname or port == 0 or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("must name a host, such as http://127.0.0.1:9001/mcp")
    if "#" in value:
        raise ValueError("must not have a #fragment")
    return value


def header_value(value: str) -> str:
    """A value that fits on one header line (RFC 9110, section 5.5); ValueError otherwise."""
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise ValueError("must not contain line breaks or control characters")
    if any(ord(letter) > 255 for letter in value):
        raise ValueError("must not contain letters that a header cannot carry")
    if value != value.strip(" \t"):
        raise ValueError("must not begin or end with a space")
    return value


def header_name(value: str) -> str:
    """The name of a header that we may add (RFC 9110, section 5.6.2); ValueError for others and our own."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):
        raise ValueError("is not the name of a header")
    if FORBIDDEN_HEADERS.fullmatch(value):
        raise ValueError("this header is written by fastgw itself")
    return value


def distinct(value: dict[str, str]) -> dict[str, str]:
    """Headers by name; ValueError for the same name twice, in whatever case."""
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("the same header twice")
    return value


def plain_name(value: str) -> str:
    """`header_name`, but `Host` too: there are servers that are reached by another name."""
    return value if value.lower() == "host" else header_name(value)


def forwarded_name(value: str) -> str:
    """Name of a header that may be handed on; ValueError for others."""
    if NEVER_FORWARDED.fullmatch(value):
        raise ValueError("is never handed on: it is a credential of the agent, or about its own connection or body")
    return header_name(value)


def named_once(value: tuple[str, ...]) -> tuple[str, ...]:
    """Names of headers; ValueError for the same one twice, in whatever case."""
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("the same header twice")
    return value


def signing_key(pem: str) -> tuple[Any, str]:
    """A private key, and the algorithm that it signs by (RFC 7518, section 3.1; RFC 8037).

    Raises:
        ValueError: it is none that can sign.
    """
    names = ("serialization", "asymmetric.rsa", "asymmetric.ec", "asymmetric.ed25519")
    # They take 50 ms to import, and few configurations have such a key.
    reading, rsa, ec, ed25519 = [import_module(f"cryptography.hazmat.primitives.{name}") for name in names]
    try:
        key = reading.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError) as wrong:
        raise ValueError("is not a private key (PEM, unencrypted)") from wrong
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SHORTEST_RSA:
        return key, "RS256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key, _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key, "EdDSA"
    raise ValueError("is not a key that signs: RSA of 2048 bits or more, EC P-256, P-384 or P-521, or Ed25519")


def pem_of_a_key(value: str) -> str:
    """A private key that can sign; ValueError for anything else."""
    signing_key(value)
    return value


HttpUrl = Annotated[str, AfterValidator(http_url)]
HeaderName = Annotated[str, AfterValidator(header_name)]
PlainName = Annotated[str, AfterValidator(plain_name)]
SecretLine = Annotated[Secret, AfterValidator(header_value)]
Headers = Annotated[dict[PlainName, Annotated[Text, AfterValidator(header_value)]], AfterValidator(distinct)]
ForwardedNames = Annotated[Many[Annotated[str, AfterValidator(forwarded_name)]], AfterValidator(named_once)]
SecretHeaders = Annotated[dict[HeaderName, SecretLine], AfterValidator(distinct)]


class InstanceUrl(StrictModel):
    """One address of a server."""

    url: HttpUrl
    share: Share | None = None
    """Part of the calls that this instance gets, for a canary."""
    _written: str = PrivateAttr(default="")

    @property
    def shown(self) -> str:
        """The address as operators may see it: as written, references not filled in, without a query."""
        return shown_url(self._written or self.url)

    def note(self, written: str) -> None:
        """Remember how the address stands in the file, references not filled in."""
        self._written = written


class Basic(StrictModel):
    """User name and password (RFC 7617)."""

    username: str = Field(pattern=r"^[^:\x00-\x1f\x7f]*$")
    password: SecretLine = Field(repr=False)


class OAuthSettings(StrictModel):
    """How fastgw gets a token for this server."""

    grant: Literal["client_credentials", "token_exchange", "id_jag", "authorization_code"] = "client_credentials"
    token_url: HttpUrl | None = None
    client_id: str = Field(min_length=1)
    client_secret: Secret | None = Field(default=None, repr=False)
    private_key: Annotated[Secret, AfterValidator(pem_of_a_key)] | None = Field(default=None, repr=False)
    key_id: str | None = None
    client_auth: Literal["basic", "post"] = "basic"
    """How the secret is shown; a private key is always shown by a signed assertion (`private_key_jwt`)."""
    assertion_audience: str | None = None
    scopes: Many[str] = ()
    resource: Many[str] = ()
    audience: Many[str] = ()

    _needs = needs("needs one of client_secret, private_key", "client_secret", "private_key", most=1)

    @model_validator(mode="after")
    def _consistent(self) -> OAuthSettings:
        if self.token_url is None and self.grant != "authorization_code":
            raise ValueError("needs token_url")
        return self


class CredentialSettings(StrictModel):
    """What fastgw shows a server: exactly one of the four ways, for the calls that `match`."""

    bearer: SecretLine | None = Field(default=None, repr=False)
    basic: Basic | None = None
    header: SecretHeaders | None = Field(default=None, repr=False, min_length=1)
    oauth: OAuthSettings | None = None
    match: MatchSettings | None = None

    _needs = needs(
        "a credential is exactly one of bearer, basic, header, oauth", "bearer", "basic", "header", "oauth", most=1
    )


class ServerTlsSettings(StrictModel):
    """Files for the connection to a server: whom to trust, and who we are."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+$")
    """The name that the server's certificate must carry, where it is not the URL's host."""
    _contents: str = PrivateAttr("")

    @property
    def contents(self) -> str:
        """Tells apart what the files held when the configuration was read."""
        return self._contents

    def note(self, contents: str) -> None:
        """Remember what the files hold."""
        self._contents = contents

    @model_validator(mode="after")
    def _pair(self) -> ServerTlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        return self


class HealthSettings(StrictModel):
    """When an instance counts as dead, and as alive again."""

    interval: DurationOrOff = 10.0
    """None: `off`, it is not asked."""
    timeout: Duration = 2.0
    unhealthy_after: Count = 3
    healthy_after: Count = 2


class BreakerSettings(StrictModel):
    """When calls stop going to an instance that fails."""

    failures: Count = 5
    open_for: Duration = 30.0


class ServerSettings(StrictModel):
    """One MCP server: `url` or `command`."""

    url: Many[Annotated[InstanceUrl, short("url")]] = ()
    command: Many[str] = ()
    env: dict[str, Text] = Field(default={}, repr=False)
    credential: Many[CredentialSettings] = ()
    tools: Many[str] | None = None
    alias: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    tls: ServerTlsSettings | None = None
    headers: Headers = Field(default={}, repr=False)
    forward_headers: ForwardedNames = ()
    """Headers of an agent's request that are handed on to the server as they came."""
    backup: Many[str] = ()
    max_in_flight: Count | None = None
    queue: Annotated[int, Field(ge=0)] | None = None
    maintenance: str | None = Field(default=None, min_length=1)
    era: Literal["auto", "modern", "legacy"] = "auto"
    shared_session: Flag = False
    session_idle: Duration = 600.0
    max_sessions: Count = 1000
    transport: Literal["lean", "session"] = "lean"
    """Without effect: there is one way only. It goes with the next release."""
    on_change: Literal["accept", "warn", "hold"] = "accept"
    refresh: Duration = 60.0
    """Seconds after which a catalogue that says nothing about its age is fetched again."""
    timeout: Duration | None = None
    max_timeout: Duration | None = None
    attempt_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    start_timeout: Duration = 60.0
    """Seconds for each answer to the controller: `initialize`, a whole list."""
    health: HealthSettings | None = None
    breaker: BreakerSettings | None = None

    _needs = needs("a server needs url or command, and not both", "url", "command", most=1)

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if len({instance.url for instance in self.url}) < len(self.url):
            raise ValueError("the same url twice")
        if self.env and not self.command:
            raise ValueError("env is for command servers")
        return self
