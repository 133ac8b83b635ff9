"""Servers that are down or hold back one list of prompts, resources, templates, tools: the others stay and change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.asking import ERAS, LISTS, Agent, agent
from tests.e2e.gateway import running_beside, until
from tests.e2e.http import Reply
from tests.e2e.library import done, libraries, offered, said, shelf, shelf_listed, shelf_names, text
from tests.e2e.ports import free_port
from tests.e2e.servers import serving

BOTH = 24  # fresh connections reach both workers; that they do not has a chance of 1 in 10**7
KEYS = {"prompts/list": "name", "resources/list": "uri", "resources/templates/list": "uriTemplate"}


def worker_of(reply: Reply) -> str:
    """Which worker answered, by the beginning its request ids share."""
    return str(reply.header("x-request-id"))[:-8]


async def seen(who: Agent) -> dict[str, list[list[str]]]:
    """What both workers list: for each list one entry, if they agree."""
    found = {}
    for method, kind in LISTS.items():
        replies = [await who.ask(method) for _ in range(BOTH)]
        assert len({worker_of(reply) for reply in replies}) == 2
        key = KEYS.get(method, "name")
        lists = [[one[key] for one in reply.json()["result"][kind]] for reply in replies]
        found[method] = [one for at, one in enumerate(lists) if one not in lists[:at]]
    return found


@pytest.mark.parametrize("era", ERAS)
def test_lists_outlive_their_server_and_a_restart(era: str, tmp_path: Path) -> None:
    up = shelf("modern" if era == "legacy" else "legacy")
    down = shelf(era)
    whole = {method: [[shelf_names(up.era)[method], key]] for method, key in shelf_names(era).items()}

    async def story() -> None:
        async with serving(up) as other:
            # A port that the system gave would go to somebody else while the server is down.
            async with serving(down, free_port()) as place:
                port = place.port
                servers = {"up": {"url": other.url}, "down": {"url": place.url, "era": era}}
                async with running_beside({"servers": servers}, tmp_path) as gateway:
                    await shelf_listed(gateway.url, "modern", "legacy")
                    who = await agent("modern", gateway.url)
                    assert await seen(who) == whole
                    assert "result" in (await who.read(f"{era}:one")).json()
            async with running_beside({"servers": servers}, tmp_path) as gateway:
                who, old = await agent("modern", gateway.url), await agent("legacy", gateway.url)
                assert await seen(who) == whole, "what was kept is listed while its server is down"
                for one in (who, old):
                    for reply in (
                        await one.get(f"{era}-one"),
                        await one.read(f"{era}:one"),
                        await one.read(f"{era}://7"),
                    ):
                        assert reply.json()["error"]["data"]["mayHaveRun"] is False
                        assert reply.json()["error"]["code"] not in (-32602, -32002), "it is down, not missing"
                    assert "result" in (await one.read(f"{up.era}:one")).json()
                down.prompts["late"] = said("late")
                async with serving(down, port):
                    await offered(gateway.url, "prompts/list", ["late"])
                    for one in (who, old):
                        assert "result" in (await one.get("late")).json()
                        assert "result" in (await one.read(f"{era}://7")).json()

    asyncio.run(asyncio.wait_for(story(), 60))


HOLDING = ("prompts/list", "resources/list", "resources/templates/list", "tools/list")


@pytest.mark.parametrize("how", ["mute", "broken"])
def test_one_list_held_back_costs_no_other(how: str, tmp_path: Path) -> None:
    """Four servers, each of which holds back another list from the beginning, and gives it in the end."""
    boxes = {}
    for number, method in enumerate(HOLDING):
        box = boxes[f"s{number}"] = shelf("modern" if number % 2 else "legacy")
        box.tools = {f"k{number}-tool": done}
        box.prompts = {f"k{number}-one": said()}
        box.resources = {f"k{number}:one": text("x:y")}
        box.templates = [f"k{number}://{{x}}"]
        getattr(box, how).add(method)

    async def story() -> None:
        async with libraries(tmp_path, boxes) as gateway:
            async with asyncio.timeout(7):  # the list that is held back is waited for 10 s, the others for 1 s
                for number, held in enumerate(HOLDING):
                    for method, key in shelf_names(f"k{number}").items():
                        if method != held:
                            await offered(gateway.url, method, [key])
            who = await agent("legacy", gateway.url)
            for number, held in enumerate(HOLDING):
                key = KEYS.get(held, "name")
                assert shelf_names(f"k{number}")[held] not in [one[key] for one in await who.items(held)]
            for box in boxes.values():
                getattr(box, how).clear()
            if how == "broken":
                for number, held in enumerate(HOLDING):
                    await offered(gateway.url, held, [shelf_names(f"k{number}")[held]])

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("era", ERAS)
def test_a_list_that_fails_stays_as_it_was_while_others_change(era: str, tmp_path: Path) -> None:
    box = shelf(era)

    async def story() -> None:
        async with libraries(tmp_path, {"shelf": box}) as gateway:
            await shelf_listed(gateway.url, era)
            await until(box.listened_to)
            box.broken.add("resources/list")
            box.prompts["more"] = said()
            box.resources["more:doc"] = text("x:y")
            box.announce("prompts")
            await offered(gateway.url, "prompts/list", ["more"])
            who = await agent("modern", gateway.url)
            found = await seen(who)
            assert found["resources/list"] == [[f"{era}:one"]]
            assert found["prompts/list"] == [[f"{era}-one", "more"]]
            assert "result" in (await who.read(f"{era}:one")).json()
            box.broken.clear()
            await offered(gateway.url, "resources/list", ["more:doc"])

    asyncio.run(asyncio.wait_for(story(), 60))
