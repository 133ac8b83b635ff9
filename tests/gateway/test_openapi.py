"""The OpenAPI document: valid, references that lead somewhere, made once, in steps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from fastgw.gateway import kept_texts, openapi
from fastgw.snapshot import model
from tests.gateway.asking import ask, changed, endpoints, sells, view_of
from tests.gateway.fakes import Stage, staged
from tests.upstream.fakes import run

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}},
    "required": ["city"],
    "$defs": {"city": {"type": "string", "minLength": 2}},
}
TREE = {"$id": "https://shop.example/tree", "type": "object", "properties": {"left": {"$ref": "#"}}}


async def described(stage: Stage, *tools: dict[str, Any], **members: Any) -> Any:
    changed(stage, views=(view_of(*tools),), **members)
    agent = await ask(stage, "/mcp/openapi.json", verb="GET")
    assert agent.status == 200
    return agent.json()


def schema_of(document: Any, key: str) -> Any:
    return document["components"]["schemas"][key]


def test_the_tools_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            plain = {"name": "a/b {c}", "title": "A", "description": "Does a.", "inputSchema": {"type": "object"}}
            rich = {"name": "rich", "inputSchema": CITY, "outputSchema": TREE}
            document = await described(stage, plain, rich, instructions="Be kind.")
            assert document["openapi"].startswith("3.1")
            assert document["info"]["description"] == "Be kind."
            assert document["servers"] == [{"url": "/mcp"}]
            assert document["security"] == []
            assert list(document["paths"]) == ["/tools/a%2Fb%20%7Bc%7D/invoke", "/tools/rich/invoke"]
            post = document["paths"]["/tools/a%2Fb%20%7Bc%7D/invoke"]["post"]
            assert (post["operationId"], post["summary"], post["description"]) == ("a/b {c}", "A", "Does a.")
            reference = {"$ref": "#/components/schemas/rich.arguments/$defs/city"}
            assert schema_of(document, "rich.arguments") == {**CITY, "properties": {"city": reference}}
            answer = document["paths"]["/tools/rich/invoke"]["post"]["responses"]["200"]
            structured = answer["content"]["application/json"]["schema"]["properties"]["structuredContent"]
            assert structured == {"$ref": "#/components/schemas/rich.result"}
            assert schema_of(document, "rich.result")["properties"]["left"] == structured
            assert "securitySchemes" not in document["components"]

    run(story())


def test_who_needs_a_credential_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            made = openapi.Descriptions()
            context = stage.gateway.begin({"headers": []})
            context.endpoint = replace(endpoints("/mcp")["/mcp"], anonymous=False)
            document = json.loads(await made.of(context, view_of()))
            assert document["security"] == [{"bearer": []}]
            assert document["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
            assert document["paths"] == {}

    run(story())


def test_the_document_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            tools = [{"name": f"t{at}", "inputSchema": schema} for at, schema in enumerate((CITY, TREE, TREE))]
            tools.append({"name": "o", "inputSchema": {"type": "object"}, "outputSchema": CITY})
            validate(await described(stage, *tools))

    run(story())


def test_a_schema_s_own_references_lead_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up by the rules of JSON Schema, from the document as a whole."""

    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            numbered = {**CITY, "$defs": {"city": {"type": "integer"}}}
            schemas = {"a": CITY, "b": numbered, "t": TREE, "u": {**TREE, "title": "another"}}
            tools = [{"name": name, "inputSchema": schema} for name, schema in schemas.items()]
            output = {"name": "o", "inputSchema": {"type": "object"}, "outputSchema": CITY}
            document = await described(stage, *tools, output)
            request, answer = "requestBody", "responses/200"
            assert fits(document, "a", request, {"city": "Rome"})
            assert not fits(document, "a", request, {"city": 7})
            assert fits(document, "b", request, {"city": 7})
            assert not fits(document, "t", request, {"left": {"left": 7}})
            assert fits(document, "o", answer, {"content": [], "structuredContent": {"city": "Rome"}})
            assert not fits(document, "o", answer, {"structuredContent": {"city": "R"}})
            assert not fits(document, "o", answer, {"isError": 1})

    run(story())


def fits(document: Any, tool: str, part: str, value: Any) -> bool:
    base = "http://localhost/mcp/openapi.json"
    where = f"{base}#/paths/~1tools~1{tool}~1invoke/post/{part}/content/application~1json/schema"
    registry = jsonschema_rs.Registry([(base, document)])
    return jsonschema_rs.Draft202012Validator({"$ref": where}, registry=registry).is_valid(value)


def test_only_references_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            text = 'say {"$ref": "#/x"} or "$ref":"#"'
            schema = {
                "type": "object",
                "description": text,
                "default": {'a"$ref': "#/x", 'b{"$ref': "#"},
                "properties": {"$ref": {"type": "string"}, text: {"$ref": "#node"}, "far": {"$ref": "http://x/#/y"}},
            }
            inner = {**TREE, "properties": {"a": {"$id": "urn:a", "$ref": "#/x"}}}
            document = await described(stage, {"name": "a", "inputSchema": schema}, {"name": "b", "inputSchema": inner})
            assert schema_of(document, "a.arguments") == schema
            assert schema_of(document, "b.arguments") == inner

    run(story())


def test_a_document_is_made_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    build = openapi._document

    async def counted(*given: Any) -> bytes:
        made.append(1)
        return await build(*given)

    monkeypatch.setattr(openapi, "_document", counted)

    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            context = stage.gateway.begin({"headers": []})
            kept, one, two = openapi.Descriptions(), view_of({"name": "a", "inputSchema": {}}), view_of()
            first = await asyncio.gather(*(kept.of(context, one) for _ in range(5)))
            assert (len(made), len(set(first))) == (1, 1)
            monkeypatch.setattr(kept_texts, "MOST_KEPT", len(first[0]))
            await kept.of(context, two)
            await kept.of(context, one)
            assert len(made) == 3
            assert kept.size <= kept_texts.MOST_KEPT
            monkeypatch.setattr(kept_texts, "MOST_KEPT", 2 * len(first[0]))
            await kept.of(context, two)
            await kept.of(context, one)
            await kept.of(context, view_of({"name": "b", "inputSchema": {}}))
            await kept.of(context, one)
            assert len(made) == 5, "the one not asked for longest goes"

    run(story())


def test_no_document_outlives_the_lists_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            await described(stage, {"name": "a", "inputSchema": {}}, instructions="Before.")
            assert len(stage.gateway.descriptions) == 1
            changed(stage, instructions="After.")
            assert (len(stage.gateway.descriptions), stage.gateway.descriptions.size) == (0, 0)
            agent = await ask(stage, "/mcp/openapi.json", verb="GET")
            assert agent.json()["info"]["description"] == "After."

    run(story())


def test_others_get_their_turn_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "STEP", 1)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            monkeypatch.setattr(model, "PAGE", 5)
            task = asyncio.ensure_future(others())
            tools = [{"name": f"t{at}", "inputSchema": {}} for at in range(10)]
            await openapi.Descriptions().of(stage.gateway.begin({"headers": []}), view_of(*tools))
            task.cancel()
            assert turns >= 12

    run(story())
