"""Sinks over TLS, by a CA of the test's own: verified, and never delivered to whoever cannot show its certificate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, make_sink
from tests.limits.tls_proxy import TlsProxy
from tests.limits.valkeys import Valkey
from tests.usage.sinks.receivers import HttpReceiver, event

OVER_HTTP = ("https", "otlps", "clickhouses")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path_factory.mktemp("receiver")) as started:
        yield started


@pytest.fixture(scope="module")
def before_http(receiver: HttpReceiver) -> Iterator[TlsProxy]:
    with TlsProxy(receiver.port) as proxy:
        yield proxy


def deliver(scheme: str, host: str, port: int, path: str = "/x") -> None:
    sink = make_sink(
        SinkSettings.model_validate({"url": f"{scheme}://{host}:{port}{path}", "password": "hush"}), Path()
    )
    try:
        sink.deliver([event(1)])
    finally:
        sink.close()


@pytest.mark.parametrize("scheme", OVER_HTTP)
def test_who_shows_a_certificate_of_a_known_authority_gets_events(
    scheme: str, receiver: HttpReceiver, before_http: TlsProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(before_http.ca))
    before = len(receiver.requests())
    deliver(scheme, "localhost", before_http.port)
    (request,) = receiver.requests()[before:]
    assert "req_1" in json.dumps(request.body)


@pytest.mark.parametrize("scheme", OVER_HTTP)
@pytest.mark.parametrize("known", [False, True], ids=["unknown authority", "another name"])
def test_who_does_not_gets_none(
    scheme: str,
    receiver: HttpReceiver,
    before_http: TlsProxy,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
) -> None:
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(before_http.ca))
    before = len(receiver.requests())
    host = "127.1" if known else "localhost"  # which is 127.0.0.1 under a name that no certificate has
    with pytest.raises(SinkDown, match="CERTIFICATE_VERIFY_FAILED") as told:
        deliver(scheme, host, before_http.port)
    assert "hush" not in str(told.value)
    assert receiver.requests()[before:] == []


def test_a_receiver_without_tls_gets_none(receiver: HttpReceiver) -> None:
    before = len(receiver.requests())
    with pytest.raises(SinkDown, match="SSL"):
        deliver("https", "localhost", receiver.port)
    assert receiver.requests()[before:] == []


def test_a_redis_shows_its_certificate_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with Valkey(requirepass="hush") as server, TlsProxy(server.port) as proxy:
        with pytest.raises(SinkDown, match="CERTIFICATE_VERIFY_FAILED"):
            deliver("rediss", "localhost", proxy.port, "/events")
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.ca))
        deliver("rediss", "localhost", proxy.port, "/events")
        assert server.ask("XLEN", "events") == 1
