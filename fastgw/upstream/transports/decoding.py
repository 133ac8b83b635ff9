"""Bodies that a server compresses although it was asked not to (RFC 9110, section 8.4): gzip and deflate."""

from __future__ import annotations

import zlib

from fastgw.upstream.transports import lost

_GZIP, _ZLIB, _BARE = 31, 15, -15  # zlib's window bits: with a gzip header, a zlib header, none
_CODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class Decoder:
    """Decodes one body, piece by piece. An empty body is empty."""

    __slots__ = ("_began", "_inflater", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._inflater: zlib._Decompress | None = None
        self._began = False

    @property
    def is_amid(self) -> bool:
        """Whether a body that ends here was cut short."""
        return self._inflater is not None

    def feed(self, piece: bytes, room: int) -> bytes:
        """All that this piece decodes to, at most `room` bytes. Raises Fault LOST for damaged data, or more than fits:
        a few kilobytes can stand for gigabytes.
        """
        found = b""
        while piece and (inflater := self._inflater or self._next(piece)) is not None:
            try:
                found += inflater.decompress(piece, room + 1 - len(found))
            except zlib.error as wrong:
                raise lost(f"damaged body: {wrong}") from None
            if len(found) > room:
                raise lost("body too large once decoded")
            self._inflater, piece = (None, inflater.unused_data) if inflater.eof else (inflater, b"")
        return found

    def _next(self, piece: bytes) -> zlib._Decompress | None:
        """For the first piece, and for each further member of a gzip file; None for what may follow its end."""
        if self._began and (self._window != _GZIP or piece[:1] != b"\x1f"):
            return None
        # Many servers send deflate without the zlib header that it should have.
        has_header = piece[0] & 15 == 8 and (len(piece) < 2 or int.from_bytes(piece[:2], "big") % 31 == 0)  # RFC 1950
        self._began = True
        return zlib.decompressobj(_BARE if self._window == _ZLIB and not has_header else self._window)


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
