"""What one agent says to a gateway over Locust's client, in the words of its era, and whether the answers are right.

Modern (2026-07-28): every request stands alone, with `Mcp-Method`, `Mcp-Name` and `MCP-Protocol-Version`. Legacy
(2025-11-25): `initialize`, a session that every request names, DELETE at the end.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.messages import LEGACY, Target, headers, modern_meta

WRONG = "wrong answer"
"""How failures begin that no budget excuses: not this request's answer, not this call's content, not the protocol."""
RATE_LIMITED = -31029
Right = Callable[[dict[str, Any], list[dict[str, Any]]], bool]
"""Whether a result, and the notifications before it, are this request's."""
admitted: Counter[str] = Counter()
"""Tool calls that had a result, by API key."""
_ids = itertools.count(1)


@dataclass
class Conversation:
    """One agent's; `client` is that of a FastHttpUser.

    Args:
        target: where, in which era's words, as whom. Its `tool` is not looked at.
        session: its id while there is one; legacy only.
    """

    client: Any
    target: Target
    session: str = ""

    def open(self) -> None:
        """Modern: `server/discover`. Legacy: `initialize` and the notification after it."""
        if self.target.era == "modern":
            self.ask("server/discover", {}, lambda result, _: "tools" in result["capabilities"])
            return
        client = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
        lines = self.ask("initialize", client, lambda result, _: result["protocolVersion"] == LEGACY)
        self.session = lines.get("mcp-session-id") or ""
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        self._post(done, "initialized", lambda status, _: "" if status == 202 else f"{WRONG}: HTTP {status}")

    def close(self) -> None:
        """Legacy: end the session."""
        if self.session:
            lines = headers(self.target, "", "", self.session)
            self.client.delete(self.target.path, headers=lines, name="legacy DELETE")
            self.session = ""

    def ask(self, method: str, params: dict[str, Any], right: Right, label: str = "") -> dict[str, str]:
        """One request under the name `<era> <label>`, its answer's id and content checked; the answer's headers.

        The time that a tool of ours was told to take (`seconds`) is not counted.
        """
        id = next(_ids)
        meta = modern_meta() if self.target.era == "modern" else {}
        meta |= {"progressToken": id} if method == "tools/call" else {}
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}

        def judge(status: int, messages: list[dict[str, Any]]) -> str:
            *notes, reply = messages
            if reply.get("id") != id or any(note["params"]["progressToken"] != id for note in notes):
                return f"{WRONG}: HTTP {status}, not to {id}: {messages}"
            if "error" in reply:
                return f"error {reply['error']['code']}"
            if status != 200 or not right(reply["result"], notes):
                return f"{WRONG}: HTTP {status} {str(reply)[:300]}"
            admitted[self.target.key] += method == "tools/call"
            return ""

        return self._post(message, label or method, judge)

    def _post(
        self, message: dict[str, Any], label: str, judge: Callable[[int, list[dict[str, Any]]], str]
    ) -> dict[str, str]:
        params = message.get("params", {})
        lines = headers(self.target, message["method"], params.get("name", ""), self.session)
        takes = params.get("arguments", {}).get("seconds", 0.0)  # of tools that take their own time
        name, body = f"{self.target.era} {label}", json.dumps(message)
        with self.client.post(self.target.path, data=body, headers=lines, name=name, catch_response=True) as answer:
            if not answer.status_code:
                answer.failure(f"no answer: {answer.error!r}")
                return {}
            try:
                fault = judge(answer.status_code, messages_of(answer))
            except (ValueError, KeyError, TypeError, IndexError) as exc:
                fault = f"{WRONG}: {exc!r}: HTTP {answer.status_code} {(answer.text or '')[:300]}"
            if fault == f"error {RATE_LIMITED}":
                answer.request_meta["name"] += " refused"
                fault = ""
            if fault:
                answer.failure(fault)
            else:
                answer.request_meta["response_time"] = max(0.0, answer.request_meta["response_time"] - 1000 * takes)
                answer.success()
            return {name.lower(): value for name, value in (answer.headers or {}).items()}


def messages_of(answer: Any) -> list[dict[str, Any]]:
    """The JSON-RPC messages of an answer, JSON or event stream; the reply is the last.

    Raises:
        ValueError: it has none that can be read.
    """
    text = answer.text or ""
    if "text/event-stream" not in ((answer.headers or {}).get("content-type") or ""):
        return [json.loads(text)] if text else []
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]
