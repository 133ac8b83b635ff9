"""No secret of the models is forgotten by the rule that secrets come by reference."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from fastgw.catalog.route import Arm
from fastgw.config.references import SECRETS
from fastgw.config.schema.settings import Settings
from fastgw.snapshot.compiler import Learned, compile_snapshot
from tests.snapshot.compiling import catalogue, settings

MAY_BE_WRITTEN = {("servers", "*", "env"), ("servers", "*", "headers"), ("alerts", "webhook"), ("tools", "*", "fixed")}
"""Kept out of logs all the same."""


def secret_keys(annotation: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Paths of the fields that stay out of reprs, positions in lists left out."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found: set[tuple[str, ...]] = set()
        for name, info in annotation.model_fields.items():
            below = (*path, info.alias or name)
            found |= {below} if not info.repr else secret_keys(info.annotation, below)
        return found
    named = getattr(annotation, "__origin__", None) is dict
    below = (*path, "*") if named else path
    return {one for part in get_args(annotation) for one in secret_keys(part, below)}


def test_no_secret_stands_in_the_repr_of_what_is_compiled() -> None:
    told = settings({"a": ["t"]}, a={"headers": {"X-Token": "hush-1"}}, tools={"t": {"fixed": {"k": "hush-2"}}})
    learned = Learned(
        {"a": catalogue("a", "t")}, credentials={"a": b"Authorization: hush-3\r\n"}, seal_keys=(b"hush-4",)
    )
    snapshot, notices = compile_snapshot(told, learned, 1)
    assert b"hush-1" in snapshot.backends["a"].headers
    assert "hush" not in repr((told, learned, snapshot, notices, Arm(None, (), fixed=(("k", b"hush-5"),))))


def test_every_hidden_field_comes_by_reference() -> None:
    hidden = secret_keys(Settings)
    assert ("servers", "*", "credential", "oauth", "client_secret") in hidden
    covered = {pattern[:-1] if pattern[-1] == "*" else pattern for pattern in SECRETS}
    assert hidden - MAY_BE_WRITTEN == covered
