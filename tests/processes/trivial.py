"""A whole gateway process, its gateway and control plane trivial: `python -m tests.processes.trivial FILE` (JSON).

Paths: `/` says pid, generation and what it knows, `/slow?s` waits, `/stream` sends until the drain, `/end?id` ends a
session, `/usage?n` writes n events, `/die` kills nobody but raises.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastgw.config.schema.settings import SinkSettings, UsageSettings
from fastgw.errors import Fault, Kind
from fastgw.processes.plan import Factories, Plan, StoreAccess
from fastgw.processes.supervisor import launch
from fastgw.processes.token_issuers import TokenIssuers
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import ControllerPort, UpstreamSession


class Trivial:
    """Remembers what it is told."""

    def __init__(
        self,
        controller: ControllerPort,
        counters: Counters,
        tasks: BackgroundTasks,
        store: StoreAccess,
    ) -> None:
        self.controller, self.counters = controller, counters
        self.in_flight = 0
        self.snapshot: Any = None
        self.active = 0
        self.write_event: Callable[[bytes], object] = len
        self.over: set[str] = set()
        self.withdrawn: list[str] = []

    async def prepare(self) -> None:
        """Nothing is to be waited for."""

    def operate(self, verb: str, args: tuple[Any, ...], answer: Callable[[Any], object]) -> None:
        answer(None)

    def flush(self) -> None: ...

    def measure(self) -> None:
        """Has nothing to measure."""

    def expire(self) -> None:
        """Its calls are cut off."""

    def known_sessions(self) -> list[Any]:
        return []

    def load(self, snapshot: Any) -> None:
        self.snapshot = snapshot

    def activate(self, generation: int) -> None:
        self.active = generation

    def freshened(self, until: dict[str, float]) -> None:
        pass

    def instance_status(self, key: str, era: str, version: str) -> None:
        """Not looked at."""

    def issuer_keys(self, documents: dict[str, bytes]) -> None:
        """Not looked at."""

    def suspected(self, key: tuple[str, str], session: str) -> None:
        """Not looked at."""

    def quarantined(self, fingerprints: frozenset[int]) -> None:
        """Not looked at."""

    def breakers(self) -> list[Any]:
        return []

    def instance_health(self, key: str, *, healthy: bool, drained: bool) -> None:
        """Not looked at."""

    def breaker(self, key: str, news: Any) -> None:
        """Not looked at."""

    def leveled(self, session: str, level: str) -> None:
        """Not looked at."""

    def ended(self, session: str, seconds: float) -> None:
        self.over.add(session)

    def cancelled(self, session: str, request: bytes) -> bool:
        self.withdrawn.append(f"{session} {request.decode()}")
        return False

    async def app(self, life: Any, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.in_flight += 1
        try:
            await self.answer(scope["path"], scope["query_string"].decode(), send, life)
        finally:
            self.in_flight -= 1

    async def answer(self, path: str, query: str, send: Any, life: Any) -> None:
        self.counters.inc("fastgw_requests_total", path, "GET", "ok")
        if path == "/stream":
            await self.stream(send, life)
            return
        if path == "/slow":
            await asyncio.sleep(float(query))
        elif path == "/end":
            await self.controller.end_session(query, 60)
        elif path == "/cancel":
            self.controller.cancel("s", query.encode())
        elif path == "/usage":
            for number in range(int(query)):
                self.write_event(b'{"pid":%d,"n":%d,"pad":"%s"}' % (os.getpid(), number, b"x" * 200))
        said = await self.said(path, query)
        body = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if life.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def said(self, path: str, query: str) -> dict[str, Any]:
        said = {"pid": os.getpid(), "generation": self.snapshot["generation"], "active": self.active}
        said |= {"word": self.snapshot["word"], "over": sorted(self.over), "withdrawn": self.withdrawn}
        if path == "/open":
            try:
                said["session"] = (await self.controller.open_session("i", query)).id
            except Fault as fault:
                said["fault"] = [fault.kind.name.lower(), fault.detail]
        return said

    async def stream(self, send: Any, life: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        while not life.draining:
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b": bye\n\n"})


class FakeControlPlane:
    """Compiles whatever word stands in the file."""

    def __init__(self, plan: Plan) -> None:
        self.word = plan.settings["word"]
        self.servers: list[Any] = []
        self.health: Any = SimpleNamespace()
        self.token_issuers = TokenIssuers(plan.data, BackgroundTasks())
        self.questions = {"open_session": self.open_session, "end_session": lambda session: None}

    def meet(self, path: str, principal: Any) -> bool:
        return False

    def compile(self, generation: int) -> Any:
        if self.word == "broken":
            raise ValueError("cannot compile")
        return {"generation": generation, "word": self.word}

    def begin(self, *calls: Callable[..., None]) -> None:
        pass

    def instance_statuses(self) -> dict[str, tuple[str, str]]:
        return {}

    def reload(self, settings: Any) -> None:
        self.word = settings["word"]

    async def diff(self, settings: Any) -> dict[str, Any]:
        return {"settings": []}

    async def open_session(self, _: str, identity: str, dead: Any = None, headers: Any = None) -> UpstreamSession:
        if identity == "nobody":
            raise Fault(Kind.NO_SERVER, detail="no such server", retry_after=3)
        return UpstreamSession(f"open_session {identity} {os.getpid()}", "2025-11-25")

    def touched(self, sessions: list[tuple[str, str]]) -> None:
        pass

    def adopted(self, sessions: list[Any]) -> None:
        pass

    def initialized(self) -> bool:
        return True

    def backends(self) -> dict[str, Any]:
        return {"one": {"tools": 3}}

    def expiries(self) -> dict[tuple[str, ...], float]:
        return {}

    def definitions(self) -> dict[str, str | None]:
        return {}

    def catalogue(self) -> dict[str, Any]:
        return {"tools": []}

    async def who_sees(self, find: str, most: int) -> dict[str, Any]:
        return {"found": 0, "rows": []}

    async def explain(self, call: Any) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        pass


def read(path: Path) -> Plan:
    told = json.loads(path.read_text())
    return Plan(
        listen=("127.0.0.1", told.get("port", 0)),
        admin=("127.0.0.1", 0),
        data=Path(told["data"]),
        workers=told.get("workers", 2),
        drain=told.get("drain", 5),
        usage=UsageSettings(sinks=tuple(SinkSettings(url=url) for url in told.get("sinks", ()))),
        settings=told,
    )


def parts(path: Path) -> Factories:
    def gateway(*args: Any) -> tuple[Any, Any]:
        made = Trivial(*args)
        return made, made.app

    return Factories(
        read=lambda _: read(path), gateway=gateway, control_plane=lambda plan, keys, tasks: FakeControlPlane(plan)
    )


def main(words: list[str]) -> int:
    """Serve what stands in the file."""
    try:
        return launch(parts(Path(words[0])))
    except OSError as wrong:
        print(wrong, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
