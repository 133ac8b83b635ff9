"""Processes as their operators see them: who dies, who comes back, what a signal does."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes.gateway_process import Process, alive, running, until


def slow_call(gateway: Process, seconds: float) -> tuple[threading.Thread, list[Any]]:
    """A call under way in a thread, and where its answer will be."""
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(gateway.get(f"/slow?{seconds}", timeout=10))
        except (OSError, http.client.HTTPException) as wrong:
            found.append(wrong)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: gateway.metric("fastgw_in_flight") >= 1)
    return thread, found


def test_a_killed_worker_comes_back_and_the_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        first, other = gateway.child("worker-1"), gateway.child("worker-2")
        os.kill(first, signal.SIGKILL)
        until(lambda: gateway.child("worker-1") not in (0, first))
        gateway.ready(2)
        assert gateway.child("worker-2") == other
        assert gateway.metric("fastgw_worker_restarts_total") == 1
        until(lambda: gateway.get()["pid"] == gateway.child("worker-1"))


def test_a_worker_that_keeps_dying_is_started_again_and_again(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        for death in range(1, 4):
            pid = until(lambda: gateway.child("worker-1"))
            os.kill(pid, signal.SIGKILL)
            until(lambda death=death: gateway.metric("fastgw_worker_restarts_total") == death)
        gateway.ready()
        assert gateway.popen.poll() is None


def test_workers_serve_while_the_controller_is_dead_and_take_the_next_ones_snapshot(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        before = gateway.get()
        controller = gateway.child("controller")
        os.kill(controller, signal.SIGKILL)
        assert gateway.get()["word"] == "first"
        until(lambda: gateway.child("controller") not in (0, controller))
        gateway.ready()
        until(lambda: gateway.get()["active"] > before["active"])


def test_a_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        children = gateway.children()
        assert len(children) == 4
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.popen.wait()
        until(lambda: not any(alive(pid) for pid in children))


@pytest.mark.parametrize("to_group", [False, True], ids=["SIGTERM to the supervisor", "SIGINT to the group"])
def test_a_stop_answers_the_call_and_ends_the_stream(tmp_path: Path, to_group: bool) -> None:
    with running(tmp_path) as gateway:
        idle = gateway.connect()
        idle.request("GET", "/")
        idle.getresponse().read()
        stream = gateway.connect()
        stream.request("GET", "/stream")
        events = stream.getresponse()
        assert events.readline() == b": hello\n"
        thread, found = slow_call(gateway, 1.0)
        if to_group:
            os.killpg(gateway.pid, signal.SIGINT)
        else:
            os.kill(gateway.pid, signal.SIGTERM)
        until(lambda: gateway.ask("/readyz")[0] == 503)
        assert events.read() == b"\n: bye\n\n"
        thread.join(10)
        assert found[0]["word"] == "first"
        assert gateway.popen.wait(10) == 0


def test_answers_while_draining_close_their_connection(tmp_path: Path) -> None:
    with running(tmp_path, workers=1) as gateway:
        idle = gateway.connect()
        idle.request("GET", "/")
        assert idle.getresponse().read()
        thread, _ = slow_call(gateway, 1.5)
        os.kill(gateway.pid, signal.SIGTERM)
        until(lambda: gateway.ask("/readyz")[0] == 503)
        idle.request("GET", "/")
        assert idle.getresponse().getheader("connection") == "close"
        thread.join()
        assert gateway.popen.wait(10) == 0


def test_a_call_longer_than_the_drain_does_not_hold_the_exit_up(tmp_path: Path) -> None:
    with running(tmp_path, drain=0.5) as gateway:
        thread, _ = slow_call(gateway, 30)
        begun = time.monotonic()
        os.kill(gateway.pid, signal.SIGTERM)
        assert gateway.popen.wait(10) == 0
        assert time.monotonic() - begun < 8
        thread.join()


def test_stopped_workers_do_not_hold_the_exit_up(tmp_path: Path) -> None:
    with running(tmp_path, drain=0.3) as gateway:
        children = gateway.children()
        os.kill(gateway.child("worker-1"), signal.SIGSTOP)
        os.kill(gateway.pid, signal.SIGTERM)
        assert gateway.popen.wait(8) == 0
        assert not any(alive(pid) for pid in children)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path, drain=20) as gateway:
        thread, _ = slow_call(gateway, 30)
        os.kill(gateway.pid, signal.SIGINT)
        until(lambda: gateway.ask("/readyz")[0] == 503)
        begun = time.monotonic()
        while gateway.popen.poll() is None:
            os.kill(gateway.pid, signal.SIGINT)
            assert time.monotonic() - begun < 10
            select_for(0.1)
        thread.join()


def select_for(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_a_port_in_use_is_told_in_one_line_before_anything_is_forked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "told.json"
        file.write_text(f'{{"data": "{tmp_path}", "word": "w", "port": {port}}}')
        ended = subprocess.run(
            [sys.executable, "-m", "tests.processes.trivial", str(file)], capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    assert ended.stderr == f"listen: 127.0.0.1:{port} cannot be taken: Address already in use\n"


def test_the_port_of_another_gateway_is_in_use_too(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        file = tmp_path / "second.json"
        file.write_text(f'{{"data": "{tmp_path}", "word": "w", "port": {gateway.address.split(":")[1]}}}')
        ended = subprocess.run(
            [sys.executable, "-m", "tests.processes.trivial", str(file)], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1
        assert "Address already in use" in ended.stderr


def test_reload_applies_what_can_be_and_says_what_cannot(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.write(word="second", workers=3)
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: gateway.get()["word"] == "second")
        assert len(gateway.children()) == 4
        until(lambda: "`workers` has changed" in gateway.log.read_text())


def test_a_bad_configuration_keeps_the_old_one(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.file.write_text("{")
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: gateway.metric('fastgw_reloads_total{outcome="refused"}') == 1)
        gateway.write(word="broken")
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: gateway.metric('fastgw_reloads_total{outcome="refused"}') == 2)
        assert gateway.metric("fastgw_snapshot_failures_total") == 1
        assert gateway.get()["word"] == "first"


def test_a_controller_that_is_started_again_begins_with_what_was_applied_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        with running(tmp_path) as gateway:
            for word in ("second", "broken"):
                gateway.write(word=word)
                os.kill(gateway.pid, signal.SIGHUP)
                while not heard.recv(4096).startswith(b"RELOADING=1"):
                    pass
                assert heard.recv(4096).startswith(b"READY=1")  # the supervisor knows what became of it
            before, controller = gateway.get(), gateway.child("controller")
            assert before["word"] == "second"
            os.kill(controller, signal.SIGKILL)
            until(lambda: gateway.get()["active"] > before["active"])
            assert gateway.get()["word"] == "second"
            assert gateway.metric("fastgw_snapshot_failures_total") == 0
