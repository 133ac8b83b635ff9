"""mcporter's command line with a configuration file: python mcporter.py PACKAGES URL KEY."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from answers import ARGUMENTS, TOOL, tell
from command_line import run

PACKAGES = Path(sys.argv[1])
PROGRAM = PACKAGES / "node_modules" / "mcporter" / "dist" / "cli.js"


async def ask(url: str, key: str) -> dict[str, Any]:
    server = {"baseUrl": url, "headers": {"Authorization": "Bearer ${FASTGW_KEY}"}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mcporter.json")
        file.write_text(json.dumps({"mcpServers": {"fastgw": server}, "imports": []}))
        order = [str(PACKAGES / "node"), str(PROGRAM), "--config", str(file)]
        listed = run([*order, "list", "fastgw", "--json"], Path(folder), FASTGW_KEY=key)
        words = [f"fastgw.{TOOL}", "--args", json.dumps(ARGUMENTS), "--output", "json"]
        result = run([*order, "call", *words], Path(folder), FASTGW_KEY=key)
    return {"tools": [tool["name"] for tool in listed["tools"]], "result": result}


if __name__ == "__main__":
    tell(ask)
