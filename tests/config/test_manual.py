"""The manual, `config/fastgw.yaml`: it can be used as it stands, and no setting is missing in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastgw.config.inactive import inactive
from fastgw.config.reader import read
from fastgw.config.schema.settings import json_schema

FILE = Path(__file__).resolve().parents[2] / "config" / "fastgw.yaml"
ENVIRON = {"FASTGW_SECRET": "sixteen letters.", "DEPLOYMENT_TOKEN": "d", "DATA_PASSWORD": "p", "KNOWLEDGE_KEY": "k"}
SCHEMA = json_schema()
DEFINITIONS: dict[str, Any] = SCHEMA["$defs"]


SHARED = {"MatchSettings", "ArgumentTestSettings"}
"""Explained once, at policies."""


def sections() -> dict[str, str]:
    """The text about each top-level key: its paragraph, and those after it up to the next key's; commented keys too."""
    found: dict[str, str] = {}
    current: list[str] = []
    for paragraph in FILE.read_text("utf-8").split("\n\n"):
        keys = [
            key for key in re.findall(r"^(?:# )?([a-z_]+):", paragraph, re.MULTILINE) if key in SCHEMA["properties"]
        ]
        current = keys or current
        for key in current:
            found[key] = found.get(key, "") + paragraph + "\n\n"
    return found


def models_below(node: Any) -> set[str]:
    """Names of the models that a part of the schema reaches."""
    seen: set[str] = set()
    waiting = [node]
    while waiting:
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(waiting.pop())):
            if name not in seen:
                seen.add(name)
                waiting.append(DEFINITIONS[name])
    return seen


def test_it_is_ready_to_use() -> None:
    reading = read(FILE, ENVIRON)
    assert inactive(reading.root) == []


@pytest.mark.parametrize("key", sorted(SCHEMA["properties"]))
def test_every_setting_is_there(key: str) -> None:
    text = sections().get(key, "")
    assert text, key
    models = models_below(SCHEMA["properties"][key]) - (set() if key == "policies" else SHARED)
    wanted = {name for model in models for name in DEFINITIONS[model].get("properties", ())}
    missing = {name for name in wanted if not re.search(rf"\b{name}:", text)} - {"values"}
    assert missing == set()
