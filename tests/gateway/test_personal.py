"""What servers are shown of who asks: by its claims, its headers, and the token it has come by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastgw.catalog.route import Arm, Target
from fastgw.credentials import choices_of
from fastgw.errors import Fault, Kind
from fastgw.gateway.access import Access
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import modern
from fastgw.gateway.personal import sent_as
from fastgw.policy.match import Principal
from fastgw.protocol.call import SentAs
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Snapshot
from tests.snapshot.compiling import settings

OAUTH = {"token_url": "https://t/", "client_id": "c", "client_secret": "s"}
RED = {"bearer": "r3d", "match": {"claims": {"team": "red"}}}
EXCHANGED = {"oauth": {**OAUTH, "grant": "token_exchange"}, "match": {"agent": "login:*"}}
TARGET = Target("a", "t", b'"t"')


def snapshot(**servers: Any) -> Snapshot:
    told = settings({name: ["t"] for name in servers}, **servers)
    choices = {name: choices_of(server) for name, server in told.servers.items()}
    return compile_snapshot(told, Learned(choices=choices), 1)[0]


def context(
    of: Snapshot, principal: Principal, subject: str = "", headers: dict[bytes, bytes] | None = None
) -> RequestContext:
    endpoint = of.endpoints["/mcp"]
    access = Access(principal, endpoint.views[0], 0.0, "", subject)
    found = RequestContext("req_1", of, endpoint, modern.DIALECT, headers or {}, frozenset(), 0.0)
    found.access, found.principal = access, principal
    return found


def asked(of: Snapshot, found: RequestContext, *servers: str) -> dict[str, SentAs]:
    targets = tuple(replace(TARGET, server=server) for server in servers or ("a",))
    return dict(sent_as(found, Arm(None, targets)) or {})


def test_servers_that_show_everyone_the_same_are_left_out() -> None:
    of = snapshot(a={"credential": {"bearer": "x"}}, b={"forward_headers": ["X-Tenant"]}, c={"backup": "b"})
    one = context(of, Principal("p"), headers={b"x-tenant": b"acme"})
    assert sent_as(one, Arm(None, (TARGET,))) is None
    assert asked(of, one, "a", "c") == {"b": SentAs(b"X-Tenant: acme\r\n", b"\nX-Tenant: acme\r\n")}


def test_the_first_that_matches_is_worked_out_once() -> None:
    of = snapshot(a={"credential": [RED, {"bearer": "rest"}]}, b={"credential": [RED]})
    red, blue = (context(of, Principal(team, {"team": team})) for team in ("red", "blue"))
    tags = [asked(of, one)["a"].credential for one in (red, blue)]
    assert tags == [one.tag for one in of.backends["a"].credentials]
    assert asked(of, blue, "b")["b"].credential is None
    assert blue.access is not None
    assert blue.access.credentials == {"a": tags[1], "b": None}
    assert asked(of, red)["a"].alike != asked(of, blue)["a"].alike


def test_a_credential_is_the_same_wherever_it_stands() -> None:
    other = {"bearer": "b1ue", "match": {"claims": {"team": "blue"}}}
    first, second = (snapshot(a={"credential": every}).backends["a"] for every in ([RED, other], [other, RED]))
    assert {one.tag for one in first.credentials} == {one.tag for one in second.credentials}
    assert len({one.tag for one in first.credentials}) == 2


def test_what_is_to_be_handed_on_and_cannot_be_refuses_the_call() -> None:
    of = snapshot(a={"forward_headers": ["X-Tenant"]})
    with pytest.raises(Fault, match="X-Tenant holds characters") as found:
        asked(of, context(of, Principal("p"), headers={b"x-tenant": b"a\nb"}))
    assert found.value.kind is Kind.INVALID_REQUEST


def test_who_has_come_by_a_token_has_it_exchanged() -> None:
    of = snapshot(a={"credential": [EXCHANGED, {"bearer": "rest"}]})
    shown = {b"authorization": b"Bearer token.of.alice"}
    alice = asked(of, context(of, Principal("login:tool"), "https://login/\nalice", shown))["a"]
    bob = asked(of, context(of, Principal("login:tool"), "https://login/\nbob", shown))["a"]
    assert alice.subject is not None and bob.subject is not None
    assert alice.subject.token == "token.of.alice"
    tag = of.backends["a"].credentials[0].tag
    assert (alice.credential, bob.credential) == (f"{tag}.{alice.subject.user}", f"{tag}.{bob.subject.user}")
    assert alice.credential != bob.credential  # the same agent, and yet no session and no result in common
    assert alice.alike != bob.alike
    assert "token.of.alice" not in repr(alice)


def test_who_has_come_otherwise_has_none_to_exchange() -> None:
    of = snapshot(a={"credential": [EXCHANGED, {"bearer": "rest"}]})
    by_key = {b"authorization": b"Bearer fgw_key"}
    found = asked(of, context(of, Principal("login:proxied"), headers=by_key))["a"]
    assert (found.subject, found.credential) == (None, of.backends["a"].credentials[0].tag)
    assert (
        asked(of, context(of, Principal("bot"), headers=by_key))["a"].credential == of.backends["a"].credentials[1].tag
    )
