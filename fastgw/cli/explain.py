"""`fastgw explain`: what would become of a call, and why, by the configuration and the kept catalogues; and, where a
gateway runs on that configuration, which instance would take it now.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from fastgw.auth.tokens import TokenRefused, judge, principal_of, said_by
from fastgw.catalog.route import Arm
from fastgw.catalog.validation import prepare_arguments
from fastgw.cli import terminal
from fastgw.cli.admin_port import ask
from fastgw.cli.backends import ServerShown
from fastgw.cli.check import kept
from fastgw.cli.client import json_object
from fastgw.cli.terminal import CommandFailed
from fastgw.config.reader import read_settings
from fastgw.config.schema.settings import Settings
from fastgw.config.tree import ConfigError
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Claim, Principal
from fastgw.protocol.envelope import NotAMessage, NotJson
from fastgw.snapshot.compiler import endpoints_of
from fastgw.snapshot.issuers import canonical, issuer_of
from fastgw.snapshot.trace import NoSuch, Record, Trace, TracedCall, trace
from fastgw.upstream.modern import renamed

_UNNAMED = "someone"
"""The agent of `--claims` where `--agent-name` is not given."""

_NOW_WITHIN = 3.0
"""Seconds that a running gateway has to say how its instances are."""
_SHADOW = " (shadow: not enforced)"


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("explain")
    parser.add_argument("--config", type=Path, default=Path("fastgw.yaml"), help="the file (default: ./fastgw.yaml)")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--agent", metavar="NAME", help="an agent of the configuration, or one that a proxy names")
    who.add_argument("--claims", metavar="A=1,B=2", type=_claims, help="any agent with these claims")
    words = "whoever shows the access token in this file, - for standard input; its signature is not verified"
    who.add_argument("--token", metavar="FILE", type=Path, help=words)
    parser.add_argument("--agent-name", metavar="NAME", help=f"what that agent is called ({_UNNAMED})")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tool", metavar="NAME", help="a tool, as agents see it")
    what.add_argument("--prompt", metavar="NAME", help="a prompt, as agents see it")
    what.add_argument("--resource", metavar="URI", help="a resource, as agents see it")
    parser.add_argument("--endpoint", metavar="PATH", default="/mcp", help="where it is called (/mcp)")
    words = "of the call (default: none)"
    parser.add_argument("--arguments", metavar="JSON", type=json_object, default=b"", help=words)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=run)


@terminal.argument_type
def _claims(text: str) -> dict[str, Claim]:
    found: dict[str, tuple[str, ...]] = {}
    for pair in text.split(",") if text else ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ValueError("must be name=value, several joined by commas; twice for several values")
        found[name] = (*found.get(name, ()), value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def sendable(arm: Arm, arguments: bytes) -> bytes:
    """As `prepare_arguments`, where nothing is sent: also whether the server's own names for them leave room."""
    found = prepare_arguments(arm, arguments)
    try:
        renamed(found, arm.target.renamed if arm.targets else ())
    except (NotAMessage, NotJson) as unfit:
        raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {unfit}") from None
    return found


def run(args: argparse.Namespace) -> int:
    """Explain; exit status 0 where the call would be sent, 1 where it would be refused, 2 where it cannot be told."""
    kind = "tool" if args.tool is not None else "prompt" if args.prompt is not None else "resource"
    name = args.agent if args.agent is not None else args.agent_name or _UNNAMED
    if args.claims is None and args.agent_name is not None:
        terminal.say("fastgw explain: --agent-name goes with --claims")
        return terminal.USAGE
    call = TracedCall(kind, getattr(args, kind), name, args.claims, args.endpoint, args.arguments)
    try:
        settings = read_settings(args.config, os.environ)
        if args.token is not None:
            call = shown(settings, call, args.token)
        found = trace(settings, kept(settings), call, sendable)
    except (ConfigError, NoSuch) as wrong:
        print(wrong, file=sys.stderr)
        return terminal.USAGE
    now = taking(args.config, found) if found.sent else None
    if args.json:
        print(terminal.encoded({**asdict(found), "now": now}))
    else:
        print(terminal.plain("\n".join(_lines(found, now))))
    return 0 if found.sent else terminal.FAILED


