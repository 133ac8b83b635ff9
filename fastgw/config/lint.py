"""What a configuration may say and hardly means: `check` tells it, some of it `run` too, and nothing refuses it. No
message repeats what may be a secret: neither an address nor a credential.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from fastgw.catalog.pins import line_of
from fastgw.config.addresses import ANY
from fastgw.config.certificates import expiries, listener_tls
from fastgw.config.checks import matches
from fastgw.config.error_messages import KEY, Finding, nearest, placed
from fastgw.config.files import ConfigFiles
from fastgw.config.reader import lock_path
from fastgw.config.rules import can_export, match_of, tools_of
from fastgw.config.schema.rules import MatchSettings
from fastgw.config.schema.settings import Settings
from fastgw.config.tree import ConfigProblem, Path, Position, YamlEntry
from fastgw.policy.match import ANONYMOUS, Principal
from fastgw.policy.patterns import PROMPT, RESOURCE, Patterns, is_wild

EXPIRES_SOON = 14 * 86400.0
"""Seconds before its end from which a certificate of the listener is worth a word."""


def at_start(settings: Settings, root: YamlEntry) -> list[ConfigProblem]:
    """Those of the remarks without which nobody would come far, in the order of their places."""
    findings = (
        *_listen(settings, root),
        *_certificates(settings),
        *_proxies(settings),
        *_agents(settings),
        *_urls(settings),
        *_secrets(settings),
        *_traces(settings),
    )
    return sorted(set(placed(findings, root)))


def lint(settings: Settings, root: YamlEntry) -> list[ConfigProblem]:
    """All remarks on a configuration, in the order of their places."""
    findings = (
        *_nobody(settings),
        *_unenforced(settings),
        *_servers(settings),
        *_token_urls(settings),
        *_targets(settings),
        *_unpriced(settings),
        *_unpinned(settings),
    )
    return sorted({*at_start(settings, root), *placed(findings, root), *_locked(settings, root)})


def _listen(settings: Settings, root: YamlEntry) -> Iterator[Finding]:
    host, _, port = settings.listen.rpartition(":")
    if host in ANY and root.child("public_url") is None:
        message = (
            "is every address of this machine, but agents may call it localhost, 127.0.0.1 and [::1] only: another Host"
            f" gets 421. Write what they call it, a name or an address: public_url: http://NAME:{port}"
        )
        yield ("listen",), message, None


def _certificates(settings: Settings) -> Iterator[Finding]:
    for kind, end in expiries(listener_tls(settings.tls, ConfigFiles())).items():
        if (left := end - time.time()) < EXPIRES_SOON:
            day = time.strftime("%Y-%m-%d", time.gmtime(end))
            words = f"expires in {left / 86400:.0f} days, on {day}" if left > 0 else f"has expired, on {day}"
            yield ("tls", kind), f"{words}: a new file over this one is served without a restart", None


def _proxies(settings: Settings) -> Iterator[Finding]:
    for name, one in settings.identity.items():
        for place, text in enumerate(one.header.from_ if one.header is not None else ()):
            if text.endswith("/0"):
                words = "is everybody: whoever reaches this port can be any agent. Write the proxies' own addresses"
                yield ("identity", name, "header", "from", place), words, None


def _agents(settings: Settings) -> Iterator[Finding]:
    open_to_all = settings.endpoints is not None and all(one.auth == ("none",) for one in settings.endpoints.values())
    if not (open_to_all or settings.identity or any(not one.disabled for one in settings.agents.values())):
        why = "all agents are disabled" if settings.agents else "there are no agents"
        yield ("agents",), f"{why}: nobody can call. `fastgw keys new --agent NAME` prints a key and its entry", None


def _urls(settings: Settings) -> Iterator[Finding]:
    old = (
        "ends in /sse, the usual path of the older HTTP+SSE transport, which is not supported: the same server usually"
        " speaks Streamable HTTP at /mcp"
    )
    for name, server in settings.servers.items():
        for place, instance in enumerate(server.url):
            where, path = ("servers", name, "url", place, "url"), urlsplit(instance.url).path
            if path.removesuffix("/").endswith("/sse"):
                yield where, old, None
            elif not path:
                yield where, "has no path: the usual path is /mcp; a / at the end says that none is meant", None


def _token_urls(settings: Settings) -> Iterator[Finding]:
    for name, server in settings.servers.items():
        for place, credential in enumerate(server.credential):
            parts = urlsplit((credential.oauth.token_url if credential.oauth else None) or "https:")
            if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
                where = ("servers", name, "credential", place, "oauth", "token_url")
                yield where, "is http: the client's secret and the tokens travel where others can read them", None


def _targets(settings: Settings) -> Iterator[Finding]:
    primaries = {backup: name for name, server in settings.servers.items() for backup in server.backup}
    for key, tool in settings.tools.items():
        for place, target in enumerate(tool.to):
            if target.server in primaries:
                where = ("tools", key, "to", place, "server")
                primary = primaries[target.server]
                yield where, f"is a backup of {primary}: it is passed over on endpoints that have {primary}", None


def _unpriced(settings: Settings) -> Iterator[Finding]:
    """Tools of this file that a quota of money covers, and that have no price: their calls cost nothing."""
    covering = [(one.name, tools_of(one.tools)) for one in settings.quotas if one.cost is not None]
    for name, tools in covering:
        priced = [Patterns((key,)) for key, tool in settings.tools.items() if tool.price is not None]
        for key, tool in settings.tools.items():
            covered = tools is None or any(one.fits(key) for one in tools.tools)
            if covered and tool.price is None and not tool.hidden and not any(one.fits(key) for one in priced):
                yield ("tools", key, KEY), f'has no price, and the quota "{name}" counts its calls as free', None
        if not priced:
            place = next(at for at, one in enumerate(settings.quotas) if one.name == name)
            yield ("quotas", place, "cost"), "no tool has a price: every call counts as free", None


def _unpinned(settings: Settings) -> Iterator[Finding]:
    for name, server in settings.servers.items():
        if server.on_change != "accept" and name not in settings.lock:
            words = "the lock file has nothing of it: its tools are pinned as each gateway first sees them"
            yield ("servers", name, "on_change"), words, None


def _locked(settings: Settings, root: YamlEntry) -> Iterator[ConfigProblem]:
    """Servers of the lock file that the configuration has not."""
    place = lock_path(FilePath(root.position.file))
    for name in settings.lock.keys() - settings.servers.keys():
        where = Position(str(place), line_of(place.read_bytes(), name), 1)
        yield ConfigProblem(where, f'there is no server "{name}"', nearest(name, settings.servers))


def _unenforced(settings: Settings) -> Iterator[Finding]:
    if settings.policies and all(one.mode == "shadow" for one in settings.policies):
        yield ("policies",), "all are in shadow: who is let in may use everything", None


def _traces(settings: Settings) -> Iterator[Finding]:
    if settings.traces is not None and not can_export():
        yield ("traces",), "no span is sent: its packages are missing. pip install 'fastgw[otel]'", None


# -- secrets ---------------------------------------------------------------------------------------------------------

_SCHEME = re.compile(r"(bearer|basic|token|api-?key)\s+", re.IGNORECASE)
_ONE_WORD = re.compile(r"token|api-?key|x-key", re.IGNORECASE)
"""Names of headers whose value is one word."""


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Two values in one: a scheme that stands twice, a file of several lines, a pair of tokens."""
    for path, scheme, secret in _carried(settings):
        if _SCHEME.match(secret):
            yield path, f"holds a word such as Bearer, and {scheme} before it: keep the bare token there", None
        elif re.search(r"\s", secret):
            yield path, "has a space or a line break in it: are these two values?", None


