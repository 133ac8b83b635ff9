"""One of the demo's servers without a gateway between, for the SDK's own client, in a thread."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn

from fastgw.demo import data, deployment, knowledge
from fastgw.demo.serving import Era, of_era

SERVERS = {"data": data.server, "deployment": deployment.server, "knowledge": knowledge.server}


@contextmanager
def server(name: str, era: Era) -> Iterator[str]:
    """The URL of a running server: a process of its own takes a second to import the SDK."""
    app = of_era(era, SERVERS[name])
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
