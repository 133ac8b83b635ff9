"""What is wrong beyond the form of single values: names that do not exist, keys that exclude each other, files that
cannot be used, limits that limit nothing or let nothing through.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path as FilePath

from fastgw.config.error_messages import KEY, Finding, nearest, placed
from fastgw.config.rules import FAILED_CREDENTIALS, rate_of, tools_of
from fastgw.config.schema.rules import BY_CLAIM, LimitSettings, MatchSettings, PolicySettings, QuotaSettings
from fastgw.config.schema.servers import ServerSettings
from fastgw.config.schema.settings import Settings, is_loopback
from fastgw.config.schema.tools import ArmSettings, TargetSettings
from fastgw.config.schema.units import RateSetting
from fastgw.config.tree import ConfigProblem, Path, YamlEntry
from fastgw.policy.bucket import MOST_BURST
from fastgw.policy.patterns import PROMPT, RESOURCE, is_wild

SHORTEST_SECRET = 16
"""Characters of a `secret`: what it seals travels through strangers' hands, and they have time to guess."""
MOST_SHADOWS = 25
"""A call counts in two buckets of each at most, and a store tells of 53 of those in shadow."""
OF_HEADERS = {"header", "set"}
"""What an identity may say whose agents proxies name."""
ANY_RATE = RateSetting(1, 1)
"""Stands in for the limit's own beside a burst."""


def crosscheck(settings: Settings, root: YamlEntry) -> Iterator[ConfigProblem]:
    """Every contradiction between keys, with its place."""
    for check in CHECKS:
        yield from placed(check(settings), root)


def matches(settings: Settings) -> Iterator[tuple[Path, MatchSettings]]:
    """Every `match` and `except` of policies, routes, limits and credentials, with its place."""
    for place, policy in enumerate(settings.policies or ()):
        yield from _matches(("policies", place), policy)
    for name, tool in settings.tools.items():
        for place, arm in enumerate(tool.route):
            yield from _matches(("tools", name, "route", place), arm)
    for place, limit in enumerate(settings.limits):
        yield from _matches(("limits", place), limit)
    for place, quota in enumerate(settings.quotas):
        yield from _matches(("quotas", place), quota)
    for name, server in settings.servers.items():
        for place, credential in enumerate(server.credential):
            if credential.match is not None:
                yield ("servers", name, "credential", place, "match"), credential.match


def _matches(
    path: Path, rule: PolicySettings | ArmSettings | LimitSettings | QuotaSettings
) -> Iterator[tuple[Path, MatchSettings]]:
    if rule.match is not None:
        yield (*path, "match"), rule.match
    if rule.except_ is not None:
        yield (*path, "except"), rule.except_
    for place, override in enumerate(rule.overrides if isinstance(rule, LimitSettings) else ()):
        yield (*path, "overrides", place, "match"), override.match


def _exists(path: Path, kind: str, name: str, known: Collection[str]) -> Iterator[Finding]:
    if name not in known:
        yield path, f'there is no {kind} "{name}"', nearest(name, known)


def _processes(settings: Settings) -> Iterator[Finding]:
    if settings.workers != 1 and settings.store.url == "memory":
        yield ("store",), "store: memory is for one worker: use auto or embedded", None
    if settings.store.beyond_one_machine and not settings.secret:
        yield ("store",), "a store beyond one machine needs secret, the same on all machines", None
    yield from _tls_files(("store",), {"ca": settings.store.ca})
    if (tls := settings.tls) is not None:
        yield from _tls_files(("tls",), {"client_ca": tls.client_ca, "cert": tls.cert, "key": tls.key})
    if settings.listen == settings.admin.listen and not settings.listen.endswith(":0"):
        yield ("admin",), "admin and listen cannot share a port", None
    if not is_loopback(settings.admin.listen) and settings.admin.token is None:
        yield ("admin",), "beyond loopback admin needs a token: {listen: ..., token: ...}", None
    for place, secret in enumerate(settings.secret):
        if len(secret) < SHORTEST_SECRET:
            yield ("secret", place), f"a secret needs at least {SHORTEST_SECRET} characters", None


def _names(settings: Settings) -> Iterator[Finding]:
    for name in settings.identity:
        if name in ("keys", "none"):
            yield ("identity", name), f'the name "{name}" is taken: it is a word of auth', None
    issuers: dict[str, str] = {}
    for name, one in settings.identity.items():
        if one.issuer is not None and issuers.setdefault(one.issuer, name) != name:
            yield ("identity", name, "issuer"), f'"{issuers[one.issuer]}" has this issuer already', None
        if one.header is not None:
            for key in sorted(one.model_fields_set - OF_HEADERS):
                where: Path = ("identity", name, key, KEY)
                yield (
                    where,
                    "belongs to access tokens: a header names the agent alone; `set` gives claims",
                    None,
                )
    for kind in ("policies", "limits", "quotas"):
        seen: set[str] = set()
        for place, rule in enumerate(getattr(settings, kind) or ()):
            if rule.name in seen:
                yield (kind, place, "name"), f'the name "{rule.name}" stands twice', None
            seen.add(rule.name)


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


