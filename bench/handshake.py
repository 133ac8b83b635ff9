"""What comes before the load, one blocking request at a time: sessions of legacy agents, and what shows what is on."""

from __future__ import annotations

import http.client
import json
from dataclasses import replace
from typing import Any

from bench.messages import LEGACY, Target, headers, modern_meta

TIMEOUT = 10.0


class Refused(Exception):
    """A peer answered something else than it must before any load."""


def post(target: Target, message: dict[str, Any], session: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers with names in lower case, and body of the answer to one message.

    Raises:
        OSError: nobody listens or nobody answers.
    """
    name = message.get("params", {}).get("name", "")
    return _send("POST", target, headers(target, message["method"], name, session), json.dumps(message).encode())


def call(target: Target, tool: str, session: str = "") -> tuple[int, bytes]:
    """Status and body of one call of `tool` with id 1 and nonce `abc`."""
    params: dict[str, Any] = {"name": tool, "arguments": {"nonce": "abc"}}
    if target.era == "modern":
        params["_meta"] = modern_meta()
    status, _, body = post(target, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, session)
    return status, body


def open_sessions(target: Target, count: int) -> tuple[str, ...]:
    """As many sessions, each opened as the specification says (2025-11-25, Basic, Lifecycle).

    Raises:
        Refused: no session was given.
    """
    return tuple(_open(target) for _ in range(count))


def with_sessions(target: Target, connections: int) -> Target:
    """The target with a session of its own for each connection, where the era has sessions.

    Raises:
        Refused: the target gives none.
    """
    return replace(target, sessions=open_sessions(target, connections)) if target.era == "legacy" else target


def close_sessions(target: Target) -> None:
    """End the target's sessions; a peer that knows no end of sessions is left alone."""
    for session in target.sessions:
        _send("DELETE", target, headers(target, "", "", session), b"")


def _open(target: Target) -> str:
    client = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    status, lines, body = post(target, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})
    session = lines.get("mcp-session-id", "")
    if status != 200 or b'"error"' in body or not session:
        raise Refused(f"initialize: HTTP {status}, session {session!r}: {body[:300]!r}")
    status, _, body = post(target, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    if status != 202:
        raise Refused(f"notifications/initialized: HTTP {status}: {body[:300]!r}")
    return session


def _send(verb: str, target: Target, lines: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)
    try:
        connection.request(verb, target.path, body, lines)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()
