"""The key `store`: where counters live that workers and machines share, as written and as a place to go to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from fastgw.config.schema.units import Secret, StrictModel

PORT, SENTINEL_PORT = 6379, 26379
MOST_DATABASE = 65535
_ADDRESS = re.compile(r"(redis|rediss)(?:\+(cluster|sentinel))?://([^/]*)(?:/(.*))?", re.DOTALL)
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class StorePlace:
    """The store that a gateway uses.

    Args:
        kind: `memory`: in the one worker. `embedded`: on this machine, for its workers. The others are elsewhere.
        hosts: (host, port), an IPv6 host without its brackets; of sentinels these themselves; none on this machine.
        name: what the sentinels call the store; empty for others.
        ca: path of a PEM file; None: the system's.
    """

    kind: Literal["memory", "embedded", "single", "sentinel", "cluster"] = "memory"
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


def store_place(url: str, workers: int = 1) -> StorePlace:
    """Where a store is by its address alone.

    Args:
        workers: how many there are: `auto` is `memory` for one of them, else `embedded`.

    Raises:
        ValueError: no address of a store, with what is wrong in words.
    """
    if url in ("auto", "memory", "embedded"):
        return StorePlace("embedded" if url == "embedded" or (url == "auto" and workers > 1) else "memory")
    if "@" in url:
        raise ValueError("must not carry a user or password: write {url: ..., username: ..., password: ...}")
    if (found := _ADDRESS.fullmatch(url)) is None:
        raise ValueError(
            "must be auto, memory, embedded, redis://host:6379/0, redis+cluster://a,b or redis+sentinel://a,b/name"
        )
    if "?" in url or "#" in url:
        raise ValueError("must end after the path: what else there is to say stands in keys beside url")
    scheme, kind, places, rest = found.groups("")
    hosts = tuple(_host(place, SENTINEL_PORT if kind == "sentinel" else PORT) for place in places.split(","))
    if len(set(hosts)) < len(hosts):
        raise ValueError("names the same host twice")
    tls = scheme == "rediss"
    if kind == "sentinel":
        name, _, number = rest.partition("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError("needs the name that the sentinels know the store by: redis+sentinel://a,b/name")
        return StorePlace("sentinel", hosts, _database(number), name, tls)
    if kind == "cluster":
        if rest:
            raise ValueError("a cluster has no numbered databases: leave out what follows the hosts")
        return StorePlace("cluster", hosts, tls=tls)
    if len(hosts) > 1:
        raise ValueError(
            "names several hosts: a cluster is redis+cluster://a,b, sentinels are redis+sentinel://a,b/name"
        )
    return StorePlace("single", hosts, _database(rest), tls=tls)


def _host(place: str, port: int) -> Host:
    if found := _HOST.fullmatch(place):
        try:
            host, number = str(IPv6Address(found[1])) if found[1] else found[2], int(found[3] or port)
        except ValueError:
            raise ValueError("has no IPv6 address in its brackets") from None
        if 1 <= number <= 65535:
            return host, number
        raise ValueError("has a port that is not from 1 to 65535")
    raise ValueError("needs hosts such as cache, 127.0.0.1:6379 or [::1]:6379, separated by commas alone")


def _database(text: str) -> int:
    if re.fullmatch(r"[0-9]{0,5}", text) and (number := int(text or 0)) <= MOST_DATABASE:
        return number
    raise ValueError(f"the database after the last slash is a number from 0 to {MOST_DATABASE}, such as /0")


class StoreSettings(StrictModel):
    """Where counters live that workers and machines share."""

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
        store_place(value)
        return value

    @field_validator("password", "username", "ca", "sentinel_password", "sentinel_username", "prefix")
    @classmethod
    def _goes_with_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or "url" not in info.data:
            return value
        place, key = store_place(info.data["url"]), str(info.field_name)
        if not place.hosts:
            raise ValueError(f"{key} is for redis:// and rediss:// alone")
        if key == "ca" and not place.tls:
            raise ValueError("ca is for rediss://, where the store shows a certificate")
        if key.startswith("sentinel_") and place.kind != "sentinel":
            raise ValueError(f"{key} is for redis+sentinel:// alone")
        other = key.replace("username", "password")
        if other != key and info.data.get(other, "") is None:
            raise ValueError(f"{key} needs {other}")
        return value

    @property
    def beyond_one_machine(self) -> bool:
        """Whether several machines share it."""
        return self.url.startswith("redis")

    def place(self, workers: int) -> StorePlace:
        """Where it is, and what is shown to it."""
        place = store_place(self.url, workers)
        return replace(place, **self.model_dump(exclude={"url"})) if place.hosts else place
