"""A trivial gateway as a process of its own, for tests: start it, ask it, look at its children, end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.forking import Forked
from tests.processes import trivial


def until(look: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What `look` returns as soon as it is true; fails when the time is up."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := look():
                return found
        assert time.monotonic() < end, f"not within {seconds} s: {look}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Process:
    """One running gateway."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self.folder = folder
        self.file = folder / "told.json"
        self.told = {"data": str(folder / "data"), "word": "first", **told}
        self.write()
        self.log = folder / "stderr.log"
        self.popen = Forked(trivial.main, [str(self.file)], folder, dict(os.environ))
        found = until(lambda: re.search(r"agents: http://(\S+)  operators: http://(\S+)", self.log.read_text()))
        self.address, self.admin = found.groups()

    def write(self, **told: Any) -> None:
        self.told.update(told)
        self.file.write_text(json.dumps(self.told))

    @property
    def pid(self) -> int:
        return self.popen.pid

    def child(self, role: str) -> int:
        """The pid of `controller`, `worker-1`, ...; 0 while there is none."""
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"fastgw-{role}"[:15]:
                    return int(pid)
        return 0

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def connect(self, timeout: float = 5.0) -> http.client.HTTPConnection:
        host, port = self.address.split(":")
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def get(self, path: str = "/", timeout: float = 5.0) -> dict[str, Any]:
        """A fresh connection, one request, its JSON."""
        connection = self.connect(timeout)
        try:
            connection.request("GET", path)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def ask(self, path: str, timeout: float = 5.0, **headers: str) -> tuple[int, str]:
        """The admin port: status and text."""
        host, port = self.admin.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self, seconds: float = 5.0) -> Process:
        workers = self.told.get("workers", 2)
        until(lambda: json.loads(self.ask("/readyz")[1])["workers"]["active"] == workers, seconds)
        until(lambda: self.ask("/readyz")[0] == 200, seconds)
        return self

    def metric(self, line: str) -> float:
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.ask("/metrics")[1], re.M)
        return float(found[1]) if found else 0.0

    def stop(self) -> None:
        for pid in [*(self.children() if alive(self.pid) else []), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


@contextlib.contextmanager
def running(folder: Path, **told: Any) -> Iterator[Process]:
    """A gateway of two workers, ready; killed at the end."""
    process = Process(folder, **told)
    try:
        yield process.ready()
    finally:
        process.stop()
