"""The supervisor: reads the configuration, forks the controller and the workers, watches them, decides about stopping.

It waits in one place, starts no thread, keeps no state that a child would need, and never gives up.

    running  -- SIGHUP -->        running   (the controller reads the configuration again)
    running  -- child ends -->    running   (started again, after a pause that grows while it keeps dying young)
    running  -- SIGTERM/INT -->   draining  (workers finish, no child is started again)
    draining -- workers ended --> stopping  (controller and usage process end what they have in hand)
    stopping -- these ended -->   exit 0   (the store of this machine ends last, with its file whole)
    draining, stopping -- second signal, or the time is up --> what is left is killed
"""

from __future__ import annotations

import gc
import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastgw.config.addresses import authority
from fastgw.config.files import ConfigFiles
from fastgw.limits import embedded
from fastgw.processes import child, controller, service_manager, usage, worker
from fastgw.processes.kept import sealing_keys
from fastgw.processes.plan import Factories, Plan, StoreAccess
from fastgw.processes.quarantine import Quarantine, shared_slots
from fastgw.processes.sockets import Sockets
from fastgw.telemetry import logs

log = logging.getLogger("fastgw")

YOUNG = 5.0
"""Seconds; a child that lived longer starts anew without a pause."""
PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a child is started again, by how often it died young."""
BROKEN_AFTER = 2
"""Times in a row that a store ends by itself right after its start, before its file is held to be the reason."""
OVER = 0.7
"""Seconds workers get on top of the drain before they are killed."""
FLUSH_WITHIN = 1.2
"""Seconds controller and usage process get to write what they have; with `OVER` below the 2 s that are promised."""
KILLED_WITHIN = 0.5
"""Seconds a killed process gets to be gone: one whose disk does not answer is not before that does."""
SAME_BURST = 0.5
"""Seconds in which a second signal is the echo of the first: a terminal and a parent both pass one on."""


@dataclass(eq=False)
class ChildProcess:
    """One place in the set of processes, whoever fills it at the moment."""

    role: str
    work: Callable[[socket.socket], None]
    pid: int = 0
    control: socket.socket | None = None
    born: float = 0.0
    young_deaths: int = 0
    due: float = 0.0

    def send(self, words: str) -> None:
        """Send a line; a child that is gone or does not read hears nothing."""
        if self.control is not None:
            with suppress(OSError):
                self.control.send(words.encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def hear(self) -> list[str]:
        """The lines that have come; none any more where it has closed its end."""
        assert self.control is not None
        try:
            heard = self.control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            heard = b""
        if not heard:
            self.control.close()
            self.control = None
        return heard.decode().splitlines()


class Supervisor:
    """The set of processes of one gateway."""

    def __init__(self, parts: Factories, plan: Plan, places: Sockets) -> None:
        self._parts = parts
        self._plan = plan
        self._pid = os.getpid()
        self._addresses = authority(*places.address), authority(*places.admin_address)
        keys = sealing_keys(plan.secrets, plan.data)
        self._controller = ChildProcess("controller", lambda own: controller.run(parts, self._plan, keys, places, own))
        self._store_folder, self._store_socket = plan.data / "store", places.store
        self._store = []
        if places.store is not None:
            self._store.append(ChildProcess("store", _store(Path(places.store), self._store_folder)))
        self._usage = ChildProcess("usage", lambda own: usage.run(self._plan, places, own))
        spool = plan.data / "usage" / "spool"
        addresses = (places.address, places.link, spool)
        store = StoreAccess(plan.store, places.store, plan.workers, data=plan.data)
        self._slots = [shared_slots() for _ in range(plan.workers)]
        self._quarantine = Quarantine()
        self._workers = [
            ChildProcess(f"worker-{number}", partial(worker.run, parts, number, addresses, store, slots))
            for number, slots in enumerate(self._slots, 1)
        ]
        self._children = [*self._store, self._controller, self._usage, *self._workers]
        self._signals: list[int] = []
        self._restarts = [0, 0, 0, 0]
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._hurried = False
        self._ignore_signals_until = 0.0

    def run(self) -> int:
        """Watch over the children until told to stop; the exit status."""
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        gc.freeze()
        for one in (*self._store, self._controller, self._usage):
            self._start(one)
        # What workers alone need is imported while the controller compiles and asks servers for their lists.
        self._parts.load(self._plan)
        scheme = "http" if self._plan.tls is None else "https"
        log.info("agents: %s://%s  operators: http://%s", scheme, *self._addresses)
        gc.freeze()
        gc.enable()
        for one in self._workers:
            self._start(one)
        while not self._is_ending():
            self._reap()
            now = time.monotonic()
            for one in self._children:
                if not one.pid and now >= one.due:
                    self._start(one)
            due = [one.due for one in self._children if not one.pid]
            if (ends := self._quarantine.ends()) is not None:
                due.append(ends)
                if ends <= now:
                    self._send_quarantine()
                    continue
            self._sleep(max(0.0, min(due) - time.monotonic()) if due else None)
        return self._stop()

    # -- starting ------------------------------------------------------------------------------------------------

    def _start(self, one: ChildProcess) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._run_child(one, ours, theirs)
        theirs.close()
        one.pid, one.control, one.born, one.due = pid, ours, time.monotonic(), 0.0
        self._send_restarts()
        if one in self._workers and self._quarantine.ends() is not None:
            self._send_quarantine()

    def _run_child(self, one: ChildProcess, ours: socket.socket, theirs: socket.socket) -> None:
        """The child's whole life; never returns, so that nothing of the supervisor runs twice."""
        status = 1
        try:
            child.become(one.role, self._pid)
            # An end of a pipe held by a sibling would outlive the supervisor and hide its death.
            for held in [ours, *(other.control for other in self._children if other.control is not None)]:
                held.close()
            os.close(self._wake[0])
            os.close(self._wake[1])
            logs.configure(one.role, *self._plan.log, logs.NonBlockingHandler())
            one.work(theirs)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, the child ends here
            log.critical("ended: %s", traceback.format_exc())
        finally:
            logging.shutdown()
            os._exit(status)

    # -- watching ------------------------------------------------------------------------------------------------

    def _sleep(self, seconds: float | None) -> None:
        """Until a signal (a child's end is one) or a word of the controller, or the time has come."""
        heard: list[int | socket.socket] = [self._wake[0]]
        if self._controller.control is not None:
            heard.append(self._controller.control)
        if self._signals:
            return
        found = select.select(heard, [], [], seconds)[0]
        if self._wake[0] in found:
            with suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
        if self._controller.control in found:
            self._hear_controller()

    def _hear_controller(self) -> None:
        for words in self._controller.hear():
            if words == "reloaded applied":
                self._follow()
            if not self._stopping:
                service_manager.ready("the configuration was refused" if "refused" in words else "serving")

    def _follow(self) -> None:
        """A controller that is started again must not take a reload back: it begins with what was applied last."""
        try:
            plan = self._plan.reloaded(self._parts.read(ConfigFiles()))
        except Exception as wrong:  # noqa: BLE001 - it has changed once more: the controller says what is wrong with it
            log.debug("the configuration is not applied: %s", wrong)
            return
        of_usage = [(one.usage.keep, one.usage.sinks, one.traces) for one in (plan, self._plan)]
        if of_usage[0] != of_usage[1]:
            self._usage.send("stop")
        if plan.log != self._plan.log:
            logs.change(*plan.log)
            for one in (self._usage, *self._workers):  # the controller knows
                one.send("log {} {}".format(*plan.log))
        self._plan = plan

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for one in self._children:
                    if one.pid == ended[0]:
                        self._child_ended(one, os.waitstatus_to_exitcode(ended[1]))

    def _child_ended(self, one: ChildProcess, code: int) -> None:
        one.pid = 0
        if one.control is not None:
            one.control.close()
            one.control = None
        if self._stopping or (one is self._usage and code == 0):  # then a reload wants it to begin anew
            return
        now = time.monotonic()
        one.young_deaths = 0 if now - one.born > YOUNG else one.young_deaths + 1
        pause = PAUSES[min(one.young_deaths, len(PAUSES)) - 1] if one.young_deaths else 0.0
        one.due = now + pause
        singles = {"controller": 1, "store": 2, "usage": 3}
        self._restarts[singles.get(one.role, 0)] += 1
        if one in self._workers and self._quarantine.worker_ended(self._slots[self._workers.index(one)], code, now):
            self._send_quarantine()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        log.error("%s %s; it is started again in %g s", one.role, how, pause)
        if one in self._store and code > 0 and one.young_deaths >= BROKEN_AFTER:
            self._set_store_aside()
        self._send_restarts()

    def _set_store_aside(self) -> None:
        try:
            aside = embedded.set_aside(self._store_folder)
        except OSError as wrong:
            aside = None
            log.critical("the store's file cannot be put aside: %s", wrong)
        if aside is not None:
            log.critical("the store cannot read its file: what quotas have spent is lost; it is kept as %s", aside)

    def _send_restarts(self) -> None:
        self._controller.send("restarts " + " ".join(map(str, self._restarts)))

    def _send_quarantine(self) -> None:
        fingerprints = self._quarantine.refused(time.monotonic())
        for one in self._workers:
            one.send("quarantine " + " ".join(map(str, fingerprints)))

    # -- stopping ------------------------------------------------------------------------------------------------

    def _is_ending(self) -> bool:
        """Whether a signal says stop; others are followed."""
        while self._signals:
            if self._signals.pop(0) != signal.SIGHUP:
                return True
            service_manager.reloading()
            self._controller.send("reload")
        return False

    def _stop(self) -> int:
        self._stopping = True
        service_manager.stopping()
        seconds = self._plan.drain
        self._ignore_signals_until = time.monotonic() + SAME_BURST
        log.info("stopping: calls in flight have %g s", seconds)
        for one in self._children:
            one.send(f"drain {seconds}")
        whole = self._await(self._workers, seconds + OVER)
        last = [self._controller, self._usage]
        for one in last:
            one.send("stop")
        whole = self._await(last, FLUSH_WITHIN if whole else 0.3) and whole
        if self._store_socket is not None:
            embedded.end(Path(self._store_socket))
            self._await(self._store, embedded.ANSWERS_WITHIN)
        if not whole:
            log.warning("not everything ended in time; it was killed")
        return 0 if not self._hurried else 1

    def _await(self, those: list[ChildProcess], seconds: float) -> bool:
        """Wait until all of them have ended; whether they did so by themselves."""
        until = time.monotonic() + seconds
        while any(one.pid for one in those):
            self._reap()
            left = until - time.monotonic()
            if left <= 0 or self._hurry():
                self._kill(those)
                return False
            if any(one.pid for one in those):
                self._sleep(left)
        return True

    def _hurry(self) -> bool:
        while self._signals:
            number = self._signals.pop(0)
            if number != signal.SIGHUP and time.monotonic() > self._ignore_signals_until:
                self._hurried = True
        return self._hurried

    def _kill(self, those: list[ChildProcess]) -> None:
        for one in those:
            if one.pid:
                os.kill(one.pid, signal.SIGKILL)
        until = time.monotonic() + KILLED_WITHIN
        while any(one.pid for one in those) and time.monotonic() < until:
            time.sleep(0.005)
            self._reap()
        for one in those:
            one.pid = 0


def _store(path: Path, folder: Path) -> Callable[[socket.socket], None]:
    program = embedded.program()

    def work(_: object) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)  # of one that was killed
        # It would end at a Ctrl-C or when a service manager ends the group, before calls in flight have.
        signal.pthread_sigmask(signal.SIG_BLOCK, child.QUIET)
        command = embedded.command(program, path, folder)
        os.execv(command[0], command)

    return work


def launch(parts: Factories) -> int:
    """Run the gateway until it is told to stop; the exit status.

    Raises:
        OSError: a port is in use or may not be taken, or `data` cannot be written; raised before anything is forked.
        Exception: whatever `parts.read` raises for a bad configuration.
    """
    plan = parts.read(ConfigFiles())
    logs.configure("supervisor", *plan.log)
    plan.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix=f"fastgw-{os.getpid()}-"))
    try:
        for left in folder.parent.glob("fastgw-*-*"):  # of supervisors that were killed
            pid = left.name.split("-")[1]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(left, ignore_errors=True)
        places = Sockets.take(plan, folder)
        return Supervisor(parts, plan, places).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
