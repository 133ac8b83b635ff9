"""Who may use the admin port: programs by the token, browsers by a session that they get for it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, DummyCookieJar

from fastgw.admin.access import MOST_SESSIONS, SESSION_FOR, PageSessions
from fastgw.admin.failed_logins import AT_ONCE, PAUSE
from tests.admin.page_world import World

TOKEN = "the operators' token"
PAGE = {"Accept": "text/html,application/xhtml+xml"}
Ask = Callable[..., Awaitable[tuple[int, Any, Any]]]


def small_world(folder: Path) -> World:
    """One server."""
    return World(folder, {"data": ["http://127.0.0.1:9/mcp"]})


@asynccontextmanager
async def asking(folder: Path, token: str | None = TOKEN, **shown: Any) -> AsyncIterator[Ask]:
    """Asks an admin port: verb, path, headers and, of an order, JSON; status, headers and text."""
    async with small_world(folder).served(token, **shown) as url, ClientSession(cookie_jar=DummyCookieJar()) as session:

        async def ask(verb: str, path: str, headers: dict[str, str], **more: Any) -> tuple[int, Any, str]:
            headers = {name: value.replace("{self}", url) for name, value in headers.items()}
            async with session.request(verb, url + path, headers=headers, **more) as answer:
                return answer.status, answer.headers, await answer.text()

        yield ask


async def logged_in(ask: Ask, **headers: str) -> SimpleCookie:
    """The cookie of a new session."""
    status, given, _ = await ask("POST", "/login", {"Origin": "{self}", **headers}, json={"token": TOKEN})
    assert status == 200
    return SimpleCookie(given["Set-Cookie"])


def shown(cookie: SimpleCookie) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={one.value}" for name, one in cookie.items())}


def test_a_session_looks_and_orders_until_it_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            cookie = await logged_in(ask)
            order = {"server": "data", "instance": 1}
            assert (await ask("GET", "/backends", {}))[0] == 401
            assert (await ask("GET", "/backends", shown(cookie)))[0] == 200
            own = {**shown(cookie), "Origin": "{self}"}
            status, _, text = await ask("POST", "/backends/drain", own, json=order)
            assert status == 200
            assert " page" in text, "the audit says how it came"
            assert (await ask("POST", "/logout", own, json={}))[0] == 200
            assert (await ask("GET", "/backends", shown(cookie)))[0] == 401

    asyncio.run(main())


def test_the_cookie_is_a_secret_of_this_site_and_not_the_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            (one,) = (await logged_in(ask)).values()
            assert (one["httponly"], one["samesite"], one["path"], one["secure"]) == (True, "Strict", "/", "")
            assert TOKEN not in one.value
            assert len(one.value) >= 43
            other = await logged_in(ask)
            assert one.value not in str(other)
            (secure,) = (await logged_in(ask, **{"X-Forwarded-Proto": "https"})).values()
            assert secure["secure"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        ({"Origin": "https://evil.example"}, {"json": {"server": "data", "instance": 1}}),
        ({"Origin": "null"}, {"json": {"server": "data", "instance": 1}}),
        ({}, {"json": {"server": "data", "instance": 1}}),  # no browser of today, so nobody who has a cookie
        ({"Origin": "{self}", "Sec-Fetch-Site": "same-site"}, {"json": {"server": "data", "instance": 1}}),
        ({"Origin": "{self}"}, {"data": '{"server": "data", "instance": 1}'}),  # as a form can send it
    ],
)
def test_orders_of_other_pages_are_refused(tmp_path: Path, headers: dict[str, str], more: dict[str, Any]) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            cookie = await logged_in(ask)
            status, _, _ = await ask("POST", "/backends/drain", {**shown(cookie), **headers}, **more)
            assert status in (403, 415)

    asyncio.run(main())


@pytest.mark.parametrize("token", ["wrong", "", TOKEN + " ", "ü"])
def test_another_token_gets_no_session(tmp_path: Path, token: str) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            status, given, _ = await ask("POST", "/login", {"Origin": "{self}"}, json={"token": token})
            assert status == 401
            assert "Set-Cookie" not in given

    asyncio.run(main())


def test_nobody_logs_in_from_another_page(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            answered = await ask("POST", "/login", {"Origin": "https://evil.example"}, json={"token": TOKEN})
            assert answered[0] == 403

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/live", "/explain?agent=a&tool=t", "/config/effective", "/catalogue/access", "/"])
def test_strangers_learn_nothing(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            assert (await ask("GET", path, {}))[0] == 401
            assert (await ask("GET", path, {"Cookie": "fastgw_session_1=guess"}))[0] == 401

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/", "/backends", "/stats", "/stats.hlog", "/livez", "/live", "/session", "/nothing"])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_no_page_of_elsewhere_shows_an_answer_and_nobody_keeps_it(tmp_path: Path, path: str, token: str | None) -> None:
    """Over plain HTTP from another machine browsers send no `Sec-Fetch-Site`."""

    async def main() -> None:
        async with small_world(tmp_path).served(token) as url, ClientSession() as session:
            for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
                async with session.get(url + path, headers=headers) as answer:
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
                    assert answer.headers["Cache-Control"] == "no-store"

    asyncio.run(main())


def test_the_page_itself_and_its_files_are_for_everybody(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as ask:
            status, headers, text = await ask("GET", "/", PAGE)
            assert (status, text[:15]) == (200, "<!doctype html>")
            assert "gateway-1" not in text
            assert "script-src 'self'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            for file in ("app.js", "style.css", "uplot.js"):
                status, headers, _ = await ask("GET", f"/page/files/{file}", {})
                assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
            for other in ("..%2f..%2fapp.py", "uplot.LICENSE", "nothing.js"):
                assert (await ask("GET", f"/page/files/{other}", {}))[0] == 404
            assert json.loads((await ask("GET", "/session", {}))[2]) == {"login": True, "orders": True}

    asyncio.run(main())


def test_programs_get_the_index_browsers_the_page(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, token=None) as ask:
            assert (await ask("GET", "/", {}))[2].startswith("fastgw\n")
            assert (await ask("GET", "/", PAGE))[2].startswith("<!doctype html>")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link
        (
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
            403,
        ),  # <script src="http://localhost:8081/...">
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),  # another port of this machine
    ],
)
def test_scripts_of_other_pages_may_not_ask(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async def main() -> None:
        async with asking(tmp_path, token=None) as ask:
            assert (await ask("GET", "/config/effective", headers))[0] == status

    asyncio.run(main())


def test_without_a_token_loopback_looks_and_does_not_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, token=None) as ask:
            assert json.loads((await ask("GET", "/session", {}))[2]) == {"login": False, "orders": False}
            own = {"Origin": "{self}"}
            assert (await ask("POST", "/backends/drain", own, json={"server": "data", "instance": 1}))[0] == 403
            assert (await ask("POST", "/login", own, json={"token": "x"}))[0] == 409

    asyncio.run(main())


def test_what_is_heard_live_ends_with_the_session(tmp_path: Path) -> None:
    async def main() -> None:
        world = small_world(tmp_path)
        async with world.served(TOKEN) as url, ClientSession(cookie_jar=DummyCookieJar()) as session:
            async with session.post(f"{url}/login", json={"token": TOKEN}, headers={"Origin": url}) as answer:
                cookie = shown(SimpleCookie(answer.headers["Set-Cookie"]))
            async with session.get(f"{url}/live", headers=cookie) as live:
                assert live.status == 200
                await live.content.readuntil(b"\n\n")
                out = {**cookie, "Origin": url}
                async with session.post(f"{url}/logout", json={}, headers=out) as answer:
                    assert answer.status == 200
                async with asyncio.timeout(10):
                    await live.content.read()  # to its end

    asyncio.run(main())


def test_sessions_end_and_are_few() -> None:
    now = 0.0
    sessions = PageSessions(lambda: now)
    first, second = sessions.begin(), sessions.begin()
    assert sessions.has(first)
    assert not sessions.has("")
    for _ in range(MOST_SESSIONS - 1):
        sessions.begin()
    assert not sessions.has(first), "the oldest gives way"
    assert sessions.has(second)
    now = SESSION_FOR - 1.0
    assert sessions.has(second)
    now = SESSION_FOR
    assert not sessions.has(second)


def test_guesses_are_held_up_and_sessions_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        now, counts = [0.0], Counter[tuple[str, ...]]()
        count = lambda *series: counts.update([series])  # noqa: E731
        async with asking(tmp_path, count=count, clock=lambda: now[0]) as ask:
            cookie, right = await logged_in(ask), {"Authorization": f"Bearer {TOKEN}"}

            async def guess(n: int) -> tuple[int, Any, str]:
                if n % 2:
                    return await ask("POST", "/login", {"Origin": "{self}"}, json={"token": f"guess {n}"})
                return await ask("GET", "/backends", {"Authorization": f"Bearer guess-{n}"})

            for nothing in ("", "Bearer", "Bearer ", "Basic dXNlcjp4") * AT_ONCE:  # an empty variable is no guess
                assert (await ask("GET", "/backends", {"Authorization": nothing}))[0] == 401
            assert [(await guess(n))[0] for n in range(AT_ONCE)] == [401] * AT_ONCE
            for n in range(2 * AT_ONCE):
                status, headers, _ = await guess(n)
                assert (status, headers["Retry-After"]) == (429, str(int(PAUSE)))
            # Whoever guesses must not learn that a guess was right.
            assert (await ask("GET", "/backends", right))[0] == 429
            for path, headers, status in (("/backends", shown(cookie), 200), ("/livez", {}, 200), ("/stats", {}, 401)):
                assert (await ask("GET", path, headers))[0] == status
            now[0] += PAUSE
            assert (await ask("GET", "/backends", right))[0] == 200
            await logged_in(ask)
            assert [(await guess(n))[0] for n in range(2)] == [401, 429]
            now[0] += PAUSE * AT_ONCE
            assert [(await guess(n))[0] for n in range(AT_ONCE + 1)] == [401] * AT_ONCE + [429]
        assert counts["fastgw_admin_refused_total", "wrong_token"] == 2 * AT_ONCE + 1
        assert counts["fastgw_admin_refused_total", "too_many_wrong_tokens"] == 2 * AT_ONCE + 3

    asyncio.run(main())
    said = [one.getMessage() for one in caplog.records if "wrong admin tokens" in one.getMessage()]
    assert said == [
        "wrong admin tokens: 1, the last from 127.0.0.1",
        f"wrong admin tokens: {AT_ONCE + 1}, the last from 127.0.0.1",
    ]
    assert not [one for one in caplog.records if "guess" in one.getMessage()]
