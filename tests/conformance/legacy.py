"""The fixture server's legacy face: `initialize`, sessions, server-sent events (2025-03-26 to 2025-11-25).

Knows: session ids and their end, resuming by GET, requests from the server to its client. Refuses to know: what tools
do.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.conformance import headers, tools
from tests.conformance.server import Server
from tests.conformance.stream import Stream
from tests.conformance.turn import Json, RpcError, Turn

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")


@dataclass(slots=True)
class Session:
    """A legacy session: what `initialize` settled, and what is under way in it."""

    version: str
    capabilities: Json
    level: str = "debug"
    streams: dict[str, Stream] = field(default_factory=dict)
    calls: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    asked: dict[str, asyncio.Future[Json]] = field(default_factory=dict)

    def end(self) -> None:
        for task in self.calls.values():
            task.cancel()
        for stream in self.streams.values():
            stream.end()


class LegacyFace:
    """Answers legacy requests for one server, and keeps its sessions."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sessions: dict[str, Session] = {}
        self.asked = 0
        server.told.append(self._tell)

    def _tell(self, method: str) -> None:
        for session in self.sessions.values():
            if (standing := session.streams.get("get")) is not None:
                standing.put({"jsonrpc": "2.0", "method": method})

    async def post(self, scope: Any, reply: headers.Reply, message: Json) -> None:
        """One message of 2025-03-26 to 2025-11-25. A client that leaves does not cancel."""
        version = headers.one(scope, "mcp-protocol-version")
        if version is not None and version not in VERSIONS:
            await reply.error(400, "server-error", -32600, f"Bad Request: Unsupported protocol version: {version}")
            return
        if message.get("method") == "initialize" and headers.one(scope, "mcp-session-id") is None:
            await self._initialize(reply, message)
            return
        session = await self._session(scope, reply)
        if session is None:
            return
        if "method" not in message:
            waiting = session.asked.pop(str(message.get("id")), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            await reply.plain(202)
            return
        if "id" not in message:
            if message["method"] == "notifications/cancelled":
                task = session.calls.get(json.dumps((message.get("params") or {}).get("requestId")))
                if task is not None:
                    task.cancel()
            await reply.plain(202)
            return
        stream = Stream(secrets.token_hex(4))
        session.streams[stream.name] = stream
        key = json.dumps(message["id"])
        session.calls[key] = self.server.spawn(self._run(session, message, stream))
        session.calls[key].add_done_callback(lambda task: session.calls.pop(key, None))
        await reply.events(stream, 0, {}, stream.name if session.version >= "2025-11-25" else None)

    async def _session(self, scope: Any, reply: headers.Reply) -> Session | None:
        """The request's session; None once the refusal is sent: 400 without an id, 404 with a dead one."""
        name = headers.one(scope, "mcp-session-id")
        if name is None:
            await reply.error(400, "server-error", -32600, "Bad Request: Missing session ID")
            return None
        session = self.sessions.get(name)
        if session is None:
            await reply.error(404, "server-error", -32600, "Session not found")
        return session

    async def _initialize(self, reply: headers.Reply, message: Json) -> None:
        params: Json = message.get("params") or {}
        version = params.get("protocolVersion")
        version = version if version in VERSIONS else VERSIONS[0]
        name = secrets.token_hex(16)
        self.sessions[name] = Session(version, params.get("capabilities") or {})
        stream = Stream(secrets.token_hex(4))
        result = {"protocolVersion": version, "capabilities": self.server.capabilities, "serverInfo": self.server.info}
        stream.put({"jsonrpc": "2.0", "id": message.get("id"), "result": result})
        stream.end()
        await reply.events(stream, 0, {"mcp-session-id": name})

    async def _run(self, session: Session, message: Json, stream: Stream) -> None:
        try:
            params: Json = message.get("params") or {}
            ask = self._asker(session, stream)
            turn = Turn(message["method"], params, session.capabilities, session.level, stream.put,
                        ask, stream.detach, self.server.announce, self.server.changes)  # fmt: skip
            own = {"ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
            if turn.method in own and (turn.method == "ping" or self.server.whole):
                session.level = params.get("level", session.level)
                outcome: Json = {"result": {}}
            else:
                outcome = await self.server.answer(turn)
            if (outcome.get("error") or {}).get("code") == -32021:  # unknown before 2026-07-28: here the tool fails
                words = outcome["error"]["message"]
                outcome = {"error": {"code": -32603, "message": words}}
                if turn.method == "tools/call":
                    outcome = {"result": {**tools.text(words), "isError": True}}
            stream.put({"jsonrpc": "2.0", "id": message["id"], **outcome})
        finally:
            stream.end()

    def _asker(self, session: Session, stream: Stream) -> Callable[[str, Json], Awaitable[Json]]:
        async def ask(method: str, params: Json) -> Json:
            self.asked += 1
            waiting: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
            session.asked[str(self.asked)] = waiting
            stream.put({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params})
            answered = await waiting
            if "error" in answered:
                raise RpcError(-32603, f"{method}: {answered['error'].get('message')}")
            result: Json = answered["result"]
            return result

        return ask

    async def get(self, scope: Any, reply: headers.Reply) -> None:
        """The session's standing stream, or the rest of another one after `Last-Event-ID`."""
        if "text/event-stream" not in (headers.one(scope, "accept") or ""):
            await reply.error(406, None, -32600, "Not Acceptable")
            return
        session = await self._session(scope, reply)
        if session is None:
            return
        name, _, index = (headers.one(scope, "last-event-id") or "get_-1").rpartition("_")
        stream = session.streams.get(name)
        if stream is None:
            stream = session.streams[name] = Stream(name)
        await reply.events(stream, int(index) + 1, {}, None, stream.name)

    async def delete(self, scope: Any, reply: headers.Reply) -> None:
        session = await self._session(scope, reply)
        if session is not None:
            del self.sessions[headers.one(scope, "mcp-session-id") or ""]
            session.end()
            await reply.plain(200)
