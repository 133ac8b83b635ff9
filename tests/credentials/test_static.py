"""Static credentials as header lines."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.config.schema.servers import CredentialSettings
from fastgw.credentials import header_lines


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ({"bearer": "t0ken"}, b"Authorization: Bearer t0ken\r\n"),
        # The example of RFC 7617, section 2.
        (
            {"basic": {"username": "Aladdin", "password": "open sesame"}},
            b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n",
        ),
        ({"header": {"X-Api-Key": "k", "X-Tenant": "5"}}, b"X-Api-Key: k\r\nX-Tenant: 5\r\n"),
        ({"oauth": {"token_url": "https://h/", "client_id": "c", "client_secret": "s"}}, b""),
    ],
)
def test_lines(written: dict[str, Any], lines: bytes) -> None:
    assert header_lines(CredentialSettings.model_validate(written)) == lines


@pytest.mark.parametrize("value", ["a\r\nX-Evil: b", "a\nb", "a\x00b", " a", "a ", "\u20ac"])
def test_values_that_would_leave_their_line_are_refused(value: str) -> None:
    for written in ({"bearer": value}, {"header": {"X-Key": value}}):
        with pytest.raises(ValueError, match="must not"):
            CredentialSettings.model_validate(written)
