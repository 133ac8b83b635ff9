"""An MCP client for operators: one server, one request at a time, a fresh connection for each.

A modern request goes first. A server that answers 400, 404 or 405 with anything but an error to that very request is
taken for an older one (2026-07-28, Streamable HTTP, Backward Compatibility). No capability is declared, so no server
may ask back.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fastgw import __version__
from fastgw.protocol import names
from fastgw.protocol.envelope import emit, quote
from fastgw.protocol.params import encode_name
from fastgw.protocol.sse import EventParser, EventTooLong

LARGEST = 64 * 2**20
"""Bytes of an answer that are read at most."""
MOST_PAGES = 10_000
_CLIENT = emit({"name": quote("fastgw"), "version": quote(__version__)})
_NAMED = {names.TOOLS_CALL: "name", names.PROMPTS_GET: "name", names.RESOURCES_READ: "uri"}
_MODERN_CODES = (names.HEADER_MISMATCH, names.MISSING_CAPABILITY, names.UNSUPPORTED_VERSION)
_OLDER = (400, 404, 405)

Told = Callable[[str, Any], None]
"""Called with method and params of each notification that comes before the answer."""


class RefusedByServer(Exception):
    """The server answered with an error: a JSON-RPC one, or an HTTP status without (`code` None)."""

    def __init__(self, code: int | None, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Unreachable(Exception):
    """No answer, or none that is MCP; the text is for the operator."""


class BadAddress(ValueError):
    """The address cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is, and how it is spoken to.

    Args:
        url: http or https.
        key: shown as a bearer token; empty for none.
        ca: PEM file of the authority to trust in place of the system's; empty for the system's.
        timeout: seconds for each whole request.
    """

    url: str
    key: str = field(default="", repr=False)
    ca: str = ""
    timeout: float = 60.0

    def parts(self) -> SplitResult:
        """The address taken apart.

        Raises:
            BadAddress: no http or https address, or a password in it.
        """
        try:
            parts = urlsplit(self.url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or re.fullmatch(r"[!-~]+", self.url) is None:
            raise BadAddress("the address must be http:// or https:// and name a host")
        if "@" in parts.netloc:
            raise BadAddress("the address must not carry a user or password")
        return parts


@dataclass(slots=True)
class _Answer:
    """An HTTP answer: `message` is the JSON-RPC response in it, None where it holds none."""

    status: int
    message: dict[str, Any] | None
    session: str


class Client:
    """One server.

    Args:
        place: where it is.
        told: hears of progress and log messages.

    Raises:
        BadAddress: the address or the file of the authority cannot be used.
    """

    def __init__(self, place: Place, told: Told) -> None:
        self._place = place
        self._parts = place.parts()
        self._told = told
        self._tls: ssl.SSLContext | None = None
        self._session = ""
        self._older = ""
        self._last = 0
        if self._parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=place.ca or None)
            except (OSError, ValueError) as wrong:
                raise BadAddress(f"the file {place.ca} cannot be used: {_reason(wrong)}") from None

    def request(self, method: str, params: dict[str, bytes], mirrored: bytes = b"") -> dict[str, Any]:
        """The result of one request.

        Args:
            method: such as `tools/call`.
            params: JSON text by member.
            mirrored: `Mcp-Param-*` header lines, each ended by CRLF.

        Raises:
            Refused: the server says no.
            Unreachable: nobody answers, not in time, or not in MCP.
        """
        answer = self._asked(method, params, mirrored)
        if not self._older and _is_older(answer):
            self._initialize()
            answer = self._asked(method, params, mirrored)
        return _result(answer)

    def items(self, method: str) -> Iterator[dict[str, Any]]:
        """All items of a list, page by page.

        Raises:
            Refused, Unreachable: as `request`.
        """
        member, cursor = names.LISTS[method], None
        for _ in range(MOST_PAGES):
            page = self.request(method, {"cursor": quote(cursor)} if cursor is not None else {})
            found = page.get(member)
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise Unreachable(f"the answer to {method} holds no list of {member}")
            yield from found
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return
        raise Unreachable(f"the list of {member} does not end")

    def close(self) -> None:
        """End the session of an older server, if there is one; that it fails does not matter."""
        if self._session:
            with suppress(Unreachable):
                self._exchange("DELETE", self._headers("", {}), b"")
            self._session = ""

    # -- inside --------------------------------------------------------------------------------------------------

    def _asked(self, method: str, params: dict[str, bytes], mirrored: bytes) -> _Answer:
        self._last += 1
        meta = {"progressToken": b"%d" % self._last} if method == names.TOOLS_CALL else {}
        if not self._older:
            meta |= {
                names.META_VERSION: quote(names.MODERN_VERSION),
                names.META_CLIENT: _CLIENT,
                names.META_CAPABILITIES: b"{}",
                names.META_LOG_LEVEL: b'"info"',
            }
        body = {"jsonrpc": b'"2.0"', "id": b"%d" % self._last, "method": quote(method)}
        body["params"] = emit({**params, "_meta": emit(meta)} if meta else params)
        headers = self._headers(method, params)
        if not self._older:
            for line in mirrored.decode("ascii").splitlines():
                name, _, value = line.partition(": ")
                headers[name] = value
        return self._exchange("POST", headers, emit(body))

    def _headers(self, method: str, params: dict[str, bytes]) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        headers["Accept-Encoding"] = "identity"
        headers["MCP-Protocol-Version"] = self._older or names.MODERN_VERSION
        if self._place.key:
            headers["Authorization"] = f"Bearer {self._place.key}"
        if self._session:
            headers["Mcp-Session-Id"] = self._session
        if not self._older:
            headers["Mcp-Method"] = method
            if method in _NAMED:
                headers["Mcp-Name"] = encode_name(json.loads(params[_NAMED[method]])).decode("ascii")
        return headers

    def _initialize(self) -> None:
        """Open a session as older revisions want it (2025-11-25, Lifecycle)."""
        self._older = names.NEWEST_LEGACY
        params = {"protocolVersion": quote(self._older), "capabilities": b"{}", "clientInfo": _CLIENT}
        answer = self._asked(names.INITIALIZE, params, b"")
        version = _result(answer).get("protocolVersion")
        if version not in names.LEGACY_VERSIONS:
            raise Unreachable(f"the server speaks {version!r}, which this client does not")
        self._older, self._session = version, answer.session
        body = {"jsonrpc": b'"2.0"', "method": quote(names.INITIALIZED)}
        self._exchange("POST", self._headers("", {}), emit(body))

    def _exchange(self, verb: str, headers: dict[str, str], body: bytes) -> _Answer:
        until = time.monotonic() + self._place.timeout
        host, port = self._parts.hostname or "", self._parts.port
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=self._place.timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._place.timeout)
        try:
            connection.connect()
            target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
            connection.request(verb, target, body or None, headers)
            line = connection.sock
            line.settimeout(_left(until))
            answer = connection.getresponse()
            session = answer.headers.get("Mcp-Session-Id", "")
            return _Answer(answer.status, self._message(answer, line, until), session)
        except TimeoutError:
            raise Unreachable(f"no answer within {self._place.timeout:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as wrong:
            raise Unreachable(f"cannot reach {host}:{connection.port}: {_reason(wrong)}") from None
        finally:
            connection.close()

    def _message(self, answer: http.client.HTTPResponse, line: socket.socket, until: float) -> dict[str, Any] | None:
        """The response in an answer; notifications before it are told."""
        pieces = _pieces(answer, line, until)
        kind = answer.headers.get_content_type()
        if kind == "text/event-stream":
            parser = EventParser(LARGEST)
            for piece in pieces:
                for event in parser.feed(piece):
                    if event.data and (message := self._heard(_decoded(event.data))) is not None:
                        return message
            raise http.client.HTTPException("the stream ended without an answer")
        body = b"".join(pieces)
        return self._heard(_decoded(body)) if kind == "application/json" and body else None

    def _heard(self, message: Any) -> dict[str, Any] | None:
        if not isinstance(message, dict) or "method" not in message:
            return message if isinstance(message, dict) else None
        if "id" not in message:
            self._told(str(message["method"]), message.get("params"))
        return None


def _pieces(answer: http.client.HTTPResponse, line: socket.socket, until: float) -> Iterator[bytes]:
    size = 0
    while piece := answer.read1(65536):
        size += len(piece)
        if size > LARGEST:
            raise http.client.HTTPException(f"the answer is larger than {LARGEST} bytes")
        yield piece
        line.settimeout(_left(until))


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _decoded(text: bytes) -> Any:
    """The JSON value; None for what is none: an answer that matters is missed then, and that is told."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_older(answer: _Answer) -> bool:
    """Whether the server did not understand the modern form of a request."""
    error = (answer.message or {}).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if code == names.UNSUPPORTED_VERSION:
        data = error.get("data") if isinstance(error, dict) else None
        supported = data.get("supported") if isinstance(data, dict) else None
        return isinstance(supported, list) and not {names.MODERN_VERSION} & {str(one) for one in supported}
    if answer.status not in _OLDER or code in _MODERN_CODES:
        return False
    # fastgw and other modern servers repeat the id; those of older revisions refuse before they have read it.
    return answer.message is None or not isinstance(answer.message.get("id"), int)


def _result(answer: _Answer) -> dict[str, Any]:
    message = answer.message
    error = message.get("error") if message is not None else None
    if isinstance(error, dict):
        code = error.get("code")
        raise RefusedByServer(code if isinstance(code, int) else None, str(error.get("message", "")), error.get("data"))
    if answer.status >= 300:
        raise RefusedByServer(None, f"HTTP status {answer.status}")
    result = message.get("result") if message is not None else None
    if not isinstance(result, dict):
        raise Unreachable("the answer is no MCP: is this the address of an MCP endpoint?")
    if result.get("resultType", "complete") != "complete":
        raise RefusedByServer(None, "the server wants to ask back, which this client cannot answer")
    return result


def _reason(wrong: Exception) -> str:
    if isinstance(wrong, EventTooLong):
        return "an event is too long"
    if isinstance(wrong, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({wrong.verify_message})"
    if isinstance(wrong, ConnectionRefusedError):
        return "nobody listens there"
    return getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
