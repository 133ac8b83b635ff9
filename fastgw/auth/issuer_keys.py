"""The keys of issuers, fetched by the controller ahead of their end and kept over restarts.

kept copy --> fetched --due, or a token with an unknown key--> fetched again
                 \\--away--> stale: used on for `stale_keys` after the last answer, tried again with growing pauses
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from fastgw.auth.guarded_http import Document, FetchFailed, fetch, origin_of, shown
from fastgw.auth.jwks import KeySet
from fastgw.errors import Fault, Kind

log = logging.getLogger("fastgw")

SHORTEST, USUAL, LONGEST = 300.0, 3600.0, 86_400.0
"""Seconds that keys are good for at least, where their answer does not say, and at most."""
AHEAD = 0.8
"""The part of that after which they are fetched again."""
RETRY = (2.0, 300.0)
"""Seconds to the next try while an issuer is away: the first pause, which doubles, and the longest."""
UNKNOWN_FOR = 60.0
"""Seconds in which an unknown key is asked for once."""
MOST_ASKED = 10
"""Fetches for unknown keys of one issuer in that time, whatever tokens make up: one brings all the keys there are."""
MOST_UNKNOWN = 1000
"""Unknown keys that are remembered."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
Fetch = Callable[[str, frozenset[str]], Coroutine[Any, Any, Document]]


class KeySource(NamedTuple):
    """Where the keys of an issuer come from.

    Args:
        url: the issuer's.
        jwks_url: of its keys; None: its metadata says.
        stale: seconds for which keys are used that it has not confirmed.
    """

    name: str
    url: str
    jwks_url: str | None
    stale: float

    @property
    def named(self) -> frozenset[str]:
        """Origins that the configuration names."""
        return frozenset(origin_of(url) for url in (self.url, self.jwks_url) if url is not None)

    @property
    def kept_as(self) -> str:
        """Name of the file, another one for another place: keys of one must not be taken for those of the next."""
        return f"{sha256(f'{self.url} {self.jwks_url or str()}'.encode()).hexdigest()[:32]}.json"


class IssuerKeys:
    """The keys of all issuers.

    Args:
        folder: where they are kept.
        write: writes a file for its owner only; raises OSError.
        count: counts a metric.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[Path, bytes], None],
        spawn: Spawn,
        count: Callable[..., object] = lambda *_: None,
        fetch: Fetch = fetch,
    ) -> None:
        self.folder, self.write, self.spawn, self.count, self.fetch = folder, write, spawn, count, fetch
        self.on_change: Callable[[dict[str, bytes]], object] = lambda _: None
        """Hears all key sets, whenever one is another."""
        self._watches: dict[str, _KeyWatch] = {}
        self._begun = False

    def watch(self, sources: Iterable[KeySource]) -> None:
        """Look after these issuers from now on, and no others. Nothing is fetched before `begin`."""
        before, self._watches = self._watches, {}
        for source in sources:
            known = before.pop(source.url, None)
            if known is None or known.source != source:
                if known is not None:
                    known.end()
                known = _KeyWatch(source, self)
                if self._begun:
                    known.begin()
            self._watches[source.url] = known
        for gone in before.values():
            gone.end()
        self.tell()

    def begin(self) -> None:
        """Fetch, and go on fetching."""
        self._begun = True
        for one in self._watches.values():
            one.begin()

    def tell(self) -> None:
        """Say which keys there are."""
        self.on_change(self.documents())

    def documents(self) -> dict[str, bytes]:
        """The key sets (JSON), by the issuer's URL; of those whose keys are not known an empty one."""
        return {url: one.document for url, one in self._watches.items()}

    def gauges(self) -> dict[tuple[str, ...], float]:
        """How many keys each issuer has, and how old what is known of them is."""
        now = time.time()
        found: dict[tuple[str, ...], float] = {}
        for one in self._watches.values():
            found["fastgw_issuer_keys", one.source.name] = float(one.size)
            found["fastgw_issuer_keys_age_seconds", one.source.name] = max(0.0, now - one.fetched) if one.size else 0.0
        return found

    async def look_for(self, issuer: str, kid: str | None) -> None:
        """A worker has met a key of this issuer that it does not know: when this returns, all that there are have been
        told, unless many were asked for a moment ago.

        Raises:
            Fault: FULL where the issuer cannot be asked now.
        """
        if (known := self._watches.get(issuer)) is not None:
            await known.look_for(kid)


