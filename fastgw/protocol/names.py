"""The protocol's own words: revisions, methods, headers, reserved keys, error codes."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Era(Enum):
    """Which of the two wire forms a peer speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


MODERN_VERSION: Final = "2026-07-28"
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Newest first. 2024-11-05 is the HTTP+SSE transport and is not served."""
NEWEST_LEGACY: Final = LEGACY_VERSIONS[0]
ASSUMED_VERSION: Final = "2025-03-26"
"""Of a request in a session without `MCP-Protocol-Version` (2025-06-18, Transports, Protocol Version Header)."""

RESERVED: Final = "io.modelcontextprotocol/"
META_VERSION: Final = RESERVED + "protocolVersion"
META_CAPABILITIES: Final = RESERVED + "clientCapabilities"
META_CLIENT: Final = RESERVED + "clientInfo"
META_LOG_LEVEL: Final = RESERVED + "logLevel"
META_SERVER: Final = RESERVED + "serverInfo"

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
LOG_MESSAGE: Final = "notifications/message"
TOOLS_CHANGED: Final = "notifications/tools/list_changed"
PROMPTS_CHANGED: Final = "notifications/prompts/list_changed"
RESOURCES_CHANGED: Final = "notifications/resources/list_changed"
PING: Final = "ping"
DISCOVER: Final = "server/discover"
TOOLS_LIST: Final = "tools/list"
TOOLS_CALL: Final = "tools/call"
PROMPTS_LIST: Final = "prompts/list"
PROMPTS_GET: Final = "prompts/get"
RESOURCES_LIST: Final = "resources/list"
RESOURCES_READ: Final = "resources/read"
TEMPLATES_LIST: Final = "resources/templates/list"
COMPLETE: Final = "completion/complete"
SET_LEVEL: Final = "logging/setLevel"
LISTEN: Final = "subscriptions/listen"

LISTS: Final = {TOOLS_LIST: "tools", PROMPTS_LIST: "prompts", RESOURCES_LIST: "resources",
                TEMPLATES_LIST: "resourceTemplates"}  # fmt: skip
"""Every list method, and the member of its result that holds the items."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Lowest first (RFC 5424 names, as the specification uses them)."""

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
URL_ELICITATION: Final = -32042
RESOURCE_NOT_FOUND: Final = -32002
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

MAX_NAME: Final = 64
"""Longest exposed name: the narrowest widely used client allows 64 characters."""
