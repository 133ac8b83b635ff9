"""What tools are called: on three kinds of endpoint, for subsets of servers, and that every name leads home."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, agent, listed
from tests.e2e.gateway import Gateway, running_beside
from tests.e2e.servers import Call, Toolbox, serving

LONG = "a-name-that-is-longer-than-" + "sixty-four-" * 5 + "characters"
LONGEST = "x" * 128
TOO_LONG = "y" * 129
BROUGHT = {
    "one": ("search", "only-one", LONG, LONGEST, TOO_LONG, "with space ", "führen", "routed", "skipped"),
    "two": ("search", "only-two", "one__search", LONG),
    "three": ("search", "only-three", "find"),
}
ERA = {"one": "modern", "two": "legacy", "three": "modern"}


def cut(name: str, whole: str) -> str:
    """The law of shortening, written a second time."""
    return f"{name[:55]}_{sha256(whole.encode()).hexdigest()[:8]}"


def home(*pairs: tuple[str, str]) -> dict[str, str]:
    return dict(pairs)


ROUTED = ("find", "one/routed")
"""An entry of `tools:`. It comes first, keeps its name beside a server's own `find`, and hides what it points at."""
EXPECTED = {
    "/mcp": home(
        ROUTED,
        (cut("one__search", "one/search"), "one/search"),
        ("only-one", "one/only-one"),
        (cut(f"one__{LONG}", f"one__{LONG}"), f"one/{LONG}"),
        (cut(LONGEST, LONGEST), f"one/{LONGEST}"),
        ("führen", "one/führen"),
        ("second__search", "two/search"),
        ("only-two", "two/only-two"),
        ("one__search", "two/one__search"),
        (cut(f"second__{LONG}", f"second__{LONG}"), f"two/{LONG}"),
        ("three__search", "three/search"),
        ("only-three", "three/only-three"),
        ("three__find", "three/find"),
    ),
    "/mcp/none": home(
        ROUTED,
        ("search", "one/search"),
        ("only-one", "one/only-one"),
        (cut(LONG, LONG), f"one/{LONG}"),
        (cut(LONGEST, LONGEST), f"one/{LONGEST}"),
        ("führen", "one/führen"),
        ("only-two", "two/only-two"),
        ("one__search", "two/one__search"),
        ("only-three", "three/only-three"),
    ),
    "/mcp/always": home(
        ("second__search", "two/search"),
        ("second__only-two", "two/only-two"),
        ("second__one__search", "two/one__search"),
        (cut(f"second__{LONG}", f"second__{LONG}"), f"two/{LONG}"),
        ("three__search", "three/search"),
        ("three__only-three", "three/only-three"),
        ("three__find", "three/find"),
    ),
    "/mcp/two": home(
        ("search", "two/search"),
        ("only-two", "two/only-two"),
        ("one__search", "two/one__search"),
        (cut(LONG, LONG), f"two/{LONG}"),
    ),
    "/mcp/some": home(("search", "three/search"), ("only-three", "three/only-three")),
}


@dataclass
class Scene:
    gateway: Gateway
    loop: Aside


def runs(server: str) -> Any:
    async def tool(call: Call) -> None:
        await call.text(f"{server}/{call.name}")

    return tool


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    boxes = {name: Toolbox(ERA[name], dict.fromkeys(tools, runs(name))) for name, tools in BROUGHT.items()}
    boxes["one"].definitions["only-one"] = {
        "title": "Theirs",
        "description": "Theirs",
        "annotations": {"title": "Theirs", "readOnlyHint": False},
        "x-own": [1.50, "é"],
        "_meta": {"their/own": 10**30},
    }
    async with serving(boxes["one"]) as one, serving(boxes["two"]) as two, serving(boxes["three"]) as three:
        servers = {
            "one": {
                "url": one.url,
                "tools": ["s[e]arch", "search", "only-*", "a-*", "x*", "y*", "with*", "f*", "routed"],
            },
            "two": {"url": two.url, "alias": "second"},
            "three": {"url": three.url},
        }
        endpoints = {
            "/mcp": {},
            "/mcp/none": {"naming": "none"},
            "/mcp/always": {"naming": "always", "servers": ["three", "two"]},
            "/mcp/two": {"servers": ["two"]},
            "/mcp/some": {"servers": ["three"], "tools": ["only-*", "three/search"]},
        }
        words = {"description": "Ours", "title": "Ours too", "annotations": {"readOnlyHint": True}}
        tools = {"find": {"to": "one/routed"}, "one/only-one": words}
        more = {"servers": servers, "endpoints": endpoints, "tools": tools}
        async with running_beside(more, folder) as gateway:
            await listed(gateway, "only-one", "only-two", "only-three")
            yield Scene(gateway, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("names"), loop))


@pytest.mark.parametrize("path", EXPECTED)
@pytest.mark.parametrize("era", ERAS)
def test_every_name_leads_home(stage: Scene, path: str, era: str) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.root + path)
        names = await who.names()
        assert names == list(EXPECTED[path])
        assert all(len(name) <= 64 for name in names)
        for name, own in EXPECTED[path].items():
            reply = (await who.call(name)).json()
            assert reply["result"]["content"] == [{"type": "text", "text": own}], name

    stage.loop.run(story())


@pytest.mark.parametrize("path", EXPECTED)
def test_no_other_name_leads_anywhere(stage: Scene, path: str) -> None:
    """Every name a tool has elsewhere, or could have had, is nobody's here unless the list has it."""
    every = {name for expected in EXPECTED.values() for name in expected}
    every |= {tool for tools in BROUGHT.values() for tool in tools}
    every |= {f"{server}/{tool}" for server, tools in BROUGHT.items() for tool in tools}
    every |= {f"{alias}__{tool}" for alias in ("one", "two", "second", "three") for tool in ("search", LONG, "routed")}

    async def story() -> None:
        who = await agent("legacy", stage.gateway.root + path)
        for name in sorted(every - set(EXPECTED[path])):
            assert (await who.call(name)).json()["error"]["code"] == -32602, name

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_the_operators_words_and_the_servers_own(stage: Scene, era: str) -> None:
    async def story() -> dict[str, Any]:
        who = await agent(era, stage.gateway.url)
        return next(tool for tool in await who.tools() if tool["name"] == "only-one")

    assert stage.loop.run(story()) == {
        "name": "only-one",
        "inputSchema": {"type": "object"},
        "title": "Ours too",
        "description": "Ours",
        "annotations": {"title": "Theirs", "readOnlyHint": True},
        "x-own": [1.50, "é"],
        "_meta": {"their/own": 10**30},
    }


def test_the_operator_is_told(stage: Scene) -> None:
    """What was renamed, hidden by a collision or left out stands at /catalogue, with the endpoint."""
    status, body = stage.gateway.ask_admin("/catalogue")
    assert status == 200
    told = json.loads(body)
    notices = {(one["endpoint"], one["subject"]) for one in told["notices"]}
    assert ("/mcp", "two/search") in notices
    assert ("/mcp/none", "two/search") in notices
    assert ("/mcp", f"one/{TOO_LONG[:128]!r}") in notices
    assert ("/mcp", f"one/{'with space '!r}") in notices
    assert ("/mcp/two", "two/search") not in notices
    for path, expected in EXPECTED.items():
        assert {name: route["to"] for name, route in told["endpoints"][path].items()} == {
            name: [own] for name, own in expected.items()
        }
