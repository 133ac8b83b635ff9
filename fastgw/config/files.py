"""The files that one reading of the configuration opens, and whether they are still what they were then."""

from __future__ import annotations

import glob
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR


class ConfigFiles:
    """What one reading has opened so far; of contents only hashes are kept, since some are secrets.

    `read_at` is when it began, in Unix seconds.
    """

    def __init__(self) -> None:
        self.read_at = time.time()
        self._hashes: dict[Path, bytes] = {}
        self._found: dict[str, list[str]] = {}
        self._absent: set[Path] = set()

    def optional(self, path: Path) -> bytes | None:
        """The bytes of a file that there need not be, None where there is none. Raises as `content`."""
        try:
            return self.content(path)
        except FileNotFoundError:
            self._absent.add(path)
            return None

    def content(self, path: Path) -> bytes:
        """The bytes of a file.

        Raises:
            OSError, ValueError: it cannot be read; a change is then that it can.
        """
        self._hashes[path] = b""
        text = path.read_bytes()
        self._hashes[path] = hashlib.sha256(text).digest()
        return text

    def fingerprint(self, *paths: str | None) -> str:
        """Of the contents of these files, in order; None and files that cannot be read have none."""
        found = hashlib.sha256()
        for path in paths:
            with suppress(OSError, ValueError):
                found.update(b"-" if path is None else hashlib.sha256(self.content(Path(path))).digest())
        return found.hexdigest()[:16]

    def matching(self, pattern: str) -> list[str]:
        """The files that fit a pattern of the shell, in the order of their names."""
        self._found[pattern] = found = _matching(pattern)
        return found

    @property
    def names(self) -> list[str]:
        """Every file there was, the main one first."""
        return [str(path) for path in self._hashes if path not in self._absent]

    def changed(self) -> bool:
        """Whether a reading now would find other bytes or other files; reads all of them."""
        return any(_hash(path) != was for path, was in self._hashes.items()) or any(
            _matching(pattern) != found for pattern, found in self._found.items()
        )

    def now(self) -> dict[Path, bytes]:
        """What there is now, as far as this reading got; equal while nobody writes."""
        found = [Path(name) for pattern in self._found for name in _matching(pattern)]
        return {path: _hash(path) for path in (*self._hashes, *found)}

    def folders(self) -> dict[str, int]:
        """The folders, of those that exist, in which a change of these files is an event; which ones, by inode.

        A file is looked for where it is named, for a rename or a link that leads elsewhere from now on, and where the
        links lead.
        """
        places = {path.parent for path in self._hashes}
        places |= {Path(os.path.realpath(path)).parent for path in self._hashes}
        places |= {Path(pattern).parent for pattern in self._found}
        found = {}
        for place in places:
            with suppress(OSError):
                known = place.stat()
                if S_ISDIR(known.st_mode):
                    found[str(place)] = known.st_ino
        return found


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - an absolute pattern is no Path.glob


def _hash(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except (OSError, ValueError):
        return b""
