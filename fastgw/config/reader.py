"""A configuration file as `Settings`, or everything that is wrong with it."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from fastgw.catalog.pins import BadLock, Lock, load_lock
from fastgw.config.certificates import ListenerTls, listener_tls
from fastgw.config.checks import crosscheck
from fastgw.config.composer import compose
from fastgw.config.error_messages import complaints_of, foreign
from fastgw.config.files import ConfigFiles
from fastgw.config.references import fill, resolve
from fastgw.config.schema.settings import Settings
from fastgw.config.tree import ConfigError, ConfigProblem, Position, YamlEntry, entry_at, locate_key

NAMED = ("agents", "identity", "servers", "endpoints", "tools")
LISTED = ("policies", "limits", "quotas")


class ReadConfig(NamedTuple):
    """A configuration and where each of its values stands; the contents of the files of `tls`."""

    settings: Settings
    root: YamlEntry
    tls: ListenerTls | None = None


def read_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of `read`, which raises the same."""
    return read(path, environ).settings


def read(path: Path, environ: Mapping[str, str], files: ConfigFiles | None = None) -> ReadConfig:
    """The settings in `path`, with the places of their values; `files` takes down what is opened, also where it fails.

    Raises:
        ConfigError: the file cannot be used; all complaints in order.
    """
    files = files or ConfigFiles()
    root = _top(path, files)
    complaints = [*_include(root, environ, files), *_absent(root), *resolve(root, environ, files), *foreign(root)]
    try:
        settings = Settings.model_validate({"data": str(path.absolute().parent / "data"), **root.plain()})
    except ValidationError as error:
        complaints.extend(complaints_of(error, root))
    if not complaints:
        for server in settings.servers.values():
            if server.tls is not None:
                server.tls.note(files.fingerprint(server.tls.ca, server.tls.cert, server.tls.key))
        tls = listener_tls(settings.tls, files)
        complaints.extend(crosscheck(settings, root))
    lock: Lock = {}
    try:
        lock = read_lock(lock_path(path), files)
    except ConfigError as wrong:
        complaints.extend(wrong.complaints)
    if complaints:
        # The first complaint of each place: what follows from it is noise.
        raise ConfigError(*{one.position: one for one in reversed(complaints)}.values())
    # Each address knows how it stands in the file: what came by reference may be a secret and is never shown.
    for name, server in settings.servers.items():
        for at, instance in enumerate(server.url):
            instance.note(entry_at(root, ("servers", name, "url", at, "url")).written)
    scalars = [one for _, one in root.walk() if isinstance(one.content, str)]
    settings.note({str(one.content): one.written for one in scalars if "${" in one.written.replace("$${", "")}, lock)
    return ReadConfig(settings, root, tls)


def lock_path(path: Path) -> Path:
    """Where the lock of a configuration is: `fastgw.lock` of `fastgw.yaml`."""
    return path.with_suffix(".lock")


def read_lock(path: Path, files: ConfigFiles | None = None) -> Lock:
    """What a lock file pins; nothing where there is none. Raises ConfigError."""
    try:
        text = (files or ConfigFiles()).optional(path)
        return load_lock(text) if text is not None else {}
    except BadLock as wrong:
        raise ConfigError(ConfigProblem(Position(str(path), wrong.line, 1), str(wrong))) from None
    except OSError as wrong:
        raise ConfigError(ConfigProblem(Position(str(path), 1, 1), f"cannot be read: {wrong.strerror}")) from None


def _top(path: Path, files: ConfigFiles) -> YamlEntry:
    """The tree of one file, which is a map."""
    try:
        raw = files.content(path)
        root = compose(raw.decode("utf-8").removeprefix("\ufeff"), str(path))
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8")
        place = Position(str(path), good.count("\n") + 1, len(good) - good.rfind("\n"))
        raise ConfigError(ConfigProblem(place, "is not UTF-8")) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(ConfigProblem(Position(str(path), 1, 1), f"cannot be read: {reason}")) from None
    if not isinstance(root.content, dict):
        raise ConfigError(ConfigProblem(root.position, "the file must be a map of settings"))
    return root


def _absent(root: YamlEntry) -> Iterator[ConfigProblem]:
    """A key without a value is refused: `policies:` with all its lines commented out must not open every door.

    Inside `fixed` and `defaults` of a tool a written `null` is the JSON value.
    """
    for path, entry in root.walk():
        if entry.content is None and not str(path[0]).startswith("x-"):
            argument = len(path) > 3 and path[0] == "tools" and path[2] in ("fixed", "defaults")
            if not (argument and entry.written):
                yield ConfigProblem(entry.position, f'"{path[-1]}" has no value: write one, or leave the key out')


def _include(root: YamlEntry, environ: Mapping[str, str], files: ConfigFiles) -> Iterator[ConfigProblem]:
    path, wanted = Path(root.position.file), root.child("include")
    for pattern in wanted.content if wanted and isinstance(wanted.content, list) else [wanted]:
        if pattern is None or not isinstance(pattern.content, str):
            continue
        try:
            name = fill(pattern.content, pattern.position.file, environ, files)
        except ValueError:
            continue  # `resolve` complains about it
        found = files.matching(str(path.parent / name))
        if not found and not glob.has_magic(name):
            yield ConfigProblem(pattern.position, f"there is no file {name}")
        for file in found:
            if Path(file).resolve() != path.resolve():
                yield from _add(root, _top(Path(file), files))


def _add(root: YamlEntry, more: YamlEntry) -> Iterator[ConfigProblem]:
    """Take the settings of another file into `root`; a name given twice is refused with both places."""
    if more.child("include"):
        raise ConfigError(ConfigProblem(locate_key(more, ("include",)), "include stands in the first file only"))
    assert isinstance(root.content, dict) and isinstance(more.content, dict)
    for key, entry in more.content.items():
        have = root.content.get(key)
        if have is None:
            root.content[key] = replace(entry)
        elif key in NAMED and isinstance(have.content, dict) and isinstance(entry.content, dict):
            yield from (_twice(have, entry, name) for name in entry.content.keys() & have.content.keys())
            have.content = entry.content | have.content
        elif key in LISTED and isinstance(have.content, list) and isinstance(entry.content, list):
            have.content = have.content + entry.content
        elif not key.startswith("x-"):
            yield _twice(root, more, key)


def _twice(first: YamlEntry, second: YamlEntry, key: str) -> ConfigProblem:
    place = locate_key(first, (key,))
    return ConfigProblem(locate_key(second, (key,)), f'"{key}" stands twice; first at {place}')
