"""Which era a server speaks.

    server/discover, asked the modern way
        a result naming our modern revision                        modern
        -32020, -32021; -32022 naming our modern revision          modern
        -32022 naming only revisions we do not speak               no verdict: nothing in common
        any other 4xx, JSON-RPC error or result                    legacy, for `initialize` to confirm
        401, 403, 429, 5xx, no connection, no answer in time       no verdict

Source: 2026-07-28, Versioning and Streamable HTTP, Backward Compatibility.

Knows: the table, and how long a verdict is good. Refuses to know: sessions, catalogues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from fastgw.backends import lower_modern
from fastgw.backends.capabilities import announced, declared
from fastgw.backends.inquiry import Asker, Reply, new_id, not_evidence
from fastgw.faults import Fault, Kind
from fastgw.mcp import names
from fastgw.mcp.names import Era

LEGACY_LIFETIME = 600.0
"""Seconds. A server that was upgraded still answers `initialize`, so a legacy verdict would never correct itself."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe found.

    Args:
        era: how the server is spoken to.
        version: the revision; empty for a legacy server, whose `initialize` will say.
        announces: of which lists a modern server announces changes: members of a listen filter.
        capabilities: names of those that a modern server declares; None where it was not asked or did not say.
    """

    era: Era
    version: str
    announces: tuple[str, ...] = ()
    capabilities: frozenset[str] | None = None


LEGACY = Found(Era.LEGACY, "")


async def probe(asker: Asker, ours: bytes, override: str = "auto") -> Found:
    """Find out which era an instance speaks.

    Args:
        asker: who asks it.
        ours: our `clientInfo` as JSON text.
        override: `era:` of the configuration; `legacy` asks nothing.

    Raises:
        Fault: NO_SERVER, TIMEOUT, LOST: nothing was learned. Also where `override` is contradicted: NO_SERVER.
    """
    if override == Era.LEGACY.value:
        return LEGACY
    upstream_id = new_id()
    headers, body = lower_modern.question(names.DISCOVER, {}, upstream_id, ours)
    reply = await asker.ask(asker.backend.headers + headers, body, upstream_id)
    wrong = not_evidence(reply)
    if wrong is not None:
        raise wrong
    found = verdict(reply)
    if override == Era.MODERN.value and found.era is not Era.MODERN:
        # The operator's word decides the era; that discover fails there does not.
        return Found(Era.MODERN, names.MODERN_VERSION)
    return found


def verdict(reply: Reply) -> Found:
    """The row of the table for a reply that is evidence.

    Raises:
        Fault: NO_SERVER for a modern server without a revision in common.
    """
    message = reply.message
    if message is not None and message.result is not None:
        return _by_result(message.result)
    error = _object(message.error if message is not None and message.error is not None else _inner_error(reply.body))
    code = error.get("code")
    if code in (names.HEADER_MISMATCH, names.MISSING_CAPABILITY):
        return Found(Era.MODERN, names.MODERN_VERSION)
    if code == names.UNSUPPORTED_VERSION:
        data = error.get("data")
        return _by_versions(data.get("supported") if isinstance(data, dict) else None)
    return LEGACY


def _by_result(result: bytes) -> Found:
    found = _object(result)
    versions = found.get("supportedVersions")
    if not isinstance(versions, list) or names.MODERN_VERSION not in versions:
        return LEGACY
    capabilities = found.get("capabilities")
    return Found(Era.MODERN, names.MODERN_VERSION, announced(capabilities), declared(capabilities))


def _by_versions(supported: Any) -> Found:
    known = supported if isinstance(supported, list) else []
    if names.MODERN_VERSION in known:
        return Found(Era.MODERN, names.MODERN_VERSION)
    if any(version in names.LEGACY_VERSIONS for version in known):
        return LEGACY
    raise Fault(Kind.NO_SERVER, detail=f"no revision in common with {str(known)[:100]}", data={"reason": "down"})


def _inner_error(body: bytes) -> bytes:
    """The error of a response that answers no id of ours: a server may refuse a request before it reads its id."""
    found = _object(body).get("error")
    return orjson.dumps(found) if isinstance(found, dict) else b"{}"


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
