"""What the operator's terminal gets to see of a server's words, and the options of the commands that speak to
servers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from fastgw.cli.client import BadAddress, Client, Place, RefusedByServer, Unreachable

URL = "http://127.0.0.1:8080/mcp"
KEY_ENV = "FASTGW_KEY"
FAILED, USAGE, NO_ANSWER = 1, 2, 3
"""Exit statuses: refused or failed, typed wrong, no server answered."""

# Controls of C0 (but tab and line feed) and C1, bidirectional controls, line and paragraph separators, half surrogates.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class BadKey(ValueError):
    """The key cannot be read or sent; the text never holds it."""


def plain(text: str) -> str:
    """The text with everything made visible that would command a terminal: ESC is shown as `\\x1b`."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def line(text: str) -> str:
    """`plain`, on one line."""
    return plain(text).replace("\n", "\\n").replace("\t", " ")


def encoded(value: Any) -> str:
    """JSON text for a terminal or a pipe: ASCII only, so that nothing in it commands anything."""
    return json.dumps(value, indent=2)


def say(text: str) -> None:
    """A line to stderr."""
    print(text, file=sys.stderr)


def notified(method: str, params: Any) -> None:
    """Show a notification on stderr: progress, log messages; nothing else is asked for."""
    found = params if isinstance(params, dict) else {}
    if method == "notifications/progress":
        total = f"/{found['total']}" if "total" in found else ""
        words = f": {found['message']}" if found.get("message") else ""
        say(line(f"progress {found.get('progress')}{total}{words}"))
    elif method == "notifications/message":
        data = found.get("data")
        words = data if isinstance(data, str) else json.dumps(data)
        logger = f" {found['logger']}" if found.get("logger") else ""
        say(line(f"{found.get('level', 'info')}{logger}: {words}"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where the server is, and with which key it is asked."""
    parser.add_argument("--url", default=URL, help=f"the MCP endpoint ({URL})")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--key-env", metavar="NAME", help=f"the environment variable with the key ({KEY_ENV})")
    key.add_argument("--key-file", metavar="FILE", type=Path, help="the file with the key")
    parser.add_argument("--ca", metavar="FILE", default="", help="PEM file: trust this authority, not the system's")
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="for each request (60)")


def client(args: argparse.Namespace) -> Client | None:
    """The client these options ask for; None, and the reason told, where they cannot be used."""
    try:
        return Client(Place(args.url, key_of(args.key_env, args.key_file), args.ca, args.timeout), notified)
    except (BadAddress, BadKey) as wrong:
        say(f"fastgw: {wrong}")
        return None


def key_of(variable: str | None, file: Path | None) -> str:
    """The key to show: from the file, else from the variable; empty where the usual variable is not set.

    Raises:
        BadKey: what was named is not there, or holds no key.
    """
    if file is not None:
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as wrong:
            raise BadKey(f"the key file {file} cannot be read: {getattr(wrong, 'strerror', None) or wrong}") from None
    else:
        key = os.environ.get(variable or KEY_ENV, "").strip()
    if not key and (file is not None or variable is not None):
        raise BadKey(f"there is no key in {file or variable}")
    if re.fullmatch(r"[!-~]*", key) is None:
        raise BadKey(f"what {file or variable or KEY_ENV} holds is no key: spaces, line breaks or letters beyond ASCII")
    return key


def told(wrong: RefusedByServer | Unreachable) -> int:
    """Show on stderr what went wrong; the exit status."""
    if isinstance(wrong, Unreachable):
        say(f"fastgw: {line(str(wrong))}")
        return NO_ANSWER
    code = f" ({wrong.code})" if wrong.code is not None else ""
    say(f"fastgw: refused{code}: {line(wrong.message)}")
    if wrong.data is not None:
        say(encoded(wrong.data))
    return FAILED


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError("must be above 0 and at most 86400")
    return value
