"""The JSON Schema (2020-12) of the configuration file, for editors."""

from __future__ import annotations

from typing import Any

from fastgw.config.schema.settings import Settings


def schema() -> dict[str, Any]:
    """The schema of the whole file; values by reference (`${env:NAME}`) fit wherever text does."""
    made = Settings.model_json_schema(by_alias=True, mode="validation")
    made.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "fastgw configuration",
        "patternProperties": {"^x-": True},
    }
