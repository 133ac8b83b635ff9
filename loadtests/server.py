"""An MCP server of one era for load tests: `bench.backend` with tools that take their time and tools that stream.

Usage: `python -m loadtests.server --era legacy --port 9001`; prints `port=N` when it listens. Its tools are called
`echo` (modern) or `echo-legacy`, the same with `-slow` (an answer after the argument `seconds`) and with `-stream`
(the same as an event stream with the argument `events` notifications of progress, evenly).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import uvloop

from bench.backend import Connection, Server

TOOLS = {"modern": "echo", "legacy": "echo-legacy"}


class Patient(Connection):
    """A connection that answers later where the tool says so."""

    def on_message_complete(self) -> None:
        """See `Connection`; calls of the two further tools are answered by the clock."""
        params = json.loads(self.body).get("params", {}) if self.body else {}
        name, arguments = str(params.get("name", "")), params.get("arguments", {})
        if not name.endswith(("-slow", "-stream")):
            super().on_message_complete()
            return
        seconds, later = arguments["seconds"], asyncio.get_running_loop().call_later
        status, lines, body = self.server.answer(self.headers, self.body)
        if status != 200 or name.endswith("-slow"):
            later(seconds, self.write, status, lines, body)
            return
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.transport.write(head)
        token, events = params.get("_meta", {}).get("progressToken"), arguments["events"]
        for number in range(events):
            told = {"progressToken": token, "progress": number + 1, "total": events}
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": told}
            later(seconds * (number + 1) / (events + 1), self.event, json.dumps(note).encode())
        later(seconds, self.event, body, b"0\r\n\r\n")

    def event(self, data: bytes, end: bytes = b"") -> None:
        """One event as a chunk, and what ends the stream."""
        text = b"data: " + data + b"\n\n"
        if not self.transport.is_closing():
            self.transport.write(b"%x\r\n%b\r\n%b" % (len(text), text, end))


async def serve(era: str, port: int) -> None:
    """Listen on 127.0.0.1 until killed."""
    server = Server(era, TOOLS[era])
    server.names = (server.tool, f"{server.tool}-slow", f"{server.tool}-stream")
    server.known = frozenset(server.names)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Patient(server), "127.0.0.1", port, backlog=4096)
    print(f"port={listener.sockets[0].getsockname()[1]}", flush=True)
    await listener.serve_forever()


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.server", description=__doc__.split("\n")[0])
    parser.add_argument("--era", choices=tuple(TOOLS), default="modern")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    uvloop.run(serve(args.era, args.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
