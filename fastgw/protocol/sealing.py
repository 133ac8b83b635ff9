"""Tokens that agents carry for us and cannot read, forge or hand on."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE = 12
"""Bytes of a nonce. Random ones may seal 2**32 tokens under one key (NIST SP 800-38D, section 8.3)."""


class Sealer:
    """Seals under the first master secret, opens under all of them, for one purpose.

    Args:
        secrets: master secrets, newest first; at least one.
        purpose: what the tokens are for; a token of another purpose does not open.
    """

    def __init__(self, secrets: tuple[bytes, ...], purpose: str) -> None:
        info = b"fastgw:" + purpose.encode()
        keys = (HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret) for secret in secrets)
        self._keys = [AESGCM(key) for key in keys]

    def seal(self, plain: bytes, bound: bytes, nonce: bytes) -> str:
        """The token of `plain`, in the letters of base64url.

        Args:
            bound: whom and what the token is for; it opens only with the same bytes.
            nonce: `NONCE` bytes never used before.
        """
        return _letters(nonce + self._keys[0].encrypt(nonce, plain, bound))

    def open(self, token: str, bound: bytes) -> bytes | None:
        """What was sealed, or None for a token that is foreign, altered or no token at all."""
        try:
            text = token.encode("ascii")
            sealed = base64.b64decode(text + b"=" * (-len(text) % 4), b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        # One spelling only: Base64 has several for the same bytes, and what is remembered by its token would be evaded.
        if len(sealed) <= NONCE or _letters(sealed) != token:
            return None
        for key in self._keys:
            try:
                return key.decrypt(sealed[:NONCE], sealed[NONCE:], bound)
            except InvalidTag:
                continue
        return None


def _letters(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")
