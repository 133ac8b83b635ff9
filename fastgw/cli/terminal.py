"""What the operator's terminal gets to see: nothing that commands it or turns the reading order round."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

FAILED, USAGE, NO_ANSWER = 1, 2, 3
"""Exit statuses: refused or failed, typed wrong, no server answered."""
CLEAR = "\x1b[H\x1b[2J"
"""Before what is shown again and again: an empty screen."""

# Controls of C0 (but tab and line feed) and C1, bidirectional controls, line and paragraph separators, half surrogates.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class CommandFailed(Exception):
    """What was asked for could not be done; the text is for the operator, and never holds a key.

    `status` is the exit status, `code` that of JSON-RPC or of HTTP, `data` that of a JSON-RPC error.
    """

    def __init__(self, status: int, words: str, code: Any = None, data: Any = None) -> None:
        super().__init__(words)
        self.status, self.code, self.data = status, code, data


def argument_type(read: Callable[[str], T]) -> Callable[[str], T]:
    """A `type` for argparse, which shows what the ValueError of `read` says."""

    def typed(text: str) -> T:
        try:
            return read(text)
        except ValueError as wrong:
            raise argparse.ArgumentTypeError(str(wrong)) from None

    return typed


def show_failure(wrong: CommandFailed) -> int:
    """Show on stderr what went wrong; the exit status."""
    code = f" ({wrong.code})" if wrong.code is not None else ""
    say(f"fastgw: {f'refused{code}: ' if wrong.status == FAILED else ''}{line(str(wrong))}")
    if wrong.data is not None:
        say(encoded(wrong.data))
    return wrong.status


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


def show_notification(method: str, params: dict[str, Any]) -> None:
    """Show a notification on stderr: progress, log messages; nothing else is asked for."""
    if method == "notifications/progress":
        say(line(f"progress {params.get('progress')}/{params.get('total', '?')} {params.get('message', '')}".rstrip()))
    elif method == "notifications/message":
        data = params.get("data")
        say(line(f"{params.get('level')}: {data if isinstance(data, str) else json.dumps(data)}"))
