"""What is kept over a restart: the last catalogue of every server, since names must not depend on who is up, and shared
sessions, since some servers never give a second one.

Files hold no URLs, which may carry secrets, and are readable by their owner only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import orjson

from fastgw.catalog.tools import Catalogue, dump, load
from fastgw.protocol.envelope import emit, members
from fastgw.upstream.controller import UpstreamSession

log = logging.getLogger("fastgw")

Eras = dict[str, tuple[str, str]]
"""Instance key to (era, revision)."""


def store(folder: Path, catalogue: Catalogue, eras: Eras) -> None:
    """Write one server's file; raises OSError."""
    text = emit({"eras": orjson.dumps({hashed(key): era for key, era in eras.items()}), "catalogue": dump(catalogue)})
    write_private(_path(folder, catalogue.server), text)


def recall(folder: Path, server: str, instances: Iterable[str]) -> tuple[Catalogue, Eras] | None:
    """What was kept of a server and of these instances; None where there is nothing, or nothing that can be used."""
    try:
        found = members(_path(folder, server).read_bytes())
        catalogue = load(found["catalogue"])
        kept = {str(alias): (str(era), str(version)) for alias, (era, version) in orjson.loads(found["eras"]).items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        log.warning("the kept catalogue of %s is not used: %s", server, wrong)
        return None
    eras = {key: kept[hashed(key)] for key in instances if hashed(key) in kept}
    return (catalogue, eras) if catalogue.server == server else None


class KeptSessions:
    """The shared session of each instance; whether one of an earlier run is good its server will tell."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions: dict[str, tuple[str, str]] = {}
        try:
            found = orjson.loads(path.read_bytes())
            self._sessions = {alias: (str(name), str(version)) for alias, (name, version) in found.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as wrong:
            log.warning("the kept sessions are not used: %s", wrong)

    def get(self, instance: str) -> UpstreamSession | None:
        found = self._sessions.get(hashed(instance))
        return UpstreamSession(*found) if found is not None else None

    def put(self, instance: str, session: UpstreamSession) -> None:
        """Keep a session; where it cannot be written, the log says so."""
        self._sessions[hashed(instance)] = (session.id, session.version)
        try:
            write_private(self._path, orjson.dumps(self._sessions))
        except OSError as wrong:
            log.warning("shared sessions could not be kept: %s", wrong)


def write_private(path: Path, text: bytes) -> None:
    """Write a file for its owner only; raises OSError. The file before is there until the new one is whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(text)
    new.replace(path)


def hashed(instance: str) -> str:
    """What stands in files for an instance's key."""
    return sha256(instance.encode()).hexdigest()


def _path(folder: Path, server: str) -> Path:
    return folder / (quote(server, safe="").replace(".", "%2E") + ".json")
