"""What is fetched from where: nothing inside the network that the configuration does not name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web

from fastgw.auth import guarded_http
from fastgw.auth.guarded_http import FetchFailed, PublicResolver, fetch, is_public, origin_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serving(handler: Handler, story: Callable[[str], Awaitable[Any]]) -> Any:
    """What the story comes to, with a server at the URL that it is given."""

    async def run() -> Any:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            return await story(f"http://127.0.0.1:{port}/")
        finally:
            await runner.cleanup()

    return asyncio.run(run())


async def hello(_: web.Request) -> web.Response:
    return web.Response(body=b"{}", headers={"cache-control": 'public, Max-Age = "120", x'})


def test_what_the_configuration_names_is_fetched() -> None:
    async def story(url: str) -> Any:
        return await fetch(f"{url}jwks", frozenset((origin_of(url),)))

    assert serving(hello, story) == (b"{}", 120.0)


@pytest.mark.parametrize(
    ("said", "age"),
    [
        ("no-cache", 0.0), ("No-Store, max-age=600", 0.0), ("max-age=600, no-cache", 0.0), ("max-age=0", 0.0),
        ("max-age=600, no-transform", 600.0), ('no-cache="set-cookie", max-age=600', 600.0), ("public", None),
    ],
)  # fmt: skip
def test_how_long_it_may_be_kept(said: str, age: float | None) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"{}", headers={"cache-control": said})

    async def story(url: str) -> Any:
        return await fetch(url, frozenset((origin_of(url),)))

    assert serving(answer, story).max_age == age


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com/jwks", "http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://[::1]:9/",
        "https://10.1.2.3/",
        "https://192.168.1.1/", "https://172.16.0.1/", "https://169.254.169.254/latest/meta-data", "https://0.0.0.0/",
        "https://100.64.0.1/", "https://[fe80::1%25lo]/", "https://[fd00::1]/", "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://224.0.0.1/", "https://localhost:9/",
        "https://2130706433:9/", "https://0x7f.1:9/", "https://127.1:9/", "file:///etc/passwd", "gopher://127.0.0.1/",
        "", "jwks",
        "https://", "https://[::1", "https://127.0.0.1:99999/",
    ],
)  # fmt: skip
def test_no_other_place_inside_is(url: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        asyncio.run(fetch(url, frozenset(("http://127.0.0.1:8080", "https://login.example.com:443"))))
    assert "status" not in str(failed.value)


SPELLINGS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "127\u30020\u30020\u30021", "[::ffff:127.0.0.1]", "[::1]", "localhost",
    "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", "login.example.com\\@127.0.0.1", "u:p@127.0.0.1",
    "127.0.0.1\t", "0.0.0.0", "0", "[::]", "127.0.0.1#@login.example.com",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
def test_however_it_is_written_nobody_inside_is_connected_to(host: str) -> None:
    async def story() -> int:
        met = []
        server = await asyncio.start_server(lambda _, writer: (met.append(1), writer.close()), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            named = frozenset(("https://login.example.com:443", f"http://127.0.0.1:{port}"))
            with pytest.raises(FetchFailed):
                await fetch(f"https://{host.replace('#', f':{port}#')}:{port}/jwks", named)
        return len(met)

    assert asyncio.run(story()) == 0


@pytest.mark.parametrize(
    "url", ["https://u:p@[::1]/x?key=p", "https://u:p@nowhere.invalid/x?key=p", "https://u:p@\\?p"]
)
def test_what_goes_wrong_shows_no_password_and_no_query(url: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        asyncio.run(fetch(url, frozenset()))
    assert not {"u:p", "p@", "key"} & {str(failed.value)[at : at + size] for at in range(99) for size in (2, 3)}


@pytest.mark.parametrize(
    "place", ["https://127.0.0.1:9/x", "http://127.0.0.1:9/x", "//127.0.0.1:9/x", "https://localhost:9/"]
)
def test_nor_by_a_redirect(place: str) -> None:
    async def away(request: web.Request) -> web.Response:
        assert request.path == "/"
        return web.Response(status=302, headers={"location": place})

    async def story(url: str) -> None:
        with pytest.raises(FetchFailed, match=r"inside|only https"):
            await fetch(url, frozenset((origin_of(url),)))

    serving(away, story)


def test_a_redirect_that_stays_is_followed_a_few_times() -> None:
    async def on(request: web.Request) -> web.Response:
        count = int(request.query.get("n", "0"))
        if count == 3:
            return web.Response(body=b"here")
        return web.Response(status=307, headers={"location": f"/x?n={count + 1}"})

    async def story(url: str) -> Any:
        named = frozenset((origin_of(url),))
        with pytest.raises(FetchFailed, match="too many"):
            await fetch(f"{url}?n=-1", named)
        return await fetch(url, named)

    assert serving(on, story) == (b"here", None)


def test_how_much_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        if request.path == "/never":
            await asyncio.Event().wait()
        if request.path == "/refused":
            return web.Response(status=404)
        if request.path == "/garbage" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 200 OK\r\ncanary of the other end\r\n\r\n")
        response = web.StreamResponse()
        response.enable_compression()
        await response.prepare(request)
        for _ in range(40):
            await response.write(bytes(guarded_http.LARGEST // 20))
        return response

    async def story(url: str) -> None:
        named = frozenset((origin_of(url),))
        paths = {
            "bomb": "more than",
            "refused": "status 404",
            "never?token=x": "TimeoutError",
            "garbage?token=x": ": Cl",
        }
        for path, words in paths.items():
            with pytest.raises(FetchFailed, match=words) as failed:
                await fetch(url + path, named)
            assert not [word for word in ("token", "canary") if word in str(failed.value)]

    monkeypatch.setattr(guarded_http, "WITHIN", guarded_http.ClientTimeout(total=0.5))
    serving(large, story)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "::7f00:1", "::ffff:0:7f00:1", "fec0::1", "64:ff9b:1::7f00:1", "64:ff9b::a00:1", "2001:0:7f00:1::", "100::1",
        "2002:a9fe:a9fe::", "192.0.0.192", "198.18.0.1", "240.0.0.1", "255.255.255.255", "ff0e::1", "fe80::1", "::",
    ],
)  # fmt: skip
def test_addresses_of_nobody_there(address: str) -> None:
    assert not is_public(ip_address(address))


def test_a_name_with_an_address_inside_is_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Names:
        async def resolve(self, host: str, *_: Any) -> list[dict[str, str]]:
            return [{"host": one} for one in {"mixed": ["8.8.8.8", "10.0.0.1"], "out": ["8.8.8.8"]}[host]]

    async def story() -> None:
        resolver = PublicResolver()
        monkeypatch.setattr(resolver, "_resolver", Names())
        assert [one["host"] for one in await resolver.resolve("out")] == ["8.8.8.8"]
        with pytest.raises(FetchFailed, match="inside"):
            await resolver.resolve("mixed")

    asyncio.run(story())
