"""Warnings for operators, posted to a webhook (`alerts`): tried again for some minutes while nobody takes them.

The body is JSON: `text` says it in words, which chat systems show as it is; the other members are for programs. Id,
time and signature travel as Standard Webhooks 1.0.0 has them. A redirect is a failure: it could lead inward.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout

from fastgw.telemetry.counters import Counters

log = logging.getLogger("fastgw")

PAUSES = (0.0, 1.0, 5.0, 30.0, 120.0)
"""Seconds before each attempt."""
WITHIN = ClientTimeout(total=10)
MOST = 100
"""Alerts under way; of further ones it is counted that they failed."""

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class Webhook:
    """Where alerts go.

    Args:
        gateway: which fastgw sends them.
    """

    def __init__(self, gateway: str, counters: Counters, spawn: Spawn) -> None:
        self._gateway = gateway
        self._counters = counters
        self._spawn = spawn
        self._under_way = 0
        self._url: str | None = None
        self._keys: Sequence[bytes] = ()
        self.pauses = PAUSES

    def aim(self, url: str | None, keys: Sequence[bytes] = ()) -> None:
        """Send alerts there from now on, signed with each of `keys`.

        Args:
            url: None: nowhere. It is a secret: chat systems let in whoever knows it.
        """
        self._url, self._keys = url, keys

    def send(self, kind: str, text: str, details: Mapping[str, Any]) -> None:
        """Send an alert, in the background."""
        if self._url is None:
            return
        if self._under_way >= MOST:
            self._counters.inc("fastgw_alerts_total", "failed")
            return
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        # A name in it must not become a link or a call to a whole channel: chat systems read <...> so.
        body = {"kind": kind, "text": escape(text, quote=False), "time": now, "gateway": self._gateway, **details}
        self._under_way += 1
        self._spawn(self._deliver(self._url, json.dumps(body).encode()), "sending an alert")

    async def _deliver(self, url: str, body: bytes) -> None:
        identity, keys, wrong = f"msg_{secrets.token_hex(16)}", self._keys, ""
        try:
            async with ClientSession(timeout=WITHIN) as client:
                for pause in self.pauses:
                    await asyncio.sleep(pause)
                    headers = {"content-type": "application/json", **signed(identity, int(time.time()), body, keys)}
                    wrong = await _post(client, url, body, headers)
                    if not wrong:
                        break
        finally:
            self._under_way -= 1
        self._counters.inc("fastgw_alerts_total", "failed" if wrong else "sent")
        if wrong:
            log.error("an alert could not be sent to %s: %s", urlsplit(url).hostname, wrong)


def signed(identity: str, now: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers of a message, which is the same one however often it is sent, at `now`, Unix seconds.

    A signature for each key, as in "Signature scheme" of the specification, https://www.standardwebhooks.com.
    """
    headers = {"webhook-id": identity, "webhook-timestamp": str(now)}
    text = f"{identity}.{now}.".encode() + body
    signatures = [f"v1,{base64.b64encode(hmac.digest(key, text, 'sha256')).decode()}" for key in keys]
    return {**headers, "webhook-signature": " ".join(signatures)} if signatures else headers


async def _post(client: ClientSession, url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """What went wrong, without the address."""
    try:
        async with client.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            return "" if 200 <= answer.status < 300 else f"status {answer.status}"
    except (ClientError, OSError, TimeoutError) as wrong:
        return type(wrong).__name__
