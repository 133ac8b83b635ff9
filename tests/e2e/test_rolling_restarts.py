"""Two gateways behind a TCP balancer that looks at /readyz: each is restarted again and again, and no call is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from tests.e2e.asking import listed
from tests.e2e.gateway import KEY, Gateway, running_beside
from tests.e2e.http import modern
from tests.e2e.load import Asking, loaded, percentile, words
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving

LOOK_EVERY = 0.05
"""Seconds between two looks at /readyz: a gateway that drains takes new connections for longer than that."""
DRAIN = 8.0
OVER = 2.0
"""Seconds that a gateway may take beyond its drain."""


@dataclass
class Balancer:
    """Hands each connection, from its first byte to its last, to one of the gateways that are ready, in turn."""

    gateways: list[Gateway]
    ready: list[Gateway] = field(default_factory=list)
    turns: count[int] = field(default_factory=count)
    url: str = ""

    async def look(self) -> None:
        """Go on looking which of them are ready."""
        while True:
            states = await asyncio.gather(*[asyncio.to_thread(one.ask_admin, "/readyz") for one in self.gateways])
            self.ready = [one for one, (status, _) in zip(self.gateways, states, strict=True) if status == 200]
            await asyncio.sleep(LOOK_EVERY)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        chosen = self.ready[next(self.turns) % len(self.ready)]
        host, port = chosen.root.removeprefix("http://").split(":")
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer), return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def balanced(gateways: list[Gateway], port: int) -> AsyncIterator[Balancer]:
    balancer = Balancer(gateways, list(gateways), url=f"http://127.0.0.1:{port}/mcp")
    looking = asyncio.create_task(balancer.look())
    server = await asyncio.start_server(balancer.carry, "127.0.0.1", port)
    try:
        yield balancer
    finally:
        server.close()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def lasting(longest: float, **meta: object) -> Asking:
    """Calls of 0 to so many seconds, by their nonce; with a token: answered by events."""

    def asking(nonce: str) -> object:
        seconds = int(nonce[1:]) * 7 % 11 / 10 * longest
        params = {"name": "wait", "arguments": {"nonce": nonce, "seconds": seconds}}
        return modern("tools/call", params, key=KEY, meta=dict(meta) or None)

    return asking  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("restarts", "rate", "longest"),
    [(4, 60, 0.5), pytest.param(100, 100, 5.0, marks=pytest.mark.soak)],
)
def test_no_call_is_lost_while_gateways_are_restarted(
    tmp_path: Path, restarts: int, rate: float, longest: float
) -> None:
    async def wait(call: Call) -> None:
        await asyncio.sleep(call.arguments["seconds"])
        await call.text(call.arguments["nonce"])

    async def story() -> None:
        async with serving(Toolbox("modern", {"wait": wait})) as server, AsyncExitStack() as life:
            port = free_port()
            more = {
                "servers": {"main": {"url": f"http://127.0.0.1:{server.port}/mcp"}},
                "public_url": f"http://127.0.0.1:{port}",
                "drain": f"{DRAIN}s",
            }
            gateways = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                gateways.append(await life.enter_async_context(running_beside(more, tmp_path / name)))
                await listed(gateways[-1], "wait")
            async with balanced(gateways, port) as balancer:
                askings = lasting(longest), lasting(longest, progressToken="p")
                async with loaded(balancer.url, rate, *askings) as load:
                    for number in range(restarts):
                        gateway, begun = gateways[number % 2], time.monotonic()
                        assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()
                        assert time.monotonic() - begun < DRAIN + OVER
                        gateway.start_again()
                        await asyncio.to_thread(gateway.wait_until_ready)
                        await listed(gateway, "wait")
            assert len(load.outcomes) > restarts * rate / 10
            assert not load.wrong, words(load.wrong)
            print(f"{len(load.outcomes)} calls over {restarts} restarts, p99 {percentile(load.outcomes, 0.99):.2f} s")

    asyncio.run(story())
