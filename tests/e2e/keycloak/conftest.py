"""One Keycloak for all the tests of this folder: it takes half a minute to boot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.keycloak.issuer import Keycloak
from tests.e2e.tour import given


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    home = Path(given("FASTGW_KEYCLOAK", "folder with Keycloak")) / "home"
    if not home.exists():
        pytest.skip("there is no Keycloak: it takes Java and Maven to have it")
    started = Keycloak(home, tmp_path_factory.mktemp("keycloak"))
    try:
        started.start()
        yield started
    finally:
        started.stop()
