"""A server's own secret changes while calls run: a file takes the place of another, as secret stores mount them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.servers import Call, Got, Toolbox, answer, serving
from tests.e2e.test_reload import APPLIED

OLD, NEW = "the-old-secret", "the-new-secret"
REFERENCE = "${file:mount/secret}"
KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "bearer": ({"bearer": REFERENCE}, "authorization", "Bearer {}"),
    "header": ({"header": {"X-Key": REFERENCE}}, "x-key", "{}"),
    "basic": ({"basic": {"username": "u", "password": REFERENCE}}, "authorization", "Basic {}"),
}


@dataclass
class Locked(Toolbox):
    """Takes requests that show one of `keys` in `header`, in the form `shown`, and turns all others away."""

    header: str = ""
    shown: str = "{}"
    keys: set[str] = field(default_factory=lambda: {OLD})
    turned_away: int = 0

    def opens(self, key: str) -> str:
        word = b64encode(f"u:{key}".encode()).decode() if self.shown.startswith("Basic") else key
        return self.shown.format(word)

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        if got.header(self.header) in {self.opens(key) for key in self.keys}:
            await super().handle(got, writer)
        else:
            self.turned_away += 1
            writer.write(answer(b"", status="401 Unauthorized"))


async def echo(call: Call) -> None:
    await call.text("here")


def mount(folder: Path, secret: str) -> None:
    """What a secret store does: a new folder, and one link that leads there from now on (Kubernetes, Secrets)."""
    place = folder / "mount"
    place.mkdir(exist_ok=True)
    version = place / f"..{secret}"
    version.mkdir()
    (version / "secret").write_text(f"{secret}\n")
    (place / "..new").symlink_to(version.name)
    (place / "..new").rename(place / "..data")
    if not (place / "secret").is_symlink():
        (place / "secret").symlink_to("..data/secret")


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[tuple[Gateway, list[Locked], list[tuple[Agent, str]]]]:
    """A gateway before a server of each kind and era, and who calls which of their tools."""
    mount(folder, OLD)
    async with AsyncExitStack() as stack:
        boxes, servers = [], {}
        for kind, (credential, header, shown) in KINDS.items():
            for era in ERAS:
                name = f"{kind}-{era}"
                boxes.append(Locked(era, {name: echo}, header=header, shown=shown))
                server = await stack.enter_async_context(serving(boxes[-1]))
                servers[name] = {"url": server.url, "credential": credential}
        gateway = await stack.enter_async_context(running_beside({"servers": servers}, folder))
        await listed(gateway, *servers)
        agents = [await agent(era, gateway.url, KEY) for era in ERAS]
        yield gateway, boxes, [(one, name) for one in agents for name in servers]


async def keep_calling(one: Agent, tool: str, over: asyncio.Event) -> int:
    """Every answer is demanded to be the tool's."""
    done = 0
    while not over.is_set():
        reply = await one.call(tool)
        assert reply.status == 200 and "result" in reply.json(), reply
        done += 1
    return done


def test_a_secret_changes_under_load_and_no_call_fails(tmp_path: Path) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), locked(tmp_path) as (gateway, boxes, every):
            over = asyncio.Event()
            load = [asyncio.create_task(keep_calling(*one, over)) for one in every]
            for box in boxes:
                box.keys = {OLD, NEW}  # both are good while it changes: what else could be
            before = await asyncio.to_thread(gateway.metric, APPLIED)
            mount(tmp_path, NEW)

            async def applied() -> bool:
                return await asyncio.to_thread(gateway.metric, APPLIED) > before

            await until(applied)
            counts = [len(box.ledger) for box in boxes]

            async def each_was_called() -> bool:  # so that the calls of before are over
                return all(len(box.ledger) > count + 4 for box, count in zip(boxes, counts, strict=True))

            await until(each_was_called)
            for box in boxes:
                box.keys = {NEW}
            counts = [len(box.ledger) for box in boxes]
            await until(each_was_called)
            over.set()
            assert min(await asyncio.gather(*load)) > 1
            assert [box.turned_away for box in boxes] == [0] * len(boxes)
            assert gateway.metric("fastgw_worker_restarts_total") == 0
            assert not [secret for secret in (OLD, NEW) if secret in gateway.log()]

    asyncio.run(play())


@pytest.mark.parametrize("wrong", ["", "two\nlines"])
def test_a_file_that_holds_no_secret_changes_nothing(tmp_path: Path, wrong: str) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), locked(tmp_path) as (gateway, boxes, every):
            (tmp_path / "mount" / "..data" / "secret").write_text(wrong)
            await until(lambda: is_refused(gateway))
            for one, tool in every:
                assert (await one.call(tool)).json()["result"]["content"][0]["text"] == "here"
            assert [box.turned_away for box in boxes] == [0] * len(boxes)

    asyncio.run(play())


async def is_refused(gateway: Gateway) -> bool:
    return await asyncio.to_thread(gateway.logs, "the configuration is not applied, the one before is kept", 0, 0.1)
