"""A disk that does not answer, for the calling process: the kernel holds its `fsync` until the block is left.

Nothing is replaced: a filter (seccomp, `SECCOMP_RET_USER_NOTIF`, Linux 5.5) asks us about each such call, and we do not
answer. It cannot be taken off again: for a process that ends after it. A thread held so can be killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import platform
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS = {"x86_64": (317, 74), "aarch64": (277, 82)}
"""Of the system calls seccomp and fsync."""
NO_NEW_PRIVS = 38
NEW_FILTER, ALL_THREADS, LISTENER, ALL_THREADS_AND_LISTENER = 1, 1, 8, 16
ASK, ALLOW = 0x7FC00000, 0x7FFF0000
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
GO_ON = 1
LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("steps", ctypes.c_void_p))


@contextmanager
def hanging() -> Iterator[None]:
    """Raises OSError where this kernel cannot do so."""
    listener = _filtered()
    try:
        yield
    finally:
        threading.Thread(target=_let_go, args=(listener,), daemon=True).start()


def _filtered() -> int:
    seccomp, fsync = NUMBERS.get(platform.machine(), (-1, -1))
    steps = ((LOAD, 0, 0, 0), (EQUALS, 0, 1, fsync), (RETURN, 0, 0, ASK), (RETURN, 0, 0, ALLOW))
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    flags = ALL_THREADS | LISTENER | ALL_THREADS_AND_LISTENER
    listener = int(libc.syscall(seccomp, NEW_FILTER, flags, ctypes.byref(program)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "no seccomp")
    return listener


def _let_go(listener: int) -> None:
    """Every call that waits, and every later one, goes on."""
    while True:
        asked = bytearray(80)
        fcntl.ioctl(listener, RECEIVE, asked)
        fcntl.ioctl(listener, ANSWER, bytearray(struct.pack("QqiI", struct.unpack_from("Q", asked)[0], 0, 0, GO_ON)))
