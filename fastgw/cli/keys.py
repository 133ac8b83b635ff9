"""`fastgw keys new`: an API key, shown once, and the entry of the configuration that lets it in."""

from __future__ import annotations

import argparse
import re
import secrets
from typing import Any

from fastgw.identity.keys import PREFIX, digest

BYTES = 32
"""Random bytes of a key: 256 bits."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("keys", help="make API keys")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="print a new key and its entry for `agents`")
    new.add_argument("--agent", type=_agent, default="my-agent", help="name of the agent (default: my-agent)")
    new.set_defaults(run=run, func=run)


def _agent(name: str) -> str:
    if not re.fullmatch(r"[^\x00-\x20\x7f:*?]+", name):
        raise argparse.ArgumentTypeError("an agent's name has no spaces, colons, * or ?")
    return name


def run(args: argparse.Namespace) -> int:
    """Print a key and its entry; exit status 0."""
    key = PREFIX + secrets.token_urlsafe(BYTES)
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9._/-]*", args.agent)
    name = args.agent if plain else "'" + args.agent.replace("'", "''") + "'"
    print(f"# the key, shown this once:\n# {key}\nagents:\n  {name}:\n    key: sha256:{digest(key)}")
    return 0
