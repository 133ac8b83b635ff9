"""What the fixture server offers: its tools, prompts and resources, under the names the conformance suite looks for.

Knows: definitions only, as they stand in a list. Refuses to know: what a tool does (`tools.py`), sessions, eras, HTTP.
The first tool can be called with `{}`, and the order never changes: the suite takes the first one it sees.
"""

from __future__ import annotations

from typing import Any

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def text_argument(name: str, description: str) -> dict[str, Any]:
    """An input schema with one required string."""
    return {"type": "object", "properties": {name: {"type": "string", "description": description}}, "required": [name]}


JSON_SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

REGION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    "required": ["region"],
}

_TOOLS: list[tuple[str, str, dict[str, Any]]] = [
    ("test_simple_text", "Answers with one line of text", NOTHING),
    ("test_image_content", "Answers with a picture", NOTHING),
    ("test_audio_content", "Answers with a sound", NOTHING),
    ("test_embedded_resource", "Answers with an embedded resource", NOTHING),
    ("test_multiple_content_types", "Answers with text, a picture and a resource", NOTHING),
    ("test_error_handling", "Always fails, as a tool fails: isError", NOTHING),
    ("test_tool_with_logging", "Sends three log messages while it works", NOTHING),
    ("test_tool_with_progress", "Reports progress three times while it works", NOTHING),
    ("test_sampling", "Asks the client's model", text_argument("prompt", "what to ask")),
    ("test_elicitation", "Asks the user", text_argument("message", "what to show the user")),
    ("test_elicitation_sep1034_defaults", "Asks the user, with a default of every primitive type", NOTHING),
    ("test_elicitation_sep1330_enums", "Asks the user, with all five kinds of enumeration", NOTHING),
    ("test_reconnection", "Closes its stream before it answers; the answer waits for a GET", NOTHING),
    ("json_schema_2020_12_tool", "Has an input schema of many 2020-12 keywords", JSON_SCHEMA_2020_12),
    ("test_tool_with_region_header", "Its region travels in Mcp-Param-Region too", REGION_SCHEMA),
    ("test_missing_capability", "Refuses clients that did not declare sampling", NOTHING),
    ("test_streaming_elicitation", "Opens a stream, then asks the user where it may", NOTHING),
    ("test_logging_tool", "Logs, but only to those who gave a log level", NOTHING),
    ("test_trigger_tool_change", "Changes the list of tools and says so", NOTHING),
    ("test_trigger_prompt_change", "Changes the list of prompts and says so", NOTHING),
    ("test_input_required_result_elicitation", "Needs the user's name", NOTHING),
    ("test_input_required_result_sampling", "Needs an answer of the client's model", NOTHING),
    ("test_input_required_result_list_roots", "Needs the client's roots", NOTHING),
    ("test_input_required_result_request_state", "Needs a confirmation, and its own state back", NOTHING),
    ("test_input_required_result_multiple_inputs", "Needs three things at once", NOTHING),
    ("test_input_required_result_multi_round", "Needs two answers, one after the other", NOTHING),
    ("test_input_required_result_tampered_state", "Refuses a state that is not its own", NOTHING),
    ("test_input_required_result_capabilities", "Asks only for what the client declared", NOTHING),
]


def tools(changes: int) -> list[dict[str, Any]]:
    """The list of tools after `changes` calls of `test_trigger_tool_change`: that tool's description counts them."""
    counted = {"test_trigger_tool_change": f" ({changes} so far)"} if changes else {}
    return [
        {"name": name, "description": description + counted.get(name, ""), "inputSchema": schema}
        for name, description, schema in _TOOLS
    ]


def argument(name: str, description: str) -> dict[str, Any]:
    """A required argument of a prompt."""
    return {"name": name, "description": description, "required": True}


_PROMPTS: list[dict[str, Any]] = [
    {"name": "test_simple_prompt", "description": "One message"},
    {
        "name": "test_prompt_with_arguments",
        "description": "One message with both arguments in it",
        "arguments": [argument("arg1", "the first"), argument("arg2", "the second")],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "A resource, then a request",
        "arguments": [argument("resourceUri", "the resource to embed")],
    },
    {"name": "test_prompt_with_image", "description": "A picture, then a request"},
    {"name": "test_input_required_result_prompt", "description": "Needs a context from the user"},
]


def prompts(changes: int) -> list[dict[str, Any]]:
    """The list of prompts after `changes` calls of `test_trigger_prompt_change`; the first one's description counts."""
    first, *rest = _PROMPTS
    return [{**first, "description": f"One message (changed {changes} times)"} if changes else first, *rest]


RESOURCES: list[dict[str, Any]] = [
    {"uri": "test://static-text", "name": "static text", "description": "Text", "mimeType": "text/plain"},
    {"uri": "test://static-binary", "name": "static binary", "description": "A picture", "mimeType": "image/png"},
    {"uri": "test://watched-resource", "name": "watched", "description": "May change", "mimeType": "text/plain"},
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "description": "Data of one id",
        "mimeType": "application/json",
    }
]

CONTENTS: dict[str, dict[str, Any]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}

DEFAULTS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "User name", "default": "John Doe"},
        "age": {"type": "integer", "description": "User age", "default": 30},
        "score": {"type": "number", "description": "User score", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "description": "Verification status", "default": True},
    },
    "required": [],
}


def _titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": const, "title": title} for const, title in pairs]


_OPTIONS = ["option1", "option2", "option3"]
_CHOICES = _titled(("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third Choice"))

ENUMS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": _CHOICES},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": _CHOICES}},
    },
    "required": [],
}