def _carried(settings: Settings) -> Iterator[tuple[Path, str, str]]:
    """Secrets that are one word on a header line: where, what is written before them, and they themselves."""
    if settings.admin.token is not None:
        yield ("admin", "token"), "who asks writes one", settings.admin.token
    for name, server in settings.servers.items():
        for header, value in server.headers.items():
            yield from _of_header(("servers", name, "headers", header), header, value)
        for place, credential in enumerate(server.credential):
            path: Path = ("servers", name, "credential", place)
            if credential.bearer is not None:
                yield (*path, "bearer"), "fastgw writes one", credential.bearer
            for header, value in (credential.header or {}).items():
                yield from _of_header((*path, "header", header), header, value)


def _of_header(path: Path, header: str, value: str) -> Iterator[tuple[Path, str, str]]:
    scheme = _SCHEME.match(value)
    bare = value[scheme.end() :] if scheme else value
    if scheme and (_SCHEME.match(bare) or scheme[1].lower() == "bearer"):
        yield path, "another", bare
    elif not scheme and _ONE_WORD.search(header):
        yield path, "", bare


# -- names -----------------------------------------------------------------------------------------------------------


def _nobody(settings: Settings) -> Iterator[Finding]:
    """Conditions that no agent fulfils. Whom an issuer brings is not known."""
    if settings.identity:
        return
    agents = {name: Principal(name, dict(agent.claims)) for name, agent in settings.agents.items()}
    agents[ANONYMOUS.agent] = ANONYMOUS
    claims: dict[str, set[str]] = {}
    for claim, value in (pair for agent in agents.values() for pair in agent.claims.items()):
        claims.setdefault(claim, set()).update((value,) if isinstance(value, str) else value)
    for path, match in matches(settings):
        found = list(_unknown(path, match, agents, claims))
        yield from found
        if not found and not _anybody(match, agents):
            yield path, "is about nobody: no agent has all of this", None


