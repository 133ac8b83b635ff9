"""Which instance a call gets, and where it goes when that one goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fastgw.snapshot.model import Address, Backend
from fastgw.upstream.balancer import Wish, pick
from fastgw.upstream.instances import Instance
from tests.upstream.fakes import backend as backend_of


def server(count: int) -> Backend:
    addresses = [f"http://10.0.0.{number}:9001/mcp" for number in range(1, count + 1)]
    return backend_of(instances=tuple(Address(f"shop|{url}", "shop", url, "modern", "2026-07-28") for url in addresses))


def order(backend: Backend, identity: str, first: str | None = None) -> list[Address]:
    """The instances as a call would try them."""
    instances, found = [Instance(backend, address) for address in backend.instances], []
    while (one := pick(instances, Wish(identity, first), found, 0.0)) is not None:
        found.append(one)
    return [one.address for one in found]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_instances_get_even_parts_and_only_those_of_one_that_goes_move(count: int) -> None:
    backend = server(count)
    orders = [order(backend, f"session:bot:{number:024x}") for number in range(6_000)]
    for place in (0, 1):
        parts = Counter(found[place].url for found in orders)
        assert max(parts.values()) < 1.2 * 6_000 / count, parts
        assert len(parts) == count
    gone, fewer = backend.instances[0], replace(backend, instances=backend.instances[1:])
    for number, found in enumerate(orders):
        left = [one for one in found if one is not gone]
        assert order(fewer, f"session:bot:{number:024x}") == left


def test_the_instance_that_gave_a_state_comes_first_and_one_that_is_gone_does_not_matter() -> None:
    backend = server(3)
    usual = order(backend, "agent:a")
    for one in backend.instances:
        assert order(backend, "agent:a", one.key) == [one, *(other for other in usual if other is not one)]
    assert order(backend, "agent:a", "shop|gone") == usual


def modern(count: int, shares: tuple[float, ...] = ()) -> list[Instance]:
    backend = server(count)
    addresses = [
        replace(one, share=shares[at] if at < len(shares) else 0.0) for at, one in enumerate(backend.instances)
    ]
    backend = replace(backend, instances=tuple(addresses))
    return [Instance(backend, address) for address in backend.instances]


ANYWHERE = Wish("agent:a", stays=False)


def test_a_slow_or_busy_instance_gets_less_and_is_not_forgotten() -> None:
    fast, slow = modern(2)
    slow.latency, slow.measured = 1.0, 100.0
    assert all(pick((fast, slow), ANYWHERE, (), 100.0) is fast for _ in range(100))
    fast.in_flight = 2000
    assert pick((fast, slow), ANYWHERE, (), 100.0) is slow
    fast.in_flight = 3
    assert pick((fast, slow), ANYWHERE, (), 200.0) is slow, "what was slow long ago says nothing"


def test_nobody_draws_the_worst_of_three() -> None:
    one, two, worst = modern(3)
    worst.in_flight = 50
    drawn = Counter(id(pick((one, two, worst), ANYWHERE, (), 0.0)) for _ in range(900))
    assert drawn[id(worst)] == 0
    assert min(drawn[id(one)], drawn[id(two)]) > 300


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("shares", [(0.05,), (0.3, 0.2), (0.5, 0.5)])
def test_canaries_get_their_share(shares: tuple[float, ...], stays: bool) -> None:
    found = modern(max(3, len(shares)) if sum(shares) < 1 else len(shares), shares)
    drawn = Counter(id(pick(found, Wish(f"agent:{n}", stays=stays), (), 0.0)) for n in range(20_000))
    for one in found:
        want = one.address.share or (1 - sum(shares)) / (len(found) - len(shares))
        assert abs(drawn[id(one)] / 20_000 - want) < 0.02, (want, drawn[id(one)])


def test_without_the_others_a_canary_gets_all() -> None:
    canary, other = modern(2, (0.05,))
    other.drained = True
    other.judge()
    assert all(pick((canary, other), ANYWHERE, (), 0.0) is canary for _ in range(20))
