"""`fastgw demo`: the gateway and three MCP servers, each a process of its own, until Ctrl-C.

`fastgw.demo` is run, never imported.
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
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fastgw.cli.snippets import curl, entry
from fastgw.config.addresses import ANY
from fastgw.config.schema.settings import address

HOST = "127.0.0.1"
WANTED = (8080, 8081)  # listen and admin, where nobody has them yet
ERAS = {"deployment": "legacy", "data": "modern", "knowledge": "both"}
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


@dataclass(frozen=True, slots=True)
class Reported:
    """What the newcomer gets to see."""

    endpoint: str
    admin: str
    keys: dict[str, str]
    folder: Path


class Stop:
    """Notes SIGINT and SIGTERM, so that a signal at any moment ends everything in order."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The words of `fastgw demo`."""
    words = "The gateway and three MCP servers to try it on, each a process of its own, until Ctrl-C."
    parser = subparsers.add_parser(
        "demo", help="three real MCP servers and a gateway in front of them", description=words
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the gateway (2)")
    where = f"where agents reach it ({HOST}:{WANTED[0]}, or another port where that is taken)"
    parser.add_argument("--listen", metavar="HOST:PORT", type=_listen, help=where)
    parser.set_defaults(run=demo)


def _listen(text: str) -> str:
    try:
        return address(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def demo(asked: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C or SIGTERM; returns the exit code."""
    if importlib.util.find_spec("mcp") is None:
        print("fastgw demo: the servers are written on the mcp SDK: pip install 'fastgw[demo]'", file=sys.stderr)
        return 1
    stop = Stop()
    try:
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="fastgw-demo-")))
            told, children = _start(folder, asked, ends)
            if _until_ready(told.admin, children, stop):
                print(_welcome(told), flush=True)
                _until_stopped(children, stop)
                print("\nending: calls in flight first", flush=True)
    except DemoFailed as wrong:
        print(f"fastgw demo: {wrong}", file=sys.stderr)
        return 1
    return 0


GATEWAY = "gateway"
Children = dict[str, "subprocess.Popen[str]"]


def _start(folder: Path, asked: argparse.Namespace, ends: ExitStack) -> tuple[Reported, Children]:
    # Where the user says, or not at all; else at the usual port, or at any.
    listen = _free(asked.listen, (), ends) if asked.listen else _free(f"{HOST}:{WANTED[0]}", (0,), ends)
    admin = _free(f"{HOST}:{WANTED[1]}", (0,), ends)
    servers = {name: _server(name, era, folder, ends) for name, era in ERAS.items()}
    urls = {name: _url(name, child) for name, child in servers.items()}
    keys = {name: f"fgw_{name}_{secrets.token_urlsafe(24)}" for name in RIGHTS}
    file = folder / "fastgw.yaml"
    file.write_text(_config(urls, keys, (listen, admin), asked.workers), encoding="utf-8")
    gateway = _gateway(file, ends)
    host, _, port = listen.rpartition(":")
    told = Reported(f"http://{'localhost' if host in ANY else host}:{port}/mcp", f"http://{admin}", keys, folder)
    return told, {**servers, GATEWAY: gateway}


def _server(name: str, era: str, folder: Path, ends: ExitStack) -> subprocess.Popen[str]:
    order = [sys.executable, "-m", f"fastgw.demo.{name}", "--port", "0", "--era", era]
    order += ["--state", str(folder / name), "--lifeline"]
    # a session of its own: Ctrl-C must not take the servers away while the gateway drains
    child = subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    ends.callback(_end_server, child)
    return child


def _end_server(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    _wait_or_kill(child, 5.0)


def _url(name: str, child: subprocess.Popen[str]) -> str:
    line = child.stdout.readline().strip() if child.stdout else ""
    if not line:
        raise DemoFailed(f"the {name} server did not start")
    return line


def _gateway(file: Path, ends: ExitStack) -> subprocess.Popen[str]:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    order = [sys.executable, "-m", "fastgw", "run", "--config", str(file)]
    child = subprocess.Popen(
        order, stdin=subprocess.DEVNULL, text=True, start_new_session=True, preexec_fn=die_with_parent
    )
    ends.callback(_end_gateway, child)
    return child


def _end_gateway(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
    _wait_or_kill(child, DRAIN_WITHIN)


def _wait_or_kill(child: subprocess.Popen[str], seconds: float) -> None:
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
    reason = ""
    for number in (int(port), *others):
        held = ends.enter_context(socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET))
        try:
            held.bind((host.strip("[]"), number))  # without sharing: two that try at once cannot both have it
        except OSError as wrong:
            reason = wrong.strerror or str(wrong)
            continue
        found = int(held.getsockname()[1])
        if sys.platform == "linux":  # from here on those that share, as the gateway does, may bind it too
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        else:
            held.close()
        return f"{host}:{found}"
    raise DemoFailed(f"{wanted} cannot be taken: {reason}")


def _config(urls: dict[str, str], keys: dict[str, str], places: tuple[str, str], workers: int) -> str:
    agents = {
        f"demo-{name}": {
            "key": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}",
            "claims": {"team": name},
        }
        for name, key in keys.items()
    }
    policies = [
        {"name": name, "match": {"claims": {"team": name}}, "allow": allowed} for name, allowed in RIGHTS.items()
    ]
    settings = {
        "listen": places[0],
        "admin": places[1],
        "workers": workers,
        "data": "data",
        "agents": agents,
        "policies": policies,
        "servers": {name: {"url": url} for name, url in urls.items()},
        "usage": {"sinks": ["file:usage.jsonl"]},
    }
    # JSON is YAML, and needs no care with quotes
    return json.dumps(settings, indent=2) + "\n"


def _ready(admin: str) -> bool:
    asking = http.client.HTTPConnection(admin.removeprefix("http://"), timeout=1)
    try:
        asking.request("GET", "/readyz")
        return asking.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asking.close()


def _until_ready(admin: str, children: Children, stop: Stop) -> bool:
    """Wait for the gateway's /readyz; False when the user wants to stop first."""
    until = time.monotonic() + READY_WITHIN
    while not stop.asked:
        if _ready(admin):
            return True
        if time.monotonic() > until:
            raise DemoFailed(f"the gateway was not ready within {READY_WITHIN:.0f} s")
        _look_and_pause(children)
    return False


def _until_stopped(children: Children, stop: Stop) -> None:
    """Stay until the user stops it. A server may die, as servers do; only the gateway must not."""
    while not stop.asked:
        for name in [name for name, child in children.items() if name != GATEWAY and child.poll() is not None]:
            del children[name]
            print(f"{name} is gone: its tools stay listed, calls to them are told so, all others go on", flush=True)
        _look_and_pause(children)


def _look_and_pause(children: Children) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            raise DemoFailed(f"{name} ended by itself with exit code {child.returncode}")
    time.sleep(LOOK_EVERY)


def _welcome(told: Reported) -> str:
    call = {"name": "search-docs", "arguments": {"query": "configuration"}}
    snippet = {"mcpServers": {"fastgw": entry(told.endpoint, told.keys["engineering"])}}
    keys = "\n".join(f"  {name:<12} {key}   may use: {', '.join(RIGHTS[name])}" for name, key in told.keys.items())
    servers = ", ".join(f"{name} ({_ERA_WORDS[era]})" for name, era in ERAS.items())
    return f"""
endpoint       {told.endpoint}
admin          {told.admin}   /readyz /metrics /backends /catalogue
servers        {servers}
configuration  {told.folder / "fastgw.yaml"}
usage events   {told.folder / "usage.jsonl"}
beside tools   resources (docs://readme, staging://history, ...) and prompts (summarise-page, incident-report)

keys
{keys}

a call
{curl(told.endpoint, told.keys["support"], "tools/call", call)}

for an MCP client
{json.dumps(snippet, indent=2)}

Ctrl-C ends it all."""


_ERA_WORDS = {"legacy": "2025-11-25 and older", "modern": "2026-07-28 only", "both": "every revision"}
