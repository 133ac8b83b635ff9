"""Usage events as entries of a Redis stream: `XADD stream * requestId ... event ...`.

Nothing trims the stream but `?maxlen=`: what consumers have not read is theirs to remove. A full Redis refuses
entries, and the events wait here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis import ConnectionError as Unreachable
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.network import NetworkSink, Part
from fastgw.usage.sinks.sink import SinkDown

TIMEOUT = 3.0
"""Seconds for connecting, and for each wait for answers."""
MOST_EVENTS, MOST_BYTES = 500, 4 * 1024 * 1024
"""Of one pipeline."""


class RedisStreamSink(NetworkSink):
    """`redis://host:port/stream` or `.../database/stream`, `rediss://` for TLS, `?maxlen=n` for about n entries."""

    def __init__(self, settings: SinkSettings) -> None:
        super().__init__(settings, most_events=MOST_EVENTS, most_bytes=MOST_BYTES)
        place = urlsplit(settings.url)
        *database, stream = place.path.strip("/").split("/")
        self._stream = unquote(stream)
        limit = parse_qs(place.query).get("maxlen")
        self._limit = int(limit[0]) if limit else None
        self._password = settings.password
        self._client = Redis(
            host=place.hostname or "",
            port=place.port or 6379,
            db=int(database[0]) if database else 0,
            username=settings.username,
            password=settings.password,
            protocol=2,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # One that lay idle may have been closed: that is no failure. One that does not answer is.
            retry=Retry(NoBackoff(), 1, supported_errors=(Unreachable,)),
            ssl=place.scheme == "rediss",
            ssl_cert_reqs="required",
            ssl_check_hostname=True,
        )

    def send(self, part: Part) -> None:
        """See `NetworkSink`; one pipeline."""
        pipeline = self._client.pipeline(transaction=False)
        for line, fields in part:
            entry: dict[Any, Any] = {"requestId": fields.request_id, "event": line}
            pipeline.xadd(self._stream, entry, maxlen=self._limit, approximate=True)
        try:
            # Not raised there: its words would quote the event.
            answers = pipeline.execute(raise_on_error=False)
            wrong = next((one for one in answers if isinstance(one, Exception)), None)
        except (RedisError, OSError, UnicodeError) as failure:
            wrong = failure
        if wrong is not None:  # OOM, READONLY, LOADING, WRONGPASS and the like too
            self.close()  # the next connection may lead to another server, after a failover
            words = f"{type(wrong).__name__}: {wrong}"  # one that does not know AUTH repeats what it was sent
            raise SinkDown((words.replace(self._password, "***") if self._password else words)[:300])

    def close(self) -> None:
        """See `Sink`."""
        self._client.close()
        self._client.connection_pool.disconnect()
