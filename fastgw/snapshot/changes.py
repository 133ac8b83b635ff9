"""What is another in one configuration than in another: names, where they lead, who may use them, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from fastgw.catalog.route import Route
from fastgw.catalog.tools import Catalogue
from fastgw.catalog.uris import Uris
from fastgw.config.schema.settings import Settings
from fastgw.config.schema.units import RateSetting
from fastgw.policy.match import ANONYMOUS
from fastgw.policy.patterns import PROMPT
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Endpoint

Offered = dict[str, dict[str, list[str]]]
"""Kind (`tools`, `prompts`, `resources`, `templates`) to name or URI, as agents know it, to `server/its own`."""


def offered(endpoint: Endpoint) -> Offered:
    """All that an endpoint has, policies apart."""
    prompts = {name: _targets(grant.route) for view in endpoint.views for name, grant in view.prompts.items()}
    uris = endpoint.uris
    return {
        "tools": {name: _targets(route) for name, route in endpoint.routes.items()},
        "prompts": prompts,
        "resources": _places(uris, "resources"),
        "templates": _places(uris, "templates"),
    }


def changes(before: Settings, after: Settings, catalogues: Mapping[str, Catalogue | None]) -> dict[str, Any]:
    """What `after` changes, where servers offer this; each member is empty where nothing is changed.

    `names`: rows of `endpoint`, `kind`, `name`, and the targets `before` and `after`, null where there is none.
    `access`: rows of `endpoint`, `agents`, and the names of tools, and of prompts behind `prompt:`, that they gain and
    lose. `settings`: rows of `setting` and `change` (`added`, `removed`, `changed`), with the values where they are
    numbers or rates: a text may be a secret. `unknown`: servers of `after` that have never answered: what they bring is
    not known.
    """
    old, new = (compile_snapshot(side, Learned(catalogues), 0)[0].endpoints for side in (before, after))
    paths = list(dict.fromkeys((*old, *new)))
    return {
        "names": [row for path in paths for row in _names(path, old.get(path), new.get(path))],
        "access": [row for path in paths for row in _access(path, old.get(path), new.get(path))],
        "settings": list(_settings(before, after, ())),
        "unknown": [one for one in after.servers if catalogues.get(one) is None and one not in after.lock],
    }


# -- names -----------------------------------------------------------------------------------------------------------


def _names(path: str, before: Endpoint | None, after: Endpoint | None) -> Iterator[dict[str, Any]]:
    old, new = (offered(endpoint) if endpoint is not None else {} for endpoint in (before, after))
    for kind in old or new:
        was, now = old.get(kind, {}), new.get(kind, {})
        for name in sorted({*was, *now}):
            if was.get(name) != now.get(name):
                row = {"endpoint": path, "kind": kind, "name": name}
                yield {**row, "before": was.get(name), "after": now.get(name)}


def _targets(route: Route) -> list[str]:
    return [f"{target.server}/{target.tool}" for arm in route.arms for target in arm.targets]


def _places(uris: Uris, which: str) -> dict[str, list[str]]:
    named: dict[tuple[str, str], str] = getattr(uris.tables, which)
    return {shown: [f"{server}/{own}"] for (server, own), shown in named.items() if uris.owner(shown) is not None}


# -- who -------------------------------------------------------------------------------------------------------------


def _access(path: str, before: Endpoint | None, after: Endpoint | None) -> Iterator[dict[str, Any]]:
    """One row for all agents who saw the same before and see the same afterwards."""
    places = [agents_of(endpoint) if endpoint is not None else {} for endpoint in (before, after)]
    groups: dict[tuple[int | None, int | None], list[str]] = {}
    for agent in sorted({*places[0], *places[1]}):
        groups.setdefault((places[0].get(agent), places[1].get(agent)), []).append(agent)
    for (was, now), agents in groups.items():
        seen, sees = _seen(before, was), _seen(after, now)
        if seen != sees:
            yield {"endpoint": path, "agents": agents, "gains": sorted(sees - seen), "loses": sorted(seen - sees)}


def agents_of(endpoint: Endpoint) -> dict[str, int]:
    """Who may come in, and the view of each: whoever shows no credential has one only where none is needed."""
    nobody = ANONYMOUS.agent
    return {agent: view for agent, view in endpoint.view_of.items() if agent != nobody or endpoint.anonymous}


def _seen(endpoint: Endpoint | None, place: int | None) -> set[str]:
    if endpoint is None or place is None:
        return set()
    view = endpoint.views[place]
    return {*view.grants, *(f"{PROMPT}{name}" for name in view.prompts)}


# -- settings --------------------------------------------------------------------------------------------------------


def _settings(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    if before == after:
        return
    old, new = (_members(value, path) for value in (before, after))
    if old is not None and new is not None:
        for key in dict.fromkeys((*old, *new)):
            yield from _settings(old.get(key), new.get(key), (*path, key))
        return
    change = "added" if before is None else "removed" if after is None else "changed"
    row = {"setting": ".".join(path), "change": change}
    # In what is written as a map (`fixed` arguments, `headers`) there are secrets: it is named as a whole.
    shown = {"before": before, "after": after}
    if all(isinstance(value, int | float | RateSetting | None) for value in shown.values()):
        row |= {key: str(value) if isinstance(value, RateSetting) else value for key, value in shown.items()}
    yield row


def _members(value: Any, path: Sequence[str]) -> Mapping[str, Any] | None:
    """What a value is told apart by: the keys of a setting, the names of a map or list at the top."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {fields[name].alias or name: getattr(value, name) for name in fields}
    if len(path) == 1 and isinstance(value, dict):
        return value
    if len(path) == 1 and isinstance(value, tuple) and all(hasattr(one, "name") for one in value):
        return {one.name: one for one in value}
    return None
