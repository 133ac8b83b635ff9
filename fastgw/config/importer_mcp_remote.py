"""Entries of clients' files that start `mcp-remote`, which only passes messages on: the server behind it instead.

A note never holds a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import PureWindowsPath
from typing import Any

_STARTERS = frozenset(("cmd", "c", "npx", "bunx", "pnpx", "pnpm", "yarn", "dlx", "bun", "x"))
"""What may stand before it, less folders: `npx -y`, `cmd /c npx`, `pnpm dlx`."""
_KINDS = {"http-only": "http", "http-first": "http", "sse-only": "sse"}
_TAKEN = frozenset(("--header", "--transport", "--allow-http", "--debug", "--silent"))
"""Options that are taken over, or say nothing about the server."""
_HEADER = re.compile(r"([A-Za-z0-9_-]+):\s*(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([^{}]+)\}")


def unwrapped(entry: Any) -> tuple[Any, list[str]]:
    """The entry of the server that `mcp-remote` would ask, and what of it was not taken over; any other as it is."""
    if not isinstance(entry, dict) or (found := _url_and_options(entry)) is None:
        return entry, []
    url, options = found
    given = [one for option, value in pairwise(options) if option == "--header" and (one := _HEADER.fullmatch(value))]
    kinds = [_KINDS[value] for option, value in pairwise(options) if option == "--transport" and value in _KINDS]
    env: dict[str, Any] = found_env if isinstance(found_env := entry.get("env"), dict) else {}
    headers = {one[1]: _VARIABLE.sub(lambda name: str(env.get(name[1], name[0])), one[2]) for one in given}
    server = {key: value for key, value in entry.items() if key not in ("type", "transport", "command", "args", "env")}
    server |= {"url": url, "headers": headers} | ({"type": kinds[0]} if kinds else {})
    used = {name for one in given for name in _VARIABLE.findall(one[2])}
    return server, list(_notes(options, headers, [name for name in env if name not in used]))


def _url_and_options(entry: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """What stands after the program; None where it is another one, or where no URL comes first."""
    words = [entry.get("command"), *(args if isinstance(args := entry.get("args"), list) else ())]
    if not all(isinstance(word, str) for word in words):
        return None
    at = 0
    while at < len(words) and (words[at].startswith("-") or _program(words[at]) in _STARTERS):
        at += 1
    if at == len(words) or not re.fullmatch(r"mcp-remote(@.*)?", _program(words[at])):
        return None
    rest = words[at + 1 :]
    plain = [word for word, before in zip(rest, ["", *rest], strict=False) if "--header" not in (word, before)]
    return (plain[0], rest) if plain and re.match(r"https?://|\$\{", plain[0]) else None


def _program(word: str) -> str:
    """`C:\\bin\\npx.cmd` and `/usr/bin/npx` are npx."""
    return re.sub(r"\.(cmd|exe)$", "", PureWindowsPath(word).name.lower() or word.lower())


def _notes(options: list[str], headers: Mapping[str, str], env: list[str]) -> Iterator[str]:
    yield "mcp-remote is not needed: fastgw asks its server itself"
    left = dict.fromkeys(word for word in options if word.startswith("--") and word not in _TAKEN)
    if left or env:
        yield f"not taken over: {', '.join(map(ascii, [*left, *env]))}"
    if not headers:
        yield "no credential: where the server asks for one, mcp-remote signs a person in, and fastgw does not"
