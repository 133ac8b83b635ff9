"""The configuration file as a tree of frozen values: one attribute for each key, in the file's own words."""

from __future__ import annotations

import base64
import os
import re
from decimal import Decimal
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from fastgw.catalog.pins import Lock
from fastgw.config.instance_urls import DEFAULT_PORTS
from fastgw.config.schema.agents import AgentSettings, IssuerSettings, Network, is_this_machine
from fastgw.config.schema.rules import LimitSettings, PolicySettings, QuotaSettings
from fastgw.config.schema.servers import BreakerSettings, HealthSettings, HttpUrl, ServerSettings, http_url
from fastgw.config.schema.store import StoreSettings
from fastgw.config.schema.tools import ToolSettings
from fastgw.config.schema.units import (
    Duration,
    Many,
    Pause,
    PerTimeOrOff,
    RateSetting,
    Secret,
    Size,
    StrictModel,
    short,
)


def address(value: str) -> str:
    """`host:port`, an IPv6 host in brackets; ValueError for anything else."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", value)
    if not found or int(found[2]) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:8080 or [::1]:8080")
    if value.startswith("["):
        try:
            ip_address(found[1][1:-1])
        except ValueError:
            raise ValueError("is not an IPv6 address in brackets") from None
    return value


HostPort = Annotated[str, AfterValidator(address)]


def is_loopback(listen: str) -> bool:
    """Whether a `host:port` can be reached from this machine only."""
    return is_this_machine(listen.rpartition(":")[0].strip("[]"))


def public(value: str) -> str:
    """Scheme, host and port as agents type them, without a slash at the end; ValueError for anything else."""
    parts = urlsplit(http_url(value))
    if parts.path not in ("", "/") or parts.query:
        raise ValueError("must be scheme, host and port only, such as https://mcp.example.com")
    return value.rstrip("/")


def origin(value: str) -> str:
    """Scheme, host and port as browsers write them in `Origin` (RFC 6454, section 6.2); ValueError otherwise."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", value.lower())
    if not found:
        raise ValueError("must be scheme, host and port only, such as https://app.example.com or http://localhost:5173")
    scheme, host, port = found.groups("")
    return f"{scheme}://{host}{port if port != f':{DEFAULT_PORTS.get(scheme)}' else ''}"


def _workers(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024:
        return value
    raise ValueError("must be auto or a number from 1 to 1024")


class AdminSettings(StrictModel):
    """The operators' port."""

    listen: HostPort = "127.0.0.1:8081"
    token: Secret | None = Field(default=None, repr=False)


class EndpointSettings(StrictModel):
    """One path agents connect to. `servers` None means all."""

    servers: Many[str] | None = None
    tools: Many[str] | None = None
    naming: Literal["none", "on_collision", "always"] = "on_collision"
    auth: Many[str] | None = None
    """Ways in: `keys` and names of issuers; `none` alone: anonymous. None: every way there is."""
    origins: Many[Annotated[str, AfterValidator(origin)]] | None = None
    """Pages that may ask, as browsers say it in `Origin`: exactly these. None: of `public_url` and this machine."""
    refusals: Literal["error", "result"] = "error"
    server_timing: bool = False
    """Whether answers say how long each step took, in `Server-Timing`."""
    timeout: Duration | None = None
    max_timeout: Duration | None = None
    attempt_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    instructions: str = ""
    """Text for agents in `initialize` and `server/discover`."""

    @field_validator("auth")
    @classmethod
    def _ways(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == () or (value and "none" in value and len(value) > 1):
            raise ValueError("must be none alone, or names of ways in such as [keys, login]")
        return value


SINK_FORMS = re.compile(r"stdout|file:.+|rediss?://.+/.+|otlps?://.+|clickhouses?://.+|https?://.+")


class SinkSettings(StrictModel):
    """Where usage events go, beside `data/usage`."""

    url: str
    username: str | None = None
    password: Secret | None = Field(default=None, repr=False)

    @field_validator("url")
    @classmethod
    def _form(cls, value: str) -> str:
        if not SINK_FORMS.fullmatch(value):
            raise ValueError(
                "must be stdout, file:path, redis://.../stream, otlp://..., clickhouse://... or http(s)://..."
            )
        if value == "stdout" or value.startswith("file:"):
            return value
        if "@" in value:
            raise ValueError("must not carry a password: write {url: ..., username: ..., password: ...}")
        if wrong := _sink_fault(urlsplit(value)):
            raise ValueError(wrong)
        return value


def _sink_fault(place: SplitResult) -> str:
    """What would keep a sink from ever being opened; nothing where it is well-formed."""
    try:
        host, _ = place.hostname, place.port
    except ValueError:
        host = None
    if not host:
        return "must have a host, and a port from 1 to 65535 or none"
    if place.scheme in ("redis", "rediss"):
        if not re.fullmatch(r"/([0-9]+/)?[^/]+", place.path):
            return "must end in /stream, or /database/stream with the number of a database"
        if place.query and not re.fullmatch(r"maxlen=[1-9][0-9]{0,17}", place.query):
            return "may have ?maxlen=number after the stream, and nothing else"
    elif place.fragment or re.search(r"[\s\x00-\x1f\x7f]", place.geturl()):
        return "must not have a #fragment or spaces"
    return ""


class UsageSettings(StrictModel):
    """One event per request: how long kept, what it carries, where it goes."""

    keep: Duration = 400 * 86400.0
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    labels: Many[str] = ()
    gateway: str | None = Field(default=None, min_length=1)
    """Which fastgw this is; None: the host's name."""
    users: Literal["hashed", "plain"] = "hashed"
    sinks: Many[Annotated[SinkSettings, short("url")]] = ()


class TlsSettings(StrictModel):
    """HTTPS towards agents: certificate, key, and who may be let in by certificate."""

    cert: str
    key: str
    client_ca: str | None = None


def _signing(value: str) -> str:
    if len(signing_key(value)) < SHORTEST_KEY:
        raise ValueError(f"must be at least {SHORTEST_KEY} characters, or bytes in base64 after whsec_")
    return value


SHORTEST_KEY = 16
"""Bytes of a key that signs alerts."""


def signing_key(secret: str) -> bytes:
    """The key that a secret of `alerts` stands for: Standard Webhooks' form, or the text itself.

    Raises:
        ValueError: what follows `whsec_` is no base64.
    """
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise ValueError("must be base64 after whsec_, such as made by: openssl rand -base64 32") from None


class AlertSettings(StrictModel):
    """Where warnings for operators are sent, and by which secrets they are signed."""

    webhook: HttpUrl = Field(repr=False)
    secret: Many[Annotated[Secret, AfterValidator(_signing)]] = Field(default=(), repr=False)


class LogSettings(StrictModel):
    """What goes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "text"


class TraceSettings(StrictModel):
    """Where spans go (OTLP over HTTP), and for which part of the traces that begin here."""

    url: HttpUrl
    sample: Annotated[Decimal, Field(ge=0, le=1)] = Decimal(1)


ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
AgentName = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f:*?]+$")]
"""Without a colon: that is how names of issuers' agents begin, and none may be taken for another."""
EndpointPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")]
ToolKey = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
Workers = Annotated[
    Any,
    PlainValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1024}, {"const": "auto"}]}),
]


