"""A gateway whose admin port has a token, and whose configuration the test writes as it likes: for tests of reloads."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, fingerprint, launch, settings, until
from tests.e2e.http import Asked, Reply, exchange, modern
from tests.e2e.ports import free_port
from tests.e2e.servers import Server

TOKEN = "the operators' token"
ENVIRONMENT = {"OPERATORS_TOKEN": TOKEN, "FASTGW_SECRET": "a secret for tests, 32 bytes long"}
KEYS = [f"fgw_test_agent_{number}" for number in range(8)]


class Operated:
    """The gateway, its configuration in `folder`; `url` is its endpoint /mcp, `admin` the root of its admin port."""

    def __init__(self, folder: Path, servers: dict[str, Server]) -> None:
        self.folder, self._servers = folder, servers
        self._ports = free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{self._ports[0]}/mcp", f"http://127.0.0.1:{self._ports[1]}"

    def text(self, *keys: str, **more: Any) -> str:
        """A configuration that lets these agents in, beside the one of `KEY`."""
        agents = {f"agent-{number}": {"key": fingerprint(key)} for number, key in enumerate((KEY, *keys))}
        around = {
            "admin": {"listen": self.admin.removeprefix("http://"), "token": "${env:OPERATORS_TOKEN}"},
            "servers": {name: {"url": server.url} for name, server in self._servers.items()},
            "agents": agents,
        }
        return json.dumps(settings({**around, **more}, *self._ports))

    async def order(self, verb: str, path: str) -> Reply:
        headers = [("Authorization", f"Bearer {TOKEN}"), ("Content-Type", "application/json")]
        return await exchange(self.admin + path, Asked(b"{}" if verb == "POST" else b"", headers, verb))

    async def config(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.order("GET", "/config")).json()
        return found

    async def metric(self, line: str) -> float:
        text = (await self.order("GET", "/metrics")).body.decode()
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def lets_in(self, key: str) -> bool:
        """Whether both workers do, as far as a few connections tell."""
        replies = [await exchange(self.url, modern("tools/list", key=key)) for _ in range(4)]
        return {reply.status for reply in replies} == {200}

    async def diff(self) -> tuple[int, list[str]]:
        """Exit code and output of `fastgw diff`, which does not have the gateway's environment but the token."""
        typed = [sys.executable, "-m", "fastgw", "diff", "--admin", self.admin]
        around = {**os.environ, "FASTGW_ADMIN_TOKEN": TOKEN}
        process = await asyncio.create_subprocess_exec(
            *typed, env=around, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode().splitlines()


@asynccontextmanager
async def operated(folder: Path, server: Server) -> AsyncIterator[Operated]:
    """One with this server and one agent, once it is let in."""
    stage = Operated(folder, {"main": server})
    async with served(stage, stage.text()):
        await until(lambda: stage.lets_in(KEY))
        yield stage


@asynccontextmanager
async def served(stage: Operated, text: str, *options: str) -> AsyncIterator[Gateway]:
    """The gateway's processes, started on this text with these options of `run`; they must end well."""
    (stage.folder / "fastgw.yaml").resolve().write_text(text)  # it may be a link
    process = launch(stage.folder, ENVIRONMENT, *options)
    gateway = Gateway(stage.url, stage.admin, stage.folder, process, ENVIRONMENT)
    try:
        await asyncio.to_thread(gateway.wait_until_ready)
        yield gateway
        assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()
        assert "Traceback" not in gateway.log()
    finally:
        gateway.kill()
