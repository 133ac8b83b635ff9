"""What the gateway is compared with, each with one worker and files of its own: nginx or HAProxy, Granian that answers,
that forwards, that carries the sketch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.started import Started, free_port, listens, started

NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    client_body_buffer_size 4m;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    upstream backend {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_timeout 3600;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    http-reuse always
frontend agents
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    server one 127.0.0.1:{upstream}
"""


def binary(name: str) -> str | None:
    """The program's path; also looked for where distributions hide it from ordinary users."""
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin")


def best() -> str:
    """The reference this machine has: `nginx`, else `haproxy`, else `granian answer`."""
    return next((name for name in ("nginx", "haproxy") if binary(name)), "granian answer")


def version(name: str) -> str | None:
    """What the program calls its version; None where there is no such program."""
    program = binary(name)
    if program is None:
        return None
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.+-]*", said.stdout + said.stderr)
    return found[0] if found else "unknown"


@contextmanager
def reference(name: str, upstream: int, folder: Path) -> Iterator[Started]:
    """The reference called `name` (see `best`) in front of a backend.

    Raises:
        NotStarted: it does not come up.
    """
    with KNOWN[name](upstream, folder) as running:
        yield running


@contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[Started]:
    """An nginx as plain reverse proxy; everything it writes is below `folder`."""
    port = free_port()
    # Started by root, its worker would be `nobody` and could not enter a folder of root's.
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(user=user, folder=folder, upstream=upstream, port=port))
    command = [str(binary("nginx")), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
    with started(command, folder / "nginx.log", lambda: listens(port)) as pid:
        yield Started(pid, port)


@contextmanager
def haproxy(upstream: int, folder: Path) -> Iterator[Started]:
    """HAProxy with one thread, the same job."""
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(upstream=upstream, port=port))
    command = [str(binary("haproxy")), "-db", "-f", str(file)]
    with started(command, folder / "haproxy.log", lambda: listens(port)) as pid:
        yield Started(pid, port)


@contextmanager
def granian_answer(upstream: int, folder: Path) -> Iterator[Started]:
    """A Granian worker that answers by itself: the reference where there is no proxy. `upstream` is not called."""
    with _granian("answer", upstream, folder) as running:
        yield running


@contextmanager
def forwarder(upstream: int, folder: Path) -> Iterator[Started]:
    """A Granian worker that forwards by aiohttp's `ClientSession`."""
    with _granian("forward", upstream, folder) as running:
        yield running


KNOWN = {
    "nginx": nginx,
    "haproxy": haproxy,
    "granian answer": granian_answer,
    "granian + ClientSession": forwarder,
}


@contextmanager
def sketch(upstream: int, folder: Path, key: str, tool: str) -> Iterator[Started]:
    """The sketch (`bench.sketch`) on the server and the connections that fastgw has."""
    port = free_port()
    command = [sys.executable, "-m", "bench", "sketch", "--port", str(port), "--key", key, "--tool", tool]
    command += ["--upstream", f"http://127.0.0.1:{upstream}/mcp"]
    with started(command, folder / "sketch.log", lambda: listens(port)) as pid:
        yield Started(pid, port)


@contextmanager
def _granian(app: str, upstream: int, folder: Path) -> Iterator[Started]:
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asginl", "--http", "1", "--no-ws", "--no-log"]
    command += ["--loop", "uvloop", "--host", "127.0.0.1", "--port", str(port), f"bench.apps:{app}"]
    environment = {**os.environ, "BENCH_UPSTREAM": f"http://127.0.0.1:{upstream}/mcp", "PYTHONPATH": "."}
    with started(command, folder / f"granian-{app}.log", lambda: listens(port), environment) as pid:
        yield Started(pid, port)