def _derived(listen: object, scheme: str) -> str:
    """What agents type where nothing is said: the host of `listen`, `localhost` for every address of the machine."""
    try:
        host, _, port = address(listen if isinstance(listen, str) else "127.0.0.1:8080").rpartition(":")
    except ValueError:
        return f"{scheme}://localhost:8080"
    return f"{scheme}://{'localhost' if host in ('0.0.0.0', '[::]') else host}:{port}"


class Settings(StrictModel):
    """The whole file. Times are seconds, sizes bytes, money decimals; `x-...` keys are the user's own."""

    listen: HostPort = "127.0.0.1:8080"
    admin: Annotated[AdminSettings, short("listen")] = AdminSettings()
    public_url: Many[Annotated[str, AfterValidator(public)]] = ()
    """What agents type, at least one; derived from `listen` where it is not written."""
    workers: Workers = 1
    store: Annotated[StoreSettings, short("url")] = StoreSettings()
    secret: Many[Secret] = Field(default=(), repr=False)
    data: str = "data"
    include: Many[str] = ()
    agents: dict[AgentName, AgentSettings] = {}
    identity: dict[ServerName, IssuerSettings] = {}
    trusted_proxies: Many[Network] = ()
    """Whose `X-Forwarded-For` counts, beside the proxies that `identity` names."""
    policies: tuple[PolicySettings, ...] | None = None
    servers: dict[ServerName, ServerSettings] = {}
    endpoints: dict[EndpointPath, EndpointSettings] | None = None
    tools: dict[ToolKey, ToolSettings] = {}
    failed_credentials: PerTimeOrOff = Field(default=RateSetting(100, 60), json_schema_extra={"default": "100/minute"})
    """Wrong credentials that one address may show, an IPv6 address by its /64; None: `off`."""
    limits: tuple[LimitSettings, ...] = ()
    quotas: tuple[QuotaSettings, ...] = ()
    timeout: Duration = 55.0
    max_timeout: Duration = 600.0
    """However often `timeout` starts anew; never less than `timeout` itself."""
    attempt_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    health: HealthSettings = HealthSettings()
    breaker: BreakerSettings = BreakerSettings()
    usage: UsageSettings = UsageSettings()
    tls: TlsSettings | None = None
    max_body: Size = 4 * 2**20
    max_reply: Size = 64 * 2**20
    drain: Pause = 30.0
    alerts: AlertSettings | None = None
    log: LogSettings = LogSettings()
    traces: TraceSettings | None = None
    _references: dict[str, str] = PrivateAttr(default={})
    _lock: Lock = PrivateAttr(default={})

    @property
    def references(self) -> dict[str, str]:
        """What came by reference, to how it stands in the file: `${env:NAME}`. Its keys are secrets."""
        return self._references

    @property
    def lock(self) -> Lock:
        """The tools that the lock file beside the configuration pins, by server."""
        return self._lock

    def note(self, references: dict[str, str], lock: Lock) -> None:
        """Remember what came by reference, and what is pinned."""
        self._references.update(references)
        self._lock = lock

    @property
    def worker_count(self) -> int:
        """How many workers that is on this machine."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = {key: entry for key, entry in value.items() if not str(key).startswith("x-")}
        kept.setdefault("public_url", _derived(kept.get("listen"), "https" if kept.get("tls") else "http"))
        return kept

    @field_validator("public_url")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names nothing: leave it out for the address of `listen`")
        return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the whole file; values by reference (`${env:NAME}`) fit wherever text does."""
    made = Settings.model_json_schema(by_alias=True, mode="validation")
    made.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "fastgw configuration",
        "patternProperties": {"^x-": True},
    }
