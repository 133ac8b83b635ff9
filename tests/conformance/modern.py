"""The fixture server's modern face: one POST, one request, nothing remembered (2026-07-28).

Knows: `_meta`, the headers that mirror it, HTTP statuses of errors, subscriptions. Refuses to know: what tools do.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.conformance import catalogue, headers
from tests.conformance.server import Server
from tests.conformance.stream import Stream
from tests.conformance.turn import Json, RpcError, Turn

VERSION = "2026-07-28"
META = headers.META
STATUS = {-32601: 404} | dict.fromkeys((-32700, -32600, -32602, -32020, -32021, -32022), 400)
HINTS: Json = {"ttlMs": 60_000, "cacheScope": "public"}
CACHEABLE = {
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
}
NOTIFIED = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
}


class ModernFace:
    """Answers modern POSTs for one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.listeners: list[tuple[Json, Any, Stream]] = []
        server.told.append(self._tell)

    def _tell(self, method: str) -> None:
        for wanted, identity, stream in self.listeners:
            if wanted.get(NOTIFIED.get(method, "")):
                tag = {"_meta": {f"{META}subscriptionId": identity}}
                stream.put({"jsonrpc": "2.0", "method": method, "params": tag})

    async def post(self, scope: Any, reply: headers.Reply, message: Json) -> None:
        """One request or notification of 2026-07-28. A client that leaves cancels."""
        identity, method = message.get("id"), message.get("method")
        if not isinstance(method, str) or isinstance(identity, bool) or not isinstance(identity, str | int | None):
            await reply.error(400, None, -32600, "not a request")
            return
        if "id" not in message:
            await reply.plain(202)
            return
        params: Json = message.get("params") or {}
        try:
            headers.mirror(scope, method, params, [VERSION])
            if method == "tools/call":
                schemas = {one["name"]: one["inputSchema"] for one in catalogue.tools(0)}
                headers.mirror_arguments(scope, params, schemas.get(str(params.get("name"))))
        except RpcError as error:
            await reply.json(STATUS[error.error["code"]], {"id": identity, "error": error.error})
            return
        stream = Stream("modern")
        task = self.server.spawn(self._run(method, params, identity, stream))
        await reply.first(stream, task)
        if stream.done and len(stream.messages) == 1:
            only = json.loads(stream.messages[0])
            await reply.json(STATUS.get((only.get("error") or {"code": 0})["code"], 200), only)
            return
        await reply.events(stream, 0, {})
        task.cancel()

    async def _run(self, method: str, params: Json, identity: Any, stream: Stream) -> None:
        try:
            if method == "subscriptions/listen" and self.server.whole:
                await self._listen(params, identity, stream)
                return
            meta: Json = params["_meta"]
            turn = Turn(method, params, meta[f"{META}clientCapabilities"], meta.get(f"{META}logLevel"), stream.put,
                        None, None, self.server.announce, self.server.changes)  # fmt: skip
            outcome = await self._discover() if method == "server/discover" else await self.server.answer(turn)
            if (result := outcome.get("result")) is not None:
                result = {"resultType": "complete", **result, "_meta": {f"{META}serverInfo": self.server.info}}
                outcome = {"result": {**HINTS, **result} if method in CACHEABLE else result}
            stream.put({"jsonrpc": "2.0", "id": identity, **outcome})
        finally:
            stream.end()

    async def _discover(self) -> Json:
        return {"result": {"supportedVersions": [VERSION], "capabilities": self.server.capabilities}}

    async def _listen(self, params: Json, identity: Any, stream: Stream) -> None:
        """Holds the subscription until the client leaves (2026-07-28, basic/utilities/subscriptions)."""
        wanted: Json = params.get("notifications") or {}
        honoured = {key: value for key, value in wanted.items() if key in NOTIFIED.values()}
        ack: Json = {"_meta": {f"{META}subscriptionId": identity}, "notifications": honoured}
        stream.put({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": ack})
        entry = (honoured, identity, stream)
        self.listeners.append(entry)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.listeners.remove(entry)
