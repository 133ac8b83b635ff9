"""The expectations of the tour stand beside the tests: a failed one shows its values, as in a test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.e2e.tour")
