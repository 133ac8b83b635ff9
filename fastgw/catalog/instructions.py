"""What servers tell those who use them (`instructions`), as one text for agents."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 8 * 1024
"""Bytes of the whole: it takes room in every conversation."""
_CUT = " […]"


def joined(own: str, servers: Iterable[tuple[str, str]], *, named: bool) -> str:
    """The operator's text, then the servers' texts; what is too long is cut, each server's to an even share.

    Args:
        own: the endpoint's own text; empty for none.
        servers: name and text of each, in order; empty texts are passed over.
        named: whether each stands under its server's name.
    """
    texts = [(f"{name}:\n{text.strip()}" if named else text.strip()) for name, text in servers if text.strip()]
    whole = "\n\n".join([*([own] if own else []), *texts])
    if len(whole.encode()) <= MOST or not texts:
        return whole
    share = max(0, MOST - len(own.encode()) - 2) // len(texts) - 2
    cut = "\n\n".join([*([own] if own else []), *(_shortened(text, share) for text in texts)])
    return _shortened(cut, MOST) if len(own.encode()) + len(_CUT.encode()) < MOST else own


def _shortened(text: str, size: int) -> str:
    data = text.encode()
    if len(data) <= size:
        return text
    return data[: max(0, size - len(_CUT.encode()))].decode(errors="ignore") + _CUT
