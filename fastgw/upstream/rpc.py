"""The gateway's own questions to a server (discover, initialize, list, ping), and what the answers say."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from fastgw.catalog.route import Deadlines
from fastgw.config.instance_urls import unshown
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.envelope import Message
from fastgw.protocol.names import Era
from fastgw.snapshot.model import Backend
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import CallContext, Spawn
from fastgw.upstream.classify import about_session, json_object, new_id
from fastgw.upstream.controller import NO_SESSION, UpstreamSession
from fastgw.upstream.reply import UpstreamReply
from fastgw.upstream.transports.http import HttpPool

CONNECT = 3.0
ALIVE_WITHIN = 2.0  # seconds for an answer to `ping`
_ANNOUNCED: Final = {
    "tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged",
}  # fmt: skip
"""Capability to the member of a listen filter that asks for its announcements (2026-07-28, Subscriptions)."""
_MOST_CAPABILITIES, _LONGEST_NAME, _LONGEST_INSTRUCTIONS = 64, 128, 64 * 1024
"""Of what a server says of itself: it is written to disk."""
_LEAST_HIDDEN = 8  # letters: of shorter ones agents would miss more than anybody would learn
_LONGEST_SHOWN = 200  # characters of an error that operators are shown
MOST_SEARCHED = 64 * 1024
"""Characters of an error in which secrets are looked for: more than the longest token has."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a server says of itself in its answer to discover or initialize.

    Args:
        capabilities: their names; None where it says nothing of them, or was never asked.
        announces: members of a listen filter for the lists whose changes it announces.
    """

    capabilities: frozenset[str] | None = None
    instructions: str = ""
    announces: tuple[str, ...] = ()


NOTHING: Final = Declared()


def declared_in(result: dict[str, Any]) -> Declared:
    """What such a result says. A capability that is null or false is none: some servers write out all they know of."""
    instructions = result.get("instructions")
    text = instructions[:_LONGEST_INSTRUCTIONS] if isinstance(instructions, str) else ""
    found = result.get("capabilities")
    if not isinstance(found, dict):
        return Declared(None, text)
    real = sorted(name for name, value in found.items() if value is not None and value is not False)
    kept = [name for name in real if len(name) <= _LONGEST_NAME][:_MOST_CAPABILITIES]
    lists = {member: found.get(name) for name, member in _ANNOUNCED.items()}
    announces = [member for member, one in lists.items() if isinstance(one, dict) and one.get("listChanged") is True]
    return Declared(frozenset(kept), text, tuple(announces))


@dataclass(frozen=True, slots=True)
class RpcReply:
    """A server's answer to a question: the JSON-RPC response to it, or the body of an answer without one. `shown`: the
    header lines with our credential that came with the question.
    """

    status: int
    headers: dict[str, str]
    message: Message | None
    body: bytes
    shown: bytes = field(default=b"", repr=False)

    @property
    def result(self) -> dict[str, Any]:
        """The result; empty where there is none, or it is no object."""
        return json_object(self.message.result if self.message is not None else None)

    @property
    def error(self) -> dict[str, Any]:
        """The error, also one that answers no id of ours; empty where there is none, or it is no object."""
        if self.message is not None:
            return json_object(self.message.error)
        found = json_object(self.body).get("error")
        return found if isinstance(found, dict) else {}

    @property
    def speaks_modern(self) -> bool:
        """Whether it is a refusal that only servers of 2026-07-28 give."""
        code, data = self.error.get("code"), self.error.get("data")
        if code == names.UNSUPPORTED_VERSION:
            supported = data.get("supported") if isinstance(data, dict) else None
            return isinstance(supported, list) and names.MODERN_VERSION in supported
        return code in (names.HEADER_MISMATCH, names.MISSING_CAPABILITY)

    def refusal(self, backend: Backend) -> Fault | None:
        """The fault of a server that turned us away or is broken, whatever it speaks; None for a real answer."""
        detail = f"status {self.status}{self.shown_error(backend)}"
        if self.status in (401, 403):
            words = f"the server refuses our credential: {detail}"
            return Fault(Kind.NO_SERVER, detail=words, data={"reason": "credential"})
        if self.status == 429 or self.status >= 500:
            reason = "busy" if self.status in (429, 503) else "down"
            failure = "server_error" if self.status >= 500 else ""
            return Fault(Kind.NO_SERVER, detail=detail, data={"reason": reason}, failure=failure, retry_after=1)
        return None

    def shown_error(self, backend: Backend) -> str:
        """What the error says, for operators, less what a careless server repeats of our secrets; empty for nothing."""
        whole = str(self.error.get("message", ""))[:MOST_SEARCHED]
        text = without_secrets(whole, backend, self.shown)[:_LONGEST_SHOWN]  # half a secret would not be known
        return f", {text!r}" if text else ""


def without_secrets(text: str, backend: Backend, shown: bytes = b"") -> str:
    """Words about a server, less what a careless one repeats of our secrets; `shown` are header lines with a token."""
    every = b"".join([shown, backend.headers, *[one.lines for one in backend.credentials]])
    lines = every.decode("latin-1").split("\r\n")
    secrets = [word for line in lines for word in line.partition(":")[2].split()]
    for instance in backend.instances:
        secrets += sorted(unshown(instance.url, instance.shown), key=len, reverse=True)
    for secret in secrets:
        text = text.replace(secret, "***") if len(secret) > 3 else text
    return text


def without_credential(error: bytes, backend: Backend, token: bytes) -> bytes:
    """A server's error on its way to an agent, less what a careless server repeats of the credential that it was shown;
    `token` are header lines.
    """
    for line in b"".join([token, backend.headers, *[one.lines for one in backend.credentials]]).split(b"\r\n"):
        value = line.partition(b":")[2].strip()
        scheme, _, word = value.partition(b" ")
        words = [value, *value.split()]
        if scheme == b"Basic":
            words.append(b64decode(word).partition(b":")[2])
        for one in words:
            error = error.replace(one, b"***") if len(one) >= _LEAST_HIDDEN else error
    return error


def question(seconds: float) -> Deadlines:
    """The deadlines of a question that may take so long."""
    return Deadlines(connect=min(CONNECT, seconds), first_byte=seconds, idle=seconds, total=seconds)


@dataclass(frozen=True, slots=True)
class RpcClient:
    """Puts questions to one instance of a server, each within `deadlines`. `renew` gives the header lines to show in
    place of those that the server refuses, the same where there are no others.
    """

    transport: HttpPool
    backend: Backend
    spawn: Spawn
    deadlines: Deadlines = field(default_factory=lambda: question(60.0))
    renew: Callable[[bytes], Awaitable[bytes]] | None = None

    def within(self, seconds: float) -> RpcClient:
        """The same, less patient."""
        return replace(self, deadlines=question(min(seconds, self.deadlines.total)))

    def showing(self, headers: bytes | None) -> RpcClient:
        """The same, with these header lines in place of the gateway's own; None: with those."""
        return self if headers is None else replace(self, backend=replace(self.backend, headers=headers))

    async def ask_modern(self, method: str, params: dict[str, bytes], ours: bytes) -> RpcReply:
        """Ask a modern server; `ours` is our `clientInfo` as JSON text. This and the others raise as `ask`."""
        upstream_id = new_id()
        headers, body = modern.question(method, params, upstream_id, ours)
        return await self.ask(self.backend.headers + headers, body, upstream_id)

    async def ask_legacy(self, session: UpstreamSession, method: str, params: dict[str, bytes]) -> RpcReply:
        upstream_id = new_id()
        body = modern.message(method, params, upstream_id)
        return await self.ask(legacy.headers(self.backend.headers, session), body, upstream_id, session)

    async def ask(
        self, headers: bytes, body: bytes, upstream_id: bytes, session: UpstreamSession | None = None
    ) -> RpcReply:
        """Put one question, with all header lines, and read the answer to its end; no session asks a modern server.
        Raises Fault as `HttpPool.request` and `UpstreamReply.next` say.
        """
        began = asyncio.get_running_loop().time()
        answer = await self.transport.request("POST", headers, body, self.deadlines)
        if answer.status == 401 and self.renew is not None:
            own = self.backend.headers
            if (other := await self.renew(own)) != own:
                answer.close()
                again = replace(self.showing(other), renew=None)
                return await again.ask(other + headers.removeprefix(own), body, upstream_id, session)
        era = Era.MODERN if session is None else Era.LEGACY
        context = CallContext(
            upstream_id, era, self.transport, self.backend.headers, session or NO_SESSION,
            self.deadlines, began, self.spawn,
        )  # fmt: skip
        upstream = UpstreamReply(context, answer)
        try:
            async with asyncio.timeout(max(0.01, context.remaining_deadlines().total)):
                message = await upstream.next()
                while message.method is not None:
                    message = await upstream.next()
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, detail="the answer took too long", sent=True) from None
        except Fault as fault:
            if answer.body is None or fault.kind is not Kind.LOST:
                raise
            return RpcReply(answer.status, answer.headers, None, answer.body, self.backend.headers)
        finally:
            upstream.close()
        notes = self.transport.notes
        if message.nulls:
            notes.add("writes outer fields that are null, as `error` beside a result: they count as left out")
        if message.id != upstream_id:
            notes.add("gives ids back in another form than it was sent: they are compared as numbers")
        return RpcReply(answer.status, answer.headers, message, b"", self.backend.headers)


