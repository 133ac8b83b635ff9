"""A configuration file as `Settings`, or everything that is wrong with it."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fastgw.config.checks import crosscheck
from fastgw.config.complaint import ConfigError, ConfigProblem, complaint_at
from fastgw.config.composer import compose
from fastgw.config.error_messages import complaints_of
from fastgw.config.foreign import foreign
from fastgw.config.references import fill, resolve
from fastgw.config.schema.settings import Settings
from fastgw.config.tree import Path as Path_
from fastgw.config.tree import Position, YamlEntry, value_at

LARGEST = 16 * 2**20
"""Bytes of one configuration file."""
NAMED = ("agents", "identity", "servers", "endpoints", "tools")
LISTED = ("policies", "limits", "quotas")


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A configuration and where each of its values stands."""

    settings: Settings
    root: YamlEntry


def read_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings in `path`.

    Raises:
        ConfigError: the file cannot be used; all complaints in order.
    """
    return read(path, environ).settings


def read(path: Path, environ: Mapping[str, str]) -> ReadConfig:
    """The settings in `path`, with the places of their values.

    Raises:
        ConfigError: the file cannot be used; all complaints in order.
    """
    root = _top(path)
    complaints = [*_include(root, path, environ), *_absent(root), *resolve(root, environ), *foreign(root)]
    values = {key: value for key, value in root.plain().items() if not key.startswith("x-")}
    values.setdefault("data", str(path.absolute().parent / "data"))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_once([*complaints, *complaints_of(error, root)])) from None
    if complaints:
        raise ConfigError(_once(complaints))
    if complaints := list(crosscheck(settings, root)):
        raise ConfigError(_once(complaints))
    _note_urls(settings, root)
    return ReadConfig(settings, root)


def _note_urls(settings: Settings, root: YamlEntry) -> None:
    """Tell each address how it stands in the file: what came by reference may be a secret and is never shown."""
    for name, server in settings.servers.items():
        for at, instance in enumerate(server.url):
            entry = value_at(root, ("servers", name, "url", at, "url"))
            instance.note(entry.written if entry is not None else "")


def _once(complaints: list[ConfigProblem]) -> list[ConfigProblem]:
    """The first complaint of each place: what follows from it is noise."""
    first: dict[tuple[str, int, int], ConfigProblem] = {}
    for one in complaints:
        first.setdefault((one.file, one.line, one.column), one)
    return list(first.values())


def _top(path: Path) -> YamlEntry:
    root = compose(_text(path), str(path))
    if not isinstance(root.content, dict):
        raise ConfigError([complaint_at(root.position, "the file must be a map of settings")])
    return root


def _text(path: Path) -> str:
    start = Position(str(path), 1, 1)
    try:
        with path.open("rb") as source:
            raw = source.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([complaint_at(start, f"cannot be read: {reason}")]) from None
    if len(raw) > LARGEST:
        raise ConfigError([complaint_at(start, "is larger than 16 MiB")])
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8")
        place = Position(str(path), good.count("\n") + 1, len(good) - (good.rfind("\n") + 1) + 1)
        raise ConfigError([complaint_at(place, "is not UTF-8")]) from None


def _absent(root: YamlEntry) -> Iterator[ConfigProblem]:
    """A key without a value is refused: `policies:` with all its lines commented out must not open every door."""
    for path, entry in root.walk():
        if entry.content is None and not str(path[0]).startswith("x-") and not _may_be_null(path, entry):
            yield complaint_at(entry.position, f'"{path[-1]}" has no value: write one, or leave the key out')


def _may_be_null(path: Path_, entry: YamlEntry) -> bool:
    """Inside `fixed` and `defaults` of a tool a written `null` is the JSON value."""
    return len(path) > 3 and path[0] == "tools" and path[2] in ("fixed", "defaults") and bool(entry.written)


def _include(root: YamlEntry, path: Path, environ: Mapping[str, str]) -> Iterator[ConfigProblem]:
    wanted = root.child("include")
    for pattern in wanted.content if wanted and isinstance(wanted.content, list) else [wanted]:
        if pattern is None or not isinstance(pattern.content, str):
            continue
        try:
            name = fill(pattern.content, pattern.position.file, environ)
        except ValueError:
            continue  # `resolve` complains about it
        found = sorted(glob.glob(str(path.parent / name), recursive=True))  # noqa: PTH207 - an absolute pattern is no Path.glob
        if not found and not glob.has_magic(name):
            yield complaint_at(pattern.position, f"there is no file {name}")
        for file in found:
            if Path(file).resolve() != path.resolve():
                yield from _add(root, _included(Path(file)))


def _included(path: Path) -> YamlEntry:
    more = _top(path)
    if (place := more.keys.get("include")) is not None:
        raise ConfigError([complaint_at(place, "include stands in the first file only")])
    return more


def _add(root: YamlEntry, more: YamlEntry) -> Iterator[ConfigProblem]:
    """Take the settings of another file into `root`; a name given twice is refused with both places."""
    settings = root.content if isinstance(root.content, dict) else {}
    for key, entry in more.content.items() if isinstance(more.content, dict) else ():
        have = settings.get(key)
        if have is None:
            settings[key] = YamlEntry(entry.position, entry.content, dict(entry.keys), entry.weight, entry.written)
            root.keys[key] = more.keys[key]
        elif key in NAMED and isinstance(have.content, dict) and isinstance(entry.content, dict):
            for name in entry.content.keys() & have.content.keys():
                yield complaint_at(entry.keys[name], f'"{name}" stands twice; first at {have.keys[name]}')
            have.content = entry.content | have.content
            have.keys = entry.keys | have.keys
        elif key in LISTED and isinstance(have.content, list) and isinstance(entry.content, list):
            have.content = have.content + entry.content
        elif not key.startswith("x-"):
            yield complaint_at(more.keys[key], f'"{key}" stands twice; first at {root.keys[key]}')
