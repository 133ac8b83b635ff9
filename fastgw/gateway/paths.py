"""Which endpoint a path leads to, and by which way in.

A path is taken apart as it was sent and decoded once, each part by itself: an encoded slash belongs to a name and
parts nothing. An endpoint's own path wins over what another one has below its own; of two that fit, the longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from fastgw.gateway.dialects import era, rest
from fastgw.snapshot.model import Endpoint

EntryPoint = era.MessageEntryPoint | rest.InvokeEntryPoint | rest.ToolsEntryPoint
"""One way into an endpoint: which HTTP methods it takes, whether it brings a body, what that becomes."""

_TOOLS, _INVOKE = "tools/", "/invoke"


_LOGIN = ("/.well-known/oauth-", "/.well-known/openid-configuration", "/register", "/authorize", "/token")
"""Where clients whose key was refused go next: they show their user what they hear there."""


def meant(path: str) -> str | None:
    """What is said of a path that leads nowhere; None for the usual words."""
    if path.startswith(_LOGIN) or path.endswith("/.well-known/openid-configuration"):
        return "There is no login here: fastgw takes a key, Authorization: Bearer <key>. If one was sent, it is wrong."
    return None


def find(endpoints: Mapping[str, Endpoint], scope: Mapping[str, Any]) -> tuple[Endpoint | None, EntryPoint]:
    """For a path that is not plainly an endpoint's own: look there first, it costs nothing.

    Args:
        endpoints: by path.
        scope: ASGI's, with `path`, `raw_path` and `query_string`.
    """
    sent = scope.get("raw_path")
    path = sent.decode("latin-1") if sent is not None else quote(scope["path"])
    best: tuple[Endpoint | None, EntryPoint] = None, era.MESSAGES
    longest = 0
    for endpoint in endpoints.values():
        if len(endpoint.path) > longest:
            entry_point = _entry_point(path, endpoint.path, scope)
            if entry_point is not None:
                best, longest = (endpoint, entry_point), len(endpoint.path)
    return best


def _entry_point(path: str, own: str, scope: Mapping[str, Any]) -> EntryPoint | None:
    """The way in that a path means at the endpoint whose own path is `own`; None for none."""
    count = own.count("/") + 1
    parts = path.split("/", count)
    if [unquote(part) for part in parts[:count]] != own.split("/"):
        return None
    if len(parts) == count:
        return era.MESSAGES
    below = parts[count]
    if not below:  # one slash at the end: many clients write it
        return era.MESSAGES
    if below == "tools":
        return rest.ToolsEntryPoint(scope.get("query_string", b""))
    if below == "openapi.json":
        return rest.OpenApiEntryPoint(b"")
    if below.startswith(_TOOLS) and below.endswith(_INVOKE) and len(below) >= len(_TOOLS) + len(_INVOKE):
        return rest.InvokeEntryPoint(below[len(_TOOLS) : -len(_INVOKE)].encode("latin-1"))
    return None
