"""Multi-round-trip results: what a server may ask an agent in one, and the state it wants back (2026-07-28, MRTR).

Servers see one credential for many agents, so only the gateway can keep one agent's state from being used by another:
it is sealed, and opens for the same agent, endpoint, method and name alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, string
from fastgw.protocol.links import is_handy
from fastgw.protocol.results import UnusableResult
from fastgw.protocol.sealing import Sealer

METHODS = frozenset((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ))
"""The requests whose result may ask for input (2026-07-28, MRTR, Supported Requests)."""

KIND = "input_required"
REQUESTS, RESPONSES, STATE = "inputRequests", "inputResponses", "requestState"

LIFETIME = 3600
"""Seconds a state opens: as long as a person may take to answer."""

LARGEST_STATE = 256 * 1024
"""Bytes of a server's state: it comes back inside a request, which is limited."""

_LARGEST_TOKEN = LARGEST_STATE * 4 // 3 + 16 * 1024
_LARGEST_REQUESTS = 8 * 1024 * 1024
_MOST_REQUESTS = 64
_LONGEST_KEY = 1024
_LARGEST_REMEMBERED = 4096

_WAYS = {
    "elicitation": frozenset(("form", "url")),
    "sampling": frozenset(("context", "tools")),
    "roots": frozenset[str](),
}
"""Capabilities by which a server may ask, and the ways of asking that each of them names."""

_NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_CAPABILITIES = frozenset(_WAYS)
_REQUEST = frozenset(("method", "params"))
_PARAMS = frozenset(("mode", "includeContext", "tools", "toolChoice"))


class NotOffered(ValueError):
    """A server asks for what the agent has not declared."""


@dataclass(frozen=True, slots=True)
class RoundState:
    """What a sealed `requestState` holds.

    Args:
        instance: key of its instance that gave it.
        expires: Unix seconds.
        inner: the server's own `requestState`, a JSON string, as JSON text.
    """

    server: str
    instance: str
    expires: int
    inner: bytes


def offered(capabilities: bytes) -> bytes:
    """The capabilities that may be offered to a server on an agent's behalf, as JSON text: those by which it may ask.

    Args:
        capabilities: the agent's `ClientCapabilities` as JSON text. Each of the three that is an object is kept byte
            for byte; one that is anything else declares nothing.

    Raises:
        NotAMessage, NotJson: a member stands twice, so that two readers could see two declarations.
    """
    # Agents declare the same on every call. Only short texts are remembered, for they are the agents' to choose.
    return _remembered(capabilities) if len(capabilities) <= _LARGEST_REMEMBERED else _offered(capabilities)


def _offered(capabilities: bytes) -> bytes:
    found = members(capabilities, _CAPABILITIES)
    kept = {}
    for name, ways in _WAYS.items():
        declared = found.get(name, b"")
        if declared.startswith(b"{"):
            members(declared, ways)
            kept[name] = declared
    return emit(kept)


_remembered = lru_cache(maxsize=512)(_offered)


def check(found: dict[str, bytes], capabilities: bytes) -> None:
    """Make sure that an agent can be given this result.

    Raises:
        NotOffered: it asks for something that was not.
        UnusableResult: it breaks the protocol, or is larger than is carried.
    """
    requests, state = found.get(REQUESTS), found.get(STATE)
    if requests is None and state is None:
        raise UnusableResult("neither inputRequests nor requestState")
    if state is not None and not state.startswith(b'"'):
        raise UnusableResult("requestState must be a string")
    if len(state or b"") > LARGEST_STATE or len(requests or b"") > _LARGEST_REQUESTS or not is_handy(requests or b""):
        raise UnusableResult("requestState or inputRequests is too large")
    try:
        asked = members(requests) if requests is not None else {}
        declared = {name: members(value) for name, value in members(capabilities).items()}
    except (NotJson, NotAMessage) as wrong:
        raise UnusableResult(str(wrong)) from None
    if len(asked) > _MOST_REQUESTS or any(len(key) > _LONGEST_KEY for key in asked):
        raise UnusableResult("too many inputRequests, or a key that is too long")
    for request in asked.values():
        try:
            request_members = members(request, _REQUEST)
            method = string(request_members.get("method", b"null"), "method")
            missing = _missing(method, members(request_members.get("params", b"{}"), _PARAMS), declared)
        except (NotJson, NotAMessage) as wrong:
            raise NotOffered(f"an input request that is none: {wrong}") from None
        if missing:
            raise NotOffered(f"{method[:64]} without {missing}")


def _missing(method: str, params: dict[str, bytes], declared: dict[str, dict[str, bytes]]) -> str:
    """What the agent would have had to declare for this question; empty where it has.

    An empty `elicitation` declares forms (2026-07-28, Elicitation, Capabilities). Tools and context in sampling are
    asked for by their own members (2026-07-28, Sampling, Capabilities).
    """
    need = _NEEDS.get(method)
    if need is None or need not in declared:
        return need or "such a method"
    ways = declared[need]
    if need == "elicitation":
        mode = string(params.get("mode", b'"form"'), "mode")
        has_it = (mode in ways and mode in _WAYS[need]) or (mode == "form" and not ways)
        return "" if has_it else f"elicitation.{mode[:32]}"
    if need == "sampling" and ("tools" in params or "toolChoice" in params) and "tools" not in ways:
        return "sampling.tools"
    if need == "sampling" and params.get("includeContext", b'"none"') != b'"none"' and "context" not in ways:
        return "sampling.context"
    return ""


def bond(endpoint: str, agent: str, method: str, name: str) -> bytes:
    """What a state is bound to, so that it opens for the same agent and the same thing, as it names it, alone."""
    return _PACK((endpoint, agent, method, name))


def seal_state(state: RoundState, sealer: Sealer, bound: bytes, nonce: bytes) -> bytes:
    """The `requestState` that an agent gets, as JSON text. `nonce`: `sealing.NONCE` bytes never used before."""
    return b'"%s"' % sealer.seal(_PACK(state), bound, nonce).encode("ascii")


def open_state(text: bytes, sealer: Sealer, bound: bytes, now: float) -> RoundState | None:
    """What an agent brought back; None where it is altered, expired, too large, or was given for something else.

    Args:
        text: `requestState` as JSON text.
        now: Unix seconds.
    """
    if len(text) > _LARGEST_TOKEN:
        return None
    try:
        plain = sealer.open(string(text, STATE), bound)
        state = _UNPACK(plain) if plain is not None else None
    except (NotAMessage, msgspec.DecodeError):
        return None  # no string; or sealed by us, but by a version that wrote it in another form
    return state if state is not None and state.expires > now else None


_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(RoundState).decode
