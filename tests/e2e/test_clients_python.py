"""The official Python SDKs, 1.x and 2.x, take the tour through the demo's gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.e2e.demo import Demo, running
from tests.e2e.tour import (
    CHECKS,
    CLIENTS,
    SUPPORT_CHECKS,
    Check,
    Seen,
    everything,
    given,
    of_support,
    take,
)

Client = tuple[str, str]
"""Which of them, and the revision that it speaks."""

EACH = [
    pytest.param(("first", "2025-11-25"), id="mcp-1", marks=pytest.mark.legacy_client),
    pytest.param(("auto", "2026-07-28"), id="mcp-2"),
    pytest.param(("legacy", "2025-11-25"), id="mcp-2-as-before"),
]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running() as it:
        yield it


@pytest.fixture(scope="module", params=EACH)
def client(request: pytest.FixtureRequest) -> Client:
    which, version = request.param
    return which, version


def order(demo: Demo, key: str, which: str) -> list[str]:
    if which == "first":
        python = given("FASTGW_LEGACY_PYTHON", "Python with mcp 1.x")
        return [python, str(CLIENTS / "python_1.py"), demo.endpoint, demo.key(key)]
    return [sys.executable, str(CLIENTS / "python_2.py"), demo.endpoint, demo.key(key), which]


@pytest.fixture(scope="module")
def seen(demo: Demo, client: Client) -> Seen:
    return take(order(demo, "engineering", client[0]), everything(f"cart-{client[0]}"))


@pytest.fixture(scope="module")
def by_support(demo: Demo, client: Client) -> Seen:
    return take(order(demo, "support", client[0]), of_support())


def test_the_revision_is_the_newest_that_both_speak(seen: Seen, client: Client) -> None:
    assert seen.version == client[1]


@pytest.mark.parametrize("check", CHECKS)
def test_of_everything(seen: Seen, check: Check) -> None:
    check(seen)


@pytest.mark.parametrize("check", SUPPORT_CHECKS)
def test_of_what_support_has(by_support: Seen, check: Check) -> None:
    check(by_support)
