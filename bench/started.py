"""Processes of a benchmark: started on free ports of 127.0.0.1, ended by their own pid when the run is over."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

START = 30.0
"""Seconds from start to readiness."""
STOP = 40.0
"""Seconds from SIGTERM to the end; a gateway may drain for 30."""
ROOT = Path(__file__).resolve().parent.parent


class NotStarted(Exception):
    """A process of the benchmark did not come up; the text is the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process tree and the port it answers on."""

    pid: int
    port: int


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether a connection to 127.0.0.1:port is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, ready: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a command until the block ends; gives its pid once `ready` says yes. Both its outputs go to `log`.

    Raises:
        NotStarted: it ended, or was not ready within `START`.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, env=environment
        )
    try:
        deadline = time.monotonic() + START
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-2000:]
                raise NotStarted(f"{' '.join(command)}: exit code {process.returncode}\n{end}")
            time.sleep(0.05)
        yield process.pid
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        print(f"pid {process.pid} did not end within {STOP:g} s of SIGTERM and was killed", file=sys.stderr)
        process.kill()
        process.wait()
