"""Who is most frequent, of more than can be remembered."""

from __future__ import annotations

from random import Random

from fastgw.telemetry.counters import Top


def test_the_most_frequent_comes_first() -> None:
    top: Top[str] = Top()
    for key in "abbcccb":
        top.add(key)
    assert list(top) == [("b", 3), ("c", 3), ("a", 1)]


def test_a_newcomer_takes_the_place_and_the_count_of_the_rarest() -> None:
    top: Top[str] = Top(room=2)
    for key in "aaab":
        top.add(key)
    top.add("c")
    assert dict(top) == {"a": 3, "c": 2}


def test_whoever_stays_is_counted_where_there_is_no_room_for_others() -> None:
    top: Top[int] = Top(room=1)
    for number in range(1000):
        top.add(number)
    assert list(top) == [(999, 1000)]


def test_the_truly_frequent_are_there_and_never_counted_too_low() -> None:
    """Of n counts whoever has more than n / room stands in the table (Metwally and others, 2005, theorem 2)."""
    dice, top, true = Random(1), Top[int](room=20), dict[int, int]()
    for _ in range(20_000):
        key = min(int(dice.paretovariate(0.7)), 5000)
        top.add(key)
        true[key] = true.get(key, 0) + 1
    found = dict(top)
    assert len(found) == 20
    frequent = {key for key, count in true.items() if count > 20_000 / 20}
    assert frequent <= set(found)
    assert len(frequent) >= 3
    assert all(found[key] >= true[key] for key in found)
    assert list(found.values()) == sorted(found.values(), reverse=True)
