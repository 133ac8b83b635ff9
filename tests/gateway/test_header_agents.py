"""Agents that a proxy names: on whose word, with what beside it, and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.gateway.header_agents import LONGEST_NAME
from tests.auth.signing import ISSUER, token
from tests.gateway.test_identify import Scene, play
from tests.snapshot.compiling import HASH

PROXY, STRANGER = "10.0.0.1", "203.0.113.9"
SUBJECT = b"x-client-cert-subject"
NAMED = [(SUBJECT, b"CN=bot,O=Acme")]
MACHINES: dict[str, Any] = {
    "header": {"name": "X-Client-Cert-Subject", "from": ["10.0.0.0/8", "fd00::1"]},
    "set": {"team": "test"},
}
IDENTITY = {"machines": MACHINES, "login": {"issuer": ISSUER, "claims": {"team": "team"}}}


def refused(scene: Scene, kind: Kind, *lines: tuple[bytes, bytes], peer: str = PROXY) -> Any:
    async def story() -> Fault:
        with pytest.raises(Fault) as fault:
            await scene.come(list(lines), peer)
        assert fault.value.kind is kind, fault.value
        return fault.value

    return story()


@pytest.mark.parametrize("peer", [PROXY, "::ffff:10.0.0.1", "fd00::1"])
def test_a_proxy_names_the_agent_and_its_class_is_made_once(peer: str) -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        scene.meanwhile = lambda: scene.load(identity=IDENTITY)
        first = await scene.come(NAMED, peer)
        assert first.principal.agent == "machines:CN=bot,O=Acme"
        assert (first.principal.claims, first.principal.credential) == ({"team": "test"}, "machines")
        assert first.principal.scopes is None  # as of an API key: it has none to lack
        assert first.view is not None
        assert first.view is first.snapshot.endpoints["/mcp"].view_for(first.principal)
        again = await scene.come(NAMED, peer)
        assert again.access is first.access
        other = await scene.come([(SUBJECT, b"CN=other")], peer)
        assert (other.principal.agent, other.view) == ("machines:CN=other", first.view)
        assert scene.asked == ["machines:CN=bot,O=Acme"]

    play(story)


def test_from_anywhere_else_the_header_counts_as_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        with caplog.at_level(logging.WARNING, "fastgw"):
            for peer in (STRANGER, STRANGER, "fd00::2", "::ffff:11.0.0.1", "nonsense", ""):
                fault = await refused(scene, Kind.UNAUTHENTICATED, *NAMED, peer=peer)
                assert fault.message == (await refused(scene, Kind.UNAUTHENTICATED, peer=peer)).message
        assert scene.gateway.header_agents._counters.counts["fastgw_untrusted_headers_total", "machines"] == 6
        assert caplog.text.count(f"from {STRANGER} counts as not sent; if that is your proxy, add it") == 1
        assert not scene.gateway.known_agents

    play(story)


def test_who_shows_a_credential_is_judged_by_that_alone() -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        scene.meanwhile = lambda: scene.load(identity=IDENTITY)
        bearer = b"authorization", b"Bearer " + token()
        for _ in range(2):  # also once it is known
            assert (await scene.come([*NAMED, bearer], PROXY)).principal.agent == "login:alice"
        await scene.come(NAMED, PROXY)
        for lines in (
            [(b"authorization", b"Bearer fgw_wrong")],
            [(b"x-api-key", b"fgw_wrong")],
        ):
            await refused(scene, Kind.WRONG_CREDENTIAL, *NAMED, *lines)
        await refused(scene, Kind.UNAUTHENTICATED, *NAMED, (b"authorization", b""))
        await refused(scene, Kind.UNAUTHENTICATED, *NAMED, bearer, bearer)

    play(story)


@pytest.mark.parametrize(
    "lines",
    [
        [(SUBJECT, b"")],
        [(SUBJECT, b"CN=bot\tO=Acme")],
        [(SUBJECT, b"CN=bot\x7f")],
        [(SUBJECT, b"CN=\xff")],
        [(SUBJECT, b"x" * (LONGEST_NAME + 1))],
        [*NAMED, *NAMED],
        [*NAMED, (SUBJECT, b"CN=admin")],
        [*NAMED, (b"x-spiffe-id", b"spiffe://acme/bot")],
    ],
)
def test_a_header_that_names_nobody_or_several(lines: list[tuple[bytes, bytes]]) -> None:
    async def story(scene: Scene) -> None:
        spiffe = {"header": {"name": "X-SPIFFE-ID", "from": PROXY}, "set": {"team": "test"}}
        scene.load(identity={**IDENTITY, "mesh": spiffe})
        scene.meanwhile = lambda: scene.load(identity={**IDENTITY, "mesh": spiffe})
        await scene.come(NAMED, PROXY)  # whom it names alone is known
        fault = await refused(scene, Kind.WRONG_CREDENTIAL, *lines)
        assert fault.message.startswith("The agent is not known: ")
        assert b"CN=" not in fault.message.encode()

    play(story)


def test_a_name_of_any_script_as_long_as_may_be() -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        scene.meanwhile = lambda: scene.load(identity=IDENTITY)
        name = "CN=J\u00fcrgen " + "x" * (LONGEST_NAME - 10)
        assert (await scene.come([(SUBJECT, name.encode())], PROXY)).principal.agent == f"machines:{name}"

    play(story)


@pytest.mark.parametrize("endpoint", [{"auth": "keys"}, {"auth": ["login"]}, {"auth": ["keys", "login"]}])
def test_an_endpoint_that_does_not_take_it(endpoint: dict[str, Any]) -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY, endpoints={"/mcp": endpoint})
        await refused(scene, Kind.UNAUTHENTICATED, *NAMED)
        scene.load(identity=IDENTITY, endpoints={"/mcp": {"auth": "machines"}})
        scene.meanwhile = lambda: scene.load(identity=IDENTITY, endpoints={"/mcp": {"auth": "machines"}})
        assert (await scene.come(NAMED, PROXY)).principal.credential == "machines"
        assert scene.gateway._newest is not None
        assert scene.gateway._newest.endpoints["/mcp"].issuers == ()  # nobody is sent to log in

    play(story)


def test_two_kinds_of_proxies_name_by_the_same_header() -> None:
    async def story(scene: Scene) -> None:
        mesh = {"header": {**MACHINES["header"], "from": "192.0.2.1"}, "set": {"team": "red"}}
        scene.load(identity={**IDENTITY, "mesh": mesh})
        scene.meanwhile = lambda: scene.load(identity={**IDENTITY, "mesh": mesh})
        for _ in range(2):  # also once they are known
            for peer, agent, team in ((PROXY, "machines", "test"), ("192.0.2.1", "mesh", "red")):
                found = (await scene.come(NAMED, peer)).principal
                assert (found.agent, found.claims) == (f"{agent}:CN=bot,O=Acme", {"team": team})

    play(story)


def test_what_was_found_out_of_an_older_configuration_is_not_remembered() -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        scene.meanwhile = lambda: scene.load(identity={"machines": {**MACHINES, "set": {"team": "red"}}})
        assert (await scene.come(NAMED, PROXY)).principal.claims == {"team": "test"}  # it came while that was in force
        assert (await scene.come(NAMED, PROXY)).principal.claims == {"team": "red"}

    play(story)


def test_a_proxy_that_is_taken_out_names_nobody_any_more() -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        scene.meanwhile = lambda: scene.load(identity=IDENTITY)
        await scene.come(NAMED, PROXY)
        scene.load(identity={"machines": {**MACHINES, "header": {**MACHINES["header"], "from": "10.0.0.2"}}})
        await refused(scene, Kind.UNAUTHENTICATED, *NAMED)
        assert (await scene.come(NAMED, "10.0.0.2")).principal.agent == "machines:CN=bot,O=Acme"

    play(story)


@pytest.mark.parametrize(
    ("lines", "keys", "counted"),
    [
        ([], {}, PROXY),
        ([(b"x-forwarded-for", b"198.51.100.1")], {}, "198.51.100.1"),
        ([(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"198.51.100.1, 10.0.0.7")], {}, "198.51.100.1"),
        ([(b"x-forwarded-for", b"2001:db8:1:2:3::1")], {}, "2001:db8:1:2::/64"),
        ([(b"x-forwarded-for", b"198.51.100.1")], {"identity": {}}, PROXY),
        ([(b"x-forwarded-for", b"198.51.100.1")], {"identity": {}, "trusted_proxies": PROXY}, "198.51.100.1"),
        ([(b"forwarded", b"for=198.51.100.1"), (b"x-real-ip", b"198.51.100.1")], {}, PROXY),
    ],
)
def test_whom_wrong_credentials_are_counted_against(
    lines: list[tuple[bytes, bytes]], keys: dict[str, Any], counted: str
) -> None:
    async def story(scene: Scene) -> None:
        scene.load(**{"identity": IDENTITY, "failed_credentials": "1/hour", "agents": {"a": {"key": HASH}}, **keys})
        gateway = scene.gateway
        scope = {"headers": [(b"host", b"localhost"), *lines], "client": (PROXY, "1")}
        for kind in (Kind.WRONG_CREDENTIAL, Kind.RATE_LIMITED):
            context = gateway.begin(scope)
            found = await gateway.limiter.throttle_failed_login(context, Fault(Kind.WRONG_CREDENTIAL))
            assert found.kind is kind
            gateway.end(context)
        report = await gateway.limiter.report()
        assert [row["subject"] for row in report["refused"]] == [counted]

    play(story)


def test_names_do_not_fill_the_memory() -> None:
    async def story(scene: Scene) -> None:
        scene.load(identity=IDENTITY)
        scene.meanwhile = lambda: scene.load(identity=IDENTITY)
        await scene.come(NAMED, PROXY)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("fastgw.gateway.access.MOST", 10)
            for number in range(50):
                await scene.come([(SUBJECT, b"CN=%d" % number)], PROXY)
                assert len(scene.gateway.known_agents) <= 10
        await asyncio.sleep(0)
        assert scene.asked == ["machines:CN=bot,O=Acme"]

    play(story)
