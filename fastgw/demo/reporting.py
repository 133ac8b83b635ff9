"""What the *deployment* server offers to read: histories as JSON, and a prompt for a report on an incident."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from pydantic import Field

from fastgw.demo.completing import complete_from

JSON = "application/json"
HISTORY = "staging://{service}/history"
REPORT = "incident-report"
ROWS = 1000
"""Deployments that are looked at, the newest."""

Newest = Callable[[str | None, int], Sequence[object]]


def offer_reports(server: MCPServer, newest: Newest, services: Callable[[], list[str]]) -> None:
    """Give the server its resource, template, prompt and completion.

    Args:
        server: the one that offers them.
        newest: the last deployments of a service or of all (None), at most so many.
        services: names of those that were ever deployed.
    """

    @server.resource("staging://history", name="history", title="All deployments", mime_type=JSON)
    def everything() -> str:
        """What was deployed to staging, the newest first."""
        return json.dumps(newest(None, ROWS))

    @server.resource(HISTORY, name="service-history", title="A service's deployments", mime_type=JSON)
    def of_service(service: str) -> str:
        """What was deployed of one service, the newest first."""
        if rows := newest(service, ROWS):
            return json.dumps(rows)
        raise ResourceNotFoundError(f"Unknown resource: staging://{service}/history")

    @server.prompt(REPORT, title="Report an incident")
    def incident_report(service: Annotated[str, Field(description="Name of the service, like checkout")]) -> str:
        """Write a report on an incident of a service, from its last deployments."""
        recent = json.dumps(newest(service, 5))
        return f"Write an incident report on {service}. Its deployments, the newest first:\n{recent}"

    def propose(asked: str, argument: str, _others: dict[str, str]) -> list[str]:
        return services() if argument == "service" and asked in (REPORT, HISTORY) else []

    complete_from(server, propose)