def _unknown(
    path: Path, match: MatchSettings, agents: Collection[str], claims: dict[str, set[str]]
) -> Iterator[Finding]:
    for at, text in enumerate(match.agent):
        if not _fits(text, agents):
            yield (*path, "agent", at), f'no agent is called "{text}"', nearest(text, agents)
    for claim, texts in match.claims.items():
        known = claims.get(claim)
        if known is None:
            yield (*path, "claims", claim, KEY), f'no agent has a claim "{claim}"', nearest(claim, claims)
        for at, text in enumerate(texts):
            if known is not None and not _fits(text, known):
                message = f'no agent has "{text}" in its claim "{claim}"'
                yield (*path, "claims", claim, at), message, nearest(text, known)


def _anybody(match: MatchSettings, agents: dict[str, Principal]) -> bool:
    """Whether one agent fulfils all of it; where it asks for one thing, somebody is known to have that."""
    if len(match.claims) + bool(match.agent) < 2:
        return True
    found = match_of(match.model_copy(update={"endpoint": ()}), None)
    exact = match.agent and not any(map(is_wild, match.agent))
    named = [agents[name] for name in match.agent] if exact else agents.values()
    return found is None or any(found.for_class(agent, "") is not None for agent in named)


def _fits(pattern: str, names: Collection[str]) -> bool:
    return Patterns([pattern]).fit_any(names) if is_wild(pattern) else pattern in names


def _servers(settings: Settings) -> Iterator[Finding]:
    """Patterns over `server/name` of servers that are not there: they fit nothing."""
    for path, texts in _patterns(settings):
        for place, text in enumerate(texts):
            server, slash, _name = text.removeprefix(PROMPT).removeprefix(RESOURCE).partition("/")
            if slash and re.fullmatch(r"[A-Za-z0-9_*?-]+", server) and not _fits(server, settings.servers):
                yield (*path, place), f'fits nothing: there is no server "{server}"', nearest(server, settings.servers)


def _patterns(settings: Settings) -> Iterator[tuple[Path, Sequence[str]]]:
    for place, policy in enumerate(settings.policies or ()):
        yield ("policies", place, "allow"), policy.allow
        yield ("policies", place, "deny"), policy.deny
    for place, limit in enumerate(settings.limits):
        yield ("limits", place, "tools"), limit.tools or ()
    for path, endpoint in (settings.endpoints or {}).items():
        yield ("endpoints", path, "tools"), endpoint.tools or ()
