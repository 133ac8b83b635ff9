"""`fastgw demo`: the gateway and MCP servers, each a process of its own, until Ctrl-C.

Ends them in order: the gateway drains, then the servers go. `fastgw.demo` is run, never imported.
"""

from __future__ import annotations

import argparse
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
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastgw.cli.snippets import curl, entry
from fastgw.cli.terminal import argument_type
from fastgw.config.addresses import ANY
from fastgw.config.schema.settings import address

LISTEN, ADMIN = "127.0.0.1:8080", "127.0.0.1:8081"  # where nobody has them yet
SERVERS = {
    "deployment": "2025-11-25 and older, two instances",
    "data": "2026-07-28 only",
    "knowledge": "every revision",
    "openai and anthropic": "one tool: the second where the first fails",
}
PROCESSES = {
    "deployment": "fastgw.demo.deployment {port} {deployments}",
    "deployment-2": "fastgw.demo.deployment {port} {deployments}",
    "data": "fastgw.demo.data {port}",
    "knowledge": "fastgw.demo.knowledge {port}",
    "openai": "fastgw.demo.codegen openai {port}",
    "anthropic": "fastgw.demo.codegen anthropic {port}",
}
"""What is run: a module and its arguments."""
TOOLS = {
    "generate-code": {
        "to": [
            "openai/generate_code",
            {"server": "anthropic", "tool": "write_code", "arguments": {"prompt": "instructions"}},
        ],
        "failover_on": ["unavailable", "timeout", "throttled", "tool_error"],
        "tool_error": "(?i)overloaded|rate limit",
        "repeatable": True,
        "attempt_timeout": "20s",
        "tokens": {"in": "_meta.usage.input_tokens", "out": "_meta.usage.output_tokens"},
        "price": {"per_call": 0.001, "per_million_tokens_in": 3.00, "per_million_tokens_out": 15.00},
    },
    "anthropic/write_code": {
        "price": {"per_call": 0.001, "per_million_tokens_in": 5.00, "per_million_tokens_out": 25.00}
    },
}
RIGHTS = {
    "engineering": ["*", "prompt:*", "resource:*"],
    "support": ["search-docs", "create-ticket", "db-query", "prompt:summarise-page", "resource:docs://*"],
}
TICKETS = {"name": "tickets", "match": {"claims": {"team": "support"}}, "tools": ["create-ticket"], "rate": "3/minute"}
READY_WITHIN = 30.0  # seconds
DRAIN_WITHIN = 35.0  # seconds; the gateway's own drain is 30
LOOK_EVERY = 0.1  # seconds between two looks at the children


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("demo")
    where = f"where agents reach it ({LISTEN}, or another port where that is taken)"
    parser.add_argument("--listen", metavar="HOST:PORT", type=argument_type(address), help=where)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C or SIGTERM; the exit status. SystemExit says what did not start or ended by itself."""
    if importlib.util.find_spec("mcp") is None:
        raise SystemExit("fastgw demo: the servers are written on the mcp SDK: pip install 'fastgw[demo]'")
    stop = threading.Event()  # so that a signal at any moment ends everything in order
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="fastgw-demo-")))
        # Where the user says, or not at all; else at the usual port, or at any.
        listen = _hold(args.listen or LISTEN, ends, *([] if args.listen else [0]))
        admin = _hold(ADMIN, ends, 0)
        deployments = folder / "deployments.jsonl"
        deployments.touch()
        orders = {name: order.format(port=0, deployments=deployments).split() for name, order in PROCESSES.items()}
        servers = {name: _start(ends, *order, stdout=subprocess.PIPE) for name, order in orders.items()}
        urls = {name: child.stdout.readline().strip() for name, child in servers.items() if child.stdout}
        if silent := [name for name, url in urls.items() if not url]:
            raise SystemExit(f"fastgw demo: the {silent[0]} server did not start")
        keys = {name: f"fgw_{name}_{secrets.token_urlsafe(24)}" for name in RIGHTS}
        settings = {"listen": listen, "admin": admin, **_settings(urls, keys)}
        file = folder / "fastgw.yaml"
        file.write_text(json.dumps(settings, indent=2), encoding="utf-8")  # JSON is YAML, without care with quotes
        gateway = _start(ends, "fastgw", "run", "--config", str(file))
        until = time.monotonic() + READY_WITHIN
        while not stop.wait(LOOK_EVERY) and not _ready(admin):
            if gateway.poll() is not None or time.monotonic() > until:
                raise SystemExit("fastgw demo: the gateway did not start")
        if not stop.is_set():
            pids = {name: child.pid for name, child in servers.items()}
            print(_welcome(listen, admin, keys, folder, pids), flush=True)
        while not stop.wait(LOOK_EVERY):
            if gateway.poll() is not None:
                raise SystemExit(f"fastgw demo: the gateway ended by itself with exit code {gateway.returncode}")
            for name in [name for name, child in servers.items() if child.poll() is not None]:
                del servers[name]
                again = PROCESSES[name].format(port=urlsplit(urls[name]).port, deployments=deployments)
                print(f"{name} is gone; to have it again: {sys.executable} -m {again}", flush=True)
        print("\nending: calls in flight first", flush=True)
    return 0


def _start(ends: ExitStack, *order: str, stdout: int | None = None) -> subprocess.Popen[str]:
    """A child that ends with the block; in a session of its own: Ctrl-C leaves it running while the gateway drains."""
    child = subprocess.Popen([sys.executable, "-m", *order], stdout=stdout, text=True, start_new_session=True)

    def end() -> None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(DRAIN_WITHIN)
        child.kill()
        child.wait()

    ends.callback(end)
    return child


def _hold(wanted: str, ends: ExitStack, *others: int) -> str:
    """The wanted `host:port`, or that host with one of the other ports, where nobody has it; SystemExit where none is.

    It is held until the end, so that a second demo takes another.
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
    raise SystemExit(f"fastgw demo: {wanted} cannot be taken: {reason}")


