"""The key `store`: where counters live that workers and machines share, as written and as a place to go to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from fastgw.config.schema.units import STRICT, Secret

PORT, SENTINEL_PORT = 6379, 26379
MOST_DATABASE = 65535
_WORDS = ("auto", "memory", "embedded")
_ADDRESS = re.compile(r"(redis|rediss)(?:\+(cluster|sentinel))?://([^/]*)(?:/(.*))?", re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_FORMS = "must be auto, memory, embedded, redis://host:6379/0, redis+cluster://a,b or redis+sentinel://a,b/name"

Kind = Literal["memory", "embedded", "single", "sentinel", "cluster"]
Host = tuple[str, int]


class StoreAddress(NamedTuple):
    """A `redis://` address taken apart.

    Args:
        kind: `single`, `sentinel` or `cluster`.
        hosts: (host, port), an IPv6 host without its brackets; of sentinels these themselves.
        database: number; 0 of a cluster.
        name: what the sentinels call the store; empty for others.
        tls: by `rediss`.
    """

    kind: Kind
    hosts: tuple[Host, ...]
    database: int
    name: str
    tls: bool


def store_address(url: str) -> StoreAddress | None:
    """The address of a store; None for one that this machine keeps: `auto`, `memory`, `embedded`.

    Raises:
        ValueError: anything else, with what is wrong in words.
    """
    if url in _WORDS:
        return None
    if "@" in url:
        raise ValueError("must not carry a user or password: write {url: ..., username: ..., password: ...}")
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise ValueError(_FORMS)
    scheme, kind, places, rest = found.groups("")
    if "?" in url or "#" in url:
        raise ValueError("must end after the path: what else there is to say stands in keys beside url")
    hosts = _hosts(places, SENTINEL_PORT if kind == "sentinel" else PORT)
    tls = scheme == "rediss"
    if kind == "sentinel":
        name, _, number = rest.partition("/")
        return StoreAddress("sentinel", hosts, _database(number), _named(name), tls)
    if kind == "cluster":
        if rest:
            raise ValueError("a cluster has no numbered databases: leave out what follows the hosts")
        return StoreAddress("cluster", hosts, 0, "", tls)
    if len(hosts) > 1:
        raise ValueError(
            "names several hosts: a cluster is redis+cluster://a,b, sentinels are redis+sentinel://a,b/name"
        )
    return StoreAddress("single", hosts, _database(rest), "", tls)


def _hosts(places: str, port: int) -> tuple[Host, ...]:
    if not places:
        raise ValueError("names no host, such as redis://127.0.0.1:6379/0")
    hosts = tuple(_host(place, port) for place in places.split(","))
    if len(set(hosts)) < len(hosts):
        raise ValueError("names the same host twice")
    return hosts


def _host(place: str, port: int) -> Host:
    found = _HOST.fullmatch(place)
    if found is None:
        raise ValueError("needs hosts such as cache, 127.0.0.1:6379 or [::1]:6379, separated by commas alone")
    if not 1 <= (number := int(found[2] or port)) <= 65535:
        raise ValueError("has a port that is not from 1 to 65535")
    host = found[1].strip("[]")
    if found[1].startswith("["):
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError("has no IPv6 address in its brackets") from None
    return host, number


def _database(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > MOST_DATABASE:
        raise ValueError(f"the database after the last slash is a number from 0 to {MOST_DATABASE}, such as /0")
    return int(text)


def _named(name: str) -> str:
    if not name:
        raise ValueError("needs the name that the sentinels know the store by: redis+sentinel://a,b/name")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ValueError("the name that the sentinels know the store by has letters, digits, ., _ and - only")
    return name


class StoreSettings(BaseModel):
    """Where counters live that workers and machines share."""

    model_config = STRICT

    # In this order, because each is checked against those before it.
    url: str = "auto"
    password: Secret | None = Field(default=None, repr=False)
    username: Annotated[str, Field(min_length=1)] | None = None
    ca: Annotated[str, Field(min_length=1)] | None = None
    """PEM file of those who signed the store's certificate; None: the system's."""
    sentinel_password: Secret | None = Field(default=None, repr=False)
    sentinel_username: Annotated[str, Field(min_length=1)] | None = None
    prefix: str = Field(default="fastgw", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """What the names of all keys begin with; gateways with the same one share their limits."""

    @field_validator("url")
    @classmethod
    def _form(cls, value: str) -> str:
        store_address(value)
        return value

    @field_validator("password", "username", "ca", "sentinel_password", "sentinel_username", "prefix")
    @classmethod
    def _goes_with_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or "url" not in info.data:
            return value
        address, key = store_address(info.data["url"]), str(info.field_name)
        if address is None:
            raise ValueError(f"{key} is for redis:// and rediss:// alone")
        if key == "ca" and not address.tls:
            raise ValueError("ca is for rediss://, where the store shows a certificate")
        if key.startswith("sentinel_") and address.kind != "sentinel":
            raise ValueError(f"{key} is for redis+sentinel:// alone")
        return value

    @field_validator("username", "sentinel_username")
    @classmethod
    def _has_password(cls, value: str | None, info: ValidationInfo) -> str | None:
        other = str(info.field_name).replace("username", "password")
        if value is not None and info.data.get(other, "") is None:
            raise ValueError(f"{info.field_name} needs {other}")
        return value

    @property
    def beyond_one_machine(self) -> bool:
        """Whether several machines share it."""
        return self.url.startswith("redis")


@dataclass(frozen=True, slots=True)
class StorePlace:
    """The store that a gateway uses.

    Args:
        kind: `memory`: in the one worker. `embedded`: on this machine, for its workers. The others are elsewhere.
        hosts: (host, port); of sentinels these themselves; none for `memory` and `embedded`.
        database: number; 0 of a cluster.
        name: what the sentinels call the store; empty for others.
        ca: path of a PEM file; None: the system's.
        prefix: what the names of all keys begin with.
    """

    kind: Kind = "memory"
    hosts: tuple[Host, ...] = ()
    database: int = 0
    name: str = ""
    tls: bool = False
    ca: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    prefix: str = "fastgw"


def place_of(store: StoreSettings, workers: int) -> StorePlace:
    """Where a store is.

    Args:
        workers: how many there are: `auto` is `memory` for one of them, else `embedded`.
    """
    address = store_address(store.url)
    if address is None:
        shared = store.url == "embedded" or (store.url == "auto" and workers > 1)
        return StorePlace("embedded" if shared else "memory")
    return StorePlace(
        *address,
        ca=store.ca,
        username=store.username,
        password=store.password,
        sentinel_username=store.sentinel_username,
        sentinel_password=store.sentinel_password,
        prefix=store.prefix,
    )
