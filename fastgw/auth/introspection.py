"""Opaque tokens: their issuer is asked about each (RFC 7662), by the controller for all workers."""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterable
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import quote_plus

import orjson
from aiohttp import ClientError, ClientSession

from fastgw.auth.guarded_http import WITHIN, FetchFailed, bounded, why
from fastgw.errors import Fault, Kind

log = logging.getLogger("fastgw")

KNOWN_FOR = 60.0
"""Seconds for which an answer is used: as long may a revoked token go on."""
REFUSED_FOR = 10.0
"""The same of a token that is none."""
MOST_KNOWN = 20_000
MOST_AT_ONCE = 50
"""Questions to one issuer at the same time; further tokens are told to come again."""
LARGEST = 64 * 1024
"""Bytes of an answer."""
QUIET = 60.0
"""Seconds in which it is logged once that an issuer does not answer."""

Spawn = Callable[[Coroutine[Any, Any, bytes], str], "asyncio.Task[bytes]"]


class IntrospectionSource(NamedTuple):
    """Where one issuer is asked, and as whom."""

    name: str
    issuer: str
    url: str
    client_id: str
    client_secret: str


class Introspection:
    """The answers of all issuers, for some time."""

    def __init__(self, spawn: Spawn, count: Callable[..., object] = lambda *_: None) -> None:
        self._spawn, self._count = spawn, count
        self._sources: dict[str, IntrospectionSource] = {}
        self._known: dict[tuple[str, bytes], tuple[bytes, float]] = {}
        self._asking: dict[tuple[str, bytes], asyncio.Task[bytes]] = {}
        self._logged = -QUIET

    def watch(self, sources: Iterable[IntrospectionSource]) -> None:
        """Ask these from now on, and forget what was answered."""
        self._sources = {source.issuer: source for source in sources}
        self._known.clear()

    async def ask(self, issuer: str, token: bytes) -> bytes:
        """The issuer's answer (a JSON object) with the Unix seconds until which it counts as `known_until`.

        Raises:
            Fault: FULL where it cannot be asked now.
        """
        key = issuer, sha256(token).digest()
        found = self._known.get(key)
        if found is not None and found[1] > time.time():
            return found[0]
        if key not in self._asking:
            if sum(one[0] == issuer for one in self._asking) >= MOST_AT_ONCE or issuer not in self._sources:
                raise _unavailable()
            task = self._asking[key] = self._spawn(self._ask(key, token), "introspection")
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(self._asking[key])

    async def _ask(self, key: tuple[str, bytes], token: bytes) -> bytes:
        source = self._sources[key[0]]
        try:
            answer = await _post(source, token)
        except (FetchFailed, ClientError, OSError, TimeoutError, ValueError) as wrong:
            self._count("fastgw_introspections_total", source.name, "failed")
            if time.monotonic() - self._logged >= QUIET:
                self._logged = time.monotonic()
                log.warning("%s cannot be asked about its tokens: %s", source.name, why(wrong))
            raise _unavailable() from None
        active = answer.get("active") is True
        self._count("fastgw_introspections_total", source.name, "active" if active else "inactive")
        until = time.time() + (KNOWN_FOR if active else REFUSED_FOR)
        # Of a token that is none, whatever else is said is not kept: anybody can make up twenty thousand.
        found = orjson.dumps({**(answer if active else {}), "active": active, "known_until": until})
        if self._sources.get(key[0]) != source:  # who has answered is not asked any more
            raise _unavailable()
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = found, until
        return found


async def _post(source: IntrospectionSource, token: bytes) -> dict[str, Any]:
    """Raises FetchFailed, and what the connection raises, each without the token."""
    # The parts of the pair are form-encoded first (RFC 6749, section 2.3.1).
    pair = f"{quote_plus(source.client_id)}:{quote_plus(source.client_secret)}"
    headers = {"authorization": f"Basic {b64encode(pair.encode()).decode()}", "accept": "application/json"}
    form = {"token": token.decode("ascii"), "token_type_hint": "access_token"}
    async with (
        ClientSession(timeout=WITHIN, trust_env=False) as session,
        session.post(source.url, data=form, headers=headers, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise FetchFailed(f"status {answer.status}")
        found = orjson.loads(await bounded(answer, LARGEST))
    if not isinstance(found, dict):
        raise FetchFailed("the answer is no JSON object")
    return found


def _unavailable() -> Fault:
    return Fault(Kind.FULL, "The issuer of this token cannot be asked about it now", retry_after=5)