async def is_alive(client: RpcClient, session: UpstreamSession) -> bool:
    """Whether a legacy server still knows a session: any answer to `ping` (2025-11-25, Ping) that is not about the
    session says so.
    """
    try:
        reply = await client.within(ALIVE_WITHIN).ask_legacy(session, names.PING, {})
    except Fault:
        return False
    if reply.message is None:
        return False
    return reply.message.result is not None or about_session(reply.status, reply.message, b"") is None


@dataclass(frozen=True, slots=True)
class RpcClients:
    """How the controller talks to servers: `client` by instance key, which raises Fault NO_SERVER for one that is not
    configured (any more); `ours` is our `clientInfo` as JSON text, `clock` gives monotonic seconds.
    """

    client: Callable[[str], RpcClient]
    spawn: Spawn
    ours: bytes
    clock: Callable[[], float] = time.monotonic
    shown: Callable[..., Awaitable[bytes]] | None = None
    """The header lines that the gateway shows a `Backend`; a second argument are those that it has refused."""

    async def ready(self, instance: str) -> RpcClient:
        """The client of this instance, with a token where its server wants one. Raises Fault NO_SERVER as `client`, and
        where there is no token.
        """
        client = self.client(instance)
        if self.shown is None:
            return client
        lines, renew = await self.shown(client.backend), partial(self.shown, client.backend)
        return client if lines == client.backend.headers else replace(client.showing(lines), renew=renew)
