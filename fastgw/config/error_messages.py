"""What pydantic has against the settings, and what keys of clients' files are called here, in the words of the file:
each complaint with its place and the nearest valid name.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fastgw.config.schema.settings import Settings
from fastgw.config.tree import ConfigProblem, Path, YamlEntry, entry_at, locate, locate_key

Finding = tuple[Path, str, str | None]
"""Where in the settings, what, and the likely name. A path that ends in `KEY` is of the key itself."""
KEY = "[key]"

WORDS = {
    "string_type": "must be text (in quotes, if it looks like a number)",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "decimal_parsing": "must be a number",
    "decimal_type": "must be a number",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "tuple_type": "must be a list",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
    "too_short": "must not be empty",
    "string_pattern_mismatch": "has letters that are not allowed here",
}
NAMES = {
    "servers": "a server's name has letters, digits, _ and - only",
    "identity": "an issuer's name has letters, digits, _ and - only",
    "agents": "an agent's name has no spaces, colons, * or ?",
    "endpoints": "an endpoint is a path such as /mcp or /mcp/ops",
    "tools": "a tool's name must not be empty or have control characters",
}


def placed(findings: Iterable[Finding], root: YamlEntry) -> Iterator[ConfigProblem]:
    """Findings with their places in the file."""
    for path, message, likely in findings:
        yield ConfigProblem(locate_key(root, path[:-1]) if path[-1] == KEY else locate(root, path), message, likely)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, None where none is much like it."""
    names = sorted(valid)
    folded = name.casefold().replace("-", "_")
    same = [one for one in names if one.casefold().replace("-", "_") == folded and one != name]
    return next(iter(same or get_close_matches(name, names, n=1, cutoff=0.6)), None)


def complaints_of(error: ValidationError, root: YamlEntry) -> Iterator[ConfigProblem]:
    """One complaint for each error of `Settings.model_validate` on the values of `root`."""
    return (_complaint(detail, root) for detail in error.errors(include_url=False, include_input=False))


def _complaint(detail: ErrorDetails, root: YamlEntry) -> ConfigProblem:
    path, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(path[-1])
        return ConfigProblem(locate_key(root, path), f'unknown key "{name}"', nearest(name, valid_keys(path[:-1])))
    if kind == "missing":
        return ConfigProblem(locate(root, path[:-1]), f'the key "{path[-1]}" is needed here')
    message = WORDS.get(kind) or detail["msg"].removeprefix("Value error, ")
    if kind == "greater_than_equal":
        message = f"is too small: the least is {context['ge']}"
    elif kind == "less_than_equal":
        message = f"is too large: the most is {context['le']}"
    if path and path[-1] == KEY:
        words = message if kind == "value_error" else NAMES.get(str(path[0]), "is not a valid name")
        return ConfigProblem(locate_key(root, path[:-1]), words)
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        choices = [word.strip() for word in expected.replace(" or ", ",").split(",")]
        likely = nearest(str(entry_at(root, path).content), choices)
        return ConfigProblem(locate(root, path), f"must be {expected}", likely)
    return ConfigProblem(locate(root, path), message)


def valid_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand in the map at `path`; none where it is not a map of fixed keys."""
    found: Any = Settings
    for step in path:
        if (fields := _fields(found)) is not None:
            found = _bare(fields.get(str(step)))
        elif get_origin(found) in (dict, tuple):
            found = _bare(get_args(found)[1 if get_origin(found) is dict else 0])
        else:
            return []
    return list(_fields(found) or ())


def _fields(model: Any) -> dict[str, Any] | None:
    """The keys of a model and what each holds; None of anything else."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`."""
    if hasattr(annotation, "__metadata__"):
        return _bare(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next((one for one in get_args(annotation) if one is not type(None)), None))
    return annotation


# -- keys of clients' files --------------------------------------------------------------------------------------------

HTTP = ("http", "streamable-http", "streamablehttp", "streamable_http")
_SERVERS = "is the map of clients' files: here it is called `servers`, and `fastgw import FILE` makes one of it"
_URL = "is called `url` here"
_DISABLED = "is not known here: put a # before the lines of the server, or say why it is away with `maintenance: TEXT`"
_TRANSPORT = (
    "is a key of clients' files, leave it out: a `url` is asked by Streamable HTTP, a `command` is started; the older"
    " HTTP+SSE is not supported, the same server speaks Streamable HTTP usually at /mcp instead of /sse"
)
_ONE_WORD = "is taken for the name of the program, and has a space in it: write a list of words, [uvx, some-server]"
TOP = {"mcpServers": _SERVERS, "mcp": _SERVERS, "context_servers": _SERVERS}
SERVER = {
    "serverUrl": _URL,
    "httpUrl": _URL,
    "args": "belongs to the command here, one list of words: command: [npx, -y, some-server]",
    "disabled": _DISABLED,
    "enabled": _DISABLED,
    "type": _TRANSPORT,
}


def foreign(root: YamlEntry) -> Iterator[ConfigProblem]:
    """A complaint for each key that people bring along from clients' files, in place of the one that it is unknown.

    None repeats a value that it does not know: it may be a secret.
    """
    found = root.child("servers")
    servers = list(found.content.values()) if found and isinstance(found.content, dict) else []
    for entry, rows in ((root, TOP), *((server, SERVER) for server in servers)):
        for key in entry.content if isinstance(entry.content, dict) else ():
            if key in rows:
                yield ConfigProblem(locate_key(entry, (key,)), f"`{key}` {rows[key]}")
    for server in servers:
        transport, command = server.child("transport"), server.child("command")
        if transport and str(transport.content).lower() in (*HTTP, "sse", "stdio"):
            yield ConfigProblem(transport.position, f"`transport` {_TRANSPORT}")
        if command and isinstance(command.content, str) and len(command.content.split()) > 1:
            yield ConfigProblem(command.position, _ONE_WORD)
