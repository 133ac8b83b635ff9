"""`/config`, `/config/diff` and `/reload` on the admin port: what is in force, what a reload would change, and one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from fastgw.admin.orders import AuditLog


class ReloadOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Read the configuration again: there is nothing to choose."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """The configuration, as operators meet it.

    Args:
        report: which one is in force since when, and what was wrong with a newer one.
        reload: reads it again; what is wrong with it, empty where it is in force at every worker.
        diff: what `reload` would change; raises with words for the user where the configuration cannot be used.
    """

    report: Callable[[], dict[str, Any]]
    reload: Callable[[], Awaitable[str]]
    diff: Callable[[], Awaitable[dict[str, Any]]]
    audit: AuditLog

    async def order(self, _: ReloadOrder, who: str) -> dict[str, Any]:
        """Reload; what is in force now.

        Raises:
            web.HTTPConflict: the configuration cannot be used, and the one before is in force.
            OSError: the order cannot be written down, so it was not carried out.
        """
        self.audit.write(who, "reload")
        if wrong := await self.reload():
            raise web.HTTPConflict(text=wrong)
        return self.report()

    async def differences(self) -> dict[str, Any]:
        """What a reload would change now.

        Raises:
            web.HTTPConflict: it would be refused.
        """
        try:
            return await self.diff()
        except Exception as wrong:  # noqa: BLE001 - whatever a reload would be refused for
            raise web.HTTPConflict(text=str(wrong)) from None
