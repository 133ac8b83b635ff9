"""`fastgw demo`: the gateway and three MCP servers, each a process of its own, until Ctrl-C.

Ends them in order: the gateway drains, then the servers go. `fastgw.demo` is run, never imported.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import http.client
import importlib.util
import json
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from fastgw.cli.snippets import curl, entry
from fastgw.cli.terminal import argument_type
from fastgw.config.addresses import ANY
from fastgw.config.schema.settings import address

HOST = "127.0.0.1"
WANTED = (8080, 8081)  # listen and admin, where nobody has them yet
ERAS = {"deployment": "legacy", "data": "modern", "knowledge": "both"}
ERA_WORDS = {"legacy": "2025-11-25 and older", "modern": "2026-07-28 only", "both": "every revision"}
RIGHTS = {
    "engineering": ["*", "prompt:*", "resource:*"],
    "support": ["search-docs", "create-ticket", "db-query", "prompt:summarise-page", "resource:docs://*"],
}
READY_WITHIN = 30.0  # seconds
DRAIN_WITHIN = 35.0  # seconds; the gateway's own drain is 30
LOOK_EVERY = 0.1  # seconds between two looks at the children
PR_SET_PDEATHSIG = 1


class DemoFailed(Exception):
    """Something did not start or ended by itself; the text is for the user."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("demo")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the gateway (2)")
    where = f"where agents reach it ({HOST}:{WANTED[0]}, or another port where that is taken)"
    parser.add_argument("--listen", metavar="HOST:PORT", type=argument_type(address), help=where)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C or SIGTERM; exit status 0, or 1 where something did not start or ended by itself."""
    if importlib.util.find_spec("mcp") is None:
        print("fastgw demo: the servers are written on the mcp SDK: pip install 'fastgw[demo]'", file=sys.stderr)
        return 1
    stop = threading.Event()  # so that a signal at any moment ends everything in order
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with ExitStack() as ends:
            _run(args, ends, stop)
    except DemoFailed as wrong:
        print(f"fastgw demo: {wrong}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace, ends: ExitStack, stop: threading.Event) -> None:
    folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="fastgw-demo-")))
    # Where the user says, or not at all; else at the usual port, or at any.
    listen = _free(args.listen, (), ends) if args.listen else _free(f"{HOST}:{WANTED[0]}", (0,), ends)
    admin = _free(f"{HOST}:{WANTED[1]}", (0,), ends)
    children = {name: _server(name, folder, ends) for name in ERAS}
    urls = {name: child.stdout.readline().strip() if child.stdout else "" for name, child in children.items()}
    if silent := [name for name, url in urls.items() if not url]:
        raise DemoFailed(f"the {silent[0]} server did not start")
    keys = {name: f"fgw_{name}_{secrets.token_urlsafe(24)}" for name in RIGHTS}
    settings = {"listen": listen, "admin": admin, "workers": args.workers, **_settings(urls, keys)}
    file = folder / "fastgw.yaml"
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")  # JSON is YAML, without care with quotes
    children["gateway"] = _gateway(file, ends)
    until = time.monotonic() + READY_WITHIN
    while not stop.is_set() and not _ready(admin):
        if time.monotonic() > until:
            raise DemoFailed(f"the gateway was not ready within {READY_WITHIN:.0f} s")
        _fail_if_ended(children)
        stop.wait(LOOK_EVERY)
    if stop.is_set():
        return
    host, _, port = listen.rpartition(":")
    print(_welcome(f"http://{'localhost' if host in ANY else host}:{port}/mcp", f"http://{admin}", keys, folder))
    sys.stdout.flush()
    while not stop.wait(LOOK_EVERY):
        # A server may die, as servers do; only the gateway must not.
        for name in [name for name, child in children.items() if name != "gateway" and child.poll() is not None]:
            del children[name]
            print(f"{name} is gone: its tools stay listed, calls to them are told so, all others go on", flush=True)
        _fail_if_ended(children)
    print("\nending: calls in flight first", flush=True)


def _fail_if_ended(children: dict[str, subprocess.Popen[str]]) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            raise DemoFailed(f"{name} ended by itself with exit code {child.returncode}")


def _server(name: str, folder: Path, ends: ExitStack) -> subprocess.Popen[str]:
    order = [sys.executable, "-m", f"fastgw.demo.{name}", "--port", "0", "--era", ERAS[name]]
    order += ["--state", str(folder / name), "--lifeline"]
    # a session of its own: Ctrl-C must not take the servers away while the gateway drains
    child = subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

    assert child.stdin is not None
    ends.callback(_end, child, child.stdin.close, 5.0)
    return child


def _gateway(file: Path, ends: ExitStack) -> subprocess.Popen[str]:
    # it dies with its parent, as the servers do by their lifeline
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else lambda *_: 0
    order = [sys.executable, "-m", "fastgw", "run", "--config", str(file)]
    on_fork = partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM)
    child = subprocess.Popen(order, stdin=subprocess.DEVNULL, text=True, start_new_session=True, preexec_fn=on_fork)
    ends.callback(_end, child, child.terminate, DRAIN_WITHIN)
    return child


def _end(child: subprocess.Popen[str], ask: Callable[[], None], seconds: float) -> None:
    ask()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _free(wanted: str, others: tuple[int, ...], ends: ExitStack) -> str:
    """The wanted `host:port`, or that host with one of the other ports, where nobody has it. It is held until the end,
    so that a second demo takes another.

    Raises:
        DemoFailed: none can be taken.
    """
    host, _, port = wanted.rpartition(":")
    for number in (int(port), *others):
        held = ends.enter_context(socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET))
        try:
            held.bind((host.strip("[]"), number))  # without sharing: two that try at once cannot both have it
        except OSError as wrong:
            reason = wrong.strerror or str(wrong)
            continue
        found = held.getsockname()[1]
        if sys.platform == "linux":  # from here on those that share, as the gateway does, may bind it too
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        else:
            held.close()
        return f"{host}:{found}"
    raise DemoFailed(f"{wanted} cannot be taken: {reason}")


def _settings(urls: dict[str, str], keys: dict[str, str]) -> dict[str, Any]:
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}
    return {
        "data": "data",
        "agents": {f"demo-{name}": {"key": f"sha256:{one}", "claims": {"team": name}} for name, one in digests.items()},
        "policies": [
            {"name": name, "match": {"claims": {"team": name}}, "allow": allowed} for name, allowed in RIGHTS.items()
        ],
        "servers": {name: {"url": url} for name, url in urls.items()},
        "usage": {"sinks": ["file:usage.jsonl"]},
    }


def _ready(admin: str) -> bool:
    with closing(http.client.HTTPConnection(admin, timeout=1)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


def _welcome(endpoint: str, admin: str, keys: dict[str, str], folder: Path) -> str:
    call = {"name": "search-docs", "arguments": {"query": "configuration"}}
    snippet = {"mcpServers": {"fastgw": entry(endpoint, keys["engineering"])}}
    shown = "\n".join(f"  {name:<12} {key}   may use: {', '.join(RIGHTS[name])}" for name, key in keys.items())
    servers = ", ".join(f"{name} ({ERA_WORDS[era]})" for name, era in ERAS.items())
    return f"""
endpoint       {endpoint}
admin          {admin}   /readyz /metrics /backends /catalogue
servers        {servers}
configuration  {folder / "fastgw.yaml"}
usage events   {folder / "usage.jsonl"}
beside tools   resources (docs://readme, staging://history, ...) and prompts (summarise-page, incident-report)

keys
{shown}

a call
{curl(endpoint, keys["support"], "tools/call", call)}

for an MCP client
{json.dumps(snippet, indent=2)}

Ctrl-C ends it all."""
