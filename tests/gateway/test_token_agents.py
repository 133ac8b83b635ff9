"""Access tokens at a worker: what is taken, what is asked of the controller, what is remembered and for how long."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastgw.config.schema.settings import Settings
from fastgw.errors import Fault, Kind
from fastgw.gateway.token_agents import TokenAgents
from fastgw.policy.match import Principal
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters
from tests.auth.signing import GOOD, ISSUER, NOW, bad_tokens, document, jwk, token

GENERATED = 10_000
ASKING = {"url": "https://login.example.com/introspect", "client_id": "a", "client_secret": "${env:S}"}


class Controller:
    """Knows what the test has told it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.news: Any = None
        self.says: Any = {"active": False}

    async def look_for_key(self, issuer: str, kid: str | None) -> None:
        self.asked.append((issuer, kid))
        if isinstance(self.news, Exception):
            raise self.news
        if self.news is not None:
            self.agents.learn(self.news)

    async def introspect(self, issuer: str, shown: bytes) -> bytes:
        self.asked.append((issuer, shown))
        if isinstance(self.says, Exception):
            raise self.says
        return json.dumps({"known_until": NOW + 60.0, **self.says}).encode()

    agents: TokenAgents


def snapshot(**login: Any) -> Snapshot:
    identity = {
        "login": {"issuer": ISSUER, "claims": {"team": "team"}, **login},
        "other": {"issuer": "https://o.example"},
    }
    settings = Settings.model_validate({"public_url": "http://localhost:8080", "identity": identity})
    return compile_snapshot(settings, Learned(), 1)[0]


def made(*keys: dict[str, Any]) -> tuple[TokenAgents, Controller, Counters]:
    controller, counters = Controller(), Counters()
    controller.agents = TokenAgents(controller, counters)  # type: ignore[arg-type]
    controller.agents.learn({ISSUER: document(*keys), "https://o.example": document(jwk(name="stranger"))})
    return controller.agents, controller, counters


def identified(agents: TokenAgents, shown: bytes, now: float = NOW, **login: Any) -> tuple[Principal, float]:
    found = snapshot(**login)
    return asyncio.run(agents.identify(shown, found, found.endpoints["/mcp"], now))[:2]


def refused(agents: TokenAgents, shown: bytes, now: float = NOW, **login: Any) -> Fault:
    with pytest.raises(Fault) as fault:
        identified(agents, shown, now, **login)
    assert shown.decode("latin-1") not in str(fault.value) + fault.value.message
    return fault.value


def test_none_of_ten_thousand_bad_tokens_is_taken() -> None:
    agents, controller, counters = made(jwk())
    found = snapshot()

    async def story() -> set[Kind]:
        kinds = set()
        for shown in bad_tokens(GENERATED):
            try:
                taken = (await agents.identify(shown, found, found.endpoints["/mcp"], NOW))[:2]
            except Fault as fault:
                kinds.add(fault.kind)
                assert fault.headers == ((b"www-authenticate", b'Bearer error="invalid_token"'),)
            else:
                pytest.fail(f"{shown!r} was taken for {taken}")
        return kinds

    assert asyncio.run(story()) == {Kind.WRONG_CREDENTIAL, Kind.UNAUTHENTICATED}
    assert sum(counters.counts.values()) == GENERATED
    assert all(issuer == ISSUER for issuer, _ in controller.asked)
    assert identified(agents, token())[0].agent == "login:alice"


def test_until_when_it_is_good_and_whose_it_is() -> None:
    agents, controller, _ = made(jwk())
    assert identified(agents, token()) == (
        Principal("login:alice", {"team": "test"}, "login", None, frozenset()), NOW + 330.0,
    )  # fmt: skip
    assert identified(agents, token(), now=NOW + 329)[1] == NOW + 330.0
    # An honest agent comes with a token whose time is over, and must not be locked out for it.
    assert refused(agents, token(), now=NOW + 330).kind is Kind.UNAUTHENTICATED
    assert refused(agents, token({"aud": "x"})).kind is Kind.WRONG_CREDENTIAL
    assert controller.asked == []


def test_another_issuers_token_is_no_token_of_this_one() -> None:
    agents, _, _ = made(jwk())
    own = token({"iss": "https://o.example"}, name="stranger")
    assert identified(agents, own)[0].agent == "other:alice"
    assert "signature" in refused(agents, token({"iss": "https://o.example"}, header={"kid": "stranger"})).message
    assert "no issuer" in refused(agents, token({"iss": "https://third.example"})).message


def test_a_token_that_is_bound_to_a_key_is_no_bearers() -> None:
    agents, controller, counters = made(jwk())
    bound = {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}
    fault = refused(agents, token(bound))
    assert "bound to a key (cnf)" in fault.message
    assert refused(agents, token({**bound, "exp": NOW - 60})).kind is Kind.UNAUTHENTICATED
    controller.says = {**GOOD, "active": True, **bound}  # RFC 8705, section 3.2: introspection says so, too
    assert refused(agents, b"opaque", introspection=ASKING).message == fault.message
    [reason] = {labels[0] for _, *labels in counters.counts if "bound" in labels[0]}
    assert counters.counts["fastgw_tokens_refused_total", reason] == 2
    assert identified(agents, token({"cnf": None}))[0].agent == "login:alice"


