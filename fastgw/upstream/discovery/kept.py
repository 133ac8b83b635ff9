"""What is kept over a restart: the last catalogue of every server, since names must not depend on who is up, and shared
sessions, since some servers never give a second one.

They hold no URLs: those may carry secrets.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import orjson

from fastgw.catalog.tools import Catalogue, dump, load
from fastgw.ports import UpstreamSession
from fastgw.protocol.envelope import emit, members

log = logging.getLogger("fastgw")

Eras = dict[str, tuple[str, str]]
"""Instance key to (era, revision)."""


def store(folder: Path, catalogue: Catalogue, eras: Eras) -> None:
    """Write one server's file, readable by its owner only; the one before is there until the new one is whole.

    Raises:
        OSError: it could not be written.
    """
    text = emit({"eras": orjson.dumps({_alias(key): era for key, era in eras.items()}), "catalogue": dump(catalogue)})
    _write(_path(folder, catalogue.server), text)


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
    eras = {key: kept[_alias(key)] for key in instances if _alias(key) in kept}
    return (catalogue, eras) if catalogue.server == server else None


def store_sessions(path: Path, sessions: Mapping[str, UpstreamSession]) -> None:
    """Write down the shared sessions, by instance, readable by their owner only.

    Raises:
        OSError: they could not be written.
    """
    _write(path, orjson.dumps({_alias(key): [one.id, one.version] for key, one in sessions.items()}))


def recall_sessions(path: Path, instances: Iterable[str]) -> dict[str, UpstreamSession]:
    """The shared sessions of these instances that were kept; whether they are good their servers will tell."""
    try:
        found = orjson.loads(path.read_bytes())
        known = {key: found[_alias(key)] for key in instances if _alias(key) in found}
        return {key: UpstreamSession(str(name), str(version)) for key, (name, version) in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as wrong:
        log.warning("the kept sessions are not used: %s", wrong)
        return {}


def _write(path: Path, text: bytes) -> None:
    """Write a file readable by its owner only; the one before is there until the new one is whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(text)
    new.replace(path)


def _alias(instance: str) -> str:
    return sha256(instance.encode()).hexdigest()


def _path(folder: Path, server: str) -> Path:
    return folder / (quote(server, safe="").replace(".", "%2E") + ".json")
