"""All that one server offers, how it is kept over a restart, and one text of several servers' instructions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.elements import Notice
from fastgw.protocol.envelope import check_utf8, emit, members, quote, string

_FORMAT: Final = b"2"
_NAMES = msgspec.json.Decoder(list[str]).decode
MOST_INSTRUCTIONS = 8 * 1024
"""Bytes of the whole: it takes room in every conversation."""
_CUT = " […]"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that one server offers.

    Args:
        fresh_until: CLOCK_MONOTONIC seconds until which the server vouches for it; 0.0 where it gave no hint.
        fetched_at: Unix seconds.
        capabilities: names of the capabilities the server declares: `tools`, `prompts`, `completions`, `logging`...
        first: tools as they were first seen, where that pins them; see `pins`.
        is_part: no whole list of its tools has come yet.
    """

    server: str
    tools: tuple[Definition, ...]
    fresh_until: float = 0.0
    fetched_at: float = 0.0
    notices: tuple[Notice, ...] = ()
    prompts: tuple[Definition, ...] = ()
    resources: tuple[Definition, ...] = ()
    templates: tuple[Definition, ...] = ()
    capabilities: frozenset[str] = frozenset()
    instructions: str = ""
    first: tuple[Definition, ...] = ()
    is_part: bool = False


def dump(catalogue: Catalogue) -> bytes:
    """The catalogue as JSON text, to be kept over a restart."""
    parts = {
        "format": _FORMAT,
        "server": quote(catalogue.server),
        "fetchedAt": b"%.3f" % catalogue.fetched_at,
        "capabilities": msgspec.json.encode(sorted(catalogue.capabilities)),
        "instructions": quote(catalogue.instructions),
    }
    for kind in DefinitionKind:
        parts[kind.field] = listed(kind, getattr(catalogue, kind.field))
    if catalogue.first:
        parts["first"] = listed(DefinitionKind.TOOL, catalogue.first)
    if catalogue.is_part:
        parts["isPart"] = b"true"
    return emit(parts)


def listed(kind: DefinitionKind, definitions: Iterable[Definition]) -> bytes:
    """The JSON array of these, as their server lists them."""
    head = b"{" + quote(kind.key) + b":"
    return b"[" + b",\n".join([head + quote(one.key) + one.tails[0] for one in definitions]) + b"]"


def load(text: bytes) -> Catalogue:
    """What `dump` wrote. Its freshness ended with the process that fetched it.

    Raises:
        ValueError: damaged, or written by another version.
    """
    try:
        check_utf8(text)
        found = members(text)
        if found["format"] != _FORMAT:
            raise ValueError("written by another version")
        server = string(found["server"], "server")
        lists: dict[str, Any] = {}
        notices: tuple[Notice, ...] = ()
        for kind in DefinitionKind:
            lists[kind.field], wrong = parse_definitions(kind, server, found[kind.field])
            notices += wrong
        return Catalogue(
            server,
            fetched_at=float(found["fetchedAt"]),
            notices=notices,
            capabilities=frozenset(_NAMES(found["capabilities"])),
            instructions=string(found["instructions"], "instructions"),
            first=parse_definitions(DefinitionKind.TOOL, server, found.get("first", b"[]"))[0],
            is_part="isPart" in found,
            **lists,
        )
    except KeyError as missing:
        raise ValueError(f"kept catalogue is damaged: {missing} is missing") from None
    except (ValueError, msgspec.MsgspecError) as damage:
        raise ValueError(f"kept catalogue is damaged: {damage}") from None


def joined_instructions(own: str, servers: Iterable[tuple[str, str]], *, named: bool) -> str:
    """One text of instructions for agents: the operator's, then the servers'; what is too long is cut, each server's to
    an even share.
    """
    texts = [(f"{name}:\n{text.strip()}" if named else text.strip()) for name, text in servers if text.strip()]
    first = [own] if own else []
    whole = "\n\n".join([*first, *texts])
    if len(whole.encode()) <= MOST_INSTRUCTIONS or not texts:
        return whole
    share = max(0, MOST_INSTRUCTIONS - len(own.encode()) - 2) // len(texts) - 2
    cut = "\n\n".join([*first, *(_shortened(text, share) for text in texts)])
    return _shortened(cut, MOST_INSTRUCTIONS) if len(own.encode()) + len(_CUT.encode()) < MOST_INSTRUCTIONS else own


def _shortened(text: str, size: int) -> str:
    data = text.encode()
    if len(data) <= size:
        return text
    return data[: max(0, size - len(_CUT.encode()))].decode(errors="ignore") + _CUT
