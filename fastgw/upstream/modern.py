"""A call on its way to a server of 2026-07-28: self-contained, with its headers saying what its body says.

The envelope is written anew; every payload in it is the agent's own JSON text.
"""

from __future__ import annotations

from functools import lru_cache

from fastgw.catalog.route import Target
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote
from fastgw.protocol.headers import encode_name, lines, others
from fastgw.protocol.quick import LARGEST_META

_FIXED = (
    "content-type: application/json\r\naccept: application/json, text/event-stream\r\naccept-encoding: identity\r\n"
    f"mcp-protocol-version: {names.MODERN_VERSION}\r\nmcp-method: "
).encode("ascii")
ARGUMENTS = frozenset(("arguments",))
_VERSION = quote(names.MODERN_VERSION)
OF_AGENTS = b'{"elicitation":{"form":{},"url":{}},"roots":{},"sampling":{}}'
"""Capabilities that agents could bring: some servers list certain tools only to clients that declare them."""


def request(call: Call, target: Target, upstream_id: bytes, credential: bytes, ours: bytes) -> tuple[bytes, bytes]:
    """Header lines and body of a call.

    Args:
        upstream_id: our JSON-RPC id of this request, as JSON text; also its progress token.
        ours: our `clientInfo` as JSON text, for agents that gave none.

    Raises Fault BAD_PARAMS where the arguments cannot be sent as they are.
    """
    client = call.client or ours
    # What is remembered is the agents' to choose, so it must be short.
    if not call.meta and call.token is None and len(client) + len(call.offered) <= LARGEST_META:
        meta_text = _usual_meta(client, call.offered, call.log_level)
    else:
        meta = {**call.meta, **_reserved(client, call.offered, call.log_level)}
        if call.token is not None:
            meta["progressToken"] = upstream_id
        meta_text = emit(meta)
    is_plain = not (target.renamed or target.param_headers or call.passed)
    if is_plain and call.method == names.TOOLS_CALL and call.params.keys() <= ARGUMENTS:
        return credential + _tool_headers(target.tool), tool_call(call, target, upstream_id, b',"_meta":' + meta_text)
    params = {target.member: target.name_json, **call.params} if target.member else dict(call.params)
    mirrored = b""
    if target.renamed or target.param_headers:
        try:
            arguments = renamed(call.params.get("arguments", b"{}"), target.renamed)
            mirrored = lines(target.param_headers, arguments)
        except (NotAMessage, NotJson) as wrong:
            raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {wrong}") from None
        if "arguments" in params:
            params["arguments"] = arguments
    if call.passed:
        mirrored += others(call.passed, target.param_headers)
    params["_meta"] = meta_text
    name = b"mcp-name: %s\r\n" % encode_name(target.tool) if target.member else b""
    headers = b"%s%s%s\r\n%s%s" % (credential, _FIXED, call.method.encode("ascii"), name, mirrored)
    return headers, message(call.method, params, upstream_id)


def question(method: str, params: dict[str, bytes], upstream_id: bytes, ours: bytes) -> tuple[bytes, bytes]:
    """Header lines, less the credential, and body of a request of the gateway's own."""
    body = message(method, {**params, "_meta": emit(_reserved(ours, OF_AGENTS))}, upstream_id)
    return _FIXED + method.encode("ascii") + b"\r\n", body


def tool_call(call: Call, target: Target, upstream_id: bytes, meta: bytes) -> bytes:
    """A `tools/call` that brings no more than arguments; `meta` is the member `_meta` with its comma, or nothing."""
    arguments = call.params.get("arguments")
    middle = b',"arguments":' if arguments is not None else b""
    start = b',"method":"tools/call","params":{"name":'
    parts = (b'{"jsonrpc":"2.0","id":', upstream_id, start, target.name_json, middle, arguments or b"", meta, b"}}")
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _tool_headers(tool: str) -> bytes:
    return b"%stools/call\r\nmcp-name: %s\r\n" % (_FIXED, encode_name(tool))


@lru_cache(maxsize=1024)
def _usual_meta(client: bytes, offered: bytes, log_level: str | None) -> bytes:
    """The `_meta` of calls that bring none of their own: an agent's is the same in all of them."""
    return emit(_reserved(client, offered, log_level))


def message(method: str, params: dict[str, bytes], upstream_id: bytes) -> bytes:
    """A JSON-RPC request."""
    return b'{"jsonrpc":"2.0","id":%s,"method":%s,"params":%s}' % (upstream_id, quote(method), emit(params))


def renamed(arguments: bytes, pairs: tuple[tuple[str, str], ...]) -> bytes:
    """The arguments under the names their server gives them; values stay byte for byte. Pairs are (ours, theirs).

    Raises:
        NotAMessage: no object, a member twice, or one under the server's own name in whatever case, which some servers
            take for the same: policies look at ours, so that would be a way round them.
    """
    if not pairs:
        return arguments
    theirs = dict(pairs)
    found = members(arguments)
    taken = {name.casefold() for name in theirs.values()}
    for name in found:
        if name not in theirs and name.casefold() in taken:
            raise NotAMessage(f"there is no argument {name[:64]!r}")
    return emit({theirs.get(name, name): value for name, value in found.items()})


def _reserved(client: bytes, offered: bytes, log_level: str | None = None) -> dict[str, bytes]:
    """The members of `_meta` that belong to each hop. No capability is offered that could not be relayed."""
    found = {names.META_VERSION: _VERSION, names.META_CLIENT: client, names.META_CAPABILITIES: offered}
    return found if log_level is None else {**found, names.META_LOG_LEVEL: quote(log_level)}
