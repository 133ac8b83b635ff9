"""Keys and values that people bring along from clients' files: what each is, and what to write here instead.

No message repeats a value that it does not
know: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastgw.config.complaint import ConfigProblem, complaint_at
from fastgw.config.tree import YamlEntry

_SERVERS = (
    "is the map of clients' files: here it is called `servers`, and `fastgw import FILE` makes one of such a file"
)
TOP = {"mcpServers": _SERVERS, "mcp": _SERVERS, "context_servers": _SERVERS}

_URL = "is called `url` here"
_OFF = "is not known here: put a # before the lines of the server, or say why it is away with `maintenance: TEXT`"
SERVER = {
    "serverUrl": _URL,
    "httpUrl": _URL,
    "args": "belongs to the command here, one list of words: command: [npx, -y, some-server]",
    "disabled": _OFF,
    "enabled": _OFF,
}

HTTP = ("http", "streamable-http", "streamablehttp", "streamable_http")
_HTTP = "is not needed: leave it out, a server with a `url` is asked by Streamable HTTP"
_SSE = (
    "is the older HTTP+SSE transport, which is not supported: leave it out, and give as `url` where the"
    " same server speaks Streamable HTTP, usually at /mcp instead of /sse"
)
KINDS = {**dict.fromkeys(HTTP, _HTTP), "sse": _SSE, "stdio": "is not needed: leave it out, `command` says it"}
_OTHER = "is a key of clients' files: leave it out; a server has a `url`, asked by Streamable HTTP, or a `command`"

_ONE_WORD = "is taken for the name of the program, and has a space in it: write a list of words, [uvx, some-server]"


def foreign(root: YamlEntry) -> Iterator[ConfigProblem]:
    """A complaint for each such key, in place of the one that it is unknown."""
    yield from _named(root, TOP)
    servers = root.child("servers")
    for one in servers.content.values() if servers and isinstance(servers.content, dict) else ():
        yield from _named(one, SERVER)
        yield from _kind(one)
        yield from _command(one)


def _named(entry: YamlEntry, rows: dict[str, str]) -> Iterator[ConfigProblem]:
    for key, place in entry.keys.items():
        if key in rows:
            yield complaint_at(place, f"`{key}` {rows[key]}")


def _kind(server: YamlEntry) -> Iterator[ConfigProblem]:
    """The transport, by the names that clients have for it."""
    for key in ("type", "transport"):
        said = server.child(key)
        kind = str(said.content).lower() if said else ""
        if said and kind in KINDS:
            where = server.keys[key] if key == "type" else said.position
            yield complaint_at(where, f"`{key}: {kind}` {KINDS[kind]}")
        elif said and key == "type":
            yield complaint_at(server.keys[key], f"`type` {_OTHER}")


def _command(server: YamlEntry) -> Iterator[ConfigProblem]:
    """A whole command line where a list of words belongs; in a list the name of a program may have a space."""
    said = server.child("command")
    if said and isinstance(said.content, str) and len(said.content.split()) > 1:
        yield complaint_at(said.position, _ONE_WORD)
