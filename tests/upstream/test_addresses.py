"""Names of servers: one that leads nowhere, one that leads elsewhere from now on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp.connector
import pytest
from aiohttp.abc import AbstractResolver

from fastgw.errors import Fault, Kind
from tests.upstream.raw_server import LOOPS, Peer, ok, post, raw_server, run, wire_to

loops = pytest.mark.parametrize("loop", LOOPS)
REMEMBERED = 10.0
"""Seconds for which the connector takes an address for granted."""


class Names(AbstractResolver):
    """A name server that the test rules."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        self.asked += 1
        if not self.address:
            raise OSError(None, "Name or service not known")
        return [{"hostname": host, "host": self.address, "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """There is nothing to close."""


async def once(peer: Peer) -> None:
    """One answer: where it came from. Then the connection is closed, as it says."""
    if await peer.request():
        await peer.say(ok(peer.writer.get_extra_info("sockname")[0].encode(), b"Connection: close"))


@loops
def test_a_name_that_leads_nowhere_is_no_server(loop: str) -> None:
    async def work() -> None:
        async with wire_to("http://nobody.test:1/mcp") as transport:
            transport._connector._resolver = Names()
            with pytest.raises(Fault) as caught:
                await post(transport)
            assert (caught.value.kind, caught.value.sent) == (Kind.NO_SERVER, False)
            assert "nobody.test" in caught.value.detail

    run(loop, work())


@loops
def test_a_name_is_asked_for_again_when_it_was_remembered_long_enough(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with raw_server(once) as server:
            port = int(server.url.split(":")[2].split("/")[0])
            moved = await asyncio.start_server(lambda reader, writer: once(Peer(0, reader, writer)), "127.0.0.2", port)
            async with moved, wire_to(f"http://moves.test:{port}/mcp") as transport:
                names = transport._connector._resolver = Names("127.0.0.1")
                assert (await post(transport)).body == b"127.0.0.1"
                names.address = "127.0.0.2"
                assert (await post(transport)).body == b"127.0.0.1"
                assert names.asked == 1
                monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: time.monotonic() + REMEMBERED + 1)
                assert (await post(transport)).body == b"127.0.0.2"
                names.address = ""
                assert (await post(transport)).body == b"127.0.0.2", "while it is remembered nobody is asked"

    run(loop, work())
