"""307 and 308 (RFC 9110, section 15.4): followed once within an origin, remembered, shown; refused elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fastgw.catalog.route import Deadlines
from fastgw.config.instance_urls import redacted
from fastgw.errors import Fault, Kind
from fastgw.upstream.transports.http_exchange import HttpAnswer
from tests.upstream.fakes import FakeAnswer
from tests.upstream.raw_server import HEADERS, PATIENT, Peer, RawServer, ok, raw_server, run, slots, wire_to

loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
Answers = Callable[[str], bytes]
"""The answer to what was asked: `POST /mcp?x=1` for example."""


def redirect(location: str, status: str = "307 Temporary Redirect") -> bytes:
    return ok(b"moved", b"Location: " + location.encode("latin-1"), status=status.encode())


class World:
    """A server, a wire to it, and what was asked."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.requests: list[tuple[bytes, bytes]] = []

    async def script(self, peer: Peer) -> None:
        while got := await peer.request():
            self.requests.append(got)
            self.asked.append(got[0].split(b" HTTP/")[0].decode())
            await peer.say(self.answers(self.asked[-1]))

    def play(self, story: Any, loop: str = "uvloop", **settings: Any) -> None:
        async def whole() -> None:
            async with raw_server(self.script) as server, wire_to(server, **settings) as transport:
                await story(server, transport)

        run(loop, whole())


async def ask(transport: Any, verb: str = "POST", body: bytes = b'{"n":1}') -> HttpAnswer:
    answer: HttpAnswer = await transport.request(verb, HEADERS, body if verb == "POST" else b"", PATIENT)
    return answer


async def refused(transport: Any, verb: str = "POST") -> Fault:
    with pytest.raises(Fault) as wrong:
        await ask(transport, verb)
    assert (wrong.value.kind, wrong.value.sent, wrong.value.data) == (Kind.NO_SERVER, False, {"reason": "down"})
    return wrong.value


@loops
@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/mcp/", "/mcp/"), ("{origin}/mcp/?x=1", "/mcp/?x=1"), ("mcp/", "/mcp/"), ("//{place}/mcp/", "/mcp/"),
        ("?y=2", "/mcp?y=2"), ("./a/../b", "/b"), ("/mcp/#part", "/mcp/"), ("{origin}", "/"),
        ("/m%20c%2Fp/", "/m%20c%2Fp/"),
    ],
)  # fmt: skip
def test_a_redirect_within_the_origin_is_followed_and_remembered(
    loop: str, status: str, verb: str, location: str, path: str
) -> None:
    world = World(lambda asked: redirect(where, status) if asked.endswith("/mcp?x=1") else ok(b"here"))

    async def story(server: RawServer, transport: Any) -> None:
        nonlocal where
        origin = server.url.removesuffix("/mcp?x=1")
        where = location.format(origin=origin, place=origin.removeprefix("http://"))
        for _ in range(2):
            assert (await ask(transport, verb)).body == b"here"
        assert (await ask(transport, "GET")).body == b"here"
        assert world.asked == [f"{verb} /mcp?x=1", f"{verb} {path}", f"{verb} {path}", f"GET {path}"]
        first, second = world.requests[:2]
        assert first[1] == second[1] == (b'{"n":1}' if verb == "POST" else b"")
        assert first[0].split(b"\r\n")[1:] == second[0].split(b"\r\n")[1:]
        assert len(server.peers) == 1
        (note,) = transport.notes
        assert "redirects to" in note

    where = ""
    world.play(story, loop)


@loops
@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/mcp/", "https://127.0.0.1:{port}/mcp/", "http://127.0.0.1:1/mcp/",
        "//localhost:{port}/mcp/", "http://127.0.0.1/mcp/", "http://user@127.0.0.2:{port}/", "ftp://127.0.0.1:{port}/",
    ],
)  # fmt: skip
def test_a_redirect_elsewhere_is_refused_with_its_address_and_nothing_goes_there(
    loop: str, verb: str, location: str
) -> None:
    world = World(lambda asked: redirect(where))

    async def story(server: RawServer, transport: Any) -> None:
        nonlocal where
        where = location.format(port=server.url.split(":")[2].split("/")[0])
        for _ in range(2):
            fault = await refused(transport, verb)
            assert "307" in fault.detail and where.partition("?")[0].replace("user@", "") in fault.detail
        assert world.asked == [f"{verb} /mcp?x=1"] * 2
        assert transport.notes == set()

    where = ""
    world.play(story, loop, shown="http://127.0.0.1:9/mcp")


