"""The *deployment* server: deploys imaginary services to staging, step by step, and remembers what it did.

`python -m fastgw.demo.deployment [PORT [FILE]]`: servers of one file remember the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import ToolAnnotations
from pydantic import Field

from fastgw.demo.serving import serve

STEPS = ("build the image", "push it", "replace the instances", "check their health", "switch the traffic")
STEP_TIME = 0.1  # seconds

Service = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", description="Name of the service, like checkout")]


server = MCPServer("deployment", log_level="WARNING", instructions="Deploys services to the staging environment.")
remembered = Path(sys.argv[2] if __name__ == "__main__" and sys.argv[2:] else tempfile.mkstemp()[1])


def deployments() -> list[dict[str, str]]:
    """The newest first."""
    return [json.loads(line) for line in reversed(remembered.read_text(encoding="utf-8").splitlines())]


def remember(deployment: dict[str, str]) -> dict[str, str]:
    """Write it down, and give it back."""
    with remembered.open("a", encoding="utf-8") as file:
        file.write(json.dumps(deployment) + "\n")
    return deployment


@server.tool("deploy-to-staging", annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=False))
async def deploy_to_staging(
    service: Service, version: Annotated[str, Field(min_length=1, max_length=64)], context: Context
) -> dict[str, str]:
    """Deploy a version of a service to staging; tells of its progress."""
    for done, step in enumerate(STEPS):
        await context.report_progress(done, len(STEPS), step)
        await anyio.sleep(STEP_TIME)
    await context.report_progress(len(STEPS), len(STEPS), "done")
    return remember({"service": service, "version": version, "at": datetime.now(UTC).isoformat()})


@server.tool("list-deployments", annotations=ToolAnnotations(read_only_hint=True))
def list_deployments(service: Service | None = None) -> list[dict[str, str]]:
    """What was deployed to staging, the newest first."""
    return [one for one in deployments() if service in (None, one["service"])]


@server.resource("staging://{service}/history", title="A service's deployments", mime_type="application/json")
def history(service: str) -> str:
    """What was deployed of one service, the newest first."""
    if found := list_deployments(service):
        return json.dumps(found)
    raise ResourceNotFoundError(f"Unknown resource: staging://{service}/history")


@server.prompt("incident-report", title="Report an incident")
def incident_report(service: str) -> str:
    """Write a report on an incident of a service, from its deployments."""
    recent = json.dumps(list_deployments(service)[:5])
    return f"Write an incident report on {service}. Its deployments, the newest first:\n{recent}"


if __name__ == "__main__":
    serve("legacy", server, int(sys.argv[1]) if sys.argv[1:] else 0)