# -- servers, endpoints, tools ------------------------------------------------------------------------------------


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
            elif backup in settings.servers and settings.servers[backup].backup:
                yield path, f'server "{backup}" has backups itself, which nobody would ask', None
            elif backup in settings.servers and settings.servers[backup].tools not in (None, server.tools):
                yield path, f'server "{backup}" takes other tools than this one: give both the same `tools`', None
        shares = [instance.share or 0 for instance in server.url]
        if sum(shares) > 1 or (all(shares) and shares and sum(shares) != 1):
            yield ("servers", name, "url"), f"the shares are {float(sum(shares)):.0%} of the calls, not 100%", None
        yield from _bulkhead(settings, name)
        yield from _headers(settings, name)
        yield from _credentials(name, server)
        if server.tls:
            tls = server.tls
            yield from _tls_files(("servers", name, "tls"), {"ca": tls.ca, "cert": tls.cert, "key": tls.key})


def _bulkhead(settings: Settings, name: str) -> Iterator[Finding]:
    server, workers = settings.servers[name], settings.worker_count
    if server.max_in_flight is None:
        if server.queue is not None:
            yield ("servers", name, "queue"), "a queue is for places: it needs max_in_flight", None
    elif server.max_in_flight < workers:
        message = f"is less than one for each of {workers} workers: take fewer workers, or a limit with in_flight"
        yield ("servers", name, "max_in_flight"), message, None


def _headers(settings: Settings, name: str) -> Iterator[Finding]:
    server = settings.servers[name]
    plain = {header.lower(): header for header in server.headers}
    own = set(plain)
    for credential in server.credential:
        for header in map(str.lower, credential.header or ["authorization"]):
            own.add(header)
            if header in plain:
                yield ("servers", name, "headers", plain[header]), "the credential sends this header already", None
    naming = {one.header.name.lower() for one in settings.identity.values() if one.header is not None}
    for place, header in enumerate(server.forward_headers):
        if header.lower() in naming:
            at: Path = ("servers", name, "forward_headers", place)
            yield at, "names agents in `identity`: from other addresses than its proxies' anybody may write it", None
        elif header.lower() in own:
            where: Path = ("servers", name, "forward_headers", place)
            yield where, "fastgw sends this header itself: `headers` or the credential has it", None


def _credentials(name: str, server: ServerSettings) -> Iterator[Finding]:
    several = len(server.credential) > 1 or any(one.match is not None for one in server.credential)
    if server.shared_session and several:
        message = "one session for all agents has one credential: take shared_session out, or match and the others"
        yield ("servers", name, "shared_session"), message, None
    for place, credential in enumerate(server.credential):
        path: Path = ("servers", name, "credential", place)
        if credential.match is None and place + 1 < len(server.credential):
            yield path, "without match this credential is always taken; those after it never", None
        if credential.match is not None and credential.match.arguments:
            message = "a credential is chosen by who calls, not by arguments: give the tool a `route`"
            yield (*path, "match", "arguments"), message, None
        oauth = credential.oauth
        if server.shared_session and oauth is not None and oauth.grant == "token_exchange":
            message = "one session for all agents has no room for their users: take shared_session out"
            yield ("servers", name, "shared_session"), message, None


def _tls_files(path: Path, files: Mapping[str, str | None]) -> Iterator[Finding]:
    """Which of the files under `path` cannot be used, before the first call needs them."""
    reasons = {key: reason for key, file in files.items() if file is not None and (reason := _unusable(key, file))}
    cert, key = files.get("cert"), files.get("key")
    if cert is not None and key is not None and reasons.keys().isdisjoint(("cert", "key")):
        try:
            # An empty password keeps OpenSSL from asking the terminal for one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
        except OSError:
            reasons["key"] = f"{key} is not the key of this certificate (PEM, unencrypted)"
    yield from (((*path, key), reason, None) for key, reason in reasons.items())


def _unusable(key: str, path: str) -> str | None:
    """Why a file cannot be read, or is none of certificates where it must be."""
    try:
        FilePath(path).open("rb").close()
        if key != "key":
            ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return f"{path} holds no certificate (PEM)"
    except (OSError, ValueError) as error:
        return f"the file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None


