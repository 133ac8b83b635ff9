"""The expectations of the tour stand beside the tests: a failed one shows its values, as in a test."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

FILES = 32_768

pytest.register_assert_rewrite("tests.e2e.tour")


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as thousands of connections take, as far as the machine allows them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
