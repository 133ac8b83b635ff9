"""`fastgw call`: one call of a tool, for operators."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgw.cli import terminal
from fastgw.cli.client import Client, RefusedByServer, Unreachable
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, check_utf8, members, quote
from fastgw.protocol.params import lines


class BadArguments(ValueError):
    """What was given is no JSON object; the text says why."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("call", help="call a tool")
    parser.add_argument("tool", metavar="TOOL", help="its name, as `fastgw tools` shows it")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("arguments", metavar="JSON", nargs="?", help="its arguments, a JSON object; - reads stdin")
    given.add_argument("--arguments-file", metavar="FILE", type=Path, help="the file with its arguments")
    parser.add_argument("--json", action="store_true", help="the whole result as JSON")
    terminal.add_options(parser)
    parser.set_defaults(run=run, func=run)


def run(args: argparse.Namespace) -> int:
    """Call; exit status 0, 1 where refused or the tool failed, 2 where typed wrong, 3 where nobody answers."""
    try:
        arguments = _arguments(args.arguments, args.arguments_file)
        name = quote(args.tool)
    except (BadArguments, UnicodeEncodeError) as wrong:
        terminal.say(f"fastgw call: {wrong}")
        return terminal.USAGE
    client = terminal.client(args)
    if client is None:
        return terminal.USAGE
    try:
        result = _called(client, {"name": name, "arguments": arguments}, args.tool)
    except (RefusedByServer, Unreachable) as wrong:
        return terminal.told(wrong)
    finally:
        client.close()
    print(terminal.encoded(result) if args.json else _text(result))
    return terminal.FAILED if result.get("isError") is True else 0


def _arguments(text: str | None, file: Path | None) -> bytes:
    """The arguments as they will be sent, byte for byte.

    Raises:
        BadArguments: they cannot be read, or are no JSON object.
    """
    try:
        if file is not None:
            given = file.read_bytes()
        elif text == "-":
            given = sys.stdin.buffer.read()
        else:
            given = (text or "{}").encode()
        given = given.strip()
        check_utf8(given)
        members(given)
    except OSError as wrong:
        raise BadArguments(f"{file} cannot be read: {wrong.strerror}") from None
    except (NotJson, NotAMessage, UnicodeEncodeError) as wrong:
        raise BadArguments(f"the arguments must be a JSON object: {wrong}") from None
    return given


def _called(client: Client, params: dict[str, bytes], tool: str) -> dict[str, Any]:
    """Call; once more with `Mcp-Param-*` headers where the server says that they are missing.

    Which arguments travel in headers as well stands in the tool's definition (2026-07-28, Streamable HTTP, Custom
    Headers from Tool Parameters). Few tools have any, so it is only looked up when it is needed.
    """
    try:
        return client.request(names.TOOLS_CALL, params)
    except RefusedByServer as wrong:
        if wrong.code != names.HEADER_MISMATCH:
            raise
        mirrored = _mirrored(client, tool, params["arguments"])
        if not mirrored:
            raise
    return client.request(names.TOOLS_CALL, params, mirrored)


def _mirrored(client: Client, tool: str, arguments: bytes) -> bytes:
    reading = import_module("fastgw.catalog.param_headers")
    for item in client.items(names.TOOLS_LIST):
        if item.get("name") == tool:
            schema = terminal.encoded(item.get("inputSchema")).encode()
            try:
                return lines(reading.param_headers(schema), arguments)
            except (reading.BadAnnotation, NotAMessage, NotJson):
                return b""
    return b""


def _text(result: dict[str, Any]) -> str:
    """The result's texts; what is no text as one line that says what it is."""
    content = result.get("content")
    parts = [_part(block) for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    if not parts and "structuredContent" in result:
        return terminal.encoded(result["structuredContent"])
    return terminal.plain("\n".join(parts))


def _part(block: dict[str, Any]) -> str:
    kind, resource = block.get("type"), block.get("resource")
    if kind == "text":
        return str(block.get("text", ""))
    if kind == "resource" and isinstance(resource, dict) and isinstance(resource.get("text"), str):
        return str(resource["text"])
    uri = block.get("uri") or (resource.get("uri") if isinstance(resource, dict) else None)
    words = [str(kind), *(str(one) for one in (uri, block.get("mimeType")) if one)]
    if isinstance(data := block.get("data"), str):
        words.append(f"{len(data) * 3 // 4} bytes")
    return f"[{', '.join(words)}]"
