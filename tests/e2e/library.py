"""MCP servers that offer everything: prompts, resources, templates, completions; every answer raw, every question kept.

box = Library("modern", {}, prompts={"hello": b'{"messages":[...]}'}, resources={"a:b": b'[{"uri":"a:b",...}]'})
async with libraries(folder, {"shelf": box}) as gateway: ...
box.heard                                 # what it was asked, by name, session and log level
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import META, exchange, modern
from tests.e2e.servers import (
    STREAM,
    STREAM_END,
    Call,
    Got,
    Toolbox,
    answer,
    event,
    failure,
    serving,
    success,
)

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
LISTS = {
    "prompts/list": "prompts", "resources/list": "resources", "resources/templates/list": "resourceTemplates",
}  # fmt: skip
ANNOUNCED = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}
EVERYTHING = {
    "tools": {"listChanged": True}, "prompts": {"listChanged": True}, "resources": {"listChanged": True},
    "completions": {}, "logging": {},
}  # fmt: skip


@dataclass(frozen=True)
class Heard:
    """One question as a server got it: `key` is the name, the URI, or what a completion's `ref` names."""

    method: str
    key: str
    session: str | None
    level: str | None
    params: dict[str, Any] = field(compare=False)


@dataclass
class Library(Toolbox):
    """A toolbox with prompts, resources, templates and completions.

    `prompts` maps names to the JSON text of the result; `resources` URIs to that of `contents` (`unlisted` has those
    that no list names); `values` what a completion's `ref` names to that of `completion`. `heard` is the ledger of all
    but lists; `told` the levels that sessions were set to. `mute` are methods that are never answered, `broken` those
    answered by an error. `noisy`: before each answer comes a log message of every level that whoever asks wants.
    """

    prompts: dict[str, bytes] = field(default_factory=dict)
    resources: dict[str, bytes] = field(default_factory=dict)
    templates: list[str] = field(default_factory=list)
    unlisted: Callable[[str], bytes | None] = lambda uri: None
    values: dict[str, bytes] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=lambda: dict(EVERYTHING))
    heard: list[Heard] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    mute: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    noisy: bool = False
    page: int = 400
    listening: list[asyncio.StreamWriter] = field(default_factory=list)

    def announce(self, what: str) -> None:
        """Say that a list has changed: `tools`, `prompts` or `resources`."""
        for writer in self.listening:
            writer.write(event(b'{"jsonrpc":"2.0","method":"notifications/%s/list_changed"}' % what.encode()))

    async def listened_to(self) -> bool:
        return bool(self.listening)

    def asked(self, method: str) -> list[str]:
        """What of this method was asked, in order."""
        return [one.key for one in self.heard if one.method == method]

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        if got.verb == "GET" and self.era != "modern":
            self.listening.append(writer)
            writer.write(STREAM)
            return
        await super().handle(got, writer)

    async def _post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if message.get("method") == "subscriptions/listen" and not self._refusal(got, message, True):
            agreed = message["params"]["notifications"]
            said = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                    "params": {"notifications": agreed, "_meta": {f"{META}subscriptionId": message["id"]}}}  # fmt: skip
            self.listening.append(writer)
            writer.write(STREAM + event(json.dumps(said).encode()))
            return
        await super()._post(got, message, writer)

    async def _call(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter, is_modern: bool) -> None:
        self._note(got, message)
        await super()._call(got, message, writer, is_modern)

    def _answer(self, message: dict[str, Any], is_modern: bool) -> bytes:
        method = message["method"]
        if method in self.mute:
            return b""
        if method in self.broken:
            return failure(message["id"], -32603, "It broke")
        if method in LISTS:
            return self._list(message, is_modern)
        if method in ("initialize", "server/discover"):
            return self._with_capabilities(super()._answer(message, is_modern))
        if method == "logging/setLevel" and not is_modern:
            heard = self._note(self.got[-1], message)
            self.told[str(heard.session)] = message["params"]["level"]
            return success(message["id"], {})
        if method in ("prompts/get", "resources/read", "completion/complete"):
            return self._give(message, self._note(self.got[-1], message), is_modern)
        return super()._answer(message, is_modern)

    def _with_capabilities(self, found: bytes) -> bytes:
        head, _, body = found.partition(b"\r\n\r\n")
        message = json.loads(body)
        if "result" not in message:
            return found
        message["result"]["capabilities"] = self.capabilities
        session = {"Mcp-Session-Id": self.opened[-1]} if b"Mcp-Session-Id" in head else None
        return success(message["id"], message["result"], session)

    def _list(self, message: dict[str, Any], is_modern: bool) -> bytes:
        method = message["method"]
        keys: list[str] = list(
            {"prompts/list": self.prompts, "resources/list": self.resources}.get(method, self.templates)
        )
        start = int((message.get("params") or {}).get("cursor") or 0)
        made = {"prompts/list": _prompt, "resources/list": _resource}.get(method, _template)
        items = [made(key) | self.details.get(key, {}) for key in keys[start : start + self.page]]
        result: dict[str, Any] = {LISTS[method]: items}
        if is_modern:
            result |= {"resultType": "complete", "ttlMs": self.ttl_ms, "cacheScope": "public"}
        if start + self.page < len(keys):
            result["nextCursor"] = str(start + self.page)
        return success(message["id"], result)

    def _give(self, message: dict[str, Any], heard: Heard, is_modern: bool) -> bytes:
        identity, method, key = json.dumps(message["id"]).encode(), message["method"], heard.key
        extra = b'"resultType":"complete",' if is_modern else b""
        if method == "prompts/get":
            found = self.prompts.get(key)
            inner = found.strip()[1:] if found is not None else None
        elif method == "resources/read":
            found = self.resources.get(key)
            found = self.unlisted(key) if found is None else found
            extra += b'"ttlMs":1234,"cacheScope":"public",' if is_modern else b""
            inner = b'"contents":' + found + b"}" if found is not None else None
        else:
            found = self.values.get(key)
            inner = b'"completion":' + found + b"}" if found is not None else None
        if inner is None:
            return _missing(message, method, key, is_modern)
        reply = b'{"jsonrpc":"2.0","id":' + identity + b',"result":{' + extra + inner + b"}"
        if not self.noisy:
            return answer(reply)
        return STREAM + b"".join(map(event, self._noise(heard, is_modern))) + event(reply) + STREAM_END

    def _noise(self, heard: Heard, is_modern: bool) -> Iterable[bytes]:
        level = heard.level if is_modern else self.told.get(str(heard.session), "info")
        for one in LEVELS[LEVELS.index(level) :] if level else ():
            params = {"level": one, "data": {"key": heard.key, "session": heard.session}}
            yield json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()

    def _note(self, got: Got, message: dict[str, Any]) -> Heard:
        params = message.get("params") or {}
        ref = params.get("ref") or {}
        key = next((found[name] for found in (ref, params) for name in ("name", "uri", "level") if name in found), "")
        level = params.get("_meta", {}).get(f"{META}logLevel")
        heard = Heard(message["method"], key, got.header("mcp-session-id"), level, params)
        self.heard.append(heard)
        return heard


