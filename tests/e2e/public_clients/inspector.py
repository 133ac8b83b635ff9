"""The MCP Inspector's command line: python inspector.py PACKAGES URL KEY."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from answers import ARGUMENTS, TOOL, tell
from command_line import run

PACKAGES = Path(sys.argv[1])
PROGRAM = (
    PACKAGES / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
)


async def ask(url: str, key: str) -> dict[str, Any]:
    order = [str(PACKAGES / "node"), str(PROGRAM), "--cli", url, "--transport", "http"]
    order += ["--header", f"Authorization: Bearer {key}", "--method"]
    with tempfile.TemporaryDirectory() as folder:
        listed = run([*order, "tools/list"], Path(folder))
        words = ["--tool-name", TOOL, "--tool-args-json", json.dumps(ARGUMENTS)]
        result = run([*order, "tools/call", *words], Path(folder))
    return {"tools": [tool["name"] for tool in listed["tools"]], "result": result}


if __name__ == "__main__":
    tell(ask)
