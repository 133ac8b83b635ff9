"""Who may order, and in what form: `/limits` on the admin face."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import MOST, AuditLog
from fastgw.config.schema.rules import LimitSettings
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import no_config, no_instances, no_quotas, no_usage
from tests.e2e.http import Asked, Reply, connected, exchange

T = TypeVar("T")
TOKEN = "right"
LIMIT = LimitSettings.model_validate({"name": "per-agent", "by": ["agent"], "rate": "100/minute"})
RESET = b'{"limit": "per-agent", "subject": ["a"]}'


@dataclass
class Face:
    """A served admin face."""

    url: str
    audit: Path
    heard: list[str] = field(default_factory=list)

    async def ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        if verb == "reset":
            self.heard.append(args[0])
        return []


async def never_asked() -> dict[str, Any]:
    return {}


def at_a_face(folder: Path, token: str | None, story: Callable[[Face], Awaitable[T]]) -> T:
    async def main() -> T:
        listener = socket.create_server(("127.0.0.1", 0))
        face = Face(f"http://127.0.0.1:{listener.getsockname()[1]}", folder / "audit.jsonl")
        limits = OperatorLimits(face.ask, lambda: [LIMIT], AuditLog(face.audit))
        data = AdminData(
            never_asked, str, no_instances(), dict, limits, Latencies(), no_config(), no_quotas(), no_usage()
        )
        runner = await serve_admin(listener, data, token)
        try:
            return await story(face)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def ordering(body: bytes = RESET, *, token: str | None = TOKEN, kind: str | None = "application/json") -> Asked:
    headers = [] if token is None else [("Authorization", f"Bearer {token}")]
    return Asked(body, headers if kind is None else [*headers, ("Content-Type", kind)])


def answered(
    folder: Path, asked: Asked, *, token: str | None = TOKEN, path: str = "/limits/reset"
) -> tuple[Reply, list[str]]:
    """The answer to one request, and what workers heard."""

    async def story(face: Face) -> tuple[Reply, list[str]]:
        return await exchange(face.url + path, asked), face.heard

    return at_a_face(folder, token, story)


def test_with_the_token_it_is_done_and_said(tmp_path: Path) -> None:
    reply, heard = answered(tmp_path, ordering())
    assert reply.status == 200
    assert (reply.json()["do"], reply.json()["subject"]) == ("reset", ["a"])
    assert reply.header("cache-control") == "no-store"
    assert len(heard) == 1
    line = json.loads((tmp_path / "audit.jsonl").read_text())
    assert line == reply.json()
    assert line["who"] == f"127.0.0.1 token:{sha256(TOKEN.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize("token", [None, "wrong", "right x", "RIGHT", ""])
def test_a_wrong_token_is_401(tmp_path: Path, token: str | None) -> None:
    reply, heard = answered(tmp_path, ordering(token=token))
    assert (reply.status, reply.header("www-authenticate"), heard) == (401, "Bearer", [])


def test_where_there_is_no_token_nobody_orders(tmp_path: Path) -> None:
    """Whoever has an account on the machine reaches loopback."""
    reply, heard = answered(tmp_path, ordering(), token=None)
    assert (reply.status, heard) == (403, [])
    assert reply.json()["error"].startswith("Orders need an admin token")


def test_on_loopback_the_report_needs_none(tmp_path: Path) -> None:
    reply, _ = answered(tmp_path, Asked(verb="GET"), token=None, path="/limits")
    assert (reply.status, reply.json()["buckets"]) == (200, [])


def test_where_there_is_a_token_the_report_needs_it(tmp_path: Path) -> None:
    assert answered(tmp_path, Asked(verb="GET"), path="/limits")[0].status == 401


def test_a_page_that_only_gets_orders_nothing(tmp_path: Path) -> None:
    asked = Asked(b"", [("Authorization", f"Bearer {TOKEN}")], "GET")
    assert answered(tmp_path, asked)[0].status == 405


@pytest.mark.parametrize(
    ("origins", "status"),
    [
        (["http://own:8081"], 200),
        (["https://OWN:8081"], 200),
        (["http://evil.example"], 403),
        (["http://own:8081.evil.example"], 403),
        (["http://own:8080"], 403),
        (["http://own"], 403),
        (["null"], 403),
        ([""], 403),
        (["http://["], 403),
        (["http://own:8081", "http://evil.example"], 403),
        (["http://evil.example", "http://own:8081"], 403),
    ],
)
def test_a_page_of_another_origin_orders_nothing(tmp_path: Path, origins: list[str], status: int) -> None:
    asked = ordering().having("Host", "own:8081")
    asked.headers += [("Origin", origin) for origin in origins]
    reply, heard = answered(tmp_path, asked)
    assert (reply.status, len(heard)) == (status, int(status == 200))


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
def test_what_a_form_can_send_is_no_order(tmp_path: Path, kind: str | None) -> None:
    reply, heard = answered(tmp_path, ordering(kind=kind))
    assert (reply.status, heard) == (415, [])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (RESET + b"x", "JSON is malformed: trailing characters (byte 41)"),
        (b"\xff", "JSON is malformed: invalid character (byte 0)"),
        (b'{"limit": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 50_000, "Expected `object`, got `array`"),
        (b'{"limit": ' + b"9" * 5000, "Number out of range - at `$.limit`"),
        (b"{}", "Object missing required field `limit`"),
        (b'{"limit": ["per-agent"]}', "Expected `str`, got `array` - at `$.limit`"),
        (b'{"limit": "per-agent", "subject": "a"}', "Expected `array | null`, got `str` - at `$.subject`"),
        (b'{"limit": "per-agent", "subject": [1]}', "Expected `str | null`, got `int` - at `$.subject[0]`"),
        (b'{"limit": "per-agent", "subject": ["\\ud800"]}', "Input data was truncated"),
        (b'{"limit": "per-agent", "subjects": ["a"]}', "Object contains unknown field `subjects`"),
    ],
)
def test_what_is_no_order_is_said_in_words(tmp_path: Path, body: bytes, words: str) -> None:
    reply, heard = answered(tmp_path, ordering(body))
    assert (reply.status, heard) == (400, [])
    assert reply.json()["error"] == f"An order is a JSON object with limit and subject: {words}"


@pytest.mark.parametrize("padding", [MOST, 4 * MOST])
def test_what_is_too_large_is_no_order(tmp_path: Path, padding: int) -> None:
    """Not even where what fits would be one."""
    reply, heard = answered(tmp_path, ordering(RESET + b" " * padding))
    assert (reply.status, heard) == (413, [])
    assert reply.json()["error"].startswith(f"Maximum request body size {MOST} exceeded")


def test_an_order_of_the_largest_size_is_read_whole(tmp_path: Path) -> None:
    assert answered(tmp_path, ordering(RESET.ljust(MOST)))[0].status == 200


def test_an_order_that_comes_in_pieces_is_read_whole(tmp_path: Path) -> None:
    async def story(face: Face) -> Reply:
        async with connected(f"{face.url}/limits/reset") as connection:
            wire = ordering().on_wire(connection.url)
            connection.writer.write(wire[:-10])
            await connection.writer.drain()
            # An answer to another request: by then the first pieces have been read.
            assert (await exchange(f"{face.url}/livez", Asked(verb="GET"))).status == 200
            connection.writer.write(wire[-10:])
            return await (await connection.answer()).rest()

    assert at_a_face(tmp_path, TOKEN, story).status == 200


def test_what_cannot_be_is_said_in_words(tmp_path: Path) -> None:
    reply, heard = answered(tmp_path, ordering(b'{"limit": "other"}'))
    assert (reply.status, heard) == (400, [])
    assert reply.json()["error"].startswith("there is no limit 'other'")


def test_what_cannot_be_written_down_is_said_and_not_done(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    reply, heard = answered(tmp_path, ordering())
    assert (reply.status, heard) == (500, [])
    assert reply.json()["error"] == "It cannot be written down, so it was not done: Is a directory"
