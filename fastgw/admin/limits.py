"""`/limits` on the admin port: the fullest buckets of all workers, and resets, which need the admin token.

A browser sends a form anywhere, with whatever credential it has; `Origin` and the content type keep such forms out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from fastgw.config.rules import FAILED_CREDENTIALS
from fastgw.config.schema.rules import LimitSettings
from fastgw.gateway.admission import REPORTED, Reset

log = logging.getLogger("fastgw")

MOST = 65_536
"""Bytes of an order."""

Ask = Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]


class BadReset(Exception):
    """What an operator asks for is not done; the text says why, `status` is that of HTTP."""

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(words)
        self.status = status


class OperatorLimits:
    """Limits, as operators meet them; every order is appended to the file `audit`."""

    def __init__(self, ask: Ask, limits: Callable[[], Sequence[LimitSettings]], audit: Path) -> None:
        self._ask = ask
        self._limits = limits
        self._audit = audit

    async def report(self) -> dict[str, Any]:
        """How the limits stand, as far as the workers of this machine have heard."""
        # A worker that ends while it is asked says nothing.
        reports = [report for report in await self._ask("report", ()) if report is not None]
        states = [report["store"] for report in reports]
        refused: Counter[tuple[str, str]] = Counter()
        for row in (row for report in reports for row in report["refused"]):
            refused[row["limit"], row["subject"]] += row["calls"]
        return {
            "store": {state: states.count(state) for state in sorted(set(states))},
            "buckets": _fullest(bucket for report in reports for bucket in report["buckets"]),
            "refused": [
                {"limit": limit, "subject": subject, "calls": calls}
                for (limit, subject), calls in refused.most_common(REPORTED)
            ],
        }

    async def reset(self, asked: dict[str, Any], who: str) -> dict[str, Any]:
        """Make buckets full: `limit`, and `subject` (values of its `by`) unless all are meant.

        Raises:
            BadReset: there is no such limit, or its buckets are told apart otherwise.
            OSError: it cannot be written down, so it was not done.
        """
        name, subject = self._found(asked)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"time": now, "who": who, "do": "reset", "limit": name, "subject": subject}
        try:
            reset = msgspec.json.encode(Reset(secrets.randbelow(2**32) + 1, name, subject)).decode()
        except UnicodeEncodeError:  # JSON can write half a surrogate pair, which is no text
            raise BadReset("subject must be texts, or null for a value that is missing") from None
        line = json.dumps(entry)
        self._audit.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._audit.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        log.warning("an operator's order: %s", line)
        await self._ask("reset", (reset,))
        return entry

    def _found(self, asked: dict[str, Any]) -> tuple[str, tuple[str | None, ...] | None]:
        if more := sorted(asked.keys() - {"limit", "subject"}):  # a slip in `subject` must not speak of everybody
            raise BadReset(f"an order has limit, subject, not {more[0]!r}")
        name, subject = asked.get("limit"), asked.get("subject")
        known = {limit.name: limit.by for limit in self._limits()} | {FAILED_CREDENTIALS: ("address",)}
        if not isinstance(name, str) or name not in known:
            raise BadReset(f"there is no limit {name!r}; there are {', '.join(known)}")
        if any(limit.name == name and limit.rate is None for limit in self._limits()):
            raise BadReset(f"limit {name} has no rate: calls at the same time end by themselves")
        if subject is None:
            return name, None
        if not isinstance(subject, list) or len(subject) != len(known[name]):
            raise BadReset(f"subject must be the values of [{', '.join(known[name])}], in this order")
        if not all(value is None or isinstance(value, str) for value in subject):
            raise BadReset("subject must be texts, or null for a value that is missing")
        return name, tuple(subject)


def _fullest(buckets: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each bucket: what most is known of it; of calls at the same time the sum over workers."""
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for bucket in buckets:
        key = bucket["limit"], bucket["subject"], bucket["at_once"]
        known = found.setdefault(key, bucket)
        if known is bucket:
            continue
        if bucket["at_once"]:
            known["used"] += bucket["used"]
            known["left"] = max(0, known["left"] - (bucket["burst"] - bucket["left"]))
        elif bucket["used"] > known["used"]:
            found[key] = bucket
    rows = sorted(found.values(), key=lambda row: -row["used"])[:REPORTED]
    return [{**row, "used": round(row["used"], 4)} for row in rows]


# -- HTTP ------------------------------------------------------------------------------------------------------------


def resetting(limits: OperatorLimits, token: str | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of `/limits/reset`."""

    async def reset(request: web.Request) -> web.StreamResponse:
        try:
            if token is None:
                raise BadReset("Orders need an admin token: admin: {listen: ..., token: ...}", 403)
            # Whom the audit names: the address, and which token it showed.
            who = f"{request.remote} token:{hashlib.sha256(token.encode()).hexdigest()[:8]}"
            return answer(await limits.reset(await _asked(request), who))
        except BadReset as wrong:
            return answer({"error": str(wrong)}, wrong.status)
        except OSError as wrong:
            return answer({"error": f"It cannot be written down, so it was not done: {wrong.strerror}"}, 500)

    return reset


def answer(body: Any, status: int = 200) -> web.Response:
    """JSON that nobody keeps."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return web.Response(body=json.dumps(body, indent=1).encode() + b"\n", status=status, headers=headers)


async def _asked(request: web.Request) -> dict[str, Any]:
    """What is ordered.

    Raises:
        BadReset: it comes from a page of elsewhere, or is no JSON object.
    """
    host = request.headers.get("Host", "").lower()
    if any(_host(origin) != host for origin in request.headers.getall("Origin", [])):
        raise BadReset("Orders from a page of another origin are refused", 403)
    if request.content_type != "application/json":
        raise BadReset("Content-Type must be application/json", 415)
    body = b""
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MOST:
            raise BadReset(f"An order has at most {MOST} bytes", 413)
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise BadReset("The body must be a JSON object")
    return asked


def _host(origin: str) -> str | None:
    """Host and port of an `Origin` (RFC 6454)."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
