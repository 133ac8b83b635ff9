"""The tools of one list as an OpenAPI document: the same tools, for programs that know no MCP.

Schemas stand under `components` as their servers wrote them, but for one thing: a reference from a schema's own root
(`#/$defs/x`) would mean the root of the whole document here (OpenAPI 3.1, Relative References in URIs), so it is made
to begin where the schema does. An `$id` for each is as correct, but not where references are followed as mere pointers:
openapi-spec-validator and jsonschema-rs do.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from urllib.parse import quote as encoded

import msgspec
import orjson

from fastgw.catalog.elements import MODERN
from fastgw.gateway.context import RequestContext
from fastgw.gateway.kept_texts import KeptTexts
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote
from fastgw.snapshot.model import EMPTY_LISTING, Listing, View

STEP = 100
"""Tools described before other requests get their turn."""

_OBJECT, _TEXT = {"type": "object"}, {"type": "string"}
_RESULT = {
    "content": {"type": "array", "items": _OBJECT},
    "structuredContent": {},
    "isError": {"type": "boolean", "description": "The tool itself failed."},
    "_meta": _OBJECT,
}
_ERROR = {
    "error": _TEXT,
    "code": {"type": "integer"},
    "requestId": _TEXT,
    "mayHaveRun": {"type": "boolean", "description": "Whether the call may have taken effect."},
    "retryAfter": {"type": "integer", "description": "Seconds."},
}
_SHARED_SCHEMAS = orjson.dumps(
    {
        "Result": {**_OBJECT, "properties": _RESULT},
        "Error": {**_OBJECT, "required": ["error", "code", "requestId", "mayHaveRun"], "properties": _ERROR},
    }
)[1:-1]
_RESPONSES = (
    b'"responses":{"Error":{"description":"The call failed or was refused.",'
    b'"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Error"}}}}}'
)
_SCHEMES = b',"securitySchemes":{"bearer":{"type":"http","scheme":"bearer"}}}'
_RESULT_REF = b'{"$ref":"#/components/schemas/Result"}'
_PATH = (
    b'"/tools/%s/invoke":{"post":{"operationId":%s,%s'
    b'"requestBody":{"content":{"application/json":{"schema":{"$ref":"%s"}}}},'
    b'"responses":{"200":{"description":"What the tool answered.","content":{"application/json":{"schema":%s}}},'
    b'"default":{"$ref":"#/components/responses/Error"}}}}'
)
_KEY = re.compile(r"[A-Za-z0-9._-]+")
_ROOTED = re.compile(rb'"\$ref"[ \t\r\n]*+:[ \t\r\n]*+"#(?=["/])')
"""What may be a reference from the root of its schema. It begins with a plain text, which is what makes it fast."""
_BEFORE = (b"{", b",", b" ", b"\t", b"\r", b"\n")
"""What stands before the name of a member; before a quote within a text, it is a backslash."""
_ABSENT = msgspec.Raw()


class _Tool(msgspec.Struct):
    name: str
    inputSchema: msgspec.Raw  # noqa: N815 - the protocol's word
    title: msgspec.Raw = _ABSENT
    description: msgspec.Raw = _ABSENT
    outputSchema: msgspec.Raw = _ABSENT  # noqa: N815 - the protocol's word


_TOOLS = msgspec.json.Decoder(list[_Tool]).decode


class Descriptions(KeptTexts):
    """The documents of one worker."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def of(self, context: RequestContext, view: View) -> bytes:
        """The document for who has this view of the request's endpoint; others get their turn while it is made."""
        listing = view.lists.get(names.TOOLS_LIST, EMPTY_LISTING)
        async with self._turn:  # a hundred that ask at once make one
            document = self.get(listing, context.endpoint.path)
            if document is None:
                document = self.keep(listing, context.endpoint.path, await _document(context, listing))
            return document


async def _document(context: RequestContext, listing: Listing) -> bytes:
    endpoint, snapshot = context.endpoint, context.snapshot
    info = {"title": f"{snapshot.server_name} {endpoint.path}", "version": snapshot.server_version}
    if endpoint.instructions:
        info["description"] = endpoint.instructions
    head = orjson.dumps(
        {
            "openapi": "3.1.1",
            "info": info,
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "servers": [{"url": endpoint.path}],
            "security": [] if endpoint.anonymous else [{"bearer": []}],
        }
    )
    paths: list[bytes] = []
    schemas = [head[:-1], b',"components":{"schemas":{', _SHARED_SCHEMAS]
    for page in listing.starts:
        tools = _TOOLS(listing.page(page, MODERN))
        await asyncio.sleep(0)
        for start in range(0, len(tools), STEP):
            made = [_described(tool) for tool in tools[start : start + STEP]]
            # In pieces, for one last join: 28 MB are copied in 20 ms, in 40 where it takes two steps.
            paths += [b"," if paths else b"", b",".join([path for path, _ in made])]
            schemas += [b",", b",".join([schema for _, schema in made])]
            await asyncio.sleep(0)
    middle = b"},%s%s" % (_RESPONSES, b"}" if endpoint.anonymous else _SCHEMES)
    document = b"".join((*schemas, middle, b',"paths":{', *paths, b"}}"))
    await asyncio.sleep(0)  # to send it takes another 16 ms
    return document


def _described(tool: _Tool) -> tuple[bytes, bytes]:
    """What the tool adds to `paths`, and to `components.schemas`."""
    key = tool.name if _KEY.fullmatch(tool.name) else f"tool-{sha256(tool.name.encode()).hexdigest()[:16]}"
    place = b"#/components/schemas/%s.arguments" % key.encode()
    schemas = b'"%s.arguments":%s' % (key.encode(), _moved(bytes(tool.inputSchema), place))
    result = _RESULT_REF
    if output := bytes(tool.outputSchema):
        there = b"#/components/schemas/%s.result" % key.encode()
        schemas += b',"%s.result":%s' % (key.encode(), _moved(output, there))
        result = b'{"allOf":[%s],"properties":{"structuredContent":{"$ref":"%s"}}}' % (_RESULT_REF, there)
    texts = ((b"summary", bytes(tool.title)), (b"description", bytes(tool.description)))
    about = b"".join([b'"%s":%s,' % (member, text) for member, text in texts if text])
    return _PATH % (encoded(tool.name, safe="").encode(), quote(tool.name), about, place, result), schemas


def _moved(schema: bytes, place: bytes) -> bytes:
    """The schema as it stands at `place`: references from its root lead there.

    It loses an `$id` of its own, from which they would start over. One that holds further `$id` inside is left alone.
    """
    if b'"$ref"' not in schema:
        return schema
    if b'"$id"' in schema:
        try:
            found = members(schema)
        except (NotAMessage, NotJson):  # a member stands twice; agents of MCP are shown it as it is, too
            return schema
        found.pop("$id", None)
        if b'"$id"' in (text := emit(found)):
            return schema
        schema = text

    def leading(found: re.Match[bytes]) -> bytes:
        """A text that ends like a reference stays."""
        at = found.start()
        return found[0][:-1] + place if schema[at - 1 : at] in _BEFORE else found[0]

    return _ROOTED.sub(leading, schema)
