"""Whether the files of a server's `tls` are what they must be, before the first call needs them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from fastgw.config.schema.servers import ServerTlsSettings


def unusable(tls: ServerTlsSettings) -> Iterator[tuple[str, str]]:
    """The keys of `tls` whose files cannot be used, each with the reason."""
    files = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
    reasons = {key: _unreadable(path) for key, path in files.items() if path is not None}
    if tls.ca is not None and reasons["ca"] is None:
        reasons["ca"] = None if _holds_certificates(tls.ca) else f"{tls.ca} holds no certificate (PEM)"
    if tls.cert is not None and tls.key is not None and reasons["cert"] is None and reasons["key"] is None:
        reasons.update(_pair(tls.cert, tls.key))
    yield from ((key, reason) for key, reason in reasons.items() if reason is not None)


def _unreadable(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        return f"the file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None


def _holds_certificates(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        return False
    return True


def _pair(cert: str, key: str) -> dict[str, str | None]:
    """What is wrong with a certificate and its key, both readable."""
    try:
        # An empty password keeps OpenSSL from asking the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError):
        if not _holds_certificates(cert):
            return {"cert": f"{cert} holds no certificate (PEM)"}
        return {"key": f"{key} is not the key of this certificate (PEM, unencrypted)"}
    return {}
