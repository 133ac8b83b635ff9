"""Servers that lose their sessions, and say so in every way there is; servers with one session, and with two eras.

refusal                                       the call that meets it              the next one
4xx, whatever its words                       asked again in one new session      in that session
a JSON-RPC error about it, with a null id     asked again in one new session      in that session
anything else                                 hears an error: it may have run     in a new session
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, agent
from tests.e2e.forgiving import WITHIN, Heard, Outcome, World, errors, forgiving, heard, of, told
from tests.e2e.gateway import until
from tests.e2e.manners import (
    NULL_SESSION,
    OWN,
    SILENT,
    Blind,
    Both,
    Deaf,
    Forbidding,
    Forgetful,
    Lost,
    Nameless,
    Polite,
    Single,
    plain,
)

BEFORE_THE_CALL = (400, 401, 403, 404, 405, 406, 409, 410, 412, 415, 422)
UNCLEAR = (500, 502, 503, 200)
CALLED = [(status, wording) for status in (*BEFORE_THE_CALL, *UNCLEAR) for wording in (*NULL_SESSION, *OWN, *SILENT)]
ELSEWHERE = [
    (status, wording, place)
    for status in (400, 401, 404, 422, 500)
    for wording in ("null-session", "own-session", "text")
    for place in ("get", "read")
]
STREAMED = [
    (status, wording) for status in (400, 401, 403, 404, 422, 500, 503) for wording in ("null-session", "text", "empty")
]
NAMELESS = [
    (status, wording) for status in (400, 401, 404, 422) for wording in ("own-initialized", "null-terminated", "text")
]
FORBIDDEN = [(status, wording) for status in (401, 403, 404, 409, 422) for wording in ("own-other", "text", "empty")]
FORBIDDEN += [(200, "own-other"), (500, "own-other")]
PINGLESS = [(401, "text"), (403, "empty"), (404, "null-session"), (422, "own-initialize"), (400, "own-initialized")]
BLIND = [
    (401, "text"),
    (401, "own-unauthorized"),
    (403, "empty"),
    (404, "text"),
    (422, "json"),
    (422, "own-initialize"),
]
CROWDED = [
    (401, "text"),
    (404, "null-session"),
    (422, "own-initialize"),
    (400, "own-initialized"),
    (200, "null-session"),
]
FORGETFUL = [(401, "text"), (404, "null-session"), (422, "own-initialize"), (500, "text"), (200, "own-session")]
YOUNG = [(401, "text"), (404, "null-session"), (422, "own-initialize"), (400, "empty"), (403, "null-other")]
TWICE = [
    (401, "text"),
    (404, "null-session"),
    (422, "own-initialize"),
    (400, "empty"),
    (403, "null-other"),
    (409, "html"),
]
SETTLED = 1.2
"""Seconds after which a session is one that was not just opened."""
STORM = 2.5
"""Seconds of calls to a server that loses every session at once."""
SINGLE = (400, 409, 200)
FACELESS = (400, 405, 404, 500)
CALLS, AT_ONCE = 6, 24
OFFERS = {
    "prompts/list": ("prompts", [{"name": "greet", "arguments": [{"name": "who"}]}]),
    "resources/list": ("resources", [{"uri": "note://all/first", "name": "first"}]),
    "resources/templates/list": ("resourceTemplates", [{"uriTemplate": "note://all/{who}", "name": "note"}]),
}


class Faceless(Both):
    """Speaks the modern revision; to what is older it has nothing to say."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__()

    async def open(self, message: dict[str, Any]) -> bytes | None:
        return plain(self.status, b"Not here.\n")


def lost(status: int, wording: str, place: str = "call") -> str:
    return f"lost-{status}-{wording}-{place}"


def named(story: str, status: int, wording: str) -> str:
    return f"{story}-{status}-{wording}"


