"""One request as a tool of the fixture server sees it: what was asked, and what it may say before it answers.

Knows: the two ways to ask a client back. Towards a legacy client that is a request on the open stream (2025-11-25,
client/elicitation); towards a modern one it is an `input_required` result, and the answer comes with the retry
(2026-07-28, basic/utilities/mrtr). Refuses to know: HTTP, headers, sessions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_KEY = b"a key of a fixture guards nothing"


class RpcError(Exception):
    """A JSON-RPC error, as `code`, `message` and optional `data`."""

    def __init__(self, code: int, message: str, data: Json | None = None) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class InputNeededError(Exception):
    """The modern way to ask: `requests` is `inputRequests` of the result, `state` its `requestState`."""

    def __init__(self, requests: dict[str, Json], state: str | None) -> None:
        super().__init__("input required")
        self.result: Json = {"resultType": "input_required", "inputRequests": requests}
        if state is not None:
            self.result["requestState"] = state


@dataclass(slots=True)
class Turn:
    """One request on its way.

    Args:
        method: JSON-RPC method.
        params: its `params`, `{}` where there were none.
        capabilities: what the client declared, in `initialize` or in this request's `_meta`.
        level: least log level the client wants, None for no log messages.
        emit: puts one JSON-RPC message on the stream of this request, opening it if need be.
        ask: sends a request to the client and waits for its result; None in the modern era, which has none.
        detach: closes the stream but goes on; None where streams cannot be resumed.
        announce: tells everyone listening that a list changed, by notification method.
    """

    method: str
    params: Json
    capabilities: Json
    level: str | None
    emit: Callable[[Json], None]
    ask: Callable[[str, Json], Awaitable[Json]] | None
    detach: Callable[[], None] | None
    announce: Callable[[str], None]
    changes: dict[str, int] = field(default_factory=dict)

    @property
    def arguments(self) -> Json:
        found = self.params.get("arguments")
        return found if isinstance(found, dict) else {}

    @property
    def modern(self) -> bool:
        return self.ask is None

    def notify(self, method: str, params: Json) -> None:
        self.emit({"jsonrpc": "2.0", "method": method, "params": params})

    def log(self, level: str, data: str) -> None:
        """One log message, if the client wants messages of this level."""
        if self.level is not None and LEVELS.index(level) >= LEVELS.index(self.level):
            self.notify("notifications/message", {"level": level, "logger": "fixture", "data": data})

    def progress(self, progress: int, total: int) -> None:
        """One progress notification, if the client gave a token."""
        token = (self.params.get("_meta") or {}).get("progressToken")
        if token is not None:
            self.notify("notifications/progress", {"progressToken": token, "progress": progress, "total": total})

    def declared(self, capability: str) -> bool:
        return capability in self.capabilities

    async def need(self, requests: dict[str, Json], state: str | None = None) -> dict[str, Json]:
        """The client's answers to `requests`, by key.

        Raises:
            RpcError: -32021 where the client did not declare what that takes.
            InputNeededError: in the modern era, as long as an answer is missing or is no object.
        """
        for request in requests.values():
            capability = NEEDS[request["method"]]
            if not self.declared(capability):
                raise RpcError(-32021, f"needs {capability}", {"requiredCapabilities": {capability: {}}})
        if self.ask is not None:
            return {key: await self.ask(one["method"], one["params"]) for key, one in requests.items()}
        answers = self.params.get("inputResponses")
        if isinstance(answers, dict) and all(isinstance(answers.get(key), dict) for key in requests):
            return {key: answers[key] for key in requests}
        raise InputNeededError(requests, state)

    def seal(self, content: Json) -> str:
        """`requestState` that says `content` and cannot be altered."""
        raw = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{raw}.{hmac.new(_KEY, raw.encode(), hashlib.sha256).hexdigest()}"

    def sealed(self) -> Json | None:
        """The content of the request's `requestState`, None where it has none.

        Raises:
            RpcError: -32602 where it is not ours.
        """
        state = self.params.get("requestState")
        if state is None:
            return None
        raw, _, mac = str(state).partition(".")
        if not hmac.compare_digest(mac.encode(), hmac.new(_KEY, raw.encode(), hashlib.sha256).hexdigest().encode()):
            raise RpcError(-32602, "requestState failed its integrity check")
        content: Json = json.loads(base64.urlsafe_b64decode(raw))
        return content


def elicitation(message: str, schema: Json) -> Json:
    """A form for the user: `requestedSchema` is `schema`."""
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def form(**types: str) -> Json:
    """A schema of required members by name and JSON type."""
    return {"type": "object", "properties": {key: {"type": one} for key, one in types.items()}, "required": [*types]}


def sampling(prompt: str, limit: int) -> Json:
    """A question to the client's model, of at most `limit` tokens."""
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": limit}}
