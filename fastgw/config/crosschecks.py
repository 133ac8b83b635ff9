"""What one key says about another: names that must exist, things that exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fastgw.config import limitchecks
from fastgw.config.certificates import unusable
from fastgw.config.complaint import ConfigProblem, Finding, nearest, placed
from fastgw.config.schema.rules import MatchSettings, PolicySettings
from fastgw.config.schema.servers import ServerTlsSettings
from fastgw.config.schema.settings import Settings, is_loopback
from fastgw.config.schema.tools import ArmSettings, TargetSettings
from fastgw.config.tree import Path, YamlEntry

SHORTEST_SECRET = 16
"""Characters of a `secret`: what it seals travels through strangers' hands, and they have time to guess."""


def crosscheck(settings: Settings, root: YamlEntry) -> Iterator[ConfigProblem]:
    """Every contradiction between keys, with its place."""
    for check in CHECKS:
        yield from placed(check(settings), root)


def _unknown(path: Path, kind: str, name: str, known: Iterable[str]) -> Finding:
    return path, f'there is no {kind} "{name}"', nearest(name, known)


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
            if backup not in settings.servers:
                yield _unknown(path, "server", backup, settings.servers)
            elif backup == name:
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
            if name not in settings.servers:
                yield _unknown(("endpoints", path, "servers", place), "server", name, settings.servers)
        for place, way in enumerate(endpoint.auth or ()):
            if way not in ("none", "keys", *settings.identity):
                ways = ["keys", "none", *settings.identity]
                yield _unknown(("endpoints", path, "auth", place), "way in", way, ways)
        if endpoint.auth == ("none",) and not is_loopback(settings.listen):
            yield ("endpoints", path, "auth"), "auth: none is for loopback only, and listen is not", None


def _tools(settings: Settings) -> Iterator[Finding]:
    for name, tool in settings.tools.items():
        yield from _targets(settings, ("tools", name, "to"), tool.to)
        for place, arm in enumerate(tool.route):
            yield from _targets(settings, ("tools", name, "route", place, "to"), arm.to)
        leads = "to" if tool.to else "route" if tool.route else None
        if leads and any(letter in name for letter in "*?/"):
            yield ("tools", name, leads), f"{leads} needs the exact name of a tool, not a pattern or server/tool", None
        server, slash, _ = name.partition("/")
        if slash and not any(letter in server for letter in "*?:") and server not in settings.servers:
            yield _unknown(("tools", name), "server", server, settings.servers)


def _targets(settings: Settings, path: Path, targets: tuple[TargetSettings, ...]) -> Iterator[Finding]:
    for place, target in enumerate(targets):
        if target.server not in settings.servers:
            yield _unknown((*path, place, "server"), "server", target.server, settings.servers)


def _matched_endpoints(settings: Settings) -> Iterator[Finding]:
    known = {"/mcp"} if settings.endpoints is None else set(settings.endpoints)
    for path, match in matches(settings):
        for at, endpoint in enumerate(match.endpoint):
            if endpoint not in known and not any(letter in endpoint for letter in "*?"):
                yield _unknown((*path, "endpoint", at), "endpoint", endpoint, known)


def matches(settings: Settings) -> Iterator[tuple[Path, MatchSettings]]:
    """Every `match` and `except` of policies, routes and limits, with its place."""
    for place, policy in enumerate(settings.policies or ()):
        yield from _pair(("policies", place), policy)
    for name, tool in settings.tools.items():
        for place, arm in enumerate(tool.route):
            yield from _pair(("tools", name, "route", place), arm)
    for place, limit in enumerate(settings.limits):
        yield from limitchecks.matches(("limits", place), limit)


def _pair(path: Path, rule: PolicySettings | ArmSettings) -> Iterator[tuple[Path, MatchSettings]]:
    if rule.match is not None:
        yield (*path, "match"), rule.match
    if rule.except_ is not None:
        yield (*path, "except"), rule.except_


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
