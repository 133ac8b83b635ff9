"""The *deployment* server: deploy-to-staging, rollback, list-deployments. Services are imaginary, the state is real.

State: one SQLite table, a row for each deployment, the newest row of a service is what runs.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp_types import ToolAnnotations
from pydantic import Field
from typing_extensions import TypedDict

from fastgw.demo.serving import DemoServer, serve

STEPS = ("build the image", "push it", "replace the instances", "check their health", "switch the traffic")
STEP_TIME = 0.1  # seconds
TABLE = """create table if not exists deployments (
    id integer primary key, service text not null, version text not null, kind text not null, at text not null)"""
ROWS = 1000  # that are looked at, the newest
JSON = "application/json"
HISTORY = "staging://{service}/history"
REPORT = "incident-report"

Service = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", description="Name of the service, like checkout")]


class Deployment(TypedDict):
    """One row of the history."""

    id: int
    service: str
    version: str
    kind: str  # deploy | rollback
    at: str  # RFC 3339, UTC


class History(TypedDict):
    """Deployments, the newest first."""

    deployments: list[Deployment]


class Ledger:
    """The table of deployments; every statement has a connection of its own, so it may come from any thread."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._run(TABLE)

    def record(self, service: str, version: str, kind: str) -> Deployment:
        """Append a row and return it."""
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        order = "insert into deployments (service, version, kind, at) values (?, ?, ?, ?) returning *"
        return self._run(order, service, version, kind, at)[0]

    def newest(self, service: str | None, count: int = ROWS) -> list[Deployment]:
        """The last `count` rows, of one service or of all."""
        question = "select * from deployments where ?1 is null or service = ?1 order by id desc limit ?2"
        return self._run(question, service, count)

    def services(self) -> list[str]:
        """Everything that was ever deployed."""
        return [row["service"] for row in self._run("select * from deployments group by service order by service")]

    def _run(self, order: str, *values: object) -> list[Deployment]:
        with closing(sqlite3.connect(self._file, timeout=5)) as table, table:
            table.row_factory = sqlite3.Row
            return [Deployment(**dict(row)) for row in table.execute(order, values)]  # type: ignore[typeddict-item]


async def roll_out(context: Context) -> None:
    """Take the steps of a deployment, telling of each."""
    for done, step in enumerate(STEPS):
        await context.report_progress(done, len(STEPS), step)
        await anyio.sleep(STEP_TIME)
    await context.report_progress(len(STEPS), len(STEPS), "done")


def deployment(state: Path) -> MCPServer:
    """The server, its table under `state`."""
    server = DemoServer("deployment", "Deploys services to the staging environment.")
    ledger = Ledger(state / "deployment.sqlite")
    _offer_reports(server, ledger)

    @server.tool("deploy-to-staging", annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=False))
    async def deploy_to_staging(
        service: Service, version: Annotated[str, Field(min_length=1, max_length=64)], context: Context
    ) -> Deployment:
        """Deploy a version of a service to staging; tells of its progress."""
        await roll_out(context)
        return ledger.record(service, version, "deploy")

    @server.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=False))
    async def rollback(service: Service, context: Context) -> Deployment:
        """Put the version before the present one back on staging."""
        history = ledger.newest(service)
        before = [row["version"] for row in history if row["version"] != history[0]["version"]]
        if not before:
            raise ToolError(f"{service} has no earlier version to go back to")
        await roll_out(context)
        return ledger.record(service, before[0], "rollback")

    @server.tool("list-deployments", annotations=ToolAnnotations(read_only_hint=True))
    def list_deployments(service: Service | None = None, limit: Annotated[int, Field(ge=1, le=100)] = 20) -> History:
        """What was deployed to staging, the newest first."""
        return {"deployments": ledger.newest(service, limit)}

    return server


def _offer_reports(server: DemoServer, ledger: Ledger) -> None:
    @server.resource("staging://history", name="history", title="All deployments", mime_type=JSON)
    def everything() -> str:
        """What was deployed to staging, the newest first."""
        return json.dumps(ledger.newest(None))

    @server.resource(HISTORY, name="service-history", title="A service's deployments", mime_type=JSON)
    def of_service(service: str) -> str:
        """What was deployed of one service, the newest first."""
        if rows := ledger.newest(service):
            return json.dumps(rows)
        raise ResourceNotFoundError(f"Unknown resource: staging://{service}/history")

    @server.prompt(REPORT, title="Report an incident")
    def incident_report(service: Annotated[str, Field(description="Name of the service, like checkout")]) -> str:
        """Write a report on an incident of a service, from its last deployments."""
        recent = json.dumps(ledger.newest(service, 5))
        return f"Write an incident report on {service}. Its deployments, the newest first:\n{recent}"

    server.complete_from(
        lambda asked, argument, _: ledger.services() if argument == "service" and asked in (REPORT, HISTORY) else []
    )


if __name__ == "__main__":
    serve(deployment)