def table() -> tuple[dict[str, Polite], dict[str, dict[str, Any]]]:
    """Every server and its settings."""
    quick = {"refresh": "2s"}
    servers: dict[str, Polite] = {lost(*row): Lost(*row) for row in CALLED}
    settings: dict[str, dict[str, Any]] = dict.fromkeys(servers, quick)
    everything: dict[str, Any] = {"capabilities": {"tools": {}, "prompts": {}, "resources": {}}, "offers": OFFERS}
    two = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("count", "forbidden")]}
    servers |= {lost(*row, place): Lost(*row, **everything) for *row, place in ELSEWHERE}
    servers |= {lost(*row, "stream"): Deaf(*row) for row in STREAMED}
    servers |= {lost(*row, "pingless"): Lost(*row, pings=False) for row in PINGLESS}
    servers |= {lost(*row, "blind"): Blind(*row) for row in BLIND}
    servers |= {named("nameless", *row): Nameless(*row) for row in NAMELESS}
    servers |= {named("forbids", *row): Forbidding(*row, **two) for row in FORBIDDEN}
    servers |= {named("forbids", *row) + "-pingless": Forbidding(*row, **two, pings=False) for row in FORBIDDEN}
    servers |= {named("forgetful", *row): Forgetful(*row) for row in FORGETFUL}
    for story, rows in (("young", YOUNG), ("twice", TWICE), ("crowded", CROWDED)):
        servers |= {named(story, *row): Lost(*row) for row in rows}
    servers |= {f"single-{status}": Single(status) for status in SINGLE}
    settings |= {f"single-{status}": {**quick, "shared_session": True} for status in SINGLE}
    servers |= {"both": Both(), **{f"faceless-{status}": Faceless(status) for status in FACELESS}}
    return servers, settings


@dataclass
class Walk:
    """All stories, told once."""

    servers: dict[str, Polite]
    seen: dict[str, Outcome] = field(default_factory=dict)
    backends: dict[str, Any] = field(default_factory=dict)

    async def all(self, folder: Path) -> None:
        self.servers, settings = table()
        async with forgiving(folder, self.servers, settings) as world:
            self.seen = await told(self.servers, lambda name, seen: tell(world, name, seen), at_once=150)
            self.backends = await world.backends()


async def tell(world: World, name: str, seen: Outcome) -> None:
    """The story of one server."""
    server = world.servers[name]
    await world.listed(f"{name}__{server.tools[0]['name']}")
    if isinstance(server, Deaf):
        await lose_stream(world, server, seen)
    elif isinstance(server, Forbidding):
        await forbid(world, server, seen)
    elif isinstance(server, Single) or name.startswith("crowded"):
        await share(world, server, seen)
    elif isinstance(server, Forgetful):
        await storm(world, server, seen)
    elif name.startswith("twice"):
        await lose_twice(world, server, seen)
    elif name.startswith("young"):
        seen["before"] = [await world.ask(era, server.name) for era in ERAS]
        server.restart()
        await until(lambda: both_succeed(world, server, seen))
    elif isinstance(server, Both):

        async def is_known() -> bool:
            return name != "both" or all(one["era"] == "both" for one in (await world.backend(name))["instances"])

        await until(is_known)  # on a busy machine its sessions are found in the second round
        await face(world, server, seen)
    else:
        await lose(world, server, seen)


async def settled(server: Polite) -> bool:
    """Whether the server's newest session was not just opened."""
    return asyncio.get_running_loop().time() - server.opened[-1].at > SETTLED


async def both_succeed(world: World, server: Polite, seen: Outcome) -> bool:
    """Whether each agent has succeeded by now."""
    after = seen.setdefault("after", set())
    after |= {era for era in ERAS if (await world.ask(era, server.name)).text is not None}
    return after == set(ERAS)


async def lose(world: World, server: Polite, seen: Outcome) -> None:
    """Both agents call before the restart and after it."""
    asks = {"get": world.get, "read": world.read}.get(server.name.rpartition("-")[2], world.ask)

    async def known() -> bool:
        """Lists come each by itself: that its tools are listed says nothing of its prompts."""
        seen["before"] = [await asks(era, server.name) for era in ERAS for _ in range(4)]
        return all(one.text is not None for one in seen["before"])

    await until(known)
    await until(lambda: settled(server))
    server.restart()
    seen["restarted"] = asyncio.get_running_loop().time()
    for era in ERAS:
        seen[era] = [await asks(era, server.name) for _ in range(3)]
    if server.name.endswith("-call"):
        await world.listed(f"{server.name}__added")
        seen["listed"] = True


