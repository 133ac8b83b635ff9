"""The last catalogue of every server, kept over a restart: names must not depend on who is up.

Knows: files under `data/catalogue`, one for each server. They hold no URLs: those may carry secrets.
Refuses to know: when a catalogue is good to use.
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
from fastgw.mcp.envelope import emit, members

log = logging.getLogger("fastgw")

Eras = dict[str, tuple[str, str]]
"""Instance key to (era, revision)."""


def store(folder: Path, catalogue: Catalogue, eras: Eras) -> None:
    """Write one server's file, readable by its owner only; the one before is there until the new one is whole.

    Raises:
        OSError: it could not be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _path(folder, catalogue.server)
    new = path.with_suffix(".new")
    text = emit({"eras": orjson.dumps({_alias(key): era for key, era in eras.items()}), "catalogue": dump(catalogue)})
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(text)
    new.replace(path)


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


def _alias(instance: str) -> str:
    return sha256(instance.encode()).hexdigest()


def _path(folder: Path, server: str) -> Path:
    return folder / (quote(server, safe="").replace(".", "%2E") + ".json")