def _settings(urls: dict[str, str], keys: dict[str, str]) -> dict[str, Any]:
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}
    return {
        "workers": 2,
        "agents": {f"demo-{name}": {"key": f"sha256:{one}", "claims": {"team": name}} for name, one in digests.items()},
        "policies": [{"name": team, "match": {"claims": {"team": team}}, "allow": may} for team, may in RIGHTS.items()],
        "limits": [TICKETS],
        "servers": {
            name: {"url": [urls[name], urls[f"{name}-2"]] if f"{name}-2" in urls else url}
            for name, url in urls.items()
            if not name.endswith("-2")
        },
        "tools": TOOLS,
        "usage": {"sinks": ["file:usage.jsonl"]},
    }


def _ready(admin: str) -> bool:
    with closing(http.client.HTTPConnection(admin, timeout=1)) as asked, suppress(OSError, http.client.HTTPException):
        asked.request("GET", "/readyz")
        return asked.getresponse().status == http.client.OK
    return False


def _welcome(listen: str, admin: str, keys: dict[str, str], folder: Path, pids: dict[str, int]) -> str:
    host, _, port = listen.rpartition(":")
    endpoint = f"http://{'localhost' if host in ANY else host}:{port}/mcp"
    call = {"name": "search-docs", "arguments": {"query": "configuration"}}
    snippet = {"mcpServers": {"fastgw": entry(endpoint, keys["engineering"])}}
    shown = "\n".join(f"  {name:<12} {key}   may use: {', '.join(RIGHTS[name])}" for name, key in keys.items())
    return f"""
endpoint       {endpoint}
admin          http://{admin}   the status page; /readyz /metrics /backends /catalogue
servers        {", ".join(f"{name} ({revisions})" for name, revisions in SERVERS.items())}
processes      {", ".join(f"{name} {pid}" for name, pid in pids.items())}
configuration  {folder / "fastgw.yaml"}
usage events   {folder / "usage.jsonl"}
beside tools   resources (docs://readme, shop://tables.sql, ...) and prompts (summarise-page, incident-report)
limit          support may call create-ticket three times a minute

keys
{shown}

a call
{curl(endpoint, keys["support"], "tools/call", call)}

for an MCP client
{json.dumps(snippet, indent=2)}

Ctrl-C ends it all."""