def shown(settings: Settings, call: TracedCall, file: Path) -> TracedCall:
    """The call, as whoever shows the access token in a file makes it. Raises NoSuch where that names nobody."""
    try:
        token = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).strip()
    except OSError as wrong:
        raise NoSuch(f"{file} cannot be read: {wrong.strerror}") from None
    claims = said_by(token.removeprefix(b"Bearer ").strip())
    if claims is None:
        raise NoSuch("this is no JWT: its issuer alone could say whose it is; --claims asks for an agent like it")
    issuers = [issuer for name, one in settings.identity.items() if (issuer := issuer_of(name, one))]
    issuer = next((one for one in issuers if one.url == claims.get("iss")), None)
    if issuer is None:
        known = ", ".join(one.url for one in issuers) or "none"
        raise NoSuch(f"the token's issuer is {claims.get('iss')!r}; the configuration has {known}")
    endpoint, refusal = endpoints_of(settings).get(call.endpoint), ""
    principal = Principal(f"{issuer.name}:{_UNNAMED}")
    try:
        principal = principal_of(issuer, claims)
        if endpoint is not None and endpoint.auth is not None and issuer.name not in endpoint.auth:
            raise TokenRefused(f"its issuer is no way in here, these are: {', '.join(endpoint.auth)}")
        judge(claims, issuer, [canonical(f"{url}{call.endpoint}") for url in settings.public_url], time.time())
    except TokenRefused as wrong:
        refusal = f"refused: the access token is not taken: {wrong}"
    scopes = principal.scopes or frozenset()
    return replace(call, agent=principal.agent, claims=principal.claims, scopes=scopes, refusal=refusal)


def taking(config: Path, found: Trace) -> list[str] | None:
    """The instances of which one would take the call now, `server/number at host:port`, the least busy first, as a
    running gateway says; None where there is none to ask.
    """
    args = argparse.Namespace(config=config, admin="")
    try:
        servers = msgspec.json.decode(ask(args, "/backends", within=_NOW_WITHIN), type=dict[str, ServerShown])
    except (ConfigError, CommandFailed, msgspec.MsgspecError):
        return None
    for goal in found.goals:
        instances = servers[goal["server"]].instances if goal["server"] in servers else ()
        numbered = [(number, one) for number, one in enumerate(instances, 1) if one.is_in_order]
        if numbered:
            numbered.sort(key=lambda one: (one[1].in_flight + 1) * (one[1].latency_ms or 0.0))
            return [f"{goal['server']}/{number} at {one.address}" for number, one in numbered]
    return []


def _lines(found: Trace, now: list[str] | None) -> Iterator[str]:
    pairs = [f"{name}={one if isinstance(one, str) else '|'.join(one)}" for name, one in found.claims.items()]
    yield f"{found.kind} {found.name} on {found.endpoint}"
    yield f"agent {found.agent} ({', '.join(pairs)})" if pairs else f"agent {found.agent}"
    yield f"verdict: {found.verdict}"
    yield from (f"  {line}" for line in found.absence)
    if found.led:
        yield f"leads there because {found.led}"
    if found.route:
        yield "route:"
    for arm in found.route:
        word = "taken" if arm["taken"] else f"not taken: {'; '.join(arm['why'])}"
        yield f"  arm {arm['number']} to {', '.join(arm['targets']) or 'nowhere here'}: {word}"
    if found.rules is not None:
        policies = "policies, in order; one deny beats every allow:"
        yield policies if found.rules else "policies: an empty list allows nothing"
        if found.rules and all(one["shadow"] for one in found.rules):
            yield "  all are in shadow, so everything is allowed"
    elif found.goals:
        yield "policies: none are written, so everything is allowed"
    yield from (f"  {one['policy']}: {_policy(one)}" for one in found.rules or ())
    if found.shadow is not None:
        yield f"in shadow: the policy {found.shadow['policy']} would {found.shadow['would']} it"
    yield from _targets(found)
    if now is not None:
        yield f"now: {', or '.join(now) or 'no instance is in order'}"
    if found.quotas:
        yield "quotas that count it:"
    yield from (f"  {_quota(one)}" for one in found.quotas)
    if found.limits:
        yield "limits that count it:"
    yield from (f"  {_limit(one)}" for one in found.limits)


