"""Values as people write them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from fastgw.config.schema.units import RateSetting, money, positive_seconds, rate, seconds, share, size
from fastgw.config.tree import Number


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (seconds, "500ms", 0.5),
        (seconds, "10s", 10.0),
        (seconds, "1.5m", 90.0),
        (seconds, "1h", 3600.0),
        (seconds, "30d", 2592000.0),
        (seconds, "0s", 0.0),
        (size, "4MiB", 4194304),
        (size, "1GB", 10**9),
        (size, "64kB", 64000),
        (size, 12, 12),
        (size, "12", 12),
        (share, "80%", Decimal("0.8")),
        (share, "0.5%", Decimal("0.005")),
        (money, Number("0.001"), Decimal("0.001")),
        (money, Number("3.00"), Decimal("3.00")),
        (money, 5, Decimal(5)),
        (money, 1e-7, Decimal("0.0000001")),
        (rate, "100/minute", RateSetting(100, 60)),
    ],
)
def test_read(read: Callable[[object], object], text: object, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (seconds, 10),
        (seconds, "10"),
        (seconds, "-1s"),
        (seconds, "1h30m"),
        (seconds, " 1s"),
        (seconds, "1s\n"),
        (seconds, "٣s"),
        (seconds, "99999d"),
        (positive_seconds, "0ms"),
        (size, "0"),
        (size, "4M"),
        (size, "4 MiB"),
        (size, "4miB"),
        (size, True),
        (size, -1),
        (size, 1.5),
        (share, "0%"),
        (share, "101%"),
        (share, 0.8),
        (money, "-1"),
        (money, "nan"),
        (money, "0.0000000001"),
        (money, True),
        (rate, "0/minute"),
        (rate, "-5/minute"),
        (rate, "1.5/second"),
        (rate, "5/min"),
        (rate, "5/Minute"),
        (rate, "5 / minute"),
        (rate, "minute"),
        (rate, 5),
        (rate, "9999999999999999999/day"),
        (rate, "100/fortnight"),
    ],
)
def test_refused(read: Callable[[object], object], text: object) -> None:
    with pytest.raises(ValueError, match="must"):
        read(text)