def _missing(message: dict[str, Any], method: str, key: str, is_modern: bool) -> bytes:
    if method != "resources/read":
        return failure(message["id"], -32602, f"No {key} here")
    return failure(message["id"], -32602 if is_modern else -32002, "Resource not found", data={"uri": key})


def _prompt(key: str) -> dict[str, Any]:
    return {"name": key, "arguments": [{"name": "word"}]}


def _resource(key: str) -> dict[str, Any]:
    return {"uri": key, "name": key}


def _template(key: str) -> dict[str, Any]:
    return {"uriTemplate": key, "name": key}


async def done(call: Call) -> None:
    await call.text(call.name)


def text(uri: str, words: str = "words") -> bytes:
    """`contents` of one text."""
    return json.dumps([{"uri": uri, "mimeType": "text/plain", "text": words}]).encode()


def said(words: str = "words") -> bytes:
    """The result of a prompt of one message."""
    return json.dumps({"messages": [{"role": "user", "content": {"type": "text", "text": words}}]}).encode()


@asynccontextmanager
async def libraries(
    folder: Path, boxes: dict[str, Library], *, servers: dict[str, dict[str, Any]] | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway before these servers, in this order; `servers` adds settings of theirs. Nothing is waited for."""
    async with AsyncExitStack() as stack:
        urls = {name: (await stack.enter_async_context(serving(box))).url for name, box in boxes.items()}
        more = {name: {"url": url, **(servers or {}).get(name, {})} for name, url in urls.items()}
        async with running_beside({"servers": more, **settings}, folder) as gateway:
            yield gateway


async def offered(url: str, method: str, keys: Iterable[str], key: str = KEY) -> None:
    """Return when a list names all of these, whichever worker is asked; its first page is looked at."""
    wanted = set(keys)
    names = {"tools/list": "name", "prompts/list": "name", "resources/list": "uri"}
    member = names.get(method, "uriTemplate")

    async def all_there() -> bool:
        replies = [(await exchange(url, modern(method, key=key))).json()["result"] for _ in range(8)]
        kind = LISTS.get(method, "tools")
        return all(wanted <= {item[member] for item in reply[kind]} for reply in replies)

    await until(all_there)


def shelf(era: str) -> Library:
    """One of each, named after `era`; it reads whatever its template fits."""
    return Library(
        era,
        {f"{era}-tool": done},
        prompts={f"{era}-one": said("one")},
        resources={f"{era}:one": text(f"{era}:one")},
        templates=[f"{era}://{{x}}"],
        unlisted=lambda uri: text(uri) if uri.startswith(f"{era}:") else None,
    )


def shelf_names(era: str) -> dict[str, str]:
    """What it offers, by the method that lists it."""
    return {
        "tools/list": f"{era}-tool",
        "prompts/list": f"{era}-one",
        "resources/list": f"{era}:one",
        "resources/templates/list": f"{era}://{{x}}",
    }


async def shelf_listed(url: str, *eras: str) -> None:
    """Return when all that these offer is listed."""
    for era in eras:
        for method, key in shelf_names(era).items():
            await offered(url, method, [key])
