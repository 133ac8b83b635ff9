"""That the servers and proxies of these tests do what tests of stores take for granted."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.limits.slow_proxy import SlowProxy
from tests.limits.tls_proxy import TlsProxy
from tests.limits.valkeys import WITHIN, Cluster, Sentinels, Valkey, kept_port

ROOT = Path(__file__).resolve().parents[2]
IMPATIENT = 0.1  # seconds, for an answer that does not come
ENDS_NOTHING = """
from tests.limits.valkeys import Valkey
server = Valkey()
server.start()
server.stop_answering()
print(server.pid)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


@pytest.fixture
def proxy(server: Valkey) -> Iterator[SlowProxy]:
    with SlowProxy(server.port) as listening:
        yield listening


@pytest.fixture(scope="module")
def groups() -> Iterator[tuple[Sentinels, Cluster, Cluster]]:
    """Those of several servers, started at the same time: most of a start is waiting."""
    groups = (
        Sentinels(requirepass="secret", sentinel_password="other"),
        Cluster(),
        Cluster(replicas=1, requirepass="secret"),
    )
    with ExitStack() as stack:
        for group in groups:
            stack.callback(group.end)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda group: group.start(), groups))
        yield groups


def once(url: str, **more: object) -> redis.Redis:
    """A client of one connection, that tries once."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), single_connection_client=True, **more)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=WITHIN)


def said(asking: socket.socket, request: bytes, *, within: float = WITHIN) -> bytes | None:
    """The answer, None where there is none within so many seconds."""
    asking.sendall(request)
    asking.settimeout(within)
    try:
        return asking.recv(99)
    except TimeoutError:
        return None
    finally:
        asking.settimeout(WITHIN)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestValkey:
    def test_it_answers_at_its_url_and_leaves_nothing(self) -> None:
        with Valkey() as server:
            pid, folder = server.pid, Path(server.ask("CONFIG GET", "dir")["dir"])
            with once(server.url) as client:
                assert client.set("key", "value")
            assert server.client().get("key") == b"value"
            assert server.ask("INFO", "server")["process_id"] == pid
            assert folder.is_dir()
        assert gone(pid)
        assert not folder.exists()

    def test_a_unix_socket_and_no_port(self, tmp_path: Path) -> None:
        file = tmp_path / "valkey.sock"
        with Valkey(socket=file) as server:
            assert server.url == f"unix://{file}"
            assert server.client().ping()
            assert server.ask("INFO", "server")["tcp_port"] == 0
        assert not file.exists()

    def test_options_are_lines_of_its_file(self) -> None:
        users = ["eve on >pw ~eve:* +get", "adam on nopass ~* +@all"]
        with Valkey(maxmemory="4mb", maxmemory_policy="noeviction", requirepass="p@ss/word", user=users) as server:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                server.client().set("key", bytes(1 << 23))
                server.client().set("key", "more")
            with (
                once(server.url, username="eve", password="pw") as eve,
                pytest.raises(redis.exceptions.NoPermissionError),
            ):
                eve.get("adam:key")
            with pytest.raises(redis.exceptions.AuthenticationError):
                once(server.url, password="another").ping()

    def test_a_refused_option_is_told_with_the_log(self) -> None:
        with pytest.raises(RuntimeError, match="'no-such-option 1'"), Valkey(no_such_option=1):
            pass

    def test_killed_and_started_again_it_is_empty_at_the_same_url(self) -> None:
        with Valkey() as server:
            url, pid = server.url, server.pid
            server.client().set("key", "value")
            server.kill()
            assert gone(pid)
            assert not server.runs
            with pytest.raises(redis.ConnectionError):
                once(url).ping()
            server.restart()
            with once(url) as client:
                assert client.get("key") is None

    @pytest.mark.skipif(sys.platform != "linux", reason="ports are shared otherwise elsewhere")
    def test_nobody_takes_its_port_while_it_is_down(self) -> None:
        with Valkey() as server, socket.socket() as other:
            server.kill()
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", server.port))

    def test_it_stops_answering_and_goes_on(self) -> None:
        with Valkey() as server, once(server.url, socket_timeout=IMPATIENT) as client:
            server.client().set("key", 1)
            server.stop_answering()
            assert server.runs
            assert not server.answers
            with pytest.raises(redis.TimeoutError):
                client.incr("key")
            server.go_on()
            assert server.client().incr("key") == 3, "what was asked meanwhile was not done"

    def test_it_ends_with_the_interpreter(self) -> None:
        asked = subprocess.run([sys.executable, "-c", ENDS_NOTHING], cwd=ROOT, capture_output=True, timeout=30)
        assert asked.returncode == 0, asked.stderr
        assert gone(int(asked.stdout))


class TestSentinels:
    def test_a_replica_takes_the_place_of_its_primary(self, groups: tuple[Sentinels, Cluster, Cluster]) -> None:
        watched, _, _ = groups
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in watched.sentinels)
        assert watched.url == f"redis+sentinel://{addresses}/mymaster"
        first = watched.primary()
        first.client().set("key", "value")
        assert first.client().wait(1, 5000) == 1
        assert watched.kill_primary() is first
        new = watched.await_failover(first)
        assert new is not first
        assert new is watched.primary()
        assert new.client().get("key") == b"value"
        assert new.client().set("key", "other")


class TestCluster:
    def test_three_primaries_share_the_keys(self, groups: tuple[Sentinels, Cluster, Cluster]) -> None:
        _, cluster, _ = groups
        assert cluster.url == "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        holders = {key: cluster.node_of(key) for key in ("a", "b", "c", "d")}
        assert set(holders.values()) == set(cluster.nodes)
        with redis.RedisCluster("127.0.0.1", cluster.nodes[0].port) as client:
            assert all(client.set(key, 1) for key in holders)
        for key, holder in holders.items():
            for node in cluster.nodes:
                if node is holder:
                    assert node.client().get(key) == b"1"
                else:
                    with pytest.raises(redis.exceptions.MovedError):
                        node.client().get(key)

    def test_a_replica_takes_the_place_of_its_primary(self, groups: tuple[Sentinels, Cluster, Cluster]) -> None:
        _, _, cluster = groups
        old = cluster.node_of("key")
        old.client().set("key", "value")
        assert old.client().wait(1, 5000) == 1
        cluster.kill(old)
        cluster.await_failover(old)
        assert cluster.node_of("key") is not old
        assert cluster.node_of("key").client().get("key") == b"value"


class TestTlsProxy:
    def test_who_knows_its_ca_speaks_through_it(self, server: Valkey) -> None:
        with TlsProxy(server.port) as proxy:
            assert proxy.url == f"rediss://127.0.0.1:{proxy.port}/0"
            for host in ("127.0.0.1", "localhost"):
                with once(f"rediss://{host}:{proxy.port}/0", ssl_ca_certs=str(proxy.ca)) as client:
                    assert client.echo(bytes(1 << 20)) == bytes(1 << 20)
        assert not proxy.ca.exists()

    def test_the_strictest_client_accepts_it(self, server: Valkey) -> None:
        with TlsProxy(server.port) as proxy:
            context = ssl.create_default_context(cafile=str(proxy.ca))
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            with context.wrap_socket(connected(proxy.port), server_hostname="localhost") as asking:
                asking.sendall(b"PING\r\n")
                assert asking.recv(7) == b"+PONG\r\n"

    def test_who_does_not_know_it_is_warned(self, server: Valkey) -> None:
        with TlsProxy(server.port) as proxy, pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            once(proxy.url).ping()


class TestSlowProxy:
    def test_it_passes_on(self, proxy: SlowProxy) -> None:
        assert proxy.url == f"redis://127.0.0.1:{proxy.port}/0"
        with once(proxy.url) as client:
            assert client.echo(bytes(1 << 20)) == bytes(1 << 20)

    def test_each_answer_is_held_back_for_a_time(self, proxy: SlowProxy) -> None:
        with connected(proxy.port) as asking:
            proxy.delay(0.05)
            begun = time.monotonic()
            assert said(asking, b"PING\r\n") == b"+PONG\r\n"
            assert time.monotonic() - begun >= 0.05

    def test_answers_held_come_when_it_passes_on(self, proxy: SlowProxy, server: Valkey) -> None:
        server.client().set("key", 1)
        with connected(proxy.port) as before:
            proxy.hold()
            with connected(proxy.port) as after:
                for asking in (before, after):
                    assert said(asking, b"INCR key\r\n", within=IMPATIENT) is None
                assert server.client().get("key") == b"3", "the requests have gone through"
                proxy.pass_on()
                assert {before.recv(99), after.recv(99)} == {b":2\r\n", b":3\r\n"}

    def test_connections_are_closed_at_once(self, proxy: SlowProxy) -> None:
        with once(proxy.url) as client:
            assert client.ping()
            proxy.refuse()
            with pytest.raises(redis.ConnectionError):
                client.ping()
            with pytest.raises(redis.ConnectionError):
                once(proxy.url).ping()
            proxy.pass_on()
            assert client.ping()

    def test_answers_are_garbled(self, proxy: SlowProxy) -> None:
        with once(proxy.url) as client, connected(proxy.port) as asking:
            assert client.ping()
            proxy.garble(b"!?\r\n")
            assert said(asking, b"PING\r\n") == b"!?\r\n"
            with pytest.raises(redis.RedisError):
                client.ping()

    def test_a_dead_server_is_a_closed_connection(self) -> None:
        with kept_port() as nobody, SlowProxy(nobody.getsockname()[1]) as proxy, connected(proxy.port) as asking:
            assert asking.recv(1) == b""

    def test_closed_it_leaves_nothing(self, server: Valkey) -> None:
        before = set(threading.enumerate())
        proxy = SlowProxy(server.port)
        with connected(proxy.port) as asking:
            assert said(asking, b"PING\r\n") == b"+PONG\r\n"
            proxy.hold()
            asking.sendall(b"PING\r\n")
            proxy.close()
            proxy.close()
            assert asking.recv(1) == b""
        assert set(threading.enumerate()) == before
        with pytest.raises(ConnectionRefusedError):
            connected(proxy.port)