async def lose_stream(world: World, server: Deaf, seen: Outcome) -> None:
    """Nobody calls: only the stream of the gateway's own session ends."""

    async def listened_to() -> bool:
        return bool(server.streams)

    await until(listened_to)
    server.restart()
    await until(listened_to, WITHIN)
    seen["again"] = True
    await world.listed(f"{server.name}__added")
    server.add("later")
    server.announce()
    await world.listed(f"{server.name}__later")
    seen["heard"] = True


async def forbid(world: World, server: Forbidding, seen: Outcome) -> None:
    """One tool is refused again and again between two calls of the other."""
    for era in ERAS:
        first = await world.ask(era, server.name)
        began = asyncio.get_running_loop().time()
        refused = [await world.ask(era, server.name, "forbidden") for _ in range(CALLS)]
        seconds = asyncio.get_running_loop().time() - began
        seen[era] = (first, refused, await world.ask(era, server.name))
        seen[f"{era} opened"] = (sum(one.at >= began for one in server.opened), seconds)


async def share(world: World, server: Polite, seen: Outcome) -> None:
    """Many calls of both agents at once, a restart between."""
    for part in ("before", "after"):
        calls = [world.ask(ERAS[number % 2], server.name) for number in range(AT_ONCE)]
        seen[part] = await asyncio.gather(*calls)
        seen[f"{part} opened"] = len(server.opened)
        if part == "before":
            await until(lambda: settled(server))
            server.restart()
            seen["restarted"] = asyncio.get_running_loop().time()
    if isinstance(server, Single):
        await world.listed(f"{server.name}__added")
        seen["listed"] = True


async def lose_twice(world: World, server: Polite, seen: Outcome) -> None:
    """Both workers know a session; after the first restart one of them has another; then that is lost, too."""
    for _ in range(8):
        await asyncio.gather(*[world.ask(era, server.name) for era in ERAS])
    await until(lambda: settled(server))
    server.restart()
    seen["between"] = [await world.ask(era, server.name) for era in ERAS]
    await until(lambda: settled(server))
    server.restart()
    seen["first"] = [await world.ask(era, server.name) for era in ERAS]
    await until(lambda: both_succeed(world, server, seen))
    for era in ERAS:
        seen[era] = [await world.ask(era, server.name) for _ in range(8)]


