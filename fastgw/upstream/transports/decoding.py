"""Bodies that a server compresses although it was asked not to (RFC 9110, section 8.4): gzip and deflate."""

from __future__ import annotations

import zlib

from fastgw.errors import Fault
from fastgw.upstream.transports.http_client import lost

_GZIP, _ZLIB, _BARE = 31, 15, -15  # zlib's window bits: with a gzip header, a zlib header, none
_STEP = 64 * 1024  # bytes that are decoded at once
_CODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class Decoder:
    """Decodes one body, piece by piece, as much of it at a time as its reader wants. An empty body is empty."""

    __slots__ = ("_began", "_full", "_inflater", "_rest", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._inflater: zlib._Decompress | None = None
        self._began = self._full = False
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether there is more to be had without another piece."""
        return self._full or bool(self._rest)

    def push(self, piece: bytes) -> None:
        self._rest += piece

    def pull(self, most: int) -> bytes:
        """At most so many bytes of what has come decoded; b"" where the next piece is needed. Raises Fault LOST for
        damaged data.
        """
        found = b""
        while self.pending and not found:
            inflater = self._inflater or self._next(self._rest)
            if inflater is None:
                self._rest = b""
                break
            try:
                found = inflater.decompress(self._rest, most)
            except zlib.error as wrong:
                raise lost(f"damaged body: {wrong}") from None
            self._rest, self._full = inflater.unconsumed_tail, len(found) == most
            if inflater.eof:
                self._inflater, self._rest, self._full = None, inflater.unused_data, False
        return found

    def feed(self, piece: bytes, room: int) -> bytes:
        """All that this piece decodes to, at most `room` bytes. Raises Fault LOST for damaged data, or more than fits:
        a few kilobytes can stand for gigabytes.
        """
        self.push(piece)
        parts = []
        while self.pending:
            parts.append(self.pull(_STEP))
            room -= len(parts[-1])
            if room < 0:
                raise lost("body too large once decoded")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cut_short(self) -> Fault | None:
        """The fault of a body that ends here although it has not ended."""
        return lost("encoded body cut short") if self._inflater is not None else None

    def _next(self, piece: bytes) -> zlib._Decompress | None:
        """For the first piece, and for each further member of a gzip file; None for what may follow its end."""
        if self._began and (self._window != _GZIP or piece[:1] != b"\x1f"):
            return None
        # Many servers send deflate without the zlib header that it should have.
        has_header = piece[0] & 15 == 8 and (len(piece) < 2 or int.from_bytes(piece[:2], "big") % 31 == 0)  # RFC 1950
        window = _BARE if self._window == _ZLIB and not has_header else self._window
        self._began = True
        self._inflater = zlib.decompressobj(window)
        return self._inflater


def decoder_of(headers: dict[str, str]) -> Decoder | None:
    """What decodes the body that has these headers; None for one that is not encoded. Raises Fault LOST for a coding
    that is not known here.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return None
    window = _CODINGS.get(coding)
    if window is None:
        raise lost(f"the body is encoded as {coding[:32]!r} although identity was asked for")
    return Decoder(window)
