"""The official SDKs, Python's and TypeScript's, 1.x and 2.x, take the tour through the demo's gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e.demo import Demo, running
from tests.e2e.tour import (
    CHECKS,
    CLIENTS,
    SUPPORT_CHECKS,
    Check,
    Seen,
    Step,
    everything,
    given,
    of_support,
    take,
)


@dataclass(frozen=True)
class Client:
    """A client of `sdk`: how it finds the revision, and the one that it speaks."""

    sdk: str
    mode: str
    version: str

    def order(self, url: str, key: str) -> list[str]:
        """What starts it."""
        if self.sdk == "python 1":
            python = given("FASTGW_LEGACY_PYTHON", "Python with mcp 1.x")
            return [python, str(CLIENTS / "python_1.py"), url, key]
        if self.sdk == "python 2":
            return [sys.executable, str(CLIENTS / "python_2.py"), url, key, self.mode]
        packages = Path(given("FASTGW_NODE_CLIENTS", "folder with Node and the clients"))
        line = self.sdk.removeprefix("typescript ")
        program = str(CLIENTS / "typescript.mjs")
        return [str(packages / "node"), program, str(packages), line, url, key, self.mode]

    def go(self, demo: Demo, key: str, steps: dict[str, Step]) -> Seen:
        """What it sees on the tour with this key."""
        seen = take(self.order(demo.endpoint, demo.key(key)), steps)
        # 2.x has one class for a missing resource, with the newer code, and puts it in the place of the older -32002
        return replace(seen, no_resource=-32602) if self.sdk == "typescript 2" else seen


LEGACY, NODE = pytest.mark.legacy_client, pytest.mark.node_client
EACH = [
    pytest.param(Client("python 1", "legacy", "2025-11-25"), id="mcp-1", marks=LEGACY),
    pytest.param(Client("python 2", "auto", "2026-07-28"), id="mcp-2"),
    pytest.param(Client("python 2", "legacy", "2025-11-25"), id="mcp-2-as-before"),
    pytest.param(Client("typescript 1", "legacy", "2025-11-25"), id="sdk-1", marks=NODE),
    pytest.param(Client("typescript 2", "auto", "2026-07-28"), id="client-2", marks=NODE),
    pytest.param(Client("typescript 2", "legacy", "2025-11-25"), id="client-2-as-before", marks=NODE),
]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running() as it:
        yield it


@pytest.fixture(scope="module", params=EACH)
def client(request: pytest.FixtureRequest) -> Client:
    assert isinstance(request.param, Client)
    return request.param


@pytest.fixture(scope="module")
def seen(demo: Demo, client: Client) -> Seen:
    return client.go(demo, "engineering", everything(f"cart-{client.sdk.replace(' ', '-')}-{client.mode}"))


@pytest.fixture(scope="module")
def by_support(demo: Demo, client: Client) -> Seen:
    return client.go(demo, "support", of_support())


def test_the_revision_is_the_newest_that_both_speak(seen: Seen, client: Client) -> None:
    assert seen.version == client.version


@pytest.mark.parametrize("check", CHECKS)
def test_of_everything(seen: Seen, check: Check) -> None:
    check(seen)


@pytest.mark.parametrize("check", SUPPORT_CHECKS)
def test_of_what_support_has(by_support: Seen, check: Check) -> None:
    check(by_support)
