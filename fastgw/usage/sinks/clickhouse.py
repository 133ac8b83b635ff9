"""Usage events as rows of a ClickHouse table, through its HTTP interface.

`clickhouse.sql` beside this file makes the table, which drops an event's doubles, and its roll-ups. Inserts wait until
they are written (no `async_insert`): one that timed out there may still be written later.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.http_sink import Receiver
from fastgw.usage.sinks.network import NetworkSink, Part, Refused, TooLarge
from fastgw.usage.sinks.sink import SinkDown

SCHEMA = Path(__file__).with_name("clickhouse.sql")
TABLE = "usage_events"
PORTS = {"clickhouse": 8123, "clickhouses": 8443}
MOST_EVENTS, MOST_BYTES = 5_000, 4 * 1024 * 1024
"""A whole batch is one INSERT: ClickHouse wants few and large ones."""
PARAMETERS = {
    "date_time_input_format": "best_effort",  # RFC 3339
    "input_format_skip_unknown_fields": "1",  # fields are added within a schema, tables stay
    "input_format_null_as_default": "1",  # where a column is not Nullable
    "async_insert": "0",
}


class ClickHouseSink(NetworkSink):
    """`clickhouse://host:8123/database.table`, `clickhouses://` for HTTPS; no table: `usage_events`.

    No answer loses events: what ClickHouse refuses is its table's, its user's or its disk's fault, and can be mended.
    """

    def __init__(self, settings: SinkSettings) -> None:
        super().__init__(settings, most_events=MOST_EVENTS, most_bytes=MOST_BYTES)
        place = urlsplit(settings.url)
        table = ".".join(f"`{name}`" for name in (place.path.strip("/") or TABLE).replace("`", "").split("."))
        query = f"INSERT INTO {table} FORMAT JSONEachRow"
        self._path = "/?" + urlencode({"query": query, **PARAMETERS})
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        if settings.username is not None:
            headers["X-ClickHouse-User"] = settings.username
        if settings.password is not None:
            headers["X-ClickHouse-Key"] = settings.password
        self._receiver = Receiver(place, PORTS[place.scheme], headers, tls=place.scheme == "clickhouses")

    def send(self, part: Part) -> None:
        """See `NetworkSink`; one INSERT."""
        body = b"".join(event.line + b"\n" for event in part)
        try:
            self._receiver.post(self._path, gzip.compress(body, compresslevel=1))
        except TooLarge as wrong:
            if len(part) > 1:
                raise
            raise SinkDown(str(wrong)) from None
        except Refused as wrong:
            raise SinkDown(str(wrong)) from None
        except SinkDown as wrong:
            if "UNKNOWN_TABLE" in str(wrong):
                raise SinkDown(f"it has no such table (`fastgw schema clickhouse` prints it): {wrong}") from None
            raise

    def close(self) -> None:
        """See `Sink`."""
        self._receiver.close()
