"""The master secrets that sessions and cursors are sealed under."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

FILE = "secret"


class BadSecret(OSError):
    """The kept secret cannot be used; its text is fit for the user."""


def sealing_keys(configured: tuple[str, ...], data: Path) -> tuple[bytes, ...]:
    """The secrets, first seals, all open.

    Args:
        configured: values of `secret` in the configuration.
        data: folder in which one is made and kept when none is configured.

    Raises:
        OSError: the folder cannot be written.
        BadSecret: the kept secret is shorter than 32 bytes.
    """
    if configured:
        return tuple(value.encode() for value in configured)
    return (_kept(data),)


def _kept(data: Path) -> bytes:
    path = data / FILE
    if not path.exists():
        _make(path)
    found = path.read_bytes()
    if len(found) < 32:
        raise BadSecret(f"{path} is too short for a secret; restore it, or remove it and end all sessions")
    return found


def _make(path: Path) -> None:
    """Write the whole secret under another name and link it: of several that start at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()