class _KeyWatch:
    """The keys of one issuer."""

    def __init__(self, source: KeySource, keys: IssuerKeys) -> None:
        self.source = source
        self.document, self.fetched, self.size = _NO_KEYS, 0.0, 0
        self._keys = keys
        self._due = 0.0
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._unknown: dict[str | None, float] = {}
        self._asked: deque[float] = deque(maxlen=MOST_ASKED)
        self._recall()

    def begin(self) -> None:
        self._task = self._keys.spawn(self._run(), f"keys of {self.source.name}")

    def end(self) -> None:
        for task in (self._task, self._fetching):
            if task is not None:
                task.cancel()

    async def _run(self) -> None:
        while True:
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._due - time.time())):
                    await self._moved.wait()
                continue  # somebody else has fetched: it is due another time
            await self._fetch_once()

    async def look_for(self, kid: str | None) -> None:
        if self._fetching is not None or self._may_ask(kid, time.monotonic()):
            await self._fetch_once()
        if self._failures:
            raise Fault(Kind.FULL, "The issuer of this token cannot be asked for its keys now", retry_after=5)

    def _may_ask(self, kid: str | None, now: float) -> bool:
        often = len(self._asked) == MOST_ASKED and now - self._asked[0] < UNKNOWN_FOR
        if often or now - self._unknown.get(kid, -UNKNOWN_FOR) < UNKNOWN_FOR:
            return False
        self._asked.append(now)
        self._unknown[kid] = now
        if len(self._unknown) > MOST_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        return True

    async def _fetch_once(self) -> None:
        """Fetch, or wait for the fetch that is under way; whoever waits may leave."""
        if self._fetching is None:
            self._fetching = self._keys.spawn(self._fetch(), f"keys of {self.source.name}")
            self._fetching.add_done_callback(self._fetched)
        await asyncio.wait((self._fetching,))

    def _fetched(self, _: object) -> None:
        self._fetching = None
        self._moved.set()

    async def _fetch(self) -> None:
        source, now = self.source, time.time()
        try:
            url = source.jwks_url or await self._discover()
            found = await self._keys.fetch(url, source.named)
            kept = KeySet(found.content)
            if not len(kept):
                raise FetchFailed(f"{shown(url)}: has no key that verifies signatures")
        except Exception as wrong:  # noqa: BLE001 - whatever it is: its keys would never be fetched again
            self._failed(str(wrong) or repr(wrong), now)
            return
        if self._failures:
            log.info("keys of %s: the issuer is back", source.name)
        self._failures, self.fetched = 0, now
        age = USUAL if found.max_age is None else found.max_age
        self._due = now + AHEAD * min(max(age, SHORTEST), LONGEST)
        self._keys.count("fastgw_issuer_key_fetches_total", source.name, "ok")
        self._take(found.content, len(kept))
        self._keep()

    def _failed(self, why: str, now: float) -> None:
        name = self.source.name
        first, longest = RETRY
        self._due = now + min(first * 2 ** min(self._failures, 20), longest)
        self._failures += 1
        self._keys.count("fastgw_issuer_key_fetches_total", name, "failed")
        if self.size and now >= self.fetched + self.source.stale:
            log.error("keys of %s: not used any more, the issuer has been away for too long", name)
            self._take(_NO_KEYS, 0)
        if self._failures == 1:
            kept = "those known are used on" if self.size else "its tokens are not let in"
            log.warning("keys of %s cannot be fetched, %s: %s", name, kept, why)

    async def _discover(self) -> str:
        """Where the issuer's metadata says that its keys are (RFC 8414, section 3; OpenID Connect Discovery, 4)."""
        source, wrong = self.source, ""
        for url in metadata_urls(source.url):
            try:
                found = orjson.loads((await self._keys.fetch(url, source.named)).content)
            except (FetchFailed, ValueError) as failed:
                wrong = wrong or str(failed)
                continue
            if not isinstance(found, dict) or found.get("issuer") != source.url:
                wrong = wrong or f"{url}: is not the metadata of {source.url}"
            elif isinstance(found.get("jwks_uri"), str):
                return str(found["jwks_uri"])
            else:
                wrong = wrong or f"{url}: names no jwks_uri"
        raise FetchFailed(wrong)

    def _take(self, document: bytes, size: int) -> None:
        changed, self.document, self.size = document != self.document, document, size
        if changed:
            self._keys.tell()

    # -- the kept copy -----------------------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self._keys.folder / self.source.kept_as

    def _recall(self) -> None:
        try:
            kept = orjson.loads(self._path.read_bytes())
            document, fetched = b64decode(kept["keys"]), float(kept["fetched"])
            size = len(KeySet(document))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as wrong:
            log.warning("the kept keys of %s are not used: %s", self.source.name, wrong)
            return
        if time.time() < fetched + self.source.stale:
            self.document, self.fetched, self.size = document, fetched, size

    def _keep(self) -> None:
        kept = {"issuer": self.source.url, "fetched": self.fetched, "keys": b64encode(self.document).decode()}
        try:
            self._keys.write(self._path, orjson.dumps(kept))
        except OSError as wrong:
            log.warning("keys of %s could not be kept: %s", self.source.name, wrong)


_NO_KEYS = b'{"keys":[]}'


def metadata_urls(issuer: str) -> list[str]:
    """Where an issuer's metadata may be, in order."""
    parts = urlsplit(issuer)
    root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    found = [f"{root}/.well-known/oauth-authorization-server{path}", f"{root}{path}/.well-known/openid-configuration"]
    return [*found, f"{root}/.well-known/openid-configuration{path}"] if path else found
