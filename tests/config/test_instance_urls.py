from __future__ import annotations

import pytest

from fastgw.config.instance_urls import instance_key, label, origin


@pytest.mark.parametrize(
    ("url", "place", "shown"),
    [
        ("http://h:9001/s/hush/mcp?key=hush", "h:9001", "http://h:9001"),
        ("https://h/hush", "h:443", "https://h:443"),
        ("http://h?hush|a", "h:80", "http://h:80"),
        ("http://[::1]:9/hush", "[::1]:9", "http://[::1]:9"),
        ("https://hush:hush@h/", "h:443", "https://h:443"),
    ],
)
def test_of_an_address_only_scheme_host_and_port_are_told(url: str, place: str, shown: str) -> None:
    assert label(instance_key("shop", url)) == f"shop at {place}"
    assert origin(url) == shown