@pytest.mark.parametrize(
    "location",
    [
        "http://[", "http://[::1", "http://127.0.0.1:99999/", "http://a:b/", "mailto:a@b.c", "javascript:alert(1)",
        "data:,", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_an_address_that_is_none_of_http_is_refused(location: str) -> None:
    world = World(lambda asked: redirect(location))

    async def story(server: RawServer, transport: Any) -> None:
        assert location in (await refused(transport)).detail
        assert len(world.asked) == 1

    world.play(story, shown="http://127.0.0.1:9/mcp")


def test_a_redirect_without_an_address_is_refused() -> None:
    world = World(lambda asked: ok(b"", status=b"307 Temporary Redirect"))

    async def story(server: RawServer, transport: Any) -> None:
        fault = await refused(transport)
        assert "307" in fault.detail
        assert len(world.asked) <= 2

    world.play(story, shown="http://127.0.0.1:9/mcp")


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://h/mcp", "http://h:80/mcp/"), ("http://h:80/mcp", "http://h/mcp/"), ("http://h:8/mcp", "http://H:8/mcp/"),
        ("https://h/mcp", "https://h:443/mcp/"), ("http://[::1]:9/mcp", "http://[::1]:9/mcp/"),
    ],
)  # fmt: skip
def test_an_origin_is_the_same_however_it_is_written(url: str, location: str) -> None:
    """RFC 6454, section 4. No port 80 is free for a test, so the redirect is handed in."""

    async def work() -> None:
        async with wire_to(url) as transport:
            transport._move(FakeAnswer(307, {"location": location}), transport._url)
            assert transport._now.raw_path == "/mcp/"

    run("asyncio", work())


@pytest.mark.parametrize("there", ["/mcp?x=1", "/a", "/b", "http://"])
def test_a_loop_is_left_after_one_step(there: str) -> None:
    world = World(lambda asked: redirect({"/mcp?x=1": there, "/a": "/b"}.get(asked.split()[1], "/a")))

    async def story(server: RawServer, transport: Any) -> None:
        for number in range(1, 4):
            await refused(transport)
            assert len(world.asked) <= 2 * number

    world.play(story)


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_a_remembered_place_that_is_gone_is_asked_for_anew(status: str) -> None:
    place = "/old/"

    def answers(asked: str) -> bytes:
        if asked.endswith("/mcp?x=1"):
            return redirect(place)
        return ok(b"here") if asked.endswith(place) else ok(b"gone", status=status.encode())

    world = World(answers)

    async def story(server: RawServer, transport: Any) -> None:
        nonlocal place
        await ask(transport)
        place = "/new/"
        assert (
            await ask(transport)
        ).body == b"gone"  # the server's word: it is the caller who knows whether to ask again
        assert (await ask(transport)).body == b"here"
        assert [asked.split()[1] for asked in world.asked] == ["/mcp?x=1", "/old/", "/old/", "/mcp?x=1", "/new/"]

    world.play(story)


def test_a_404_of_a_place_that_was_never_left_changes_nothing() -> None:
    world = World(lambda asked: ok(b"", status=b"404 Not Found"))

    async def story(server: RawServer, transport: Any) -> None:
        for _ in range(2):
            assert (await ask(transport)).status == 404
        assert world.asked == ["POST /mcp?x=1"] * 2

    world.play(story)


def test_a_remembered_place_that_redirects_is_followed_too() -> None:
    world = World(lambda asked: redirect(places[asked.split()[1]]) if asked.split()[1] in places else ok(b"here"))
    places = {"/mcp?x=1": "/a"}

    async def story(server: RawServer, transport: Any) -> None:
        await ask(transport)
        places["/a"] = "/b"
        for _ in range(2):
            assert (await ask(transport)).body == b"here"
        assert [asked.split()[1] for asked in world.asked] == ["/mcp?x=1", "/a", "/a", "/b", "/b"]

    world.play(story)


