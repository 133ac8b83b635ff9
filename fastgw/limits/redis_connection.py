"""The way to the store: redis-py, for one server, a sentinel's primary, or a cluster.

Nothing is tried twice here: redis-py's own defaults, ten retries of five seconds, would hold a call up for a minute.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import TimeoutError as StoreTimeout

from fastgw.config.schema.store import StorePlace
from fastgw.limits.batcher import StoreAway
from fastgw.limits.script import DIGEST, SOURCE

_NONSENSE = (TypeError, LookupError, AttributeError)
"""What redis-py raises where a cluster or a sentinel answers in another shape than it takes for granted."""
_WRONG = (RedisError, RedisClusterException, OSError, TimeoutError, ValueError, RuntimeError, *_NONSENSE)
"""What redis-py raises; ValueError for addresses that a cluster or sentinel names and nobody can use, RuntimeError from
uvloop for a connection that is reset between its opening and the first word on it.
"""
CONNECT_WITHIN = 1.0
"""Seconds for a connection with its greeting; a batch has less, a probe as much."""


class RedisConnection:
    """A `batcher.StoreConnection`; `socket`: path of a Unix socket in the stead of the place's hosts."""

    def __init__(self, place: StorePlace, socket: str | None = None) -> None:
        self._place = place
        self._socket = socket
        self._client: Any = None
        self._clients: list[Any] = []

    async def decide(self, keys: list[str], argument: bytes) -> object:
        return await self.run((DIGEST, SOURCE), keys, argument)

    async def run(self, script: tuple[str, str], keys: list[str], argument: bytes) -> object:
        """Run a script, given as (digest, source), once. Raises StoreAway."""
        digest, source = script
        try:
            client = self._client or await self._open()
            try:
                return await client.evalsha(digest, len(keys), *keys, argument)
            except NoScriptError:
                return await client.eval(source, len(keys), *keys, argument)
        except _WRONG as wrong:
            raise _away(wrong, self._place) from None

    async def close(self) -> None:
        clients, self._clients, self._client = self._clients, [], None
        for client in clients:
            with suppress(*_WRONG):  # it is given up anyway
                await client.aclose()

    async def _open(self) -> Any:
        client = self._client_of_place()
        self._clients.append(client)
        if isinstance(client, RedisCluster):
            await client.initialize()
        self._client = client
        return client

    def _client_of_place(self) -> Any:
        place = self._place
        options: dict[str, Any] = {
            "username": place.username,
            "password": place.password,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": CONNECT_WITHIN,
            "socket_connect_timeout": CONNECT_WITHIN,
        }
        if place.tls:
            options |= {"ssl": True, "ssl_ca_certs": place.ca, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if self._socket is not None:
            return Redis(unix_socket_path=self._socket, **options)
        if place.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in place.hosts]
            return RedisCluster(startup_nodes=nodes, **options)
        if place.kind == "sentinel":
            sentinel_options = {**options, "username": place.sentinel_username, "password": place.sentinel_password}
            sentinel = Sentinel(list(place.hosts), sentinel_kwargs=sentinel_options, **options)  # type: ignore[no-untyped-call]
            self._clients += sentinel.sentinels  # clients of their own
            return sentinel.master_for(place.name, db=place.database)
        host, port = place.hosts[0]
        return Redis(host=host, port=port, db=place.database, **options)


def _away(wrong: BaseException, place: StorePlace) -> StoreAway:
    kinds: tuple[tuple[str, Any], ...] = (
        ("refused", AuthenticationError),  # a ConnectionError of redis-py
        ("full", OutOfMemoryError),
        ("loading", BusyLoadingError),
        ("replica", ReadOnlyError),
        ("timeout", (TimeoutError, StoreTimeout)),
        ("connection", (ConnectionError, OSError, RuntimeError)),
        ("reply", _NONSENSE),
    )
    kind = next((name for name, types in kinds if isinstance(wrong, types)), "refused")
    words = f"{type(wrong).__name__}: {wrong}"
    for password in (place.password, place.sentinel_password):  # who does not know AUTH repeats what it was sent
        words = words.replace(password, "***") if password else words
    return StoreAway(kind, words[:300])
