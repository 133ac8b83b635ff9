"""Complaints of the models in the words of the file, each with its place and the nearest valid name."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fastgw.config.complaint import KEY, ConfigProblem, complaint_at, nearest
from fastgw.config.schema.settings import Settings
from fastgw.config.tree import YamlEntry, locate, locate_key, value_at

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


def told(error: ValidationError, root: YamlEntry) -> Iterator[ConfigProblem]:
    """One complaint for each error of the models.

    Args:
        error: of `Settings.model_validate`.
        root: the tree that was validated.
    """
    for detail in error.errors(include_url=False, include_input=False):
        yield _told(detail, root)


def _told(detail: ErrorDetails, root: YamlEntry) -> ConfigProblem:
    path, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(path[-1])
        meant = nearest(name, valid_keys(path[:-1]))
        return complaint_at(locate_key(root, path), f'unknown key "{name}"', meant)
    if kind == "missing":
        return complaint_at(locate(root, path[:-1]), f'the key "{path[-1]}" is needed here')
    message = _bounded(kind, context) or WORDS.get(kind) or detail["msg"].removeprefix("Value error, ")
    if path and path[-1] == KEY:
        words = message if kind == "value_error" else NAMES.get(str(path[0]), "is not a valid name")
        return complaint_at(locate_key(root, path[:-1]), words)
    if kind == "literal_error":
        entry = value_at(root, path)
        choices = _choices(str(context["expected"]))
        meant = nearest(str(entry.content), choices) if entry is not None else None
        return complaint_at(locate(root, path), f"must be {context['expected']}".replace("'", ""), meant)
    return complaint_at(locate(root, path), message)


def _bounded(kind: str, context: dict[str, Any]) -> str | None:
    """What is said of a number beyond its bounds."""
    if kind == "greater_than_equal":
        return f"is too small: the least is {context['ge']}"
    return f"is too large: the most is {context['le']}" if kind == "less_than_equal" else None


def _choices(expected: str) -> list[str]:
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]


def valid_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand in the map at `path`; none where it is not a map of fixed keys."""
    annotation: Any = Settings
    for step in path:
        annotation = _below(_bare(annotation), step)
    model = _bare(annotation)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [info.alias or name for name, info in model.model_fields.items()]
    return []


def _below(annotation: Any, step: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if step == (info.alias or name):
                return info.annotation
        return None
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    return None


def _bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`."""
    while True:
        origin = get_origin(annotation)
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif origin in (Union, types.UnionType):
            annotation = next((one for one in get_args(annotation) if one is not type(None)), None)
        else:
            return annotation
