"""One of the demo's servers without a gateway between, for the SDK's own client: as a process, or in a thread."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn

from fastgw.demo.data import data
from fastgw.demo.deployment import deployment
from fastgw.demo.knowledge import knowledge
from fastgw.demo.serving import of_era

MAKE = {"data": data, "deployment": deployment, "knowledge": knowledge}


@contextmanager
def process(name: str, era: str, state: Path) -> Iterator[str]:
    """The URL of a running server; when the block ends its lifeline is cut and it must end well."""
    order = [sys.executable, "-m", f"fastgw.demo.{name}", "--era", era, "--state", str(state), "--lifeline"]
    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            url = child.stdout.readline().strip()
            assert url, "the server printed no URL"
            yield url
        finally:
            child.stdin.close()
            code = child.wait(10)
    assert code == 0


@contextmanager
def server(name: str, era: str, state: Path) -> Iterator[str]:
    """The URL of the same server in a thread: a process of its own takes a second to import the SDK."""
    app = of_era(era, MAKE[name](state).streamable_http_app(host="127.0.0.1"))
    serving = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        finally:
            serving.should_exit = True
            thread.join(10)
    assert not thread.is_alive()
