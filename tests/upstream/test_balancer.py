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
