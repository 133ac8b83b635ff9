"""What the fixture server's tools, prompts and resources answer.

Knows: the contents the conformance suite expects. Refuses to know: how a request arrived and how its answer leaves.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

from tests.conformance import catalogue
from tests.conformance.turn import Json, RpcError, Turn, elicitation, form, sampling

STEP = 0.02
"""Seconds between two notifications of one tool: long enough that a relay which collects them would be seen."""

Tool = Callable[[Turn], Awaitable[Json]]
TOOLS: dict[str, Tool] = {}


def tool(run: Tool) -> Tool:
    TOOLS[run.__name__] = run
    return run


def text(content: str) -> Json:
    return {"content": [{"type": "text", "text": content}]}


IMAGE = {"type": "image", "data": catalogue.PNG, "mimeType": "image/png"}


def embedded(uri: str, mime: str, content: str) -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": content}}


@tool
async def test_simple_text(turn: Turn) -> Json:
    return text("This is a simple text response for testing.")


@tool
async def test_image_content(turn: Turn) -> Json:
    return {"content": [IMAGE]}


@tool
async def test_audio_content(turn: Turn) -> Json:
    return {"content": [{"type": "audio", "data": catalogue.WAV, "mimeType": "audio/wav"}]}


@tool
async def test_embedded_resource(turn: Turn) -> Json:
    return {"content": [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]}


@tool
async def test_multiple_content_types(turn: Turn) -> Json:
    resource = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return {"content": [{"type": "text", "text": "Multiple content types test:"}, IMAGE, resource]}


@tool
async def test_error_handling(turn: Turn) -> Json:
    return {**text("This tool intentionally returns an error for testing"), "isError": True}


@tool
async def test_tool_with_logging(turn: Turn) -> Json:
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        turn.log("info", message)
        await asyncio.sleep(STEP)
    return text("Tool with logging executed successfully")


@tool
async def test_logging_tool(turn: Turn) -> Json:
    turn.log("info", "this message was asked for")
    return text("Logged, if a level was given")


@tool
async def test_tool_with_progress(turn: Turn) -> Json:
    for done in (0, 50, 100):
        turn.progress(done, 100)
        await asyncio.sleep(STEP)
    return text("Tool with progress executed successfully")


@tool
async def test_sampling(turn: Turn) -> Json:
    answers = await turn.need({"answer": sampling(str(turn.arguments.get("prompt", "")), 100)})
    return text(f"LLM response: {json.dumps(answers['answer'].get('content'))}")


async def _elicit(turn: Turn, message: str, schema: Json) -> Json:
    answer = (await turn.need({"answer": elicitation(message, schema)}))["answer"]
    said = f"action={answer.get('action')}, content={json.dumps(answer.get('content'))}"
    return text(f"Elicitation completed: {said}")


@tool
async def test_elicitation(turn: Turn) -> Json:
    return await _elicit(turn, str(turn.arguments.get("message", "")), form(username="string", email="string"))


@tool
async def test_elicitation_sep1034_defaults(turn: Turn) -> Json:
    return await _elicit(turn, "Please review and update the form fields", catalogue.DEFAULTS_SCHEMA)


@tool
async def test_elicitation_sep1330_enums(turn: Turn) -> Json:
    return await _elicit(turn, "Please select options from the enum fields", catalogue.ENUMS_SCHEMA)


@tool
async def test_reconnection(turn: Turn) -> Json:
    if turn.detach is not None:
        turn.detach()
        await asyncio.sleep(STEP * 5)
    return text("Reconnection test completed")


@tool
async def json_schema_2020_12_tool(turn: Turn) -> Json:
    return text(json.dumps(turn.arguments))


@tool
async def test_tool_with_region_header(turn: Turn) -> Json:
    return text(f"region {turn.arguments.get('region')}")


@tool
async def test_missing_capability(turn: Turn) -> Json:
    if not turn.declared("sampling"):
        raise RpcError(-32021, "needs sampling", {"requiredCapabilities": {"sampling": {}}})
    return text("sampling was declared")


@tool
async def test_streaming_elicitation(turn: Turn) -> Json:
    """Streams, then asks the user where that was declared. Who cannot be asked is answered all the same."""
    turn.progress(50, 100)
    if not turn.declared("elicitation"):
        return text("nobody to ask")
    return await _elicit(turn, "Go on?", form(ok="boolean"))


def _change(turn: Turn, kind: str) -> Json:
    turn.changes[kind] = turn.changes.get(kind, 0) + 1
    turn.announce(f"notifications/{kind}/list_changed")
    return text(f"changed the list of {kind}")


@tool
async def test_trigger_tool_change(turn: Turn) -> Json:
    return _change(turn, "tools")


@tool
async def test_trigger_prompt_change(turn: Turn) -> Json:
    return _change(turn, "prompts")


ASK_NAME = elicitation("What is your name?", form(name="string"))
ASK_CONFIRM = elicitation("Please confirm", form(ok="boolean"))
ASK_ROOTS: Json = {"method": "roots/list", "params": {}}


@tool
async def test_input_required_result_elicitation(turn: Turn) -> Json:
    answer = (await turn.need({"user_name": ASK_NAME}))["user_name"]
    return text(f"Hello, {(answer.get('content') or {}).get('name')}!")


@tool
async def test_input_required_result_sampling(turn: Turn) -> Json:
    question = {"capital_question": sampling("What is the capital of France?", 100)}
    return text(json.dumps((await turn.need(question))["capital_question"].get("content")))


@tool
async def test_input_required_result_list_roots(turn: Turn) -> Json:
    return text(json.dumps((await turn.need({"client_roots": ASK_ROOTS}))["client_roots"].get("roots")))


@tool
async def test_input_required_result_request_state(turn: Turn) -> Json:
    await turn.need({"confirm": ASK_CONFIRM}, turn.seal({"for": "request_state"}))
    if turn.modern and turn.sealed() is None:
        raise RpcError(-32602, "requestState is missing")
    return text("state-ok")


@tool
async def test_input_required_result_multiple_inputs(turn: Turn) -> Json:
    asked = {"user_name": ASK_NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": ASK_ROOTS}
    answers = await turn.need(asked, turn.seal({"for": "multiple_inputs"}))
    return text(f"got {', '.join(answers)}")


@tool
async def test_input_required_result_multi_round(turn: Turn) -> Json:
    """Two answers. In the modern era the first one travels in the state while the second is awaited."""
    step1 = elicitation("Step 1: What is your name?", form(name="string"))
    step2 = elicitation("Step 2: What is your favorite color?", form(color="string"))
    before = turn.sealed() or {"round": 1}
    name = before.get("name")
    if before["round"] == 1:
        name = (await turn.need({"step1": step1}, turn.seal({"round": 1})))["step1"].get("content")
    color = (await turn.need({"step2": step2}, turn.seal({"round": 2, "name": name})))["step2"].get("content")
    return text(f"{json.dumps(name)} likes {json.dumps(color)}")


@tool
async def test_input_required_result_tampered_state(turn: Turn) -> Json:
    turn.sealed()
    await turn.need({"confirm": ASK_CONFIRM}, turn.seal({"for": "tampered_state"}))
    return text("state-ok")


@tool
async def test_input_required_result_capabilities(turn: Turn) -> Json:
    possible = {"elicitation": ("user_name", ASK_NAME), "sampling": ("greeting", sampling("Generate a greeting", 50))}
    asked = dict(pair for capability, pair in possible.items() if turn.declared(capability))
    return text(f"got {', '.join(await turn.need(asked))}") if asked else text("nobody to ask")


async def call(turn: Turn) -> Json:
    """`tools/call`. An unknown tool is a protocol error (2025-11-25 and 2026-07-28, server/tools, error handling)."""
    found = TOOLS.get(str(turn.params.get("name")))
    if found is None:
        raise RpcError(-32602, f"Unknown tool: {turn.params.get('name')}")
    return await found(turn)


def _said(*contents: Json) -> Json:
    return {"messages": [{"role": "user", "content": content} for content in contents]}


async def prompt(turn: Turn) -> Json:
    """`prompts/get`."""
    name, given = turn.params.get("name"), turn.arguments
    if name == "test_simple_prompt":
        return _said({"type": "text", "text": "This is a simple prompt for testing."})
    if name == "test_prompt_with_arguments":
        said = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
        return _said({"type": "text", "text": said})
    if name == "test_prompt_with_embedded_resource":
        resource = embedded(str(given.get("resourceUri")), "text/plain", "Embedded resource content for testing.")
        return _said(resource, {"type": "text", "text": "Please process the embedded resource above."})
    if name == "test_prompt_with_image":
        return _said(IMAGE, {"type": "text", "text": "Please analyze the image above."})
    if name == "test_input_required_result_prompt":
        asked = {"user_context": elicitation("What context should the prompt use?", form(context="string"))}
        answer = (await turn.need(asked))["user_context"]
        return _said({"type": "text", "text": f"Use {json.dumps(answer.get('content'))}"})
    raise RpcError(-32602, f"Unknown prompt: {name}")


async def read(turn: Turn) -> Json:
    """`resources/read`. Not found is -32602 from 2026-07-28 on and was -32002 before (server/resources)."""
    uri = str(turn.params.get("uri"))
    if uri in catalogue.CONTENTS:
        return {"contents": [{"uri": uri, **catalogue.CONTENTS[uri]}]}
    if found := re.fullmatch(r"test://template/([^/]+)/data", uri):
        content = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(content)}]}
    raise RpcError(-32602 if turn.modern else -32002, "Resource not found", {"uri": uri})


async def complete(turn: Turn) -> Json:
    """`completion/complete`."""
    begun = str((turn.params.get("argument") or {}).get("value", ""))
    values = [word for word in ("paris", "park", "party", "test") if word.startswith(begun)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}
