"""Servers that know us by a certificate: each sees its own, and the one that takes its place on disk, while agents of
both eras call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.servers import Call, Got, Toolbox, answer, scripted
from tests.e2e.test_reload import APPLIED
from tests.e2e.test_secret_rotation import is_refused, keep_calling
from tests.upstream.test_tls import Authority, server_side

OLD, NEW = "old", "new"
FILES = ("tls.crt", "tls.key")


@dataclass
class Certified(Toolbox):
    """Takes connections that show a certificate of one of these names; all others it counts and turns away."""

    names: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    turned_away: int = 0

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object").getpeercert()
        [name] = [value for rdn in shown["subject"] for key, value in rdn if key == "commonName"]
        if name in self.names:
            self.seen[name] += 1
            await super().handle(got, writer)
        else:
            self.turned_away += 1
            writer.write(answer(b"", status="403 Forbidden"))


async def echo(call: Call) -> None:
    await call.text("here")


@dataclass
class Stage:
    """A gateway before a server of each era, and who calls which of their tools."""

    gateway: Gateway
    authority: Authority
    folder: Path
    boxes: dict[str, Certified]
    every: list[tuple[Agent, str]]

    def mount(self, era: str, name: str) -> None:
        """Another pair in place of the one before, in one moment: a link that leads elsewhere from then on."""
        mount(self.authority, self.folder / era, f"{era}-{name}")

    def write(self, era: str, name: str) -> None:
        """Another pair over the one before, one file after the other."""
        for file, issued in zip(FILES, self.authority.issue(f"{era}-{name}"), strict=True):
            (self.folder / era / file).write_bytes(Path(issued).read_bytes())


def mount(authority: Authority, place: Path, name: str) -> None:
    version = place / f"..{name}"
    version.mkdir(parents=True)
    for file, issued in zip(FILES, authority.issue(name), strict=True):
        (version / file).write_bytes(Path(issued).read_bytes())
        if not (place / file).is_symlink():
            (place / file).symlink_to(f"..data/{file}")
    (place / "..new").symlink_to(version.name)
    (place / "..new").rename(place / "..data")


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    authority = Authority(folder, "ca")
    boxes = {era: Certified(era, {f"echo-{era}": echo}, names={f"{era}-{OLD}"}) for era in ERAS}
    async with AsyncExitStack() as stack:
        servers = {}
        for era, box in boxes.items():
            mount(authority, folder / era, f"{era}-{OLD}")
            certificates = server_side(authority, clients=authority)
            server = await stack.enter_async_context(scripted(box.handle, certificates=certificates))
            files = dict(zip(("cert", "key"), (f"{era}/{file}" for file in FILES), strict=True))
            servers[era] = {"url": server.url, "tls": {"ca": "ca.pem", **files}}
        gateway = await stack.enter_async_context(running_beside({"servers": servers}, folder))
        tools = [f"echo-{era}" for era in ERAS]
        await listed(gateway, *tools)
        agents = [await agent(era, gateway.url, KEY) for era in ERAS]
        yield Stage(gateway, authority, folder, boxes, [(one, tool) for one in agents for tool in tools])


@pytest.mark.parametrize("way", ["mount", "write"])
def test_another_certificate_is_shown_and_no_call_notices(tmp_path: Path, way: str) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), staged(tmp_path) as stage:
            over = asyncio.Event()
            load = [asyncio.create_task(keep_calling(*one, over)) for one in stage.every]
            for era, box in stage.boxes.items():
                box.names.add(f"{era}-{NEW}")
                getattr(stage, way)(era, NEW)

            async def all_by_the_new_one() -> bool:
                """The calls of before are over: a good many have come by the new one since the last by the old one."""
                before = {era: box.seen.copy() for era, box in stage.boxes.items()}
                await until(lambda: each_has(8, before))
                return all(box.seen[f"{era}-{OLD}"] == before[era][f"{era}-{OLD}"] for era, box in stage.boxes.items())

            async def each_has(more: int, before: dict[str, Counter[str]]) -> bool:
                return all(box.seen.total() >= before[era].total() + more for era, box in stage.boxes.items())

            await until(all_by_the_new_one, 30)
            for era, box in stage.boxes.items():
                box.names.remove(f"{era}-{OLD}")
            counts = {era: box.seen.copy() for era, box in stage.boxes.items()}
            await until(lambda: each_has(16, counts))
            over.set()
            assert min(await asyncio.gather(*load)) > 1
            assert [box.turned_away for box in stage.boxes.values()] == [0, 0]
            assert stage.gateway.metric("fastgw_worker_restarts_total") == 0

    asyncio.run(play())


def test_a_pair_that_is_none_changes_nothing_until_it_is_one(tmp_path: Path) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), staged(tmp_path) as stage:
            _, foreign = stage.authority.issue("another")
            key = tmp_path / "modern" / FILES[1]
            key.write_bytes(Path(foreign).read_bytes())
            await until(lambda: is_refused(stage.gateway))
            assert stage.gateway.logs("is not the key of this certificate")
            for one, tool in stage.every * 4:
                assert (await one.call(tool)).json()["result"]["content"][0]["text"] == "here"
            assert stage.boxes["modern"].seen[f"modern-{OLD}"] > 0
            before = await asyncio.to_thread(stage.gateway.metric, APPLIED)
            stage.boxes["modern"].names.add(f"modern-{NEW}")
            stage.write("modern", NEW)

            async def applied() -> bool:
                return await asyncio.to_thread(stage.gateway.metric, APPLIED) > before

            await until(applied)
            seen = stage.boxes["modern"].seen[f"modern-{OLD}"]
            for one, tool in stage.every * 4:
                assert (await one.call(tool)).json()["result"]["content"][0]["text"] == "here"
            assert stage.boxes["modern"].seen[f"modern-{OLD}"] == seen
            assert [box.turned_away for box in stage.boxes.values()] == [0, 0]

    asyncio.run(play())
