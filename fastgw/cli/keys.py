"""`fastgw keys new`: an API key, shown once, the entry that lets it in, and what a client takes to use it."""

from __future__ import annotations

import argparse
import os
import re
import secrets
from pathlib import Path
from typing import Any

import yaml

from fastgw.auth.keys import PREFIX, digest
from fastgw.cli.snippets import CLIENTS, URL, snippet
from fastgw.cli.terminal import argument_type
from fastgw.config.reader import read_settings
from fastgw.config.schema.servers import http_url

BYTES = 32
"""Random bytes of a key: 256 bits."""
USUAL = "/mcp"


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("keys")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="print a new key and its entry for `agents`")
    new.add_argument("--agent", type=_agent, default="my-agent", help="name of the agent (default: my-agent)")
    words = f"and what it takes: {', '.join(CLIENTS)}"
    new.add_argument("--for", dest="client", metavar="CLIENT", choices=CLIENTS, help=words)
    where = new.add_mutually_exclusive_group()
    where.add_argument("--url", type=argument_type(http_url), default=URL, help=f"the MCP endpoint ({URL})")
    where.add_argument("--config", metavar="FILE", type=Path, help="the endpoint by its public_url")
    new.set_defaults(run=run)


@argument_type
def _agent(name: str) -> str:
    if not re.fullmatch(r"[^\x00-\x20\x7f:*?]+", name):
        raise ValueError("an agent's name has no spaces, colons, * or ?")
    return name


def run(args: argparse.Namespace) -> int:
    """Print a key, its entry and the client's snippet; exit status 0, or 1 where the configuration cannot be read."""
    url = args.url
    if args.config is not None:
        settings = read_settings(args.config, os.environ)
        paths = [USUAL] if settings.endpoints is None else list(settings.endpoints)
        url = settings.public_url[0] + (USUAL if USUAL in paths or not paths else paths[0])
    key = PREFIX + secrets.token_urlsafe(BYTES)
    agents = {"agents": {args.agent: {"key": f"sha256:{digest(key)}"}}}
    print(f"# the key, shown this once:\n# {key}\n{yaml.safe_dump(agents, allow_unicode=True)}", end="")
    if args.client is not None:
        print(f"\n{snippet(args.client, url, key)}")
    return 0
