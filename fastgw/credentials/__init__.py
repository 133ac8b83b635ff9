"""Our credentials towards servers, as header lines."""

from __future__ import annotations

from base64 import b64encode

from fastgw.config.schema.servers import CredentialSettings


def header_lines(credential: CredentialSettings) -> bytes:
    """The header lines of a static credential, each ended by CRLF; none for one that is not static (oauth).

    Values that do not fit on a line were refused when the configuration was read. Bearer as in RFC 6750, section 2.1;
    basic as in RFC 7617 with UTF-8.
    """
    if credential.bearer is not None:
        return b"Authorization: Bearer " + credential.bearer.encode("latin-1") + b"\r\n"
    if credential.basic is not None:
        pair = f"{credential.basic.username}:{credential.basic.password}"
        return b"Authorization: Basic " + b64encode(pair.encode()) + b"\r\n"
    lines = (f"{name}: {value}\r\n" for name, value in (credential.header or {}).items())
    return "".join(lines).encode("latin-1")
