"""Processes forked from one that has imported what they need: imports are most of a start, and tests start hundreds."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

Command = Callable[[list[str]], int]
IMPORTED = ["fastgw.cli.run", "fastgw.processes.assembly", "fastgw.processes.supervisor", "tests.limits.worker"]


def forkserver() -> ForkServerContext:
    """The way to start such processes. They have none of our threads, and are children of the process that forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED])
    return context


class Forked:
    """A command of its own process group, as `subprocess.Popen` shows one.

    Args:
        command: what is run with `words`, those of a command line; what it returns is the exit code.
        folder: what it prints is appended to stdout.log and stderr.log there.
        environment: all of it.
    """

    def __init__(self, command: Command, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        for name in ("stdout.log", "stderr.log"):
            (folder / name).touch()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)  # what a child of this process would have
        self._process = forkserver().Process(
            target=_run, args=(command, words, folder, environment, files), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, as far as that is known; negative where a signal has ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("fastgw", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(
    command: Command,
    words: list[str],
    folder: Path,
    environment: dict[str, str],
    files: tuple[int, int],
) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    os.environ.clear()
    os.environ.update(environment)
    appending = os.O_WRONLY | os.O_APPEND
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, folder / "stdout.log", appending),
        (2, folder / "stderr.log", appending),
    ):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.exit(command(words))
