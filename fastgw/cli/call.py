"""`fastgw tools` and `fastgw call`: what an MCP endpoint offers to whoever has this key, and one call of a tool."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from fastgw.catalog.definitions import param_headers
from fastgw.cli import terminal
from fastgw.cli.client import Place, add_certificate, json_object, key_in, request
from fastgw.cli.snippets import KEY_ENV, URL
from fastgw.cli.terminal import FAILED, NO_ANSWER, USAGE, CommandFailed, argument_type, encoded, line
from fastgw.protocol import names
from fastgw.protocol.envelope import quote
from fastgw.protocol.headers import lines

_TOOLS, _PROMPTS = {names.TOOLS_LIST: "name"}, {names.PROMPTS_LIST: "name"}
_RESOURCES = {names.RESOURCES_LIST: "uri", names.TEMPLATES_LIST: "uriTemplate"}
"""List method to the member that names an item."""


def add_parser(subparsers: Any) -> None:
    """Add these commands to the command line."""
    tools = subparsers.add_parser("tools")
    what = tools.add_mutually_exclusive_group()
    what.add_argument("--prompts", action="store_const", const=_PROMPTS, dest="lists", help="its prompts instead")
    words = "its resources and templates of resources instead"
    what.add_argument("--resources", action="store_const", const=_RESOURCES, dest="lists", help=words)
    tools.set_defaults(work=_list, lists=_TOOLS)
    call = subparsers.add_parser("call")
    call.add_argument("tool", metavar="TOOL", type=argument_type(quote), help="its name, as `fastgw tools` shows it")
    words = "its arguments, a JSON object; - reads stdin"
    call.add_argument("arguments", metavar="JSON", nargs="?", type=_arguments, default=b"{}", help=words)
    call.set_defaults(work=_call)
    for parser in (tools, call):
        parser.add_argument("--json", action="store_true", help="definitions or result as they came, as JSON")
        parser.add_argument("--url", default=URL, help=f"the MCP endpoint ({URL}); its key is in {KEY_ENV}")
        parser.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help="without a word (60)")
        add_certificate(parser)
        parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List or call; exit status 0, 1 where refused or the tool failed, 2 where typed wrong, 3 where nobody answers."""
    if not 0 < args.timeout <= 86400:
        raise CommandFailed(USAGE, "--timeout must be above 0 and at most 86400")
    return int(args.work(args, Place(args.url, key_in(KEY_ENV), args.timeout, (args.cert, args.key))))


def _arguments(text: str) -> bytes:
    return json_object(os.fsdecode(sys.stdin.buffer.read()) if text == "-" else text)


def _list(args: argparse.Namespace, place: Place) -> int:
    found = [(member, item) for method, member in args.lists.items() for item in _items(place, method)]
    if args.json:
        print(encoded([item for _, item in found]))
        return 0
    rows = [(line(str(item.get(member, ""))), item.get("description") or item.get("title")) for member, item in found]
    width = min(max((len(name) for name, _ in rows), default=0), 40)
    for name, words in rows:
        print(f"{name:<{width}}  {line(str(words or '').strip().partition(chr(10))[0])}".rstrip())
    if not rows:
        terminal.say("nothing for this key")
    return 0


def _items(place: Place, method: str) -> Iterator[dict[str, Any]]:
    """All items of a list, page by page; none where the server does not know the list."""
    params: dict[str, bytes] = {}
    try:
        while True:
            page = request(place, method, params)
            found = page.get(names.LISTS[method])
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise CommandFailed(NO_ANSWER, f"the answer to {method} holds no list")
            yield from found
            if not isinstance(cursor := page.get("nextCursor"), str):
                return
            params = {"cursor": quote(cursor)}
    except CommandFailed as wrong:
        if wrong.code != names.METHOD_NOT_FOUND:
            raise


def _call(args: argparse.Namespace, place: Place) -> int:
    params = {"name": args.tool, "arguments": args.arguments}
    try:
        result = request(place, names.TOOLS_CALL, params)
    except CommandFailed as wrong:
        # Few tools have arguments that travel in headers as well, so the definition is only looked up when needed.
        if wrong.code != names.HEADER_MISMATCH:
            raise
        result = request(place, names.TOOLS_CALL, params, _mirrored(place, **params))
    print(encoded(result) if args.json else _text(result))
    return FAILED if result.get("isError") is True else 0


def _mirrored(place: Place, name: bytes, arguments: bytes) -> bytes:
    """The header lines of arguments (2026-07-28, Streamable HTTP, Custom Headers from Tool Parameters)."""
    tools = {one.get("name"): one for one in _items(place, names.TOOLS_LIST)}
    schema = tools.get(json.loads(name), {}).get("inputSchema")
    try:
        return lines(param_headers(encoded(schema).encode()), arguments)
    except ValueError:
        return b""


def _text(result: dict[str, Any]) -> str:
    """The result's texts; what is no text as one line that says what it is."""
    content, texts = result.get("content"), []
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            inner = block["resource"] if isinstance(block.get("resource"), dict) else block
            words = (block.get("type"), inner.get("uri"), inner.get("mimeType"))
            texts.append(str(inner.get("text", f"[{', '.join(str(one) for one in words if one)}]")))
    if not texts and "structuredContent" in result:
        return encoded(result["structuredContent"])
    return terminal.plain("\n".join(texts))