async def storm(world: World, server: Forgetful, seen: Outcome) -> None:
    """Calls without a pause, each in a session that is lost; then one that has time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + STORM
    answers: list[Heard] = []
    while loop.time() < end:
        answers += await asyncio.gather(*[world.ask(era, server.name) for era in ERAS])
    seen["storm"] = answers
    await until(lambda: both_succeed(world, server, seen))


async def face(world: World, server: Both, seen: Outcome) -> None:
    """Three calls by each agent, one by a second legacy agent."""
    for era in ERAS:
        seen[era] = [await world.ask(era, server.name) for _ in range(3)]
    second = await agent("legacy", world.gateway.url)
    seen["second"] = heard("second", await second.call(f"{server.name}__count", {"who": "second"}))
    await until(lambda: settled(server))
    server.restart()
    seen["after"] = [await world.ask("legacy", server.name) for _ in range(2)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    walked = Walk({})
    asyncio.run(walked.all(tmp_path_factory.mktemp("manners")))
    yield walked


def texts(answers: list[Heard]) -> list[str | None]:
    return [one.text for one in answers]


def is_healed(status: int, wording: str) -> bool:
    """Whether the very call that meets this refusal is asked again."""
    return status in BEFORE_THE_CALL or wording in NULL_SESSION


def check_the_calls(walk: Walk, name: str, era: str, healed: bool) -> None:
    seen, server = walk.seen[name], walk.servers[name]
    calls: list[Heard] = of(seen, era)
    if healed:
        assert texts(calls) == ["1", "2", "3"], calls[0].error
        assert [server.ran[one.who] for one in calls] == [1, 1, 1]
        return
    assert texts(calls) == [None, "1", "2"], calls[1].error
    assert calls[0].may_have_run in (True, None)
    assert [server.ran[one.who] for one in calls] == [0, 1, 1]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording"), CALLED)
def test_a_call_meets_a_lost_session(walk: Walk, status: int, wording: str, era: str) -> None:
    check_the_calls(walk, lost(status, wording), era, is_healed(status, wording))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording", "place"), ELSEWHERE)
def test_a_prompt_or_a_resource_meets_a_lost_session(
    walk: Walk, status: int, wording: str, place: str, era: str
) -> None:
    check_the_calls(walk, lost(status, wording, place), era, is_healed(status, wording))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("status", "wording", "place"),
    [(*row, "pingless") for row in PINGLESS] + [(*row, "blind") for row in BLIND],
)
def test_what_ping_hears_is_another_matter(walk: Walk, status: int, wording: str, place: str, era: str) -> None:
    check_the_calls(walk, lost(status, wording, place), era, is_healed(status, wording))


@pytest.mark.parametrize(("status", "wording"), CROWDED)
def test_many_calls_meet_a_lost_session_at_once(walk: Walk, status: int, wording: str) -> None:
    seen, server = walk.seen[f"crowded-{status}-{wording}"], walk.servers[f"crowded-{status}-{wording}"]
    for part in ("before", "after"):
        answers: list[Heard] = of(seen, part)
        for era in ERAS:
            own = [one for one in answers if one.who.startswith(era)]
            assert sorted(int(one.text or 0) for one in own) == list(range(1, AT_ONCE // 2 + 1))
        assert {server.ran[one.who] for one in answers} == {1}
    used = sessions_used(server, of(seen, "restarted"))
    assert {era: len(sessions) for era, sessions in used.items()} == dict.fromkeys(ERAS, 1)


@pytest.mark.parametrize(("status", "wording"), FORGETFUL)
def test_never_more_than_one_initialize_a_second(walk: Walk, status: int, wording: str) -> None:
    seen, server = walk.seen[f"forgetful-{status}-{wording}"], walk.servers[f"forgetful-{status}-{wording}"]
    answers: list[Heard] = of(seen, "storm")
    assert {server.ran[one.who] for one in answers if one.text is not None} <= {1}
    assert max(server.ran.values()) == 1
    opened = {one.session: one.at for one in server.opened}
    for era in ERAS:
        used = {one.session for one in server.asked if one.who.startswith(era)}
        times = sorted(opened[session] for session in used if session is not None)
        assert all(later - earlier > 0.95 for earlier, later in pairwise(times)), times
    assert of(seen, "after") == set(ERAS)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording"), TWICE)
def test_a_session_that_only_one_worker_knows_is_lost_in_its_turn(
    walk: Walk, status: int, wording: str, era: str
) -> None:
    seen = walk.seen[f"twice-{status}-{wording}"]
    assert texts(of(seen, "between")) == ["1", "1"]
    assert era in of(seen, "after")
    assert None not in texts(of(seen, era))


@pytest.mark.parametrize(("status", "wording"), TWICE)
def test_the_first_call_after_a_second_restart_is_asked_again(walk: Walk, status: int, wording: str) -> None:
    assert texts(of(walk.seen[f"twice-{status}-{wording}"], "first")) == ["1", "1"]


@pytest.mark.parametrize(("status", "wording"), YOUNG)
def test_a_session_that_was_just_opened_is_replaced_soon(walk: Walk, status: int, wording: str) -> None:
    assert of(walk.seen[f"young-{status}-{wording}"], "after") == set(ERAS)


@pytest.mark.parametrize(("status", "wording"), CALLED)
def test_lists_are_fetched_in_a_new_session(walk: Walk, status: int, wording: str) -> None:
    assert of(walk.seen[lost(status, wording)], "listed")
    assert errors(walk.backends[lost(status, wording)]) == ""


@pytest.mark.parametrize(("status", "wording"), STREAMED)
def test_the_stream_of_changes_is_opened_in_a_new_session(walk: Walk, status: int, wording: str) -> None:
    seen = walk.seen[lost(status, wording, "stream")]
    assert of(seen, "again")
    assert of(seen, "heard")


def sessions_used(server: Polite, since: float) -> dict[str, set[str]]:
    """Which sessions that were opened since then each agent used."""
    opened = {one.session for one in server.opened if one.at >= since}
    used: dict[str, set[str]] = defaultdict(set)
    for one in server.asked:
        if one.session in opened:
            used[one.who.partition("-")[0]].add(str(one.session))
    return used


@pytest.mark.parametrize(("status", "wording"), CALLED)
def test_one_new_session_for_each_who_asks(walk: Walk, status: int, wording: str) -> None:
    seen, server = walk.seen[lost(status, wording)], walk.servers[lost(status, wording)]
    since = of(seen, "restarted")
    opened = {one.session: one.at for one in server.opened if one.at >= since}
    used = sessions_used(server, since)
    assert {era: len(sessions) for era, sessions in used.items()} == dict.fromkeys(ERAS, 1)
    assert not used["modern"] & used["legacy"]
    own = sorted(at for session, at in opened.items() if session not in used["modern"] | used["legacy"])
    assert all(later - earlier > 0.95 for earlier, later in pairwise(own)), own


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording"), NAMELESS)
def test_a_server_without_session_ids_is_initialized_again(walk: Walk, status: int, wording: str, era: str) -> None:
    name = f"nameless-{status}-{wording}"
    calls = of(walk.seen[name], era)
    assert None not in texts(calls), calls[0].error
    assert [walk.servers[name].ran[one.who] for one in calls] == [1, 1, 1]


PINGS = pytest.mark.parametrize("pings", ["", "-pingless"], ids=["pings", "pingless"])


@PINGS
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording"), FORBIDDEN)
def test_what_is_refused_in_a_living_session_means_what_it_says(
    walk: Walk, status: int, wording: str, era: str, pings: str
) -> None:
    _, refused, _ = of(walk.seen[f"forbids-{status}-{wording}{pings}"], era)
    assert texts(refused) == [None] * CALLS
    if wording == "own-other" and status not in (401, 403):
        assert {(one.error["code"], one.error["message"]) for one in refused} == {(-32050, "Not allowed")}


@PINGS
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording"), FORBIDDEN)
def test_the_session_that_there_was_goes_on(walk: Walk, status: int, wording: str, era: str, pings: str) -> None:
    first, _, last = of(walk.seen[f"forbids-{status}-{wording}{pings}"], era)
    assert (first.text, last.text) == ("1", "2")


@PINGS
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("status", "wording"), FORBIDDEN)
def test_a_refusal_that_stays_opens_no_session_for_each_call(
    walk: Walk, status: int, wording: str, era: str, pings: str
) -> None:
    opened, seconds = of(walk.seen[f"forbids-{status}-{wording}{pings}"], f"{era} opened")
    assert opened <= 1 + int(seconds)


@pytest.mark.parametrize("status", SINGLE)
def test_one_session_means_one(walk: Walk, status: int) -> None:
    seen, server = walk.seen[f"single-{status}"], walk.servers[f"single-{status}"]
    assert isinstance(server, Single)
    for part in ("before", "after"):
        answers = texts(of(seen, part))
        assert None not in answers
        assert sorted(map(int, filter(None, answers))) == list(range(1, AT_ONCE + 1))
    assert (of(seen, "before opened"), of(seen, "after opened"), server.refused) == (1, 2, 0)
    assert of(seen, "listed")
    assert server.ended == [], "it would never give another"


def test_no_id_comes_twice_in_a_session(walk: Walk) -> None:
    twice = {
        session: len(ids) - len(set(map(str, ids)))
        for server in walk.servers.values()
        for session, ids in server.ids.items()
        if session is not None and not isinstance(server, Nameless) and len(ids) > len(set(map(str, ids)))
    }
    assert twice == {}


def test_each_agent_gets_the_era_of_its_own(walk: Walk) -> None:
    seen, server = walk.seen["both"], walk.servers["both"]
    assert texts(of(seen, "legacy")) == ["1", "2", "3"]
    assert of(seen, "second").text == "1"
    assert texts(of(seen, "modern")) == ["1", "1", "1"]
    assert texts(of(seen, "after")) == ["1", "2"]
    sessions = defaultdict(set)
    for one in server.asked:
        sessions[one.who.partition("-")[0]].add(one.session)
    assert sessions["modern"] == {None}
    assert None not in sessions["legacy"] | sessions["second"]
    assert (len(sessions["legacy"]), len(sessions["second"])) == (2, 1)  # one before the restart, one after
    assert not sessions["legacy"] & sessions["second"]


@pytest.mark.parametrize("status", FACELESS)
def test_who_finds_no_older_face_is_brought_to_the_newer_one(walk: Walk, status: int) -> None:
    seen = walk.seen[f"faceless-{status}"]
    assert texts([*of(seen, "legacy"), of(seen, "second"), *of(seen, "modern")]) == ["1"] * 7
