"""Spans of all workers, sent by OTLP over HTTP with OpenTelemetry's own exporter. Loaded in the usage process alone,
and only where `traces` is written: the packages are the extra `fastgw[otel]`.

What the exporter lets be set by the environment (OTEL_EXPORTER_OTLP_HEADERS, ..._CERTIFICATE, OTEL_RESOURCE_ATTRIBUTES)
holds. Nothing here holds up a worker, and what waits is bounded: the rest is lost and counted.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from fastgw import __version__
from fastgw.config.instance_urls import place
from fastgw.telemetry.counters import Series
from fastgw.telemetry.spans import LARGEST, SERVER, SpanRecord, count_in, decode

log = logging.getLogger("fastgw")

ROOM = 8 * 1024 * 1024
"""Bytes of spans that wait."""
LOOK_EVERY = 100
"""Milliseconds between two looks whether it is to end."""
MOST_ANSWER = 64 * 1024
"""Bytes of the receiver's answer that are read; it says nothing that we need."""
MOST_TOGETHER = 512
"""Spans of one request, or some more: datagrams are not taken apart."""
WAIT = 0.5
"""Seconds after which fewer are sent."""
WITHIN = 5.0
"""Seconds for one request, the exporter's repeats included."""
SAY_EVERY = 60.0
"""Seconds between two lines in the log that say that spans are lost."""
SCOPE = InstrumentationScope("fastgw", __version__)
FLAGS = TraceFlags(TraceFlags.SAMPLED)
PATH = "/v1/traces"


class SpanExport:
    """The usage process's end of the workers' socket, and its two threads: one takes what comes, one sends.

    Args:
        url: where an OTLP receiver listens; `/v1/traces` is added where it does not end so.
        gateway: which fastgw this is.
        workers: the socket that they send to; the supervisor holds it too, so nobody may shut it down.
    """

    def __init__(self, url: str, gateway: str, workers: socket.socket) -> None:
        self.exported = 0
        self.lost = 0
        self._label = place(url)
        base = url.rstrip("/")
        self._url = base if base.endswith(PATH) else base + PATH
        own = {"service.name": "fastgw", "service.version": __version__, "service.instance.id": gateway}
        self._resource = Resource(own).merge(OTELResourceDetector().detect())
        self._waiting: deque[bytes] = deque()
        self._bytes = self._count = 0
        self._changed = threading.Condition()
        self._is_ending = self._is_over = False
        self._said = -SAY_EVERY
        self._told_of = 0
        self._reason = LastReason()
        session = requests.Session()
        session.hooks["response"].append(_let_go)
        self._exporter = OTLPSpanExporter(endpoint=self._url, timeout=WITHIN, session=session)
        self._socket = workers
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._receive, "spans from workers"), (self._export, "spans to their receiver"))
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Send what has come by now, and end; see `join`."""
        self._is_ending = True

    def join(self, until: float) -> None:
        """Wait for the end, until then (CLOCK_MONOTONIC seconds) at most."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def counts(self) -> Iterator[tuple[Series, float]]:
        """What became of spans since the start."""
        for outcome, count in (("exported", self.exported), ("lost", self.lost)):
            yield ("fastgw_spans_total", outcome), count

    def _receive(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            is_last = self._is_ending
            while poll.poll(0 if is_last else LOOK_EVERY):
                self._take(self._socket.recv(LARGEST))
            if is_last:
                break
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def _take(self, datagram: bytes) -> None:
        count = count_in(datagram)
        with self._changed:
            if self._bytes + len(datagram) > ROOM:
                self.lost += count
                return
            self._waiting.append(datagram)
            self._bytes += len(datagram)
            self._count += count
            if self._count >= MOST_TOGETHER:
                self._changed.notify()

    def _export(self) -> None:
        while not self._is_over or self._waiting:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._count >= MOST_TOGETHER, WAIT)
                datagrams = self._taken()
            if datagrams:
                self._send(datagrams)

    def _taken(self) -> list[bytes]:
        """What goes into the next request."""
        found: list[bytes] = []
        count = 0
        while self._waiting and count < MOST_TOGETHER:
            found.append(self._waiting.popleft())
            count += count_in(found[-1])
            self._bytes -= len(found[-1])
        self._count -= count
        return found

    def _send(self, datagrams: list[bytes]) -> None:
        count = sum(map(count_in, datagrams))
        try:
            spans = [readable(span, self._resource) for datagram in datagrams for span in decode(datagram)]
            is_taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as wrong:  # noqa: BLE001 - the thread must not end with one bad span
            self._reason.words, is_taken = type(wrong).__name__, False
        if is_taken:
            self.exported += count
        else:
            with self._changed:
                self.lost += count
        self._say()

    def _say(self) -> None:
        now = time.monotonic()
        if self.lost > self._told_of and now - self._said >= SAY_EVERY:
            why, self._said, self._told_of = self._reason.words, now, self.lost
            log.warning("%d spans are lost so far; the receiver of traces at %s: %s", self.lost, self._label, why)


class LastReason(logging.Handler):
    """Why the exporter has failed last: it tells its logger, at every failure."""

    def __init__(self) -> None:
        super().__init__()
        self.words = "takes them too slowly"
        logger = logging.getLogger("opentelemetry")
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a status or the kind of an error: its text may repeat the address, and that may be a secret."""
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, int):
                self.words = f"it answered {value}"
                return
            if isinstance(value, Exception):
                self.words = type(value).__name__
                return


def _let_go(answer: requests.Response, *_: object, **__: object) -> None:
    """Read what has come of an answer, and not to its end: it might have none, and fill the memory.

    Raises:
        requests.TooManyRedirects: it leads elsewhere, which could be inward.
    """
    with suppress(Exception):  # whatever it is: the status counts
        answer.raw.read1(MOST_ANSWER)
    answer.close()
    if answer.is_redirect:
        raise requests.TooManyRedirects


def readable(span: SpanRecord, resource: Resource) -> ReadableSpan:
    """The span as the exporter takes it."""
    state = TraceState.from_header([span.state]) if span.state else TraceState()
    trace_id, is_server = int(span.trace_id, 16), span.kind == SERVER
    parent = SpanContext(trace_id, int(span.parent_id, 16), is_server, FLAGS) if span.parent_id else None
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=FLAGS, trace_state=state),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        events=[Event(one.name, one.attributes, one.time) for one in span.events],
        kind=SpanKind.SERVER if is_server else SpanKind.CLIENT,
        status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
        start_time=span.start,
        end_time=max(span.end, span.start),
        instrumentation_scope=SCOPE,
    )
