"""The lift for agents of 2025-03-26 to 2025-11-25: what a message lacks, its session supplies.

Knows: `initialize`, sealed sessions, and that `Mcp-Method` and `Mcp-Name` mean nothing in these revisions.
Refuses to know: 2026-07-28, and where ended sessions are kept.
"""

from __future__ import annotations

import os
import time

from fastgw.faults import Fault, Kind
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift import reading, wording
from fastgw.gateway.lift.door import Door
from fastgw.gateway.lift.face import Messages, Recognised, Wish
from fastgw.gateway.lift.reading import Opened
from fastgw.mcp import envelope, headers, names, results, sessions
from fastgw.mcp.call import Call
from fastgw.mcp.results import Result
from fastgw.mcp.sealing import NONCE
from fastgw.mcp.sessions import Session

_WISHES = {**reading.WISHES, names.PING: Wish.PING, names.SET_LEVEL: Wish.LEVEL}


class LegacyFace(Messages):
    """How an agent of one of the older revisions is spoken to."""

    leaving_cancels = False
    mirrors = False
    rounds = False
    unheard: frozenset[int] = frozenset()

    def __init__(self, version: str) -> None:
        self.dialect = self.version = version

    def result(self, result: Result, server_info: bytes) -> bytes:
        """See `Face.result`."""
        return results.legacy(result, self.dialect)

    def page(self, shown: wording.Shown, server_info: bytes) -> tuple[bytes, ...]:
        """See `Face.page`; these revisions know no freshness."""
        return wording.page(shown)

    def status(self, fault: Fault) -> int:
        """See `Face.status`: 200 for whatever answers a request, since these SDKs end a session on 4xx and 5xx."""
        return fault.told.legacy

    def code(self, fault: Fault) -> int:
        """See `Face.code`: resources had a code of their own (2025-11-25, Resources, Error Handling)."""
        return names.RESOURCE_NOT_FOUND if fault.kind is Kind.UNKNOWN_RESOURCE else fault.told.code


_FACES = {version: LegacyFace(version) for version in names.LEGACY_VERSIONS}


def face_of(exchange: Exchange) -> LegacyFace:
    """The face by the headers alone, for what is refused before its session is known."""
    return _FACES[exchange.headers.get(headers.VERSION, names.ASSUMED_VERSION.encode()).decode("latin-1")]


def lift(exchange: Exchange, opened: Opened, door: Door) -> Recognised:
    """The message as a `Call`.

    Raises:
        Fault: SESSION_UNKNOWN, NOT_ONE_MESSAGE (no session named), UNKNOWN_METHOD, BAD_PARAMS.
    """
    message = opened.message
    if message.method == names.INITIALIZE:
        return _initialize(exchange, opened, door)
    session = session_of(exchange, door)
    face = _FACES[session.version]
    exchange.face = face
    call = Call(b"", message.method or "", session.version, session=session.id)
    if message.method is None:
        # The answer to a request of a server; none is outstanding, so there is nobody to give it to.
        return Recognised(Wish.NOTHING, call, face)
    call.id = reading.request_id(message)
    if not call.id:
        return _notification(call, opened, face)
    wish = _WISHES.get(call.method)
    if wish is None:
        raise Fault(Kind.UNKNOWN_METHOD)
    call.capabilities = session.capabilities.encode()
    call.client = session.client.encode()
    if wish is Wish.LEVEL:
        call.log_level = reading.log_level(opened.params.get("level"), "level")
    else:
        call.log_level, call.log_level_set = door.level(session.id)
    return Recognised(wish, reading.fill(call, opened), face)


def session_of(exchange: Exchange, door: Door) -> Session:
    """The session that a request names.

    Raises:
        Fault: NOT_ONE_MESSAGE without an id; SESSION_UNKNOWN where it is foreign, altered, expired or ended.
    """
    token = exchange.headers.get(headers.SESSION)
    if token is None or headers.SESSION in exchange.twice:
        raise Fault(Kind.NOT_ONE_MESSAGE, "Exactly one Mcp-Session-Id header is needed; initialize first.")
    session = door.session(token.decode("latin-1"), exchange.principal.agent, exchange.endpoint.path)
    if session is None:
        raise Fault(Kind.SESSION_UNKNOWN)
    return session


def takes_batches(exchange: Exchange, door: Door) -> bool:
    """Batches exist in 2025-03-26 alone."""
    named = exchange.headers.get(headers.VERSION, names.ASSUMED_VERSION.encode())
    return (
        named == names.ASSUMED_VERSION.encode()
        and headers.SESSION in exchange.headers
        and session_of(exchange, door).version == names.ASSUMED_VERSION
    )


def _initialize(exchange: Exchange, opened: Opened, door: Door) -> Recognised:
    """Open a session. A second `initialize` opens a second session; the first stays what it is."""
    call = Call(reading.request_id(opened.message), names.INITIALIZE, names.NEWEST_LEGACY)
    exchange.face = _FACES[names.NEWEST_LEGACY]
    if not call.id:
        raise Fault(Kind.NOT_ONE_MESSAGE, "initialize must be a request.")
    asked = reading.text(opened.params.get("protocolVersion"), "protocolVersion")
    call.capabilities = reading.an_object(opened.params.get("capabilities"), "capabilities")
    call.client = reading.an_object(opened.params.get("clientInfo"), "clientInfo")
    call.version = _settled(asked)
    session = Session(
        os.urandom(12).hex(),
        call.version,
        int(time.time()),
        sessions.trimmed(call.capabilities),
        sessions.trimmed(call.client),
    )
    bound = sessions.bond(exchange.principal.agent, exchange.endpoint.path)
    token = sessions.sealed(session, door.sealer, bound, os.urandom(NONCE))
    return Recognised(Wish.INITIALIZE, call, _FACES[call.version], [(headers.SESSION, token.encode())])


def _settled(asked: str) -> str:
    """The revision of a session: the newest that is not newer than the one asked for, so that an agent may know it."""
    return next((version for version in names.LEGACY_VERSIONS if version <= asked), names.LEGACY_VERSIONS[-1])


def _notification(call: Call, opened: Opened, face: LegacyFace) -> Recognised:
    request = opened.params.get("requestId")
    if call.method == names.CANCELLED and request is not None and envelope.is_id(request):
        call.id = request
        return Recognised(Wish.CANCEL, call, face)
    return Recognised(Wish.NOTHING, call, face)