def test_an_endpoint_takes_the_issuers_that_it_names() -> None:
    agents, _, _ = made(jwk())
    identity = {"login": {"issuer": ISSUER}, "other": {"issuer": "https://o.example"}}
    endpoints = {"/mcp": {"auth": ["other", "keys"]}}
    settings = {"public_url": "http://localhost:8080", "identity": identity, "endpoints": endpoints}
    found = compile_snapshot(Settings.model_validate(settings), Learned(), 1)[0]
    with pytest.raises(Fault, match="no issuer"):
        asyncio.run(agents.identify(token(), found, found.endpoints["/mcp"], NOW))


def test_an_unknown_key_is_asked_for_once_and_then_tried_again() -> None:
    agents, controller, _ = made(jwk())
    assert "key is not known" in refused(agents, token(name="new")).message
    controller.news = {ISSUER: document(jwk(), jwk(name="new"))}
    assert identified(agents, token(name="new"))[0].agent == "login:alice"
    assert identified(agents, token(name="new"))[0].agent == "login:alice"
    assert controller.asked == [(ISSUER, "new")] * 2


@pytest.mark.parametrize(
    "trouble", [Fault(Kind.FULL, retry_after=5), Fault(Kind.NO_SERVER), Fault(Kind.INTERNAL), TimeoutError()]
)
def test_what_cannot_be_found_out_now_is_no_wrong_token(trouble: Exception) -> None:
    agents, controller, _ = made(jwk())
    controller.news = controller.says = trouble
    for shown in (token(name="new"), b"opaque"):
        fault = refused(agents, shown, introspection=ASKING)
        assert fault.kind is Kind.FULL
        assert fault.retry_after


def test_keys_that_are_gone_are_told_apart_from_new_ones() -> None:
    agents, _, _ = made(jwk())
    other = {"https://o.example": document(jwk(name="stranger"))}
    assert not agents.learn({ISSUER: document(jwk(), jwk(name="new")), **other})
    assert not agents.learn({ISSUER: document(jwk(name="new"), jwk()), **other})
    assert agents.learn({ISSUER: document(jwk(name="new")), **other})
    assert agents.learn(other)
    # One that has taken another's name, or has none, is another: an issuer that was broken into may keep the name.
    for kid in ("a", None):
        agents.learn({ISSUER: document(jwk(kid=kid))})
        assert identified(agents, token())[0].agent == "login:alice"
        assert agents.learn({ISSUER: document(jwk(name="new", kid=kid))})
        assert refused(agents, token()).kind is Kind.WRONG_CREDENTIAL


def test_opaque_tokens_are_what_their_issuer_says_for_a_while() -> None:
    agents, controller, _ = made()
    assert "no JWT" in refused(agents, b"opaque").message
    assert controller.asked == []
    assert "not active" in refused(agents, b"opaque", introspection=ASKING).message
    controller.says = {"active": True, **GOOD, "scope": "a"}
    principal, until = identified(agents, b"opaque", introspection=ASKING)
    assert (principal.agent, principal.scopes, until) == ("login:alice", {"a"}, NOW + 60.0)
    assert identified(agents, b"opaque", now=NOW - 1000, introspection=ASKING)[1] == NOW + 60.0
    del controller.says["iss"]
    controller.says["exp"] = NOW + 10
    assert identified(agents, b"another", introspection=ASKING)[1] == NOW + 40.0
    for change in ({"aud": None}, {"aud": "https://elsewhere.example"}, {"iss": "https://o.example"}, {"exp": None}):
        controller.says = {"active": True, **GOOD, **change}
        refused(agents, b"third", introspection=ASKING)


def test_an_issuer_may_be_asked_about_its_jwts_too() -> None:
    agents, controller, _ = made(jwk())
    all_of_them = {"introspection": {**ASKING, "tokens": "all"}}
    shown = token({"aud": None, "team": None})  # all else is said by the issuer alone
    assert "audience" in refused(agents, shown, introspection=ASKING).message
    assert controller.asked == []
    assert "not active" in refused(agents, shown, **all_of_them).message
    controller.says = {"active": True, **GOOD}
    principal, until = identified(agents, shown, **all_of_them)
    assert (principal.agent, principal.claims, until) == ("login:alice", {"team": "test"}, NOW + 60.0)
    assert controller.asked == [(ISSUER, shown)] * 2
    stranger = token({"iss": "https://nobody.example"}, name="stranger")
    assert "no issuer" in refused(agents, stranger, **all_of_them).message
    assert "key" in refused(agents, token({"iss": "https://o.example"}), **all_of_them).message  # of the other, by keys
    assert len(controller.asked) == 3
    assert controller.asked[2] == ("https://o.example", "a")


def test_a_verified_token_outlives_the_snapshot_but_not_what_it_was_verified_by() -> None:
    agents, controller, counters = made()
    controller.says = {"active": True, **GOOD}
    for _ in range(3):
        assert identified(agents, b"opaque", introspection=ASKING)[0].agent == "login:alice"
    assert len(controller.asked) == 1
    assert identified(agents, b"opaque", introspection=ASKING, agent_id="team")[0].agent == "login:test"
    refused(agents, b"opaque", introspection=ASKING, audience="elsewhere")
    refused(agents, b"opaque")  # by a configuration without introspection
    agents.learn({})
    controller.says = {"active": False}
    refused(agents, b"opaque", introspection=ASKING)
    assert not counters.counts["fastgw_tokens_refused_total", "it has expired"]
