"""One change of a configuration file that commands make: when an API key expires.

Only the characters of that entry change; comments and everything else stay. A file in which the entry is written in a
way that this does not know is left alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fastgw.config.composer import compose
from fastgw.config.tree import ConfigError, Position, YamlEntry, entry_at

BOM = "\ufeff"


class UnusualForm(Exception):
    """The entry is written in a way in which only a person can change it."""


def with_expiry(text: str, file: str, key: tuple[str, int], expires: str) -> str:
    """The text of a configuration file in which a key expires then, the rest to the letter as it was.

    Args:
        key: name of the agent, and place of the key in its list.
        expires: a day, or a time with its zone, as the configuration has it.

    Raises:
        UnusualForm: by an alias, over several lines, by a reference, or otherwise not as text that is simply there.
    """
    bare = text.removeprefix(BOM)
    root = compose(bare, file)
    entry = entry_at(root, ("agents", key[0], "key", key[1]))
    changed = _changed(bare, entry, expires)
    try:
        same = compose(changed, file).plain() == _wanted(root.plain(), key, expires)
    except ConfigError:
        same = False
    if not same:
        raise UnusualForm
    return text[: len(text) - len(bare)] + changed


def replace_file(path: Path, text: str) -> None:
    """Put `text` in place of a file at once, by the same owner and mode; through a link, of the file it leads to.

    Raises:
        OSError: that cannot be done; the file is as it was.
    """
    path = path.resolve()
    was, new = path.stat(), path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with new.open("x", encoding="utf-8", newline="") as file:
            os.fchmod(file.fileno(), was.st_mode & 0o7777)
            if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), was.st_uid, was.st_gid)  # the gateway must be able to read it as before
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _changed(text: str, entry: YamlEntry, expires: str) -> str:
    """Raises UnusualForm where what must be changed is not found as it should stand there; others are seen after."""
    if not isinstance(entry.content, dict):
        begin, end = _span(text, entry)
        digits = entry.written.removeprefix("sha256:")
        return f"{text[:begin]}{{sha256: {digits}, expires: {expires}}}{text[end:]}"
    if (before := entry.child("expires")) is not None:
        begin, end = _span(text, before)
        return text[:begin] + expires + text[end:]
    hashed = entry.child("sha256")
    if hashed is None or hashed.key is None:
        raise UnusualForm
    _, end = _span(text, hashed)
    if text.startswith("{", _index(text, entry.position)):
        return f"{text[:end]}, expires: {expires}{text[end:]}"
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    ending = "\r\n" if text.endswith("\r", 0, line_end) else "\n"
    line_end -= len(ending) - 1
    return f"{text[:line_end]}{ending}{' ' * (hashed.key.column - 1)}expires: {expires}{text[line_end:]}"


def _span(text: str, entry: YamlEntry) -> tuple[int, int]:
    """Where a scalar begins and ends, with its quotes. Raises UnusualForm."""
    begin = _index(text, entry.position)
    found = re.compile(f"([\"']?){re.escape(entry.written)}\\1(?=[\\s,}}\\]]|$)").match(text, begin)
    if found is None or not entry.written:
        raise UnusualForm
    return found.span()


def _index(text: str, place: Position) -> int:
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: place.line - 1]) + place.column - 1


def _wanted(plain: Any, key: tuple[str, int], expires: str) -> Any:
    """The file's values as they should be after."""
    agent, place = plain["agents"][key[0]], key[1]
    every = agent["key"] if isinstance(agent["key"], list) else [agent["key"]]
    before = every[place]
    before = before if isinstance(before, dict) else {"sha256": str(before).removeprefix("sha256:")}
    every[place] = {**before, "expires": expires}
    agent["key"] = every if isinstance(agent["key"], list) else every[0]
    return plain
