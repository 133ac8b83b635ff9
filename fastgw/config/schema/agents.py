"""The part of the settings about agents: API keys, and issuers of access tokens."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, field_validator, model_validator

from fastgw.config.schema.units import STRICT, Flag, Many, Secret, Short, text_of
from fastgw.policy.match import Claim


def key_hash(value: str) -> str:
    """`sha256:` and 64 hex digits as the digits alone, in lower case.

    Raises:
        ValueError: anything else; a key itself, too, which must not stand in the file.
    """
    digits = value.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("must be sha256: and 64 hex digits, as `fastgw keys new` prints it; never the key itself")
    return digits


def moment(value: object) -> float:
    """`2036-01-31` (to the end of that day, UTC) or an RFC 3339 time, as Unix seconds.

    Raises:
        ValueError: anything else, and times without a zone.
    """
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


class KeySettings(BaseModel):
    """One API key of an agent, by its hash.

    `sha256` is kept as 64 hex digits in lower case; `expires` as Unix seconds.
    """

    model_config = STRICT

    sha256: str
    expires: Annotated[float | None, BeforeValidator(moment, json_schema_input_type=str)] = None

    _form = field_validator("sha256")(key_hash)


def claim_value(value: object) -> Claim:
    """A claim's value as text, a list of several as a tuple of texts.

    Raises:
        ValueError: maps, lists in lists, and lists without a value.
    """
    if isinstance(value, list | tuple) and value:
        texts = tuple(text_of(one) for one in value)
        return texts[0] if len(texts) == 1 else texts
    return text_of(value)


ClaimValue = Annotated[
    Claim, PlainValidator(claim_value, json_schema_input_type=str | int | float | bool | list[str | int | float | bool])
]


class AgentSettings(BaseModel):
    """One agent with API keys; which key is in use does not change who it is."""

    model_config = STRICT

    key: Many[Annotated[KeySettings, Short("sha256")]]
    claims: dict[str, ClaimValue] = {}
    disabled: Flag = False

    @field_validator("key")
    @classmethod
    def _some(cls, value: tuple[KeySettings, ...]) -> tuple[KeySettings, ...]:
        if not value:
            raise ValueError("an agent needs a key")
        return value


def claim_path(value: object) -> object:
    """`a.b` or `[a, "b.c"]` as the members to follow, outermost first."""
    return tuple(value.split(".")) if isinstance(value, str) else value


ClaimPath = Annotated[tuple[str, ...], BeforeValidator(claim_path, json_schema_input_type=str | list[str])]


class Introspection(BaseModel):
    """Where opaque tokens are asked about (RFC 7662)."""

    model_config = STRICT

    url: str
    client_id: str
    client_secret: Secret = Field(repr=False)


class Certificate(BaseModel):
    """Agents known by their TLS certificate."""

    model_config = STRICT

    ca: str
    agent_id: Literal["subject", "san_uri"] = "subject"


class TrustedHeader(BaseModel):
    """Agents named by a header of a trusted proxy."""

    model_config = STRICT

    name: str
    from_: Many[str] = Field(alias="from")

    @field_validator("from_")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError("must be networks such as 10.0.0.0/8") from None
        if not value:
            raise ValueError("names no network")
        return value


class IssuerSettings(BaseModel):
    """One source of agents beside API keys: access tokens, certificates or a trusted header."""

    model_config = STRICT

    issuer: str | None = None
    certificate: Certificate | None = None
    header: TrustedHeader | None = None
    audience: Many[str] = ()
    jwks_url: str | None = None
    agent_id: ClaimPath = ("sub",)
    user_id: ClaimPath | None = None
    claims: dict[str, ClaimPath] = {}
    set: dict[str, ClaimValue] = {}
    algorithms: Many[str] = ()
    introspection: Introspection | None = None

    @model_validator(mode="after")
    def _one_source(self) -> IssuerSettings:
        if sum(source is not None for source in (self.issuer, self.certificate, self.header)) != 1:
            raise ValueError("needs exactly one of issuer, certificate, header")
        return self