@pytest.mark.parametrize("location", ["/mcp/", "mcp/"])
def test_many_at_once_are_led_to_the_same_place(location: str) -> None:
    """None of them knows of the others' redirects: each goes by the address that it asked itself."""
    both = asyncio.Event()
    world = World(lambda asked: ok(b"here") if asked.endswith(" /mcp/") else redirect(location))

    async def script(peer: Peer) -> None:
        while got := await peer.request():
            world.asked.append(got[0].split(b" HTTP/")[0].decode())
            if len(world.asked) == 2:
                both.set()
            await both.wait()
            await peer.say(world.answers(got[0].split(b" HTTP/")[0].decode()))

    world.script = script

    async def story(server: RawServer, transport: Any) -> None:
        answers = await asyncio.gather(ask(transport), ask(transport), return_exceptions=True)
        assert [getattr(one, "body", one) for one in answers] == [b"here"] * 2

    world.play(story)


@pytest.mark.parametrize("status", ["300 Multiple Choices", "301 Moved", "302 Found", "303 See Other"])
def test_a_redirect_that_turns_a_call_into_a_get_is_not_followed_and_says_where_it_leads(status: str) -> None:
    """RFC 9110, section 15.4: the call may have run, and its answer be there."""
    world = World(lambda asked: redirect("/login?key=hidden", status))

    async def story(server: RawServer, transport: Any) -> None:
        for _ in range(2):
            with pytest.raises(Fault) as wrong:
                await ask(transport)
            assert (wrong.value.kind, wrong.value.sent) == (Kind.LOST, True)
            assert f"status {status[:3]}: it redirects to http://a:9/login," in wrong.value.detail
        assert world.asked == ["POST /mcp?x=1"] * 2
        assert (len(server.peers), slots(transport)) == (1, 0)

    world.play(story, shown="http://a:9/mcp")


@pytest.mark.parametrize(
    "raw",
    [b"HTTP/1.1 304 Not Modified\r\nLocation: /mcp/\r\n\r\n", ok(b"", status=b"302 Found")],
    ids=["304", "302 to nowhere"],
)
def test_what_leads_nowhere_is_the_servers_answer(raw: bytes) -> None:
    world = World(lambda asked: raw)

    async def story(server: RawServer, transport: Any) -> None:
        assert (await ask(transport)).status == int(raw.split()[1])
        assert len(world.asked) == 1

    world.play(story)


@pytest.mark.parametrize(
    ("host", "location", "followed"),
    [
        ("inner", "http://inner/mcp/", True), ("inner", "https://INNER/mcp/", True),
        ("inner:8080", "http://inner:8080/mcp/", True), ("inner", "http://inner:81/mcp/", False),
        ("inner", "http://other/mcp/", False),
    ],
)  # fmt: skip
def test_who_is_told_another_host_may_write_its_addresses_by_that(host: str, location: str, followed: bool) -> None:
    world = World(lambda asked: redirect(location) if asked.endswith("/mcp?x=1") else ok(b"here"))

    async def story(server: RawServer, transport: Any) -> None:
        if not followed:
            await refused(transport)
            return
        assert (await ask(transport)).body == b"here"
        assert world.asked == ["POST /mcp?x=1", "POST /mcp/"]
        assert all(f"\r\nHost: {host}\r\n".encode() in head for head, _ in world.requests)

    world.play(story, host=host)


def test_what_is_noted_of_a_server_that_always_moves_is_bounded() -> None:
    moves = iter(range(100))
    world = World(lambda asked: redirect(f"/{next(moves)}") if len(world.asked) % 2 else ok(b"here"))

    async def story(server: RawServer, transport: Any) -> None:
        for _ in range(30):
            transport._go_to(transport._url)
            await ask(transport)
        assert len(transport.notes) == 20

    world.play(story, shown="http://127.0.0.1:9/mcp")


def test_the_two_requests_share_one_total() -> None:
    async def script(peer: Peer) -> None:
        while got := await peer.request():
            if b" /mcp?x=1 " in got[0]:
                await asyncio.sleep(0.4)
                await peer.say(redirect("/mcp/"))
            else:
                await peer.gone()

    world = World(lambda asked: b"")
    world.script = script

    async def story(server: RawServer, transport: Any) -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Fault) as wrong:
            await transport.request("POST", HEADERS, b"{}", Deadlines(5, 5, 5, 0.5))
        assert (wrong.value.kind, wrong.value.data) == (Kind.TIMEOUT, {"timeoutMs": 500})
        assert asyncio.get_running_loop().time() - began < 0.85

    world.play(story)


# -- how an address is shown --------------------------------------------------------------------------------------

