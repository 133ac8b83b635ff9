"""How each of the servers becomes a process: its arguments, its port, its end."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer

from fastgw.demo.eras import FILTERS

DRAIN = 1  # seconds that open requests get at the end


def serve(make: Callable[[Path], MCPServer]) -> None:
    """Serve what `make(state folder)` returns until SIGTERM, SIGINT or, with `--lifeline`, the end of standard input.

    Prints one line as soon as the port is open: the URL.
    """
    asked = _arguments()
    asked.state.mkdir(parents=True, exist_ok=True)
    app = FILTERS[asked.era](make(asked.state).streamable_http_app(host="127.0.0.1"))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN, lifespan="on")
    )
    # Streams that are open to the end are cut off then, which is nothing to report; uvicorn would, at great length.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    with socket.create_server(("127.0.0.1", asked.port)) as listening:
        if asked.lifeline:
            threading.Thread(target=_end_with_standard_input, args=(server,), daemon=True).start()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
        server.run(sockets=[listening])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One of the demo's MCP servers.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--era", choices=sorted(FILTERS), default="both", help="protocol revisions it speaks")
    parser.add_argument("--state", type=Path, required=True, help="folder for its database")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input ends: it dies with its parent")
    return parser.parse_args()


def _end_with_standard_input(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
