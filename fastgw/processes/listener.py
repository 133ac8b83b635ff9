"""Where agents connect: one listening socket for a worker's whole life, and behind it one of Granian's embedded servers
after another, since each reads its certificate once.

The one before takes no more connections, and answers on those that it has until their agents have read `connection:
close`. Stopped at once it would cut handshakes and requests that are on their way: at 200 calls a second on connections
of their own, four calls each time.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from fastgw.config.certificates import ListenerTls
from fastgw.processes.tls_trial import held, path_of, tls_files

BACKLOG = 4096
MOST_CONNECTIONS = 100_000
"""Granian leaves connections beyond this unanswered, without a word; our own limits answer."""
HEADERS_WITHIN = 30_000
"""Milliseconds for the head of a request."""
APART = 0.2
"""Seconds that a server has to begin before another takes over: Granian does not say when, and ends the whole process
where its socket is another by then.
"""
CLOSED_WITHIN = 10.0
"""Seconds in which connections of the certificate before are closed by an answer; then those without a request are."""


@dataclass(eq=False, slots=True)
class ServerLife:
    """Whether connections of one embedded server end with the answer they wait for."""

    draining: bool = False


class EmbeddedServer(Server):
    """Granian's embedded server on a socket that listens already; the server closes this descriptor of it at its end.

    Application and life of the gateway: `application(life, scope, receive, send)`.
    """

    def __init__(self, application: Callable[..., Any], descriptor: int) -> None:
        self.life = ServerLife()
        self.descriptor = descriptor
        super().__init__(
            partial(application, self.life),
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADERS_WITHIN),
            websockets=False,
            backlog=BACKLOG,
            backpressure=MOST_CONNECTIONS,
            log_enabled=False,
            # Its default set of loggers would replace ours.
            log_dictconfig={"disable_existing_loggers": False, "root": {}, "handlers": {}, "loggers": {}},
        )

    def _init_shared_socket(self) -> None:
        self._shd = SocketHolder(self.descriptor, False, BACKLOG)  # type: ignore[assignment,call-arg]


class AgentListener:
    """The port as one worker has it, for this application; `spawn` runs in the background."""

    def __init__(self, application: Callable[..., Any], spawn: Callable[..., asyncio.Task[Any]]) -> None:
        self._application, self._spawn = application, spawn
        self._socket: socket.socket | None = None
        self._wanted: ListenerTls | None = None
        self._shown: ListenerTls | None = None
        self._begun = 0.0
        self._servers: dict[EmbeddedServer, asyncio.Task[None]] = {}
        self.broken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """Done once a server has ended that was not told to."""
        # In place of its own, a server that is to take no more connections hears at a socket that has no name.
        self._deaf = socket.socket(socket.AF_UNIX)
        self._deaf.bind("")
        self._deaf.listen(1)
        self._deaf.setblocking(False)

    def open(self, address: tuple[str, int]) -> None:
        """Take connections from now on, on a port that is shared with other workers. Raises OSError."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family)
        for level, option in (
            (socket.SOL_SOCKET, socket.SO_REUSEADDR),
            (socket.SOL_SOCKET, socket.SO_REUSEPORT),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        ):
            self._socket.setsockopt(level, option, 1)
        self._socket.bind(address)
        self._socket.listen(BACKLOG)
        self._start()

    def show(self, tls: ListenerTls | None) -> None:
        """Show this certificate to whoever connects from now on; None: plain HTTP."""
        self._wanted = tls
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        if (wait := self._begun + APART - loop.time()) > 0:
            loop.call_later(wait, self._take_over)
        else:
            self._take_over()

    def close_with_answers(self) -> None:
        """Every connection ends with the answer it waits for, and no other server takes over."""
        if self._socket is not None:
            self._socket.close()  # the server's own descriptor goes on listening
            self._socket = None
        for server in self._servers:
            server.life.draining = True

    def stop(self) -> Collection[asyncio.Future[Any]]:
        """Take no more connections, close those without a request; what ends when the others have their answer."""
        serving = list(self._servers.values())
        for server in self._servers:
            server.stop()  # type: ignore[no-untyped-call]
        return serving or [self.broken]

    def _take_over(self) -> None:
        if self._socket is None or self._wanted == self._shown or self.broken.done():
            return
        before = list(self._servers)
        self._start()
        for server in before:
            self._retire(server)

    def _start(self) -> None:
        assert self._socket is not None
        server = EmbeddedServer(self._application, os.dup(self._socket.fileno()))
        self._shown, self._begun = self._wanted, asyncio.get_running_loop().time()
        self._servers[server] = self._spawn(self._serve(server, self._shown), "server")

    async def _serve(self, server: EmbeddedServer, tls: ListenerTls | None) -> None:
        files: list[IO[bytes]] = []
        try:
            if tls is not None:
                files = held(tls)
                server.ssl_ctx = tls_files([path_of(file) for file in files])  # type: ignore[assignment]
            await server.serve()
        finally:
            del self._servers[server]
            for file in files:
                file.close()
            if not server.interrupt_signal and not self.broken.done():
                self.broken.set_result(None)

    def _retire(self, server: EmbeddedServer) -> None:
        if not server.life.draining:
            server.life.draining = True
            os.dup2(self._deaf.fileno(), server.descriptor, inheritable=False)
            asyncio.get_running_loop().call_later(CLOSED_WITHIN, server.stop)
