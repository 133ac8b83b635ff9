"""How operators' commands speak HTTP: a connection for each request, and over it MCP of 2026-07-28."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fastgw import __version__
from fastgw.cli import terminal
from fastgw.cli.terminal import FAILED, NO_ANSWER, USAGE, CommandFailed
from fastgw.protocol import names
from fastgw.protocol.envelope import check_utf8, emit, members, quote
from fastgw.protocol.headers import encode_name
from fastgw.protocol.sse import EventParser

LARGEST = 64 * 2**20
"""Bytes of an answer, or of one event, that are read at most."""
_META = {
    names.META_VERSION: quote(names.MODERN_VERSION),
    names.META_CLIENT: emit({"name": quote("fastgw"), "version": quote(__version__)}),
    names.META_CAPABILITIES: b"{}",  # so no server may ask back
    names.META_LOG_LEVEL: b'"info"',
    "progressToken": b"1",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is, and how it is spoken to.

    Args:
        url: http or https.
        key: shown as a bearer token; empty for none.
        timeout: seconds without a word from it.
        certificate: paths of our own and of its key (None: in the same file), where the server demands one.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0
    certificate: tuple[str | None, str | None] = (None, None)

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.netloc, timeout=self.timeout)
        context = ssl.create_default_context()
        cert, key = self.certificate
        try:
            if cert is not None:
                context.load_cert_chain(cert, key)
        except OSError as wrong:
            words = f"{cert} and {key or cert} are not a certificate with its key: {wrong.strerror}"
            raise CommandFailed(USAGE, words) from None
        return http.client.HTTPSConnection(parts.netloc, timeout=self.timeout, context=context)

    @contextmanager
    def asked(self, body: bytes | None, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """The answer to a POST of JSON, or to a GET where there is no body.

        Raises:
            CommandFailed: the address cannot be used; nobody answers, in time, in HTTP; also while the answer is read.
        """
        if not re.fullmatch(r"https?://[!-.0->A-~]+(?:[/?][!-~]*)?", self.url):
            words = "the address must be http:// or https://, name a host, and carry no user or password"
            raise CommandFailed(USAGE, words)
        parts = urlsplit(self.url)
        fields: dict[str, str | bytes] = {**headers, "Content-Type": "application/json"}
        if self.key:
            fields["Authorization"] = b"Bearer " + self.key.encode("utf-8", "surrogateescape")
        connection = None
        try:
            connection = self._connection(parts)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET" if body is None else "POST", target, body, fields)
            yield connection.getresponse()
        except TimeoutError:
            raise CommandFailed(NO_ANSWER, f"{parts.netloc} does not answer within {self.timeout:g} s") from None
        except ssl.SSLCertVerificationError as wrong:
            words = f"the certificate of {parts.netloc} is not trusted: {wrong.verify_message}"
            raise CommandFailed(NO_ANSWER, words) from None
        except (OSError, http.client.HTTPException, ValueError) as wrong:
            reason = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
            raise CommandFailed(NO_ANSWER, f"cannot reach {parts.netloc}: {reason}") from None
        finally:
            if connection is not None:
                connection.close()


@terminal.argument_type
def json_object(text: str) -> bytes:
    """A `type` for argparse: the UTF-8 text of a JSON object."""
    try:
        check_utf8(given := os.fsencode(text).strip())
        members(given)
    except ValueError as wrong:
        raise ValueError(f"must be a JSON object: {wrong}") from None
    return given


def add_certificate(parser: argparse.ArgumentParser) -> None:
    """Add the options for a certificate that the endpoint demands."""
    parser.add_argument("--cert", metavar="FILE", help="our own certificate (PEM), where the endpoint demands one")
    parser.add_argument("--key", metavar="FILE", help="its key (in the same file)")


def key_in(variable: str) -> str:
    """The key that an environment variable holds, empty for none; raises CommandFailed where it can be no key."""
    key = os.environ.get(variable, "").strip()
    if re.fullmatch(r"[!-~]*", key) is None:
        raise CommandFailed(USAGE, f"what {variable} holds is no key: spaces, line breaks or letters beyond ASCII")
    return key


def request(place: Place, method: str, params: dict[str, bytes], mirrored: bytes = b"") -> dict[str, Any]:
    """The result of one request; progress and log messages before it are shown.

    Args:
        method: a list, or `tools/call`.
        params: JSON text by member.
        mirrored: `Mcp-Param-*` header lines, each ended by CRLF.

    Raises:
        CommandFailed: the server says no, or no MCP of this revision; and as `Place.asked`.
    """
    headers = {"Accept": "application/json, text/event-stream"}
    headers |= {"MCP-Protocol-Version": names.MODERN_VERSION, "Mcp-Method": method}
    if method == names.TOOLS_CALL:
        headers["Mcp-Name"] = encode_name(json.loads(params["name"])).decode("ascii")
    for line in mirrored.decode("ascii").splitlines():
        name, _, headers[name] = line.partition(": ")
    body = {"jsonrpc": b'"2.0"', "id": b"1", "method": quote(method)}
    body["params"] = emit({**params, "_meta": emit(_META)})
    with place.asked(emit(body), headers) as answer:
        message = _response(answer)
    error, result = message.get("error"), message.get("result")
    if isinstance(error, dict):
        raise CommandFailed(FAILED, str(error.get("message", "")), error.get("code"), error.get("data"))
    if answer.status >= 300:
        raise CommandFailed(FAILED, "an HTTP status without a word of MCP", answer.status)
    if not isinstance(result, dict):
        raise CommandFailed(NO_ANSWER, "the answer is no MCP: is this the address of an MCP endpoint?")
    if result.get("resultType", "complete") != "complete":
        raise CommandFailed(FAILED, "the server wants to ask back, which this client cannot answer")
    return result


def _response(answer: http.client.HTTPResponse) -> dict[str, Any]:
    """The response in an answer, empty where it holds none; notifications before it are shown."""
    if answer.headers.get_content_type() != "text/event-stream":
        return decoded(answer.read(LARGEST))
    parser = EventParser(LARGEST)
    while piece := answer.read1(65536):
        for event in parser.feed(piece):
            message = decoded(event.data)
            if message and "method" not in message:
                return message
            if isinstance(params := message.get("params"), dict):
                terminal.show_notification(message["method"], params)
    raise http.client.HTTPException("the stream ended without an answer")


def decoded(text: bytes) -> dict[str, Any]:
    """The JSON object that a text is; an empty one where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
