"""What one key says about another: names that must exist, things that exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from fastgw.config import limitchecks
from fastgw.config.certificates import unusable
from fastgw.config.complaint import ConfigProblem, Finding, nearest, placed
from fastgw.config.schema.rules import MatchSettings
from fastgw.config.schema.servers import ServerTlsSettings
from fastgw.config.schema.settings import Settings, is_loopback
from fastgw.config.schema.tools import TargetSettings
from fastgw.config.tree import Path, YamlEntry
from fastgw.policy.patterns import is_wild

SHORTEST_SECRET = 16
"""Characters of a `secret`: what it seals travels through strangers' hands, and they have time to guess."""


def crosscheck(settings: Settings, root: YamlEntry) -> Iterator[ConfigProblem]:
    """Every contradiction between keys, with its place."""
    for check in CHECKS:
        yield from placed(check(settings), root)


def _exists(path: Path, kind: str, name: str, known: Collection[str]) -> Iterator[Finding]:
    if name not in known:
        yield path, f'there is no {kind} "{name}"', nearest(name, known)


def _processes(settings: Settings) -> Iterator[Finding]:
    if settings.workers != 1 and settings.store.url == "memory":
        yield ("store",), "store: memory is for one worker: use auto or embedded", None
    if settings.store.beyond_one_machine and not settings.secret:
        yield ("store",), "a store beyond one machine needs secret, the same on all machines", None
    for key, reason in unusable(ServerTlsSettings(ca=settings.store.ca)):
        yield ("store", key), reason, None
    if settings.listen == settings.admin.listen and not settings.listen.endswith(":0"):
        yield ("admin",), "admin and listen cannot share a port", None
    if not is_loopback(settings.admin.listen) and settings.admin.token is None:
        yield ("admin",), "beyond loopback admin needs a token: {listen: ..., token: ...}", None


def _secrets(settings: Settings) -> Iterator[Finding]:
    for place, secret in enumerate(settings.secret):
        if len(secret) < SHORTEST_SECRET:
            yield ("secret", place), f"a secret needs at least {SHORTEST_SECRET} characters", None


def _agents(settings: Settings) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, agent in settings.agents.items():
        if name == "anonymous":
            yield ("agents", name), "the name anonymous is taken: agents without a credential are called so", None
        for place, key in enumerate(agent.key):
            if key.sha256 in seen:
                where: Path = ("agents", name, "key", place, "sha256")
                yield where, f'agent "{seen[key.sha256]}" has this key already', None
            seen.setdefault(key.sha256, name)


def _issuers(settings: Settings) -> Iterator[Finding]:
    for name in settings.identity:
        if name in ("keys", "none"):
            yield ("identity", name), f'the name "{name}" is taken: it is a word of auth', None


def _rules(settings: Settings) -> Iterator[Finding]:
    for kind in ("policies", "limits", "quotas"):
        seen: set[str] = set()
        for place, rule in enumerate(getattr(settings, kind) or ()):
            if rule.name in seen:
                yield (kind, place, "name"), f'the name "{rule.name}" stands twice', None
            seen.add(rule.name)


def _servers(settings: Settings) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, server in settings.servers.items():
        alias = server.alias or name
        if alias in seen:
            yield ("servers", name, "alias"), f'server "{seen[alias]}" is called "{alias}" already', None
        seen.setdefault(alias, name)
        for place, backup in enumerate(server.backup):
            path: Path = ("servers", name, "backup", place)
            yield from _exists(path, "server", backup, settings.servers)
            if backup == name:
                yield path, "a server cannot be its own backup", None
        yield from _headers(settings, name)
        for key, reason in unusable(server.tls) if server.tls else ():
            yield ("servers", name, "tls", key), reason, None


def _headers(settings: Settings, name: str) -> Iterator[Finding]:
    server = settings.servers[name]
    plain = {header.lower(): header for header in server.headers}
    for place, credential in enumerate(server.credential):
        carried = [header.lower() for header in credential.header] if credential.header else ["authorization"]
        for header in carried:
            if header in plain:
                yield ("servers", name, "headers", plain[header]), "the credential sends this header already", None
        if credential.match is None and place + 1 < len(server.credential):
            last: Path = ("servers", name, "credential", place)
            yield last, "without match this credential is always taken; those after it never", None


def _endpoints(settings: Settings) -> Iterator[Finding]:
    for path, endpoint in (settings.endpoints or {}).items():
        for place, name in enumerate(endpoint.servers or ()):
            yield from _exists(("endpoints", path, "servers", place), "server", name, settings.servers)
        for place, way in enumerate(endpoint.auth or ()):
            yield from _exists(("endpoints", path, "auth", place), "way in", way, ["keys", "none", *settings.identity])
        if endpoint.auth == ("none",) and not is_loopback(settings.listen):
            yield ("endpoints", path, "auth"), "auth: none is for loopback only, and listen is not", None


def _tools(settings: Settings) -> Iterator[Finding]:
    for name, tool in settings.tools.items():
        places: list[tuple[Path, Sequence[TargetSettings]]] = [(("tools", name, "to"), tool.to)]
        places += [(("tools", name, "route", place, "to"), arm.to) for place, arm in enumerate(tool.route)]
        for path, targets in places:
            for at, target in enumerate(targets):
                yield from _exists((*path, at, "server"), "server", target.server, settings.servers)
        leads = "to" if tool.to else "route" if tool.route else None
        if leads and any(letter in name for letter in "*?/"):
            yield ("tools", name, leads), f"{leads} needs the exact name of a tool, not a pattern or server/tool", None
        server, slash, _ = name.partition("/")
        if slash and not any(letter in server for letter in "*?:"):
            yield from _exists(("tools", name), "server", server, settings.servers)


def _matched_endpoints(settings: Settings) -> Iterator[Finding]:
    known = {"/mcp"} if settings.endpoints is None else set(settings.endpoints)
    for path, match in matches(settings):
        for at, endpoint in enumerate(match.endpoint):
            if not is_wild(endpoint):
                yield from _exists((*path, "endpoint", at), "endpoint", endpoint, known)


def matches(settings: Settings) -> Iterator[tuple[Path, MatchSettings]]:
    """Every `match` and `except` of policies, routes and limits, with its place."""
    for place, policy in enumerate(settings.policies or ()):
        yield from limitchecks.matches(("policies", place), policy)
    for name, tool in settings.tools.items():
        for place, arm in enumerate(tool.route):
            yield from limitchecks.matches(("tools", name, "route", place), arm)
    for place, limit in enumerate(settings.limits):
        yield from limitchecks.matches(("limits", place), limit)


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _processes,
    _secrets,
    _agents,
    _issuers,
    _rules,
    _servers,
    _endpoints,
    _tools,
    _matched_endpoints,
    limitchecks.limits,
)
