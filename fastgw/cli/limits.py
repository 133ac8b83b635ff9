"""`fastgw limits`: who is near a limit, and what operators may do about it: make buckets full, raise a rate for a
time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.client import BadAddress, Place, RefusedByServer, Unreachable
from fastgw.cli.terminal import BadKey, line
from fastgw.config.addresses import authority
from fastgw.config.complaint import ConfigError
from fastgw.config.reader import read_settings

TOKEN_ENV = "FASTGW_ADMIN_TOKEN"
WITHIN = 10.0
"""Seconds for each step of an answer. The gateway gives its workers two."""
LARGEST = 16 * 2**20
WIDEST = 48
"""Letters of a column; what is longer moves the rest of its row."""
WORDS = 300
"""Letters shown of a refusal that is none of fastgw's."""
_REACHED_AS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""What listens everywhere is asked here."""


class _Bucket(msgspec.Struct):
    limit: str
    subject: str
    used: float
    left: int
    burst: int
    at_once: bool = False


class _Refusals(msgspec.Struct):
    limit: str
    subject: str
    calls: int


class _Raise(msgspec.Struct):
    limit: str
    subject: str | None
    rate: str
    burst: int
    secondsLeft: int  # noqa: N815 - as it travels


class _Report(msgspec.Struct):
    store: dict[str, int]
    buckets: list[_Bucket]
    refused: list[_Refusals]
    raises: list[_Raise]


class _Done(msgspec.Struct):
    do: str
    limit: str
    subject: list[str | None] | None = None
    rate: str = ""
    burst: int = 0
    seconds: float = 0.0


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("limits", help="see who is near a limit; reset and raise")
    _add_options(parser, Path("fastgw.yaml"), "")
    parser.set_defaults(run=show, func=show)
    orders = parser.add_subparsers(metavar="[ORDER]", title="orders, which need the admin token")
    reset = orders.add_parser("reset", help="make buckets full")
    _add_target(reset, "reset")
    higher = orders.add_parser("raise", help="count by a higher rate for a time")
    _add_target(higher, "raise")
    higher.add_argument("--rate", metavar="RATE", help="such as 200/minute")
    higher.add_argument(
        "--burst",
        metavar="N",
        type=int,
        help="so many at once (default: N of the rate, or more where the limit has more)",
    )
    higher.add_argument("--for", metavar="TIME", dest="lasting", required=True, help="such as 1h; 0s takes it back")


def _add_options(parser: argparse.ArgumentParser, config: Any, admin: Any) -> None:
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=config, help="names the admin port and its token"
    )
    parser.add_argument("--admin", metavar="URL", default=admin, help=f"ask here; the token is in {TOKEN_ENV}")
    no = argparse.SUPPRESS if config is argparse.SUPPRESS else False
    parser.add_argument("--json", action="store_true", default=no, help="the answer as it came")


def _add_target(parser: argparse.ArgumentParser, do: str) -> None:
    parser.add_argument("limit", metavar="LIMIT", help="its name")
    words = "values of its `by`, in their order; - for a missing one; none: all of its buckets"
    parser.add_argument("subject", metavar="SUBJECT", nargs="*", help=words)
    _add_options(parser, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
    parser.set_defaults(run=order, func=order, do=do)


def show(args: argparse.Namespace) -> int:
    """Show how the limits stand; exit status 0, or 1 where that cannot be found out."""
    return _told(args, "/limits", None)


def order(args: argparse.Namespace) -> int:
    """Reset or raise; exit status 0, or 1 where it was not done."""
    wanted: dict[str, Any] = {"limit": args.limit}
    if args.subject:
        wanted["subject"] = [None if word == "-" else word for word in args.subject]
    if args.do == "raise":
        given = {"rate": args.rate, "burst": args.burst, "for": args.lasting}
        wanted |= {key: value for key, value in given.items() if value is not None}
    return _told(args, f"/limits/{args.do}", wanted)


def _told(args: argparse.Namespace, path: str, wanted: dict[str, Any] | None) -> int:
    """Ask, and print the answer; the exit status."""
    try:
        text = _answer(_place(args), path, wanted)
        rows = [text.rstrip("\n")] if args.json else list(_words(text, wanted))
    except (RefusedByServer, Unreachable) as wrong:
        terminal.told(wrong)
        return terminal.FAILED
    except (BadAddress, BadKey) as wrong:
        terminal.say(f"fastgw: {line(str(wrong))}")
        return terminal.FAILED
    except ConfigError as wrong:
        terminal.say(terminal.plain(str(wrong)))
        return terminal.FAILED
    print("\n".join(rows))
    return 0


# -- the admin port --------------------------------------------------------------------------------------------------


def _place(args: argparse.Namespace) -> Place:
    """Where to ask, and with what token.

    Raises:
        BadAddress: there is no such address.
        BadKey: the token cannot be sent.
        ConfigError: the configuration cannot be read.
    """
    token = os.environ.get(TOKEN_ENV, "")
    if args.admin:
        url = args.admin if "://" in args.admin else f"http://{args.admin}"
    else:
        admin = read_settings(args.config, os.environ).admin
        host, _, port = admin.listen.rpartition(":")
        if port.strip("0") == "":
            raise BadAddress("the admin port is a free one: say with --admin which")
        url = f"http://{_REACHED_AS.get(host, host)}:{port}"
        token = token or admin.token or ""
    if re.search(r"[\x00-\x1f\x7f]", token):  # the text of the error that would follow has it whole
        raise BadKey("the admin token cannot be sent: there is a line break or another control character in it")
    return Place(url, token, timeout=WITHIN)


def _answer(place: Place, path: str, wanted: dict[str, Any] | None) -> str:
    """The JSON that answers: to GET, or to POST where something is wanted.

    Raises:
        BadAddress: the address cannot be used.
        Refused: the gateway says no.
        Unreachable: nobody answers, or not in JSON.
    """
    status, body = _exchange(place, path, None if wanted is None else json.dumps(wanted).encode())
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if status != http.client.OK:
        said = found.get("error") if isinstance(found, dict) else None
        words = said if isinstance(said, str) else body.decode("utf-8", "replace").strip()[:WORDS]
        raise RefusedByServer(status, words or "without a word")
    if not isinstance(found, dict):
        raise Unreachable("the answer is not fastgw's: is this its admin port?")
    return body.decode("ascii") if body.isascii() else terminal.encoded(found)


def _exchange(place: Place, path: str, body: bytes | None) -> tuple[int, bytes]:
    parts = place.parts()
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    headers: dict[str, str | bytes] = {"Accept": "application/json", "Content-Type": "application/json"}
    if place.key:
        headers["Authorization"] = b"Bearer " + place.key.encode("utf-8", "surrogateescape")
    connection = http.client.HTTPConnection(host, port, timeout=place.timeout)
    if secure:
        connection = http.client.HTTPSConnection(
            host, port, timeout=place.timeout, context=ssl.create_default_context()
        )
    try:
        connection.request("GET" if body is None else "POST", parts.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        text = answer.read(LARGEST + 1)
    except TimeoutError:
        raise Unreachable(f"{authority(host, port)} does not answer within {place.timeout:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as wrong:
        reason = getattr(wrong, "strerror", None) or type(wrong).__name__
        raise Unreachable(f"cannot reach the admin port {authority(host, port)}: {reason}") from None
    finally:
        connection.close()
    if len(text) > LARGEST:
        raise Unreachable(f"the answer is larger than {LARGEST} bytes")
    return answer.status, text


# -- what is printed -------------------------------------------------------------------------------------------------


def _words(text: str, wanted: dict[str, Any] | None) -> Iterator[str]:
    """The lines of an answer.

    Raises:
        Unreachable: it is none of fastgw's.
    """
    try:
        if wanted is None:
            yield from _shown(msgspec.json.decode(text, type=_Report))
        else:
            yield _done(msgspec.json.decode(text, type=_Done))
    except msgspec.MsgspecError:
        raise Unreachable("the answer is not fastgw's: is this its admin port?") from None


def _done(done: _Done) -> str:
    values = " ".join("-" if value is None else value for value in done.subject or ())
    what = f"{done.limit} {values}" if done.subject is not None else f"{done.limit}, all buckets"
    if done.do == "reset":
        return line(f"{what}: full")
    if done.seconds <= 0:
        return line(f"{what}: as configured")
    return line(f"{what}: {done.rate}, burst {done.burst}, for {done.seconds:g} s")


def _shown(report: _Report) -> Iterator[str]:
    states = (f"{state} ({count} worker{'s' if count != 1 else ''})" for state, count in report.store.items())
    yield line(f"store: {', '.join(states) or 'no worker answers'}")
    fullest = [
        (
            one.limit,
            one.subject,
            f"{one.used:.0%}",
            f"{one.left}/{one.burst}{' at the same time' if one.at_once else ''}",
        )
        for one in report.buckets
    ]
    refused = [(one.limit, one.subject, str(one.calls)) for one in report.refused]
    raises = [
        (one.limit, "(all)" if one.subject is None else one.subject, one.rate, str(one.burst), str(one.secondsLeft))
        for one in report.raises
    ]
    yield from _table("fullest buckets", ("limit", "subject", "used", "left"), fullest)
    yield from _table("refused most", ("limit", "subject", "calls"), refused)
    yield from _table("raised", ("limit", "subject", "rate", "burst", "seconds left"), raises)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    safe = [head, *([line(cell) for cell in row] for row in rows)]
    widths = [min(max(map(len, column)), WIDEST) for column in zip(*safe, strict=True)]
    yield from ("", title)
    for row in safe:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
