"""One cell of the matrix: a fixture server of some era, a decoy of another, and the gateway before both.

Knows: how each is started, found ready and stopped. Refuses to know: what is then asked of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.suite import ROOT
from tests.e2e.ports import free_port

READY_WITHIN = 30
DECOY_ERA = {"legacy": "modern", "modern": "legacy", "dual": "legacy"}
"""The decoy is of another era than the fixture, so that one server of an old era shows if it drags the rest along."""

CONFIG = """\
listen: 127.0.0.1:{listen}
admin: 127.0.0.1:{admin}
public_url: http://localhost:{listen}
workers: 2
servers:
{servers}
endpoints:
  /mcp: {{naming: none, auth: none}}
"""


class StartError(Exception):
    """Something did not start; its last words are in the message."""


@contextlib.contextmanager
def process(order: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of ours, both its outputs in `log`; ended with its children when the block is left."""
    around = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
    with log.open("w") as words:
        started = subprocess.Popen(
            order, stdout=words, stderr=words, text=True, cwd=log.parent, env=around, start_new_session=True
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


@contextlib.contextmanager
def fixture(era: str, offer: str, place: Path) -> Iterator[int]:
    """The port of a fixture server.

    Raises:
        StartError: it ended before it said its port.
    """
    log = place / f"{offer}.txt"
    order = [sys.executable, "-m", "tests.conformance.fixture", "--era", era, "--offer", offer]
    with process(order, log) as started:
        until = time.monotonic() + READY_WITHIN
        while not (said := log.read_text()).partition("\n")[1]:
            if started.poll() is not None or time.monotonic() > until:
                raise StartError(f"the {offer} server did not start:\n{said[-2000:]}")
            time.sleep(0.02)
        yield int(said.partition("\n")[0])


def _ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def gateway(servers: dict[str, str], place: Path, more: str = "") -> Iterator[int]:
    """The port of a gateway with two workers before `servers` (URLs by name), which all have these further settings, as
    YAML writes them on one line. Its files are kept in `place`.

    Raises:
        StartError: it ended, or was not ready within `READY_WITHIN` seconds.
    """
    listen, admin = free_port(), free_port()
    written = "\n".join(f'  {name}: {{url: "{url}"{more}}}' for name, url in servers.items())
    (place / "fastgw.yaml").write_text(CONFIG.format(listen=listen, admin=admin, servers=written))
    log = place / "gateway.txt"
    order = [sys.executable, "-m", "fastgw", "run", "--config", str(place / "fastgw.yaml")]
    with process(order, log) as started:
        until = time.monotonic() + READY_WITHIN
        while not _ready(admin):
            if started.poll() is not None or time.monotonic() > until:
                raise StartError(f"the gateway was not ready:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield listen


@contextlib.contextmanager
def alone(era: str, place: Path) -> Iterator[str]:
    """The URL of a gateway with a fixture of `era` and nothing else behind it."""
    with fixture(era, "suite", place) as port, gateway({"fixture": f"http://127.0.0.1:{port}/mcp"}, place) as listen:
        yield f"http://localhost:{listen}/mcp"


@contextlib.contextmanager
def beside_decoy(era: str, place: Path) -> Iterator[str]:
    """The URL of a whole cell: gateway, fixture of `era`, decoy."""
    with fixture(era, "suite", place) as port, fixture(DECOY_ERA[era], "decoy", place) as other:
        servers = {"fixture": f"http://127.0.0.1:{port}/mcp", "decoy": f"http://127.0.0.1:{other}/mcp"}
        with gateway(servers, place) as listen:
            yield f"http://localhost:{listen}/mcp"


@contextlib.contextmanager
def direct(era: str, place: Path) -> Iterator[str]:
    """The URL of a fixture of `era`, nothing before it."""
    with fixture(era, "suite", place) as port:
        yield f"http://localhost:{port}/mcp"
