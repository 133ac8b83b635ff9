"""How long a call has left once its total starts anew."""

from __future__ import annotations

import pytest

from fastgw.catalog.route import Deadlines


@pytest.mark.parametrize(
    ("deadlines", "now", "renewed"),
    [
        (Deadlines(total=10.0, longest=60.0), 108.0, (118.0, 10.0)),
        (Deadlines(total=10.0, longest=60.0), 149.0, (159.0, 10.0)),
        (Deadlines(total=10.0, longest=60.0), 151.0, (160.0, 60.0)),
        # Seven of its ten seconds went to another instance first: the call began at 93.
        (Deadlines(total=3.0, granted=10.0, longest=60.0), 102.0, (112.0, 10.0)),
        (Deadlines(total=3.0, granted=10.0, longest=60.0), 150.0, (153.0, 60.0)),
        # Nothing, or less than the total itself, bounds nothing more.
        (Deadlines(total=10.0), 108.0, (110.0, 10.0)),
        (Deadlines(total=10.0, longest=5.0), 108.0, (110.0, 10.0)),
    ],
)
def test_a_total_starts_anew_within_the_longest(deadlines: Deadlines, now: float, renewed: tuple[float, float]) -> None:
    assert deadlines.renewed(100.0, now) == renewed
