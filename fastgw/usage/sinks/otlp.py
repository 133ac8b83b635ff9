"""Usage events as log records of OpenTelemetry, to any OTLP/HTTP receiver, in the JSON encoding.

Spec: OTLP 1.x, sections "OTLP/HTTP" and "JSON Protobuf Encoding": 64-bit integers are strings, trace ids are hex.
The body of a record is the event's own line, so that money stays the decimal it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import orjson

from fastgw import __version__
from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.http_sink import MOST_EVENTS, PART, WORDS, Receiver, credential
from fastgw.usage.sinks.network import TELL_EVERY, EventFields, NetworkSink, Part, ReadLine, log

PORT = 4318
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
INFO = {"severityNumber": 9, "severityText": "INFO"}
ATTRIBUTES: tuple[tuple[str, Callable[[EventFields], str | int | None]], ...] = (
    ("requestId", lambda fields: fields.request_id),
    ("agentId", lambda fields: fields.agent_id),
    ("team", lambda fields: fields.team),
    ("project", lambda fields: fields.project),
    ("billingAccount", lambda fields: fields.billing_account),
    ("method", lambda fields: fields.method),
    ("tool", lambda fields: fields.tool),
    ("mcpServer", lambda fields: fields.mcp_server),
    ("outcome", lambda fields: fields.outcome),
    ("statusCode", lambda fields: fields.status_code),
)
"""What one filters by; null is left out."""


class OtlpSink(NetworkSink):
    """`otlp://host:4318`, or `otlps://` for HTTPS; a path goes before `/v1/logs`.

    400 and 422, and what a partial success names, are refused for good and count as lost. Every other failure is waited
    for, also those that the specification would not repeat (401, 404, 500): they are the receiver's, not the events'.
    """

    def __init__(self, settings: SinkSettings) -> None:
        super().__init__(settings, most_events=MOST_EVENTS, most_bytes=PART)
        place = urlsplit(settings.url)
        headers = {"Content-Type": "application/json", **credential(settings)}
        self._path = place.path.rstrip("/") + "/v1/logs"
        self._warned = float("-inf")
        self._receiver = Receiver(place, PORT, headers, tls=place.scheme == "otlps")

    def send(self, part: Part) -> None:
        """See `NetworkSink`; what a partial success rejects must not be sent again."""
        answer = self._receiver.post(self._path, export_request(part))
        try:
            told = orjson.loads(answer)["partialSuccess"]
            rejected, words = int(told.get("rejectedLogRecords", 0)), str(told.get("errorMessage", ""))[:WORDS]
        except (ValueError, LookupError, TypeError, AttributeError):
            return  # a full success says nothing
        if rejected > 0:
            self.lose(min(rejected, len(part)), f"it rejected them: {words!r}")
        elif words and time.monotonic() - self._warned >= TELL_EVERY:
            self._warned = time.monotonic()
            log.warning("%s took the usage events and warns: %r", self.label, words)

    def close(self) -> None:
        """See `Sink`."""
        self._receiver.close()


def export_request(events: Part) -> bytes:
    """An ExportLogsServiceRequest: a resource for each gateway, a log record for each event."""
    return orjson.dumps(
        {
            "resourceLogs": [
                {
                    "resource": {
                        "attributes": [_attribute("service.name", "fastgw"), _attribute("service.instance.id", gateway)]
                    },
                    "scopeLogs": [
                        {
                            "scope": {"name": "fastgw.usage", "version": __version__},
                            "logRecords": [_log_record(event) for event in of_gateway],
                        }
                    ],
                }
                for gateway, of_gateway in groupby(events, key=lambda event: event.fields.gateway)
            ]
        }
    )


def _log_record(event: ReadLine) -> dict[str, Any]:
    fields = event.fields
    nanoseconds = _nanoseconds(fields)
    record = {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        **INFO,
        "eventName": "fastgw.usage",
        "body": {"stringValue": event.line.decode("utf-8", "replace")},
        "attributes": [_attribute(key, value) for key, get in ATTRIBUTES if (value := get(fields)) is not None],
    }
    if fields.trace_id is not None:
        record["traceId"] = fields.trace_id
    return record


def _attribute(key: str, value: str | int) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}


def _nanoseconds(fields: EventFields) -> str:
    """Its timestamp; 0, which stands for unknown, where that is none."""
    try:
        return str((datetime.fromisoformat(fields.timestamp) - EPOCH) // MICROSECOND * 1000)
    except (ValueError, TypeError):
        return "0"
