"""Who may see what of a compiled configuration, for operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastgw.catalog.uris import Uris
from fastgw.snapshot.changes import agents_of, offered
from fastgw.snapshot.model import Endpoint, Grant, View

MOST_NAMED = 20
"""Agents of one row that are named; the others are counted."""
_SINGULAR = {"tools": "tool", "prompts": "prompt", "resources": "resource", "templates": "template"}


def who_sees(endpoints: Mapping[str, Endpoint], find: str, most: int) -> dict[str, Any]:
    """Everything agents can be offered whose name, or the place that it leads to, has `find` in it (in any case).

    `found`: how many there are. `rows`, the first `most` of them: `endpoint`, `kind`, `name`, `to` (`server/its own`),
    `agents` (the first few that see it), `seen_by` (how many do) and `conditional` (policies look at the arguments of
    each call of some of them).
    """
    rows: list[dict[str, Any]] = []
    found = 0
    for path, endpoint in endpoints.items():
        classes = _classes(endpoint)
        for kind, names in offered(endpoint).items():
            for name, to in names.items():
                if find in name.lower() or any(find in place.lower() for place in to):
                    found += 1
                    if len(rows) < most:
                        row = {"endpoint": path, "kind": _SINGULAR[kind], "name": name, "to": to}
                        rows.append({**row, **_seen(classes, _judge(endpoint.uris, kind, name))})
    return {"found": found, "rows": rows}


def _classes(endpoint: Endpoint) -> list[tuple[View, list[str]]]:
    """Each view of an endpoint with those who have it."""
    members: list[list[str]] = [[] for _ in endpoint.views]
    for agent, place in agents_of(endpoint).items():
        members[place].append(agent)
    return [(view, agents) for view, agents in zip(endpoint.views, members, strict=True) if agents]


def _judge(uris: Uris, kind: str, name: str) -> Callable[[View], Grant | bool | None]:
    """What a view has of it."""
    if kind == "tools":
        return lambda view: view.grants.get(name)
    if kind == "prompts":
        return lambda view: view.prompts.get(name)
    owner = uris.owner(name)
    return lambda view: owner is not None and uris.permits(view.uri_rules, name, owner)


def _seen(classes: list[tuple[View, list[str]]], judge: Callable[[View], Grant | bool | None]) -> dict[str, Any]:
    granted = [(grant, agents) for view, agents in classes if (grant := judge(view))]
    named = list(_first(MOST_NAMED, (agents for _, agents in granted)))
    return {
        "agents": named,
        "seen_by": sum(len(agents) for _, agents in granted),
        "conditional": any(isinstance(grant, Grant) and bool(grant.conditions) for grant, _ in granted),
    }


def _first(most: int, lists: Iterator[list[str]]) -> Iterator[str]:
    for names in lists:
        yield from names[:most]
        most -= min(most, len(names))
