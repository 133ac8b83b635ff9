"""A secret in the URL of a server goes to that server and nowhere else: not logged, not shown, not kept."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import exchange, legacy, modern, open_session
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving

CANARY = "canary-7f3a9b"
SECRET = "/s/${env:CAN}/mcp?key=${env:CAN}"


async def echo(call: Call) -> None:
    await call.text("here")


async def breaks(call: Call) -> None:
    call.writer.transport.abort()


def settings(**ports: int) -> dict[str, Any]:
    servers = {name: {"url": f"http://127.0.0.1:{port}{SECRET}"} for name, port in ports.items()}
    # Where nobody listens, and where names cannot be resolved.
    servers["dead"] = {"url": f"http://127.0.0.1:{free_port()}{SECRET}"}
    servers["nowhere"] = {"url": f"http://nowhere.invalid{SECRET}"}
    return {"servers": servers, "log": {"level": "debug"}}


async def everything_said(gateway: Gateway) -> str:
    paths = ("/backends", "/catalogue", "/metrics", "/config", "/config/diff")
    shown = [await asyncio.to_thread(gateway.ask_admin, path) for path in paths]
    assert [status for status, _ in shown] == [200] * len(paths)
    files = [file for file in gateway.folder.rglob("*") if file.is_file() and file.name != "fastgw.yaml"]
    assert {"stderr.log", "usage.jsonl", "new.json", "old.json"} <= {file.name for file in files}
    return "\n".join([body.decode() for _, body in shown] + [file.read_text(errors="replace") for file in files])


def test_the_canary_is_heard_nowhere(tmp_path: Path) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            eras = {"new": "modern", "old": "legacy"}
            boxes = {name: Toolbox(era, {f"{name}_echo": echo, f"{name}_breaks": breaks}) for name, era in eras.items()}
            ports = {name: (await stack.enter_async_context(serving(box))).port for name, box in boxes.items()}
            around = settings(**ports)
            gateway = await stack.enter_async_context(running_beside(around, tmp_path, {"CAN": CANARY}))

            async def kept() -> bool:
                return len(list((tmp_path / "data" / "catalogue").glob("*.json"))) == 2

            await until(kept)
            session = await open_session(gateway.url, key=KEY)
            for name in ("echo", "breaks"):
                for server in boxes:
                    params = {"name": f"{server}_{name}", "arguments": {}}
                    await exchange(gateway.url, modern("tools/call", params, key=KEY))
                    await exchange(gateway.url, legacy("tools/call", params, key=KEY, session=session))
            boxes["old"].forget()
            del around["servers"]["dead"]
            gateway.configure(around)
            gateway.process.send_signal(signal.SIGHUP)

            async def reloaded() -> bool:
                return "dead" not in json.loads((await asyncio.to_thread(gateway.ask_admin, "/backends"))[1])

            async def written() -> bool:
                return len(gateway.events()) == 8

            await until(reloaded)
            await until(written)
            said = await everything_said(gateway)
            assert all(f"at 127.0.0.1:{port}" in said or f"http://127.0.0.1:{port}" in said for port in ports.values())
            assert "nowhere at nowhere.invalid:80" in said
            assert [got for box in boxes.values() for got in box.got if CANARY in got.target], "the servers get it"
            assert CANARY not in said, next(line for line in said.splitlines() if CANARY in line)

    asyncio.run(story())
