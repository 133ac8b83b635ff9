"""What pydantic has against the settings, in the words of the file: each complaint with its place and the nearest
valid name.
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