def _policy(one: Record) -> str:
    if one["applies"] is False:
        return f"does not apply: {'; '.join(one['why'])}"
    words = []
    if one["applies"] is None:
        words.append(f"cannot be judged ({'; '.join(one['why'])}), so it allows nothing")
    if one["denies"]:
        words.append(f"denies by {', '.join(one['denies'])}")
    if one["allows"]:
        part = ", but not every target it could reach" if one["effect"] == "allows in part" else ""
        words.append(f"allows by {', '.join(one['allows'])}{part}")
    return f"{'; '.join(words) or 'applies, and says nothing of it'}{_SHADOW if one['shadow'] else ''}"


def _targets(found: Trace) -> Iterator[str]:
    for number, one in enumerate(found.goals, 1):
        called = "" if number == 1 else ", where the one before fails"
        yield f"target {number}{called}: {one['server']}, {found.kind} {one['name']}"
        yield f"  instances: {', '.join(one['instances']) or 'none'}; credential: {one['credential']}"
        if one["renamed"]:
            yield f"  arguments renamed: {', '.join(f'{ours} to {theirs}' for ours, theirs in one['renamed'].items())}"
        if not one["known"]:
            yield "  it has never answered: whether it brings this is not known"
        remarks = {"": one["change"], "maintenance: ": one["maintenance"], "backup: ": ", ".join(one["backup"])}
        yield from (f"  {name}{words}" for name, words in remarks.items() if words)
    if found.seconds:
        yield f"timeouts: {', '.join(f'{name} {value:g} s' for name, value in found.seconds.items())}"
    if found.failover:
        word = "may" if found.failover["repeatable"] else "may not"
        yield f"failover: on {', '.join(found.failover['on'])}; what was sent {word} be sent again"
    for words, names in (("fixed arguments", found.fixed), ("default arguments", found.defaults)):
        if names:
            yield f"{words}: {', '.join(names)}"
    if found.scopes:
        yield f"scopes of an access token: {', '.join(found.scopes)}"
    if found.goals:
        yield f"validated: {', '.join(found.validates) or 'nothing'}"


def _quota(one: Record) -> str:
    amounts = [f"{_kind(kind)} {most}" for kind, most in one["amounts"].items()]
    period = f"in any {_span(one['rolling'])}" if one["per"] is None else f"per {one['per']} ({one['timezone']})"
    learned = dict.fromkeys(one["learned"], " or more, by recent calls")
    reserves = [f"{_kind(kind)} {least}{learned.get(kind, '')}" for kind, least in one["reserves"].items()]
    bucket = _bucket(one["by"], one["subject"])
    words = f"{', '.join(amounts)} {period}; the call reserves {', '.join(reserves)}"
    return f"{one['name']}{bucket}: {words}{_SHADOW if one['shadow'] else ''}"


def _kind(kind: str) -> str:
    return kind.replace("_", " ")


def _span(seconds: float) -> str:
    """A time as the configuration writes it, in the largest unit of which it is a whole number."""
    units = ((86400, "d"), (3600, "h"), (60, "m"))
    size, unit = next(((size, unit) for size, unit in units if seconds % size == 0), (1, "s"))
    return f"{seconds / size:g}{unit}"


def _bucket(by: Sequence[str], values: Sequence[str | None]) -> str:
    named = [f"no {key}" if value is None else f"{key} {value}" for key, value in zip(by, values, strict=True)]
    return f" by {', '.join(named)}" if named else ""


def _limit(one: Record) -> str:
    words = []
    if one["rate"] is not None:
        by_override = f" (override {one['override']})" if one["override"] is not None else ""
        words.append(f"{one['rate']}, at most {one['burst']} at once{by_override}")
        if one["weight"] != 1:
            words.append(f"the call counts {one['weight']}")
    if one["in_flight"] is not None:
        words.append(f"at most {one['in_flight']} in flight")
    figures = f": {'; '.join(words)}" if words else ""
    return f"{one['name']}{_bucket(one['by'], one['bucket'])}{figures}{_SHADOW if one['shadow'] else ''}"
