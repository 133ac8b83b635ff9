"""Two workers as one: what either is told, both know."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from granian.constants import HTTPModes, Interfaces

from fastgw.processes.listener import MOST_CONNECTIONS, EmbeddedServer
from tests.processes.gateway_process import Process, running, until


def on_both(gateway: Process, path: str = "/") -> dict[int, dict[str, object]]:
    """The answers of both workers, each on a fresh connection."""
    found: dict[int, dict[str, object]] = {}

    def asked() -> bool:
        said = gateway.get(path)
        found[said["pid"]] = said
        return len(found) == 2

    until(asked)
    return found


def test_the_embedded_server_has_what_we_use() -> None:
    """Granian's embedded server is experimental: what we lean on is named here."""

    async def app(*_: object) -> None:
        pass

    server = EmbeddedServer(app, 0)
    assert server.interface is Interfaces.ASGINL
    assert server.http is HTTPModes.http1
    assert server.backpressure == MOST_CONNECTIONS
    assert server.websockets is False
    assert server.workers == 1
    assert not server.interrupt_signal
    assert not server.wrks
    server.stop()
    assert server.interrupt_signal
    assert callable(server.serve)
    assert server.ssl_ctx[:3] == (False, None, None)
    server._init_shared_socket()
    assert server._shd is not None
    assert server._shd.get_fd() == 0


def test_an_ended_session_is_known_to_both_workers_when_the_answer_comes(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        for number in range(10):
            gateway.get(f"/end?session-{number}")
            for said in on_both(gateway).values():
                assert f"session-{number}" in said["over"]


def test_an_ended_session_outlives_workers_and_controller(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.get("/end?gone")
        workers = [gateway.child("worker-1"), gateway.child("worker-2")]
        for pid in [gateway.child("controller"), *workers]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: gateway.child("worker-1") not in (0, *workers) and gateway.child("worker-2") not in (0, *workers))
        gateway.ready()
        for said in on_both(gateway).values():
            assert said["over"] == ["gone"]


def test_a_session_ended_while_the_controller_is_away_is_told_later(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        os.kill(gateway.child("controller"), signal.SIGKILL)
        gateway.get("/end?gone")
        until(lambda: all("gone" in said["over"] for said in on_both(gateway).values()))


def test_a_cancel_reaches_the_other_worker(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        sender = gateway.get("/cancel?7")["pid"]
        other = next(pid for pid in (gateway.child("worker-1"), gateway.child("worker-2")) if pid != sender)
        until(lambda: on_both(gateway)[other]["withdrawn"] == ["s 7"])
        assert on_both(gateway)[sender]["withdrawn"] == []


def test_questions_are_answered_and_faults_come_through(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        assert gateway.get("/open?agent:a")["session"] == f"open_session agent:a {gateway.child('controller')}"
        assert gateway.get("/open?nobody")["fault"] == ["no_server", "no such server"]


def test_metrics_and_readiness_answer_while_both_workers_are_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        for _ in range(20):
            gateway.get("/count")
        until(lambda: gateway.metric('fastgw_requests_total{endpoint="/count",method="GET",outcome="ok"}') == 20)
        for role in ("worker-1", "worker-2"):
            os.kill(gateway.child(role), signal.SIGSTOP)
        begun = time.monotonic()
        status, text = gateway.ask("/metrics")
        assert time.monotonic() - begun < 1
        assert status == 200
        assert re.search(r'^fastgw_requests_total\{endpoint="/count",method="GET",outcome="ok"\} 20$', text, re.M)


def test_counts_of_a_dead_worker_stay(tmp_path: Path) -> None:
    line = 'fastgw_requests_total{endpoint="/count",method="GET",outcome="ok"}'
    with running(tmp_path) as gateway:
        for _ in range(10):
            gateway.get("/count")
        until(lambda: gateway.metric(line) == 10)
        for role in ("worker-1", "worker-2"):
            os.kill(gateway.child(role), signal.SIGKILL)
        until(lambda: gateway.metric("fastgw_worker_restarts_total") == 2)
        assert gateway.metric(line) == 10


def test_3000_idle_connections_do_not_delay_a_new_one(tmp_path: Path) -> None:
    host = "127.0.0.1"
    with running(tmp_path) as gateway:
        port = int(gateway.address.split(":")[1])
        idle = []
        try:
            for _ in range(3000):
                idle.append(socket.create_connection((host, port), 5))
            begun = time.monotonic()
            for _ in range(4):
                gateway.get()
            assert time.monotonic() - begun < 3
        finally:
            for connection in idle:
                connection.close()


def test_a_usage_reader_that_stops_delays_no_call_and_no_exit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stdout.log")
    reader = os.open(tmp_path / "stdout.log", os.O_RDWR | os.O_NONBLOCK)
    try:
        with running(tmp_path, sinks=["stdout"]) as gateway:
            for _ in range(20):
                begun = time.monotonic()
                gateway.get("/usage?5000")
                assert time.monotonic() - begun < 3
            until(lambda: gateway.metric('fastgw_usage_sink_lag_seconds{sink="stdout"}') > 0)
            assert gateway.get()["word"] == "first"
            os.kill(gateway.pid, signal.SIGTERM)
            assert gateway.popen.wait(10) == 0
    finally:
        os.close(reader)


def test_lines_of_two_workers_never_mix_and_none_is_lost_at_the_stop(tmp_path: Path) -> None:
    with running(tmp_path, sinks=["file:usage.jsonl"]) as gateway:
        on_both(gateway, "/usage?400")
        sent = 0
        for _ in range(6):
            sent += 400
            gateway.get("/usage?400")
        os.kill(gateway.pid, signal.SIGTERM)
        assert gateway.popen.wait(10) == 0
    lines = (tmp_path / "data" / "usage.jsonl").read_bytes().splitlines()
    events = [json.loads(line) for line in lines]
    assert len(events) >= sent + 800
    assert len({event["pid"] for event in events}) == 2


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_a_foreign_host_is_refused_on_the_admin_port(tmp_path: Path, host: str) -> None:
    with running(tmp_path, workers=1) as gateway:
        assert gateway.ask("/metrics", Host=host)[0] == 421
