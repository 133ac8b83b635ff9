"""Parts of an admin face for tests that are about others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastgw.admin.config import OperatorConfig
from fastgw.admin.orders import AuditLog


def no_config() -> OperatorConfig:
    """A configuration that never changes."""

    async def nothing_wrong() -> str:
        return ""

    async def no_change() -> dict[str, Any]:
        return {}

    return OperatorConfig(dict, nothing_wrong, no_change, AuditLog(Path("nowhere")))
