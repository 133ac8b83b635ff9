"""A forked process's first steps: it dies with the supervisor, leaves signals to it, and hears it on a pipe.

Lines on it: `drain SECONDS` · `reload` · `stop` · `log LEVEL FORM` · `restarts WORKERS CONTROLLERS STORES USAGE` ·
`quarantine FINGERPRINTS`. Its end means that the supervisor is gone. The controller answers: `ready` once agents are
served, `reloaded applied` and `reloaded refused`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("fastgw")

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

QUIET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C and service managers signal the whole group; the supervisor alone decides what that means."""


def become(role: str, parent: int) -> None:
    """Set this freshly forked process up; if the supervisor, pid `parent`, has gone already, it ends."""
    for number in QUIET:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    gc.enable()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_NAME, f"fastgw-{role}"[:15].encode())
    if os.getppid() != parent:
        os._exit(1)


def raise_files() -> None:
    """Allow as many open files as the hard limit does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _prctl(option: int, value: int | bytes) -> None:
    try:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        # Not Linux: the end of the supervisor's pipe tells the same, a little later.
        log.debug("prctl is not available")


def listen(control: socket.socket, on_command: Callable[[list[str]], None]) -> None:
    """Hear the supervisor from the running loop: `on_command` gets each line's words; its end is ours."""
    control.setblocking(False)
    rest = b""

    def ready() -> None:
        nonlocal rest
        try:
            piece = control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            os._exit(1)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            on_command(line.decode().split())

    asyncio.get_running_loop().add_reader(control.fileno(), ready)


def tell(control: socket.socket, words: str) -> None:
    """Send the supervisor a line."""
    with suppress(OSError):  # it is gone, which ends us anyway
        control.send(words.encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
