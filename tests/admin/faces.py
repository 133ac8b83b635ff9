"""Parts of an admin face for tests that are about others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastgw.admin.config import OperatorConfig
from fastgw.admin.instances import OperatorInstances
from fastgw.admin.metrics import OperatorMetrics
from fastgw.admin.orders import AuditLog, Handler
from fastgw.admin.quotas import OperatorQuotas
from fastgw.admin.usage import OperatorUsage
from fastgw.telemetry.metrics import Sums


def no_config() -> OperatorConfig:
    """A configuration that never changes."""

    async def nothing_wrong() -> str:
        return ""

    async def no_change() -> dict[str, Any]:
        return {}

    return OperatorConfig(dict, nothing_wrong, no_change, AuditLog(Path("nowhere")))


async def ask_nobody(verb: str, args: tuple[Any, ...]) -> list[Any]:
    """No worker answers."""
    return []


def no_quotas() -> OperatorQuotas:
    """Of a configuration without quotas."""
    return OperatorQuotas(ask_nobody, list, AuditLog(Path("nowhere")))


def no_metrics() -> Handler:
    """Of a gateway that has counted nothing."""
    return OperatorMetrics(Sums(), dict, no_quotas(), lambda work, _: asyncio.ensure_future(work)).handle


def no_instances() -> OperatorInstances:
    """Of a gateway without servers."""
    return OperatorInstances(ask_nobody, list, dict, lambda _: {}, lambda *_: None, AuditLog(Path("nowhere")))


def no_usage() -> OperatorUsage:
    """Of a gateway that nobody has called."""
    return OperatorUsage(Path("nowhere"), dict, lambda: 0.0)
