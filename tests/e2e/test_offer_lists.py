"""Lists of prompts, resources and templates: their pages, their cursors, and what servers do to them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, LISTS, Agent, agent
from tests.e2e.gateway import KEY, Gateway, fingerprint, until
from tests.e2e.http import Reply
from tests.e2e.library import Library, done, libraries, offered, said, shelf, shelf_listed, text

OTHER = "fgw_test_other"
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "other": {"key": fingerprint(OTHER), "claims": {"team": "test"}},
}
MANY = 2500
KEYS = {"prompts/list": "name", "resources/list": "uri", "resources/templates/list": "uriTemplate"}


def worker_of(reply: Reply) -> str:
    """Which worker answered, by the beginning its request ids share."""
    return str(reply.header("x-request-id"))[:-8]


# -- pages ----------------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    gateway: Gateway
    loop: Aside


@asynccontextmanager
async def large(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    """Tools and prompts have the same names: their cursors differ in nothing but the list."""
    box = Library(
        "modern",
        {f"item-{number}": done for number in range(1100)},
        prompts={f"item-{number}": said() for number in range(1100)},
        resources={f"doc:{number}": text(f"doc:{number}") for number in range(MANY)},
    )
    endpoints: dict[str, Any] = {"/mcp": {}, "/mcp/other": {}}
    async with libraries(folder, {"shelf": box}, agents=AGENTS, endpoints=endpoints) as gateway:
        await offered(gateway.url, "resources/list", ["doc:0"])
        await offered(gateway.url, "prompts/list", ["item-0"])
        await offered(gateway.url, "tools/list", ["item-0"])
        yield Scene(gateway, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(large(tmp_path_factory.mktemp("large"), loop))


@pytest.mark.parametrize("era", ERAS)
def test_a_long_list_comes_in_pages(era: str, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.url)
        workers = set()
        for _ in range(5):
            params: dict[str, Any] = {}
            sizes, found = [], []
            while True:
                reply = await who.ask("resources/list", params)
                workers.add(worker_of(reply))
                result = reply.json()["result"]
                sizes.append(len(result["resources"]))
                found += [one["uri"] for one in result["resources"]]
                if "nextCursor" not in result:
                    break
                params = {"cursor": result["nextCursor"]}
            assert sizes == [1000, 1000, 500]
            assert found == [f"doc:{number}" for number in range(MANY)]
        assert len(workers) == 2, "pages of one list come from both workers"
        assert len(await who.items("prompts/list")) == len(await who.items("tools/list")) == 1100

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_a_cursor_is_good_for_its_agent_its_endpoint_and_its_list(era: str, stage: Scene) -> None:
    url = stage.gateway.url

    async def cursors(who: Agent) -> dict[str, str]:
        return {
            method: (await who.ask(method)).json()["result"]["nextCursor"]
            for method in ("tools/list", "prompts/list", "resources/list")
        }

    async def refused(who: Agent, method: str, cursor: Any) -> None:
        reply = await who.ask(method, {"cursor": cursor})
        error = reply.json()["error"]
        assert (reply.status, error["code"]) == (400 if era == "modern" else 200, -32602), (method, cursor)
        assert set(error["data"]) == {"requestId", "mayHaveRun"}

    async def story() -> None:
        here, other = await agent(era, url), await agent(era, url, OTHER)
        elsewhere = await agent(era, f"{url}/other")
        own, others, foreign = await cursors(here), await cursors(other), await cursors(elsewhere)
        for method in own:
            for stranger in ({**own, method: None}, others, foreign):
                for cursor in filter(None, stranger.values()):
                    await refused(here, method, cursor)
        good = own["resources/list"]
        for at in (0, 1, 15, 16, len(good) // 2, len(good) - 2):
            turned = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
            await refused(here, "resources/list", turned)
        strange: tuple[Any, ...] = ("", " ", good + "A", good[:-2], good + "=", "1000", "a" * 5000, 7, ["x"], {}, True)
        for bad in strange:
            await refused(here, "resources/list", bad)
        await refused(here, "resources/templates/list", good)
        assert len((await here.ask("resources/list", {"cursor": good})).json()["result"]["resources"]) == 1000
        null = (await here.ask("resources/list", {"cursor": None})).json()["result"]["resources"]
        assert null[0]["uri"] == "doc:0"

    stage.loop.run(story())


# -- changes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
def test_an_announced_change_appears_on_both_workers_and_can_be_used_at_once(era: str, tmp_path: Path) -> None:
    box = shelf(era)
    box.ttl_ms = 3_600_000  # nothing but the announcement brings it

    async def story() -> None:
        async with libraries(tmp_path, {"shelf": box}) as gateway:
            await shelf_listed(gateway.url, era)
            await until(box.listened_to)
            who = await agent("modern", gateway.url)

            async def news(method: str, key: str, use: Any) -> None:
                """Whoever lists it, every worker has it."""
                while True:
                    found = (await who.ask(method)).json()["result"][LISTS[method]]
                    if key in [one[KEYS[method]] for one in found]:
                        break
                for reply in await asyncio.gather(*(use() for _ in range(8))):
                    assert "result" in reply.json(), key

            box.prompts[f"{era}-two"] = said("two")
            box.announce("prompts")
            await news("prompts/list", f"{era}-two", lambda: who.get(f"{era}-two"))
            box.resources["new:doc"] = text("new:doc")
            box.templates.append("fresh://{x}")
            box.values["fresh://{x}"] = b'{"values":[]}'
            box.announce("resources")
            await news("resources/list", "new:doc", lambda: who.read("new:doc"))
            await news("resources/templates/list", "fresh://{x}", lambda: who.complete("ref/resource", "fresh://{x}"))
            del box.prompts[f"{era}-one"]
            del box.resources[f"{era}:one"]
            box.announce("prompts")
            box.announce("resources")

            async def gone() -> bool:
                listed = [await who.ask(method) for method in ("prompts/list", "resources/list") for _ in range(8)]
                return not any(f"{era}-one".encode() in one.body or b":one" in one.body for one in listed)

            await until(gone)
            assert (await who.get(f"{era}-one")).json()["error"]["data"]["name"] == f"{era}-one"

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_cursor_of_a_list_that_has_changed_continues_nothing(tmp_path: Path) -> None:
    box = shelf("modern")
    box.resources |= {f"doc:{number}": text("x:y") for number in range(1200)}

    async def story() -> None:
        async with libraries(tmp_path, {"shelf": box}) as gateway:
            await shelf_listed(gateway.url, "modern")
            await until(box.listened_to)
            who = await agent("legacy", gateway.url)
            cursor = (await who.ask("resources/list")).json()["result"]["nextCursor"]
            del box.resources["doc:5"]
            box.announce("resources")

            async def refused() -> bool:
                replies = [await who.ask("resources/list", {"cursor": cursor}) for _ in range(8)]
                return all(reply.json().get("error", {}).get("code") == -32602 for reply in replies)

            await until(refused)
            assert len(await who.items("resources/list")) == 1200

    asyncio.run(story())
