"""The configuration in force as operators may see it: with every default, without a secret.

Hidden is what the schema calls a secret (`repr=False`), and shown as it stands in the file is whatever came by
reference: nobody has to guess what somebody keeps in an environment variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from fastgw.config.instance_urls import shown_url
from fastgw.config.schema.servers import InstanceUrl
from fastgw.config.schema.settings import Settings
from fastgw.config.schema.units import RateSetting

HIDDEN = "(hidden)"
_HASH = 12
"""Digits of a key's hash that tell one from another."""


def shown_settings(settings: Settings) -> dict[str, Any]:
    """All settings that have a value, by their keys in the file, fit for JSON. Times are seconds, sizes bytes."""
    return _members(settings, settings.references)


def _members(model: BaseModel, references: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if value is None or value in ((), {}, ""):
            continue
        if not info.repr:
            # Of `headers`, `env` and `fixed` at least the names.
            shown: Any = dict.fromkeys(value, HIDDEN) if isinstance(value, dict) else HIDDEN
        elif name == "sha256":
            shown = f"{value[:_HASH]}..."
        else:
            shown = _shown(value, references)
        found[info.alias or name] = shown
    return found


def _shown(value: Any, references: Mapping[str, str]) -> Any:
    if isinstance(value, InstanceUrl):
        return {"url": value.shown} | ({"share": str(value.share)} if value.share is not None else {})
    if isinstance(value, BaseModel):
        return _members(value, references)
    if isinstance(value, Mapping):
        return {key: _shown(one, references) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_shown(one, references) for one in value]
    if isinstance(value, str) and value in references:
        return references[value]
    if isinstance(value, str) and "://" in value:
        return shown_url(value)
    return str(value) if isinstance(value, Decimal | RateSetting) else value
