"""Usage events for tests: every field of docs/usage-events.md, what a test cares about changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EVENT: dict[str, Any] = json.loads(
    """{"schema":1,"requestId":"req_1","timestamp":"2026-10-03T14:32:01.445Z","gateway":"gw-1","endpoint":"/mcp",
    "agentId":"deploy-bot","userId":null,"credential":"key:f784e848","team":"engineering","project":"checkout",
    "billingAccount":"acme-eng","labels":{"tier":"internal"},"method":"tools/call","tool":"generate-code",
    "mcpServer":"codegen-openai","instance":"127.0.0.1:9006","outcome":"ok","statusCode":200,"errorCode":null,
    "refusedBy":null,"attempts":1,"failover":false,"cached":false,"latencyMs":342.118,"overheadMs":0.211,"bytesIn":391,
    "bytesOut":142,"tokensIn":1250,"tokensOut":487,"cost":null,"currency":"USD","rateLimitRemaining":87,
    "protocolVersion":"2026-07-28","traceId":null}"""
)


def line(number: int, cost: str = "null", **changes: Any) -> str:
    """One event as the gateway writes it; `cost` as JSON text, which no float ever sees."""
    event = {**EVENT, "requestId": f"req_{number:06}", **changes}
    event["cost"] = "\0"
    return json.dumps(event, separators=(",", ":")).replace('"\\u0000"', cost) + "\n"


def spooled(folder: Path, lines: Iterable[str], number: int = 1) -> Path:
    """A closed spool file under `folder`, which is `data/usage`."""
    path = folder / "spool" / f"{1790000000000 + number:013}-77-{number}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path
