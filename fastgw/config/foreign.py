"""Keys that people bring along from clients' files: what to write here instead. No message repeats a value that it
does not know: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastgw.config.tree import ConfigProblem, YamlEntry, locate_key

HTTP = ("http", "streamable-http", "streamablehttp", "streamable_http")
_SERVERS = "is the map of clients' files: here it is called `servers`, and `fastgw import FILE` makes one of it"
_URL = "is called `url` here"
_DISABLED = "is not known here: put a # before the lines of the server, or say why it is away with `maintenance: TEXT`"
_TRANSPORT = (
    "is a key of clients' files, leave it out: a `url` is asked by Streamable HTTP, a `command` is started; the older"
    " HTTP+SSE is not supported, the same server speaks Streamable HTTP usually at /mcp instead of /sse"
)
_ONE_WORD = "is taken for the name of the program, and has a space in it: write a list of words, [uvx, some-server]"
TOP = {"mcpServers": _SERVERS, "mcp": _SERVERS, "context_servers": _SERVERS}
SERVER = {
    "serverUrl": _URL,
    "httpUrl": _URL,
    "args": "belongs to the command here, one list of words: command: [npx, -y, some-server]",
    "disabled": _DISABLED,
    "enabled": _DISABLED,
    "type": _TRANSPORT,
}


def foreign(root: YamlEntry) -> Iterator[ConfigProblem]:
    """A complaint for each such key, in place of the one that it is unknown."""
    found = root.child("servers")
    servers = list(found.content.values()) if found and isinstance(found.content, dict) else []
    for entry, rows in ((root, TOP), *((server, SERVER) for server in servers)):
        for key in entry.content if isinstance(entry.content, dict) else ():
            if key in rows:
                yield ConfigProblem(locate_key(entry, (key,)), f"`{key}` {rows[key]}")
    for server in servers:
        transport, command = server.child("transport"), server.child("command")
        if transport and str(transport.content).lower() in (*HTTP, "sse", "stdio"):
            yield ConfigProblem(transport.position, f"`transport` {_TRANSPORT}")
        if command and isinstance(command.content, str) and len(command.content.split()) > 1:
            yield ConfigProblem(command.position, _ONE_WORD)