SECRET = "sk-0123456789abcdef"
LONG = "eyJhbGciOiJIUzI1NiJ9." + "abcdefgh" * 40
URL = "http://a:1/s/{}/mcp?key=hidden"
SHOWN = "http://a:1/s/${env:TOKEN}/mcp"


@pytest.mark.parametrize(
    ("location", "status"),
    [
        ("http://a:1/s/{}/mcp/", "http://a:1/s/${env:TOKEN}/mcp/"),
        ("/s/{}/mcp/?key=hidden#hidden", "http://a:1/s/${env:TOKEN}/mcp/"),
        ("/other/{}/{}/", "http://a:1/other/${env:TOKEN}/${env:TOKEN}/"),
        ("https://a:1/s/{}x/mcp", "https://a:1/s/${env:TOKEN}x/mcp"),
        ("/mcp/", "http://a:1/mcp/"),
        ("/m\x00\x1b[31mcp/", "http://a:1/m[31mcp/"),
        ("/" + "x" * 300, "http://a:1/" + "x" * 189),
    ],
)
def test_an_address_is_shown_without_what_came_by_reference(location: str, status: str) -> None:
    assert redacted(location.format(SECRET, SECRET), URL.format(SECRET), SHOWN) == status


@pytest.mark.parametrize("secret", [SECRET, LONG, "a%2Fb%20cdefgh", "K%C3%B6lner-Schl%C3%BCssel"])
@pytest.mark.parametrize("before", ["", "http://a:1", "/x" * 50, "/x" * 90, "/x" * 95])
def test_no_part_of_a_secret_is_shown_however_long_the_address_is(secret: str, before: str) -> None:
    status = redacted(f"{before}/s/{secret}/mcp/", URL.format(secret), SHOWN)
    assert not any(secret[at : at + 8] in status for at in range(len(secret) - 8))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"http://a:1/{SECRET}/{SECRET}/mcp", "http://a:1/${env:PATH_TO_IT}"),
        (f"http://a:1/s/{SECRET}", "${env:URL}"),
        (f"http://a:1/s/{SECRET}", ""),
        (f"http://a:1/s/{SECRET}", "shop at a:1"),
    ],
)
def test_where_the_parts_cannot_be_told_apart_only_the_origin_is_shown(url: str, shown: str) -> None:
    assert redacted(f"http://a:1/s/{SECRET}/", url, shown) == "http://a:1"


@pytest.mark.parametrize(
    ("written", "other"),
    [("a%20bcdefghij", "a bcdefghij"), ("a%2bbcdefghij", "a+bcdefghij"), ("abcdefgh~ij", "abcdefgh%7Eij")],
)
def test_a_secret_that_comes_back_in_another_spelling_is_not_shown_either(written: str, other: str) -> None:
    status = redacted(f"/s/{other}/mcp/", URL.format(written), SHOWN)
    assert "bcdefgh" not in status


def test_notes_and_faults_show_no_secret() -> None:
    """On a connection: what is remembered, and what is refused."""
    elsewhere = False
    world = World(
        lambda asked: (
            redirect(f"{'http://b' if elsewhere else ''}/s/{SECRET}/mcp/") if asked.endswith("/mcp") else ok(b"here")
        )
    )

    async def whole() -> None:
        nonlocal elsewhere
        async with raw_server(world.script) as server:
            origin = server.url.removesuffix("/mcp?x=1")
            shown = origin + "/s/${env:TOKEN}/mcp"
            async with wire_to(f"{origin}/s/{SECRET}/mcp", shown=shown) as transport:
                await ask(transport)
                (note,) = transport.notes
            elsewhere = True
            async with wire_to(f"{origin}/s/{SECRET}/mcp", shown=shown) as transport:
                detail = (await refused(transport)).detail
        for text in (note, detail):
            assert SECRET not in text
            assert "/s/${env:TOKEN}/mcp/" in text

    run("uvloop", whole())


def test_an_address_that_redirects_elsewhere_later_is_forgotten() -> None:
    moved = {"POST /mcp?x=1": redirect("/a"), "POST /a": ok(b"a")}
    world = World(lambda asked: moved[asked])

    async def story(_: RawServer, transport: Any) -> None:
        assert (await ask(transport)).body == b"a"
        moved["POST /a"] = redirect("http://elsewhere.example/")
        await refused(transport)
        moved["POST /mcp?x=1"] = ok(b"home")
        assert (await ask(transport)).body == b"home"

    world.play(story)
