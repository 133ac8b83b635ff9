"""The controller's mind and the worker's parts: settings and kept catalogues in, a gateway that answers out."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastgw import __version__
from fastgw.catalog.definitions import DefinitionKind, parse_definition, parse_definitions
from fastgw.catalog.tools import Catalogue
from fastgw.config.reader import read_settings
from fastgw.config.schema.settings import EndpointSettings
from fastgw.errors import Fault, Kind
from fastgw.processes.assembly import parts
from fastgw.processes.control_plane import ControlPlane
from fastgw.processes.plan import Lifecycle, Plan, StoreAccess, plan_of
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.discovery import kept
from tests.e2e.http import Asked, modern

KEY = "fgw_a_key"
DOWN = "http://127.0.0.1:1/mcp"
"""Nobody listens there."""
OFFERS = ("prompts", "resources")
TOOLS = b'[{"name":"echo","inputSchema":{"type":"object"}}]'


def plan(folder: Path, **servers: dict[str, Any]) -> Plan:
    """The plan of a file with these servers and one agent."""
    fingerprint = f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
    file = folder / "fastgw.yaml"
    file.write_text(json.dumps({"servers": servers, "agents": {"a": {"key": fingerprint}}}))
    return plan_of(read_settings(file, {"TOKEN": "hush"}))


def keep(folder: Path, server: str) -> None:
    """Leave a catalogue as an earlier run would have."""
    tools, _ = parse_definitions(DefinitionKind.TOOL, server, TOOLS)
    kept.store(folder / "data" / "catalogue", Catalogue(server, tools, 0.0, 1.0, ()), {})


def thinking(found: Plan, scene: Callable[[ControlPlane], Awaitable[None]]) -> None:
    async def main() -> None:
        tasks = BackgroundTasks()
        control_plane = ControlPlane(found, (b"k" * 32,), tasks)
        try:
            await scene(control_plane)
        finally:
            await control_plane.close()
            await tasks.close()

    asyncio.run(main())


def test_a_kept_catalogue_is_in_the_first_snapshot(tmp_path: Path) -> None:
    keep(tmp_path, "one")

    async def scene(control_plane: ControlPlane) -> None:
        snapshot = control_plane.compile(7)
        assert snapshot.generation == 7
        assert snapshot.server_version == __version__
        assert list(snapshot.endpoints["/mcp"].routes) == ["echo"]
        assert control_plane.catalogue()["endpoints"] == {"/mcp": {"echo": {"to": ["one/echo"]}}}
        assert control_plane.backends()["one"]["tools"] == 1

    thinking(plan(tmp_path, one={"url": DOWN}), scene)


def test_collisions_are_one_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tools = [{"name": f"t{number}", "inputSchema": {"type": "object"}} for number in range(30)]
    for server in ("one", "two"):
        listed, _ = parse_definitions(DefinitionKind.TOOL, server, json.dumps(tools).encode())
        kept.store(tmp_path / "data" / "catalogue", Catalogue(server, (*listed, listed[0]), 0.0, 1.0, ()), {})

    async def scene(control_plane: ControlPlane) -> None:
        caplog.clear()
        control_plane.compile(1)
        lines = [record.getMessage() for record in caplog.records]
        assert [line.split(" ")[0] for line in lines] == ["60", "one/t0:", "two/t0:"], "two are listed twice"
        assert len(control_plane.catalogue()["notices"]) == 62

    thinking(plan(tmp_path, one={"url": DOWN}, two={"url": DOWN}), scene)


def test_a_reload_takes_servers_away_and_brings_others(tmp_path: Path) -> None:
    keep(tmp_path, "one")
    keep(tmp_path, "two")
    before = plan(tmp_path, one={"url": DOWN})
    after = plan(tmp_path, two={"url": DOWN})

    async def scene(control_plane: ControlPlane) -> None:
        assert list(control_plane.compile(1).backends) == ["one"]
        control_plane.reload(after.settings)
        assert list(control_plane.compile(2).backends) == ["two"]
        assert list(control_plane.backends()) == ["two"]

    thinking(before, scene)


def test_a_reload_with_another_address_goes_on_serving_the_hosts_of_the_one_that_is_open(tmp_path: Path) -> None:
    before = plan(tmp_path, one={"url": DOWN})
    after = before.settings.model_copy(update={"listen": "127.0.0.1:9"})

    async def scene(control_plane: ControlPlane) -> None:
        first = control_plane.compile(1)
        control_plane.reload(after)
        second = control_plane.compile(2)
        assert (second.hosts, second.origins) == (first.hosts, first.origins)

    thinking(before, scene)


def test_a_reload_cannot_let_anybody_in_by_an_address_that_is_not_in_use(tmp_path: Path) -> None:
    before = plan(tmp_path, one={"url": DOWN})
    beyond = replace(before, settings=before.settings.model_copy(update={"listen": "0.0.0.0:9"}))
    after = before.settings.model_copy(update={"endpoints": {"/open": EndpointSettings(auth=("none",))}})

    async def scene(control_plane: ControlPlane) -> None:
        with pytest.raises(ValueError, match="loopback"):
            control_plane.reload(after)
        assert list(control_plane.compile(2).endpoints) == ["/mcp"]

    thinking(beyond, scene)


def test_the_catalogue_says_whose_prompts_and_uris_are_there(tmp_path: Path) -> None:
    for server in ("one", "two"):
        prompt = parse_definition(DefinitionKind.PROMPT, server, b'{"name": "greet"}')
        resource = parse_definition(DefinitionKind.RESOURCE, server, b'{"uri": "x://a", "name": "a"}')
        offers = Catalogue(server, (), prompts=(prompt,), resources=(resource,), capabilities=frozenset(OFFERS))
        kept.store(tmp_path / "data" / "catalogue", offers, {})

    async def scene(control_plane: ControlPlane) -> None:
        control_plane.compile(1)
        said = control_plane.catalogue()
        assert said["prompts"] == {"/mcp": {"one__greet": ["one/greet"], "two__greet": ["two/greet"]}}
        assert said["resources"] == {"/mcp": {"one+x://a": "one/x://a", "two+x://a": "two/x://a"}}
        assert said["templates"] == {"/mcp": {}}

    thinking(plan(tmp_path, one={"url": DOWN}, two={"url": DOWN}), scene)


def test_a_session_of_a_server_that_was_taken_away_is_refused(tmp_path: Path) -> None:
    async def scene(control_plane: ControlPlane) -> None:
        with pytest.raises(Fault) as told:
            await control_plane.questions["open_session"](f"one|{DOWN}", "agent:a", None)
        assert (told.value.kind, told.value.data, told.value.sent) == (Kind.NO_SERVER, {"reason": "down"}, False)

    thinking(plan(tmp_path), scene)


def test_an_era_that_was_found_is_told_without_a_compile_and_where_the_file_settles_it_by_the_file(
    tmp_path: Path,
) -> None:
    heard: list[Any] = []

    async def scene(control_plane: ControlPlane) -> None:
        (one,), (two,) = (control_plane.compile(1).backends[name].instances for name in ("one", "two"))
        control_plane.begin(lambda: heard.append("changed"), heard.append, lambda *status: heard.append(status))
        heard.clear()
        for address in (one, two):
            control_plane._catalogues._servers[address.server].instances[address.key].known_era = "modern", "2026-07-28"
            control_plane._catalogues.on_era(address.key)
        assert heard == [(one.key, "modern", "2026-07-28"), (two.key, "legacy", "")]
        assert control_plane.instance_statuses()[two.key] == ("legacy", "")

    thinking(plan(tmp_path, one={"url": DOWN}, two={"url": f"{DOWN}/2", "era": "legacy"}), scene)


def test_sessions_that_workers_know_are_counted(tmp_path: Path) -> None:
    async def scene(control_plane: ControlPlane) -> None:
        (instance,) = control_plane.compile(1).backends["one"].instances
        control_plane.adopted([(instance.key, "agent:a", UpstreamSession("s", "2025-11-25"))])
        assert control_plane.backends()["one"]["sessions"] == 1
        found = await control_plane.questions["open_session"](instance.key, "agent:a", None)
        assert found == UpstreamSession("s", "2025-11-25")

    thinking(plan(tmp_path, one={"url": DOWN}), scene)


def test_a_credential_goes_to_its_server_and_into_no_dump(tmp_path: Path) -> None:
    async def scene(control_plane: ControlPlane) -> None:
        snapshot = control_plane.compile(1)
        assert b"hush" in snapshot.backends["one"].headers
        assert b"hush" not in snapshot.backends["two"].headers
        assert "hush" not in json.dumps([control_plane.backends(), control_plane.catalogue()]) + repr(control_plane)

    one = {"url": DOWN, "credential": {"bearer": "${env:TOKEN}"}}
    thinking(plan(tmp_path, one=one, two={"url": DOWN}), scene)


class Alone:
    """No controller: nothing that these tests ask needs one."""

    def alert(self, *_: Any) -> None: ...


async def answered(app: Any, asked: Asked) -> tuple[int, bytes]:
    """One request through the ASGI face."""
    sent: list[dict[str, Any]] = []
    headers = [(b"host", b"127.0.0.1:8080"), *((k.lower().encode(), v.encode()) for k, v in asked.headers)]
    scope = {"type": "http", "method": asked.verb, "path": "/mcp", "headers": headers}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_the_parts_make_a_gateway_that_serves_what_the_mind_compiled(tmp_path: Path) -> None:
    keep(tmp_path, "one")
    found = plan(tmp_path, one={"url": DOWN})

    async def scene(control_plane: ControlPlane) -> None:
        tasks = BackgroundTasks()
        made = parts(lambda _: found)
        assert made.control_plane is ControlPlane
        served, app = made.gateway(Alone(), Counters(), tasks, StoreAccess(found.store))  # type: ignore[arg-type]
        served.load(control_plane.compile(1))
        served.activate(1)
        status, body = await answered(partial(app, Lifecycle()), modern("tools/list", key=KEY))
        assert (status, [tool["name"] for tool in json.loads(body)["result"]["tools"]]) == (200, ["echo"])
        assert (await answered(partial(app, Lifecycle()), modern("tools/list", key="fgw_wrong")))[0] == 401
        status, body = await answered(partial(app, Lifecycle()), modern("server/discover", key=KEY))
        about = json.loads(body)["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]
        assert (status, about["version"]) == (200, __version__)
        await tasks.close()

    thinking(found, scene)
