"""Where usage events and alerts go: what must be written, said when it is read and not when something waits."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fastgw.config.schema.settings import AlertSettings, SinkSettings, signing_key


@pytest.mark.parametrize(
    "url",
    [
        "stdout",
        "file:a@b",
        "file:///var/log/events",
        "redis://h/events",
        "rediss://[::1]:6380/3/usage%20events?maxlen=1000000",
        "otlp://h",
        "otlps://h:4318/otel",
        "clickhouse://h",
        "clickhouses://h:8443/u.usage_events",
        "http://h/in?source=fastgw",
    ],
)
def test_taken(url: str) -> None:
    assert SinkSettings(url=url).url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://h/topic", "must be stdout, file:path"),
        ("redis://h", "must be stdout, file:path"),
        ("redis://u:hush@h/s", "must not carry a password"),
        ("otlp://:4318", "must have a host"),
        ("clickhouse://h:81234", "must have a host, and a port"),
        ("http://h:x/y", "must have a host, and a port"),
        ("redis://h/x/events", "with the number of a database"),
        ("redis://h/0/", "must end in /stream"),
        ("redis://h/events?maxlen=0", "may have .maxlen=number"),
        ("redis://h/events?ttl=5", "may have .maxlen=number"),
    ],
)
def test_refused(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SinkSettings(url=url)


def test_secrets_of_alerts() -> None:
    taken = AlertSettings(webhook="https://h/x", secret=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "sixteen letters."))
    assert [len(signing_key(one)) for one in taken.secret] == [24, 16]
    assert AlertSettings(webhook="https://h/x").secret == ()
    for secret in ("fifteen letters", "whsec_MfKQ9r8GKYqrTwjUPD8I"):
        with pytest.raises(ValidationError, match="at least 16"):
            AlertSettings(webhook="https://h/x", secret=secret)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="must be base64"):
        AlertSettings(webhook="https://h/x", secret="whsec_not base64 at all")  # type: ignore[arg-type]
