"""The listener of one worker, in this process: another certificate takes over, and what came by the one before ends."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from fastgw.config.certificates import ListenerTls
from fastgw.processes import listener
from fastgw.processes.listener import AgentListener
from fastgw.processes.tls_trial import refused
from fastgw.upstream.call_context import BackgroundTasks
from tests.e2e.gateway import until
from tests.e2e.http import Asked, connected, exchange
from tests.e2e.ports import free_port
from tests.upstream.test_tls import Authority

ASKED = Asked(verb="GET", headers=[("Connection", "keep-alive")])


def pair(authority: Authority, name: str) -> ListenerTls:
    cert, key = authority.issue(name)
    return ListenerTls(Path(cert).read_bytes(), Path(key).read_bytes())


async def application(life: Any, scope: dict[str, Any], _: Any, send: Any) -> None:
    """Says by which scheme it was asked, and ends the connection where it should."""
    headers = [(b"content-length", b"%d" % len(scope["scheme"]))]
    headers += [(b"connection", b"close")] if life.draining else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


def test_one_server_takes_over_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, port = Authority(tmp_path, "ca"), free_port()
    agent = ssl.create_default_context(cafile=authority.path)
    plain, secure = f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/"

    monkeypatch.setattr(listener, "APART", 0.0)  # each has answered before the next takes over

    async def story() -> None:
        tasks = BackgroundTasks()
        served = AgentListener(application, tasks.spawn)
        served.open(("127.0.0.1", port))
        async with connected(plain) as busy:
            assert (await (await busy.ask(ASKED)).rest()).body == b"http"
            served.show(pair(authority, "one"))
            assert (await exchange(secure, ASKED, ssl=agent)).body == b"https"
            reply = await (await busy.ask(ASKED)).rest()
            assert (reply.body, reply.header("connection")) == (b"http", "close")
        async with connected(secure, ssl=agent) as idle:
            monkeypatch.setattr(listener, "CLOSED_WITHIN", 0.0)
            served.show(pair(authority, "two"))
            assert await idle.reader.read() == b""  # closed, since it never asked
        assert not served.broken.done()
        served.close_with_answers()
        served.show(None)  # nothing takes over any more
        assert (await exchange(secure, ASKED, ssl=agent)).header("connection") == "close"
        await asyncio.wait(served.stop())  # the one of plain HTTP, too, which had its time still
        with pytest.raises(OSError):
            await exchange(secure, ASKED, ssl=agent)
        assert not served.broken.done()
        await tasks.close()

    asyncio.run(story())


def test_of_many_at_once_the_last_is_shown(tmp_path: Path) -> None:
    authority, port = Authority(tmp_path, "ca"), free_port()
    agent = ssl.create_default_context(cafile=authority.path)
    pairs = [pair(authority, name) for name in ("one", "two", "three")]

    async def story() -> None:
        tasks = BackgroundTasks()
        served = AgentListener(application, tasks.spawn)
        served.show(pairs[0])
        served.open(("127.0.0.1", port))
        for one in pairs:
            served.show(one)

        async def third() -> bool:
            async with connected(f"https://127.0.0.1:{port}/", ssl=agent) as connection:
                subject = connection.writer.get_extra_info("peercert")["subject"]
                return bool(subject[0][0][1] == "three")

        await until(third)
        assert not served.broken.done()
        served.close_with_answers()
        await asyncio.wait(served.stop())
        await tasks.close()

    asyncio.run(story())


def test_what_the_server_would_die_of_is_tried_elsewhere(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    good, other = pair(authority, "good"), pair(authority, "other")
    assert refused(good) == ""
    assert refused(ListenerTls(good.cert, good.key, Path(authority.path).read_bytes())) == ""
    assert "KeyMismatch" in refused(ListenerTls(good.cert, other.key))
    assert refused(ListenerTls(good.cert, good.key, b"none")) == "client_ca holds no certificate"
    assert refused(ListenerTls(b"", good.key)) != ""
