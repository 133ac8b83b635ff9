"""The JSON Schema for editors fits what the reader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fastgw.config.composer import compose
from fastgw.config.schema.settings import json_schema

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
ROOT = Path(__file__).resolve().parents[2]


def plain(text: str) -> Any:
    return json.loads(json.dumps(compose(text, "f").plain()))


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("file", ["config/fastgw.yaml", "tests/config/contract.yaml"])
def test_good_files_fit(file: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(plain((ROOT / file).read_text("utf-8")))] == []


@pytest.mark.parametrize(
    "text", ["worker: 1", "workers: many", "servers: {a: {urls: x}}", "policies: [{allow: [x]}]", "timeout: 5"]
)
def test_bad_files_do_not(text: str) -> None:
    assert list(VALIDATOR.iter_errors(plain(text)))


def test_a_key_of_ones_own_fits() -> None:
    assert VALIDATOR.is_valid(plain("x-mine: {any: [1]}"))