def _endpoints(settings: Settings) -> Iterator[Finding]:
    for path, endpoint in (settings.endpoints or {}).items():
        for place, name in enumerate(endpoint.servers or ()):
            yield from _exists(("endpoints", path, "servers", place), "server", name, settings.servers)
        for place, way in enumerate(endpoint.auth or ()):
            yield from _exists(("endpoints", path, "auth", place), "way in", way, ["keys", "none", *settings.identity])
        if endpoint.auth == ("none",) and not is_loopback(settings.listen):
            yield ("endpoints", path, "auth"), "auth: none is for loopback only, and listen is not", None
    known = {"/mcp"} if settings.endpoints is None else set(settings.endpoints)
    for where, match in matches(settings):
        for at, text in enumerate(match.endpoint):
            if not is_wild(text):
                yield from _exists((*where, "endpoint", at), "endpoint", text, known)


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


# -- limits -------------------------------------------------------------------------------------------------------


def _limits(settings: Settings) -> Iterator[Finding]:
    known = {claim for agent in settings.agents.values() for claim in agent.claims}
    for issuer in settings.identity.values():
        known.update(issuer.claims, issuer.set)
    for place, limit in enumerate(settings.limits):
        path: Path = ("limits", place)
        if limit.name == FAILED_CREDENTIALS:
            yield (*path, "name"), f"the name {FAILED_CREDENTIALS} is taken: wrong credentials are counted by it", None
        yield from _limits_nothing(path, limit)
        yield from _counted(path, limit, known)
    for place, quota in enumerate(settings.quotas):
        yield from _counted(("quotas", place), quota, known)
    shadows = [place for place, limit in enumerate(settings.limits) if limit.mode == "shadow"]
    if len(shadows) > MOST_SHADOWS:
        where: Path = ("limits", shadows[MOST_SHADOWS], "mode")
        yield where, f"more than {MOST_SHADOWS} limits in shadow cannot be told apart", None
    yield from _too_heavy(settings)
    if settings.failed_credentials is not None:
        yield from _beyond(("failed_credentials",), settings.failed_credentials)


def _counted(path: Path, rule: LimitSettings | QuotaSettings, known: Collection[str]) -> Iterator[Finding]:
    """What limits and quotas say alike."""
    if rule.tools == ():
        yield (*path, "tools"), "names nothing and would limit no call: leave it out to limit all", None
    for at, text in enumerate(rule.tools or ()):
        if text in ("", PROMPT, RESOURCE):
            yield (*path, "tools", at), "a pattern is empty", None
    yield from _unknown_claims(path, rule, known)


def _unknown_claims(path: Path, limit: LimitSettings | QuotaSettings, known: Collection[str]) -> Iterator[Finding]:
    named: list[tuple[Path, str]] = [((*path, "by", at), key) for at, key in enumerate(limit.by)]
    named = [(where, key.removeprefix(BY_CLAIM)) for where, key in named if key.startswith(BY_CLAIM)]
    for where, match in _matches(path, limit):
        named.extend(((*where, "claims", claim, KEY), claim) for claim in match.claims)
    for where, claim in named:
        if claim not in known:
            yield where, f'no agent and no issuer has a claim "{claim}"', nearest(claim, known)


def _limits_nothing(path: Path, limit: LimitSettings) -> Iterator[Finding]:
    if limit.in_flight is not None and limit.in_flight > MOST_BURST:
        yield (*path, "in_flight"), f"is more than {MOST_BURST:,} at the same time, which limits nothing", None
    if limit.rate is None:
        return
    places: list[tuple[Path, RateSetting, int | None]] = [(path, limit.rate, limit.burst)]
    for at, one in enumerate(limit.overrides):
        places.append(((*path, "overrides", at), one.rate or ANY_RATE, one.burst))
    for place, rate, burst in places:
        wrong = list(_beyond((*place, "rate"), rate, 1))
        yield from wrong or _beyond((*place, "rate" if burst is None else "burst"), rate, burst)


def _beyond(path: Path, rate: RateSetting, burst: int | None = None) -> Iterator[Finding]:
    try:
        rate_of(rate, burst)
    except ValueError as wrong:
        yield path, str(wrong), None


def _too_heavy(settings: Settings) -> Iterator[Finding]:
    """Tools that cost more than a full bucket holds: no call of theirs would ever pass."""
    full = []
    for limit in settings.limits:
        if limit.rate is not None and limit.mode == "enforce":
            others = [one.burst or (one.rate or limit.rate).calls for one in limit.overrides]
            full.append((limit.name, min([limit.burst or limit.rate.calls, *others]), tools_of(limit.tools)))
    for key, tool in settings.tools.items():
        for name, burst, tools in full:
            if tool.weight > burst and (tools is None or any(one.fits(key) for one in tools.tools)):
                message = f'the limit "{name}" has {burst:,} at once, so that no call of this weight ever passes'
                yield ("tools", key, "weight"), message, None
                break


CHECKS = (_processes, _names, _agents, _servers, _endpoints, _tools, _limits)
