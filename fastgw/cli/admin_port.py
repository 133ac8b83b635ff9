"""How operators' commands ask the admin port of a running gateway, and show tables of what it says."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.client import LARGEST, Place, decoded
from fastgw.cli.terminal import FAILED, USAGE, CommandFailed, line
from fastgw.config.reader import read_settings

TOKEN_ENV = "FASTGW_ADMIN_TOKEN"
WITHIN = 10.0
"""Seconds for each step of an answer. The gateway gives its workers two."""
WIDEST = 48
"""Letters of a column; what is longer moves the rest of its row."""
WORDS = 300
"""Letters shown of a refusal that is none of fastgw's."""
_REACHED_AS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""What listens everywhere is asked here."""


def add_options(parser: argparse.ArgumentParser, config: Any = Path("fastgw.yaml"), admin: Any = "") -> None:
    """`--config`, `--admin` and `--json`, which is off unless said, or as `config` is."""
    words = "names the admin port and its token"
    parser.add_argument("--config", metavar="FILE", type=Path, default=config, help=words)
    parser.add_argument("--admin", metavar="URL", default=admin, help=f"ask here; the token is in {TOKEN_ENV}")
    no = argparse.SUPPRESS if config is argparse.SUPPRESS else False
    parser.add_argument("--json", action="store_true", default=no, help="the answer as it came")


def attempt(show: Callable[[], None]) -> int:
    """The exit status of `show`, which asks and prints; what went wrong is said on stderr."""
    try:
        show()
        return 0
    except CommandFailed as wrong:
        terminal.show_failure(wrong)
    except msgspec.MsgspecError:
        terminal.say("fastgw: the answer is not fastgw's: is this its admin port?")
    return FAILED


def ask(args: argparse.Namespace, path: str, wanted: dict[str, Any] | None = None, within: float = WITHIN) -> str:
    """The text that answers, JSON but for an export: to GET, or to POST where something is wanted.

    Raises:
        ConfigError: the configuration cannot be read.
        CommandFailed: there is no such address, the token cannot be sent, nobody answers, or the gateway says no.
    """
    return ask_at(admin_place(args), path, wanted, within)


def admin_place(args: argparse.Namespace) -> tuple[str, str]:
    """The address of the admin port and the token it is shown, empty for none. Raises ConfigError, CommandFailed."""
    token = os.environ.get(TOKEN_ENV, "")
    if args.admin:
        url = args.admin if "://" in args.admin else f"http://{args.admin}"
    else:
        admin = read_settings(args.config, os.environ).admin
        host, _, port = admin.listen.rpartition(":")
        if port.strip("0") == "":
            raise CommandFailed(USAGE, "the admin port is a free one: say with --admin which")
        url = f"http://{_REACHED_AS.get(host, host)}:{port}"
        token = token or admin.token or ""
    if re.search(r"[\x00-\x1f\x7f]", token):  # the text of the error that would follow has it whole
        words = "the admin token cannot be sent: there is a line break or another control character in it"
        raise CommandFailed(USAGE, words)
    return url.rstrip("/"), token


def ask_at(place: tuple[str, str], path: str, wanted: dict[str, Any] | None = None, within: float = WITHIN) -> str:
    """As `ask`, at a place that is known, as `admin_place` gives it. Raises CommandFailed."""
    url, token = place
    body = None if wanted is None else json.dumps(wanted).encode()
    with Place(url + path, token, within).asked(body, {"Accept": "application/json"}) as answer:
        text = answer.read(LARGEST)
    found = decoded(text)
    if answer.status != 200:
        error = found.get("error")
        words = error if isinstance(error, str) else text.decode("utf-8", "replace").strip()[:WORDS]
        raise CommandFailed(FAILED, words or "without a word", answer.status)
    return text.decode() if text.isascii() else terminal.encoded(found)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; nothing in a cell commands the terminal."""
    safe = [[line(cell) for cell in row] for row in rows]
    widths = [min(max(map(len, column)), WIDEST) for column in zip(*safe, strict=True)]
    for row in safe:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
