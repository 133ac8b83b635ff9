"""Whether the embedded server takes a certificate. It ends the whole process over one that it does not take, at a start
and in the middle of calls, so that is tried in a process of its own: this file is its program, too.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

if TYPE_CHECKING:
    from fastgw.config.certificates import ListenerTls

TRIED_WITHIN = 20.0
"""Seconds for the trial, which takes half of one."""
OLDEST = "tls1.2"
"""The least version of TLS that agents may speak."""
_REASON = re.compile(r"Err` value: (.+)")
_WORDS = {
    "UnsupportedCertVersion": "it is one of X.509 version 1; version 3 is needed",
    "failed to parse private key": "its key is none of RSA of 2048 to 4096 bits, P-256, P-384 and Ed25519",
    "NoRootAnchors": "client_ca holds no certificate",
}
"""What the server says, and what that means."""

TlsFiles = tuple[bool, str, str, None, str, str | None, list[str], bool]
"""What the embedded server has as `ssl_ctx`."""


def tls_files(paths: list[str]) -> TlsFiles:
    """Of the paths of certificate, key and, where agents must show a certificate, the CAs of theirs."""
    client_ca = paths[2] if len(paths) > 2 else None
    return True, paths[0], paths[1], None, OLDEST, client_ca, [], client_ca is not None


def held(tls: ListenerTls) -> list[IO[bytes]]:
    """The same in files without a name, as long as these are open: no key is left on a disk."""
    found: list[IO[bytes]] = []
    for content in (tls.cert, tls.key, tls.client_ca):
        if content is not None:
            found.append(os.fdopen(os.memfd_create("tls"), "wb", buffering=0))
            found[-1].write(content)
    return found


def path_of(file: IO[bytes]) -> str:
    """By which this process, and a child that has inherited it, opens a file without a name."""
    return f"/proc/self/fd/{file.fileno()}"


def refused(tls: ListenerTls) -> str:
    """Why the embedded server does not take it; empty where it does."""
    try:
        said = _said(tls)
    except (OSError, subprocess.SubprocessError) as wrong:  # which may be otherwise the next time
        return f"it could not be tried: {wrong}"
    return next((words for sign, words in _WORDS.items() if sign in said), said)


@lru_cache(maxsize=8)
def _said(tls: ListenerTls) -> str:
    files = held(tls)
    # `-P`: the modules beside this file are not to be found in place of others.
    command = [sys.executable, "-P", __file__, *map(path_of, files)]
    numbers = [file.fileno() for file in files]
    try:
        tried = subprocess.run(command, pass_fds=numbers, capture_output=True, timeout=TRIED_WITHIN, check=False)
    finally:
        for file in files:
            file.close()
    if tried.returncode == 0:
        return ""
    said = tried.stderr.decode(errors="replace")
    reason = _REASON.search(said)
    return reason[1] if reason else said.strip().rpartition("\n")[2] or f"the trial ended with {tried.returncode}"


async def _try(paths: list[str]) -> None:
    server = Server(_application, "127.0.0.1", 0, interface=Interfaces.ASGINL, http=HTTPModes.http1, log_enabled=False)
    server.ssl_ctx = tls_files(paths)  # type: ignore[assignment]
    server.stop()  # type: ignore[no-untyped-call]  # as soon as it has begun
    await server.serve()


async def _application(*_: Any) -> None:
    """Nobody calls."""


if __name__ == "__main__":
    asyncio.run(_try(sys.argv[1:]))
