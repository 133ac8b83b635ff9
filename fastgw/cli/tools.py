"""`fastgw tools`: what an MCP endpoint offers to whoever has this key."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastgw.cli import terminal
from fastgw.cli.client import Client, RefusedByServer, Unreachable
from fastgw.protocol import names

_KEYS = {names.TOOLS_LIST: "name", names.PROMPTS_LIST: "name", names.RESOURCES_LIST: "uri",
         names.TEMPLATES_LIST: "uriTemplate"}  # fmt: skip
"""List method to the member that names an item."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("tools", help="list what an MCP endpoint offers")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--prompts", action="store_true", help="its prompts instead")
    what.add_argument("--resources", action="store_true", help="its resources and templates of resources instead")
    parser.add_argument("--json", action="store_true", help="the definitions, word for word, as one JSON array")
    terminal.add_options(parser)
    parser.set_defaults(run=run, func=run)


def run(args: argparse.Namespace) -> int:
    """List; exit status 0, 1 where refused, 2 where typed wrong, 3 where nobody answers."""
    client = terminal.client(args)
    if client is None:
        return terminal.USAGE
    methods: tuple[str, ...] = (names.TOOLS_LIST,)
    if args.prompts:
        methods = (names.PROMPTS_LIST,)
    elif args.resources:
        methods = (names.RESOURCES_LIST, names.TEMPLATES_LIST)
    try:
        return _listed(client, methods, args.json)
    except (RefusedByServer, Unreachable) as wrong:
        return terminal.told(wrong)
    finally:
        client.close()


def _listed(client: Client, methods: tuple[str, ...], as_json: Any) -> int:
    found = [(method, item) for method in methods for item in _items(client, method)]
    if as_json:
        print(terminal.encoded([item for _, item in found]))
        return 0
    rows = [(str(item.get(_KEYS[method], "")), _words(item)) for method, item in found]
    width = min(max((len(name) for name, _ in rows), default=0), 40)
    for name, words in rows:
        print(f"{terminal.line(name):<{width}}  {terminal.line(words)}".rstrip())
    if not rows:
        print("nothing for this key", file=sys.stderr)
    return 0


def _items(client: Client, method: str) -> list[dict[str, Any]]:
    try:
        return list(client.items(method))
    except RefusedByServer as wrong:
        if wrong.code == names.METHOD_NOT_FOUND:
            return []  # a server without resources need not know what a template is
        raise


def _words(item: dict[str, Any]) -> str:
    """What it says of itself, up to the end of the first line."""
    text = item.get("description") or item.get("title") or ""
    return text.strip().partition("\n")[0] if isinstance(text, str) else ""
