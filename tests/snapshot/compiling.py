"""Settings and catalogues in a line each, and what an agent sees of the snapshot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastgw.catalog.definitions import DefinitionKind, parse_definitions
from fastgw.catalog.elements import Notice
from fastgw.catalog.tools import Catalogue
from fastgw.config.schema.settings import Settings
from fastgw.policy.match import Principal
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Grant, Listing, Snapshot, View

HASH = "sha256:" + "ab" * 32
Written = str | dict[str, Any]
"""A definition, or its key alone."""


def catalogue(server: str, *tools: Written, fresh_until: float = 0.0, **more: Any) -> Catalogue:
    """A catalogue with these tools; `prompts`, `resources`, `templates` likewise, `capabilities` and `instructions`."""
    array = [{"inputSchema": {"type": "object"}, **tool} for tool in _written("name", tools)]
    return Catalogue(
        server,
        parse_definitions(DefinitionKind.TOOL, server, json.dumps(array).encode())[0],
        fresh_until,
        prompts=_parsed(DefinitionKind.PROMPT, server, more.get("prompts", ())),
        resources=_parsed(DefinitionKind.RESOURCE, server, more.get("resources", ())),
        templates=_parsed(DefinitionKind.TEMPLATE, server, more.get("templates", ())),
        capabilities=frozenset(more.get("capabilities", ({"templates": "resources"}.get(one, one) for one in more))),
        instructions=more.get("instructions", ""),
    )


def _parsed(sort: DefinitionKind, server: str, written: Sequence[Written]) -> Any:
    named = {} if sort is DefinitionKind.PROMPT else {"name": "it"}
    array = [{**named, **one} for one in _written(sort.key, written)]
    found, notices = parse_definitions(sort, server, json.dumps(array).encode())
    assert not notices
    return found


def _written(key: str, written: Sequence[Written]) -> list[dict[str, Any]]:
    return [one if isinstance(one, dict) else {key: one} for one in written]


def brought(name: str, what: Any) -> Catalogue | None:
    """The catalogue of a server: None where it never answered; a list of tools; or a map of all it has."""
    if what is None:
        return None
    if isinstance(what, dict):
        return catalogue(name, *what.get("tools", ()), **{key: what[key] for key in what.keys() - {"tools"}})
    return catalogue(name, *what)


def settings(bring: Mapping[str, Any], **keys: Any) -> Settings:
    """Settings with these servers; a key named like one of them is about it."""
    servers = {name: {"url": f"http://127.0.0.1:9/{name}", **keys.pop(name, {})} for name in bring}
    return Settings.model_validate({"servers": servers, "agents": {"bot": {"key": HASH}}, **keys})


def noticed(bring: Mapping[str, Any], **keys: Any) -> tuple[Snapshot, tuple[Notice, ...]]:
    """A snapshot of servers that bring these things, all else as in the file, and what the operator hears."""
    known = {name: brought(name, what) for name, what in bring.items()}
    return compile_snapshot(settings(bring, **keys), Learned(catalogues=known), 1)


def compiled(bring: Mapping[str, Any], **keys: Any) -> Snapshot:
    """The snapshot alone."""
    return noticed(bring, **keys)[0]


def view(snapshot: Snapshot, agent: str = "bot", path: str = "/mcp") -> View:
    found = snapshot.endpoints[path].view_for(Principal(agent))
    assert found is not None
    return found


def listed(shown: View | Snapshot, method: str = "tools/list") -> Listing:
    return (view(shown) if isinstance(shown, Snapshot) else shown).lists[method]


def items(shown: View, method: str, dialect: str = "modern") -> list[dict[str, Any]]:
    """Everything on a list."""
    listing = shown.lists[method]
    return [item for start in listing.starts for item in json.loads(listing.page(start, dialect))]


def names(snapshot: Snapshot, agent: str = "bot", path: str = "/mcp") -> list[str]:
    """Names of the tools of an agent; those listed and those that can be called are the same."""
    shown = view(snapshot, agent, path)
    found = [tool["name"] for tool in items(shown, "tools/list")]
    assert found == list(shown.grants)
    return found


def prompts(snapshot: Snapshot, agent: str = "bot", path: str = "/mcp") -> list[str]:
    """Names of the prompts of an agent, likewise."""
    shown = view(snapshot, agent, path)
    found = [prompt["name"] for prompt in items(shown, "prompts/list")]
    assert found == list(shown.prompts)
    return found


def resources(snapshot: Snapshot, agent: str = "bot", path: str = "/mcp") -> list[str]:
    """URIs of the resources an agent is shown."""
    return [one["uri"] for one in items(view(snapshot, agent, path), "resources/list")]


def templates(snapshot: Snapshot, agent: str = "bot", path: str = "/mcp") -> list[str]:
    """Texts of the templates an agent is shown."""
    return [one["uriTemplate"] for one in items(view(snapshot, agent, path), "resources/templates/list")]


def led_to(grants: Mapping[str, Grant], name: str) -> list[str]:
    return [f"{target.server}/{target.tool}" for arm in grants[name].arms for target in arm.targets]


def targets(snapshot: Snapshot, name: str, agent: str = "bot") -> list[str]:
    return led_to(view(snapshot, agent).grants, name)


def shown(snapshot: Snapshot, name: str, agent: str = "bot") -> dict[str, Any]:
    tools = items(view(snapshot, agent), "tools/list")
    return next(tool for tool in tools if tool["name"] == name)
