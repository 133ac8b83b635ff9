"""Certificates in files: those of `tls`, as the listener of agents shows them, read once, so that what was checked is
what is served; and until when certificates are good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgw.config.files import ConfigFiles
from fastgw.config.schema.settings import TlsSettings


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """The contents of the files, PEM: the chain of the certificate, its key, and the CAs of agents' certificates (None:
    agents need none).
    """

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


def listener_tls(tls: TlsSettings | None, files: ConfigFiles) -> ListenerTls | None:
    """What `tls` names, noted in `files`, so that a change of it is a change of the configuration. None without `tls`,
    and where a file cannot be read, of which `checks` complains.
    """
    found: list[bytes | None] = []
    for path in (tls.cert, tls.key, tls.client_ca) if tls is not None else ():
        try:
            found.append(files.content(Path(path)) if path is not None else None)
        except (OSError, ValueError):
            found.append(None)
    if not found or found[0] is None or found[1] is None:
        return None
    return ListenerTls(found[0], found[1], found[2])


@lru_cache(maxsize=256)
def ends(pem: bytes) -> tuple[float, ...]:
    """When each certificate in a PEM text expires, in Unix seconds. Raises ValueError where it holds none."""
    x509: Any = import_module("cryptography.x509")  # takes 50 ms, and few have certificates
    return tuple(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(pem))


def expiries(tls: ListenerTls | None) -> dict[str, float]:
    """By `cert`, the first of the chain that expires, and `client_ca`, the last one of the file: Unix seconds."""
    texts = {} if tls is None else {"cert": (tls.cert, min), "client_ca": (tls.client_ca or b"", max)}
    found = {}
    for kind, (text, which) in texts.items():
        try:
            found[kind] = which(ends(text))
        except ValueError:
            continue
    return found
