"""The official TypeScript SDKs, 1.x and 2.x, take the tour through the demo's gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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

Client = tuple[str, str, str]
"""The SDK's line, how it finds the revision, and the revision that it speaks."""

pytestmark = pytest.mark.node_client
EACH = [
    pytest.param(("1", "legacy", "2025-11-25"), id="sdk-1"),
    pytest.param(("2", "auto", "2026-07-28"), id="client-2"),
    pytest.param(("2", "legacy", "2025-11-25"), id="client-2-as-before"),
]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running() as it:
        yield it


@pytest.fixture(scope="module", params=EACH)
def client(request: pytest.FixtureRequest) -> Client:
    line, mode, version = request.param
    return line, mode, version


def order(demo: Demo, key: str, client: Client) -> list[str]:
    packages = Path(given("FASTGW_NODE_CLIENTS", "folder with Node and the clients"))
    program = str(CLIENTS / "typescript.mjs")
    return [str(packages / "node"), program, str(packages), client[0], demo.endpoint, demo.key(key), client[1]]


def go(demo: Demo, key: str, client: Client, steps: dict[str, Step]) -> Seen:
    seen = take(order(demo, key, client), steps)
    # 2.x has one class for a missing resource, with the newer code, and puts it in the place of the older -32002
    return replace(seen, no_resource=-32602) if client[0] == "2" else seen


@pytest.fixture(scope="module")
def seen(demo: Demo, client: Client) -> Seen:
    return go(demo, "engineering", client, everything(f"cart-{client[0]}-{client[1]}"))


@pytest.fixture(scope="module")
def by_support(demo: Demo, client: Client) -> Seen:
    return go(demo, "support", client, of_support())


def test_the_revision_is_the_one_that_was_asked_for(seen: Seen, client: Client) -> None:
    assert seen.version == client[2]


@pytest.mark.parametrize("check", CHECKS)
def test_of_everything(seen: Seen, check: Check) -> None:
    check(seen)


@pytest.mark.parametrize("check", SUPPORT_CHECKS)
def test_of_what_support_has(by_support: Seen, check: Check) -> None:
    check(by_support)
