"""TLS towards servers: one context per set of files, built before the first call."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

Stamp = tuple[int, int] | None


def context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """The client context for these files; the same object as long as they do not change on disk.

    Args:
        ca: certificates that sign the server's, PEM; None trusts the system's.
        cert: our own certificate chain for mutual TLS, PEM; None sends none.
        key: the private key of `cert`, PEM, unencrypted; None where `cert` contains it.

    Raises:
        ValueError: a file cannot be read or does not hold what it should.
    """
    return _context((ca, cert, key), (_stamp(ca), _stamp(cert), _stamp(key)))


def _stamp(path: str | None) -> Stamp:
    if path is None:
        return None
    try:
        state = Path(path).stat()
    except OSError as wrong:
        raise ValueError(f"tls: cannot read {path}: {wrong.strerror}") from None
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=256)
def _context(files: tuple[str | None, str | None, str | None], _stamps: tuple[Stamp, Stamp, Stamp]) -> ssl.SSLContext:
    ca, cert, key = files
    try:
        made = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise ValueError(f"tls: {ca} holds no usable CA certificate") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        try:
            # An empty password keeps OpenSSL from asking the terminal for one.
            made.load_cert_chain(cert, key, password="")
        except (OSError, ssl.SSLError):
            raise ValueError(f"tls: {cert} and {key or cert} are not a certificate with its key") from None
    return made
