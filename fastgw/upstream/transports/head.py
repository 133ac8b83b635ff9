"""The head of a server's answer: what it promises about its body, and which heads are refused."""

from __future__ import annotations

from collections.abc import Iterable

from fastgw.upstream.failures import lost

HEAD_LIMIT = 64 * 1024
"""Most bytes of an answer's head, of the 1xx answers before it, and of a chunked body's trailer."""

_SINGLE = frozenset(("content-type", "content-length", "transfer-encoding", "content-encoding"))


def read_head(status: int, lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header names in lower case with their first values.

    Raises:
        Fault: LOST for a head that is too large, switches protocols, frames its body twice, or has two of a header that
            may be there once.
    """
    if status == 101:
        raise lost("the server switches protocols")
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in lines:
        size += len(raw_name) + len(raw_value) + 4
        name = raw_name.decode("latin-1").lower()
        if name not in headers:
            headers[name] = raw_value.decode("latin-1").strip(" \t")
        elif name in _SINGLE:
            raise lost(f"two {name} headers")
    if size > HEAD_LIMIT:
        raise lost("head too large")
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise lost("both content-length and transfer-encoding")
        if headers["transfer-encoding"].lower() != "chunked":
            raise lost("unknown transfer-encoding")
    return headers


def check_length(headers: dict[str, str], limit: int) -> None:
    """Refuse a body that announces more than `limit` bytes.

    Raises:
        Fault: LOST.
    """
    length = headers.get("content-length")
    if length is None:
        return
    if not (length.isascii() and length.isdigit()) or len(length) > 19:
        raise lost("bad content-length")
    if int(length) > limit:
        raise lost("body too large")


def ends_by_close(status: int, headers: dict[str, str]) -> bool:
    """Whether only the end of the connection ends the body (RFC 9112, section 6.3, rule 8)."""
    return "content-length" not in headers and "transfer-encoding" not in headers and status not in (204, 304)


def is_stream(status: int, headers: dict[str, str]) -> bool:
    """Whether the body is handed out piece by piece: a 200 of the media type `text/event-stream`."""
    kind = headers.get("content-type", "")
    return status == 200 and kind.partition(";")[0].strip().lower() == "text/event-stream"
