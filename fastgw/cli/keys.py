"""`fastgw keys new`: an API key, shown once, the entry that lets it in, and what a client takes to use it."""

from __future__ import annotations

import argparse
import os
import re
import secrets
from pathlib import Path
from typing import Any

from fastgw.auth.keys import PREFIX, digest
from fastgw.cli import terminal
from fastgw.cli.snippets import CLIENTS, URL, snippet
from fastgw.config.complaint import ConfigError
from fastgw.config.reader import read_settings
from fastgw.config.schema.servers import http_url

BYTES = 32
"""Random bytes of a key: 256 bits."""
USUAL = "/mcp"


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("keys", help="make API keys")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="print a new key and its entry for `agents`")
    new.add_argument("--agent", type=_agent, default="my-agent", help="name of the agent (default: my-agent)")
    new.add_argument(
        "--for", dest="client", metavar="CLIENT", choices=CLIENTS, help=f"and what it takes: {', '.join(CLIENTS)}"
    )
    where = new.add_mutually_exclusive_group()
    where.add_argument("--url", type=_url, default=URL, help=f"the MCP endpoint ({URL})")
    where.add_argument("--config", metavar="FILE", type=Path, help="the endpoint by its public_url")
    new.set_defaults(run=run)


def _agent(name: str) -> str:
    if not re.fullmatch(r"[^\x00-\x20\x7f:*?]+", name):
        raise argparse.ArgumentTypeError("an agent's name has no spaces, colons, * or ?")
    return name


def _url(text: str) -> str:
    try:
        return http_url(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def run(args: argparse.Namespace) -> int:
    """Print a key, its entry and the client's snippet; exit status 0, or 1 where the configuration cannot be read."""
    try:
        url = args.url if args.config is None else _endpoint(args.config)
    except ConfigError as wrong:
        terminal.say(terminal.plain(str(wrong)))
        return terminal.FAILED
    key = PREFIX + secrets.token_urlsafe(BYTES)
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9._/-]*", args.agent)
    name = args.agent if plain else "'" + args.agent.replace("'", "''") + "'"
    print(f"# the key, shown this once:\n# {key}\nagents:\n  {name}:\n    key: sha256:{digest(key)}")
    if args.client is not None:
        print(f"\n{snippet(args.client, url, key)}")
    return 0


def _endpoint(config: Path) -> str:
    """The first public URL, and the usual endpoint, or the first where there is none.

    Raises:
        ConfigError: the file cannot be used.
    """
    settings = read_settings(config, os.environ)
    paths = [USUAL] if settings.endpoints is None else list(settings.endpoints)
    return settings.public_url[0] + (USUAL if USUAL in paths or not paths else paths[0])
