"""An `mcpServers` file of a client as a configuration of ours, as text.

A value that could be a secret is never written: a reference to a variable stands in its place. In doubt it is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from fastgw.config.importer_mcp_remote import unwrapped
from fastgw.config.importer_secrets import SECRET_NAME, Variables, is_secret_url, looks_secret, shouted, texts
from fastgw.config.references import REFERENCE
from fastgw.config.schema.servers import header_name, header_value, http_url

HTTP = ("http", "streamable-http", "streamableHttp", "streamable_http")
_KNOWN = frozenset(
    ("type", "transport", "url", "serverUrl", "httpUrl", "headers", "command", "args", "env", "disabled", "enabled")
)
_OPTION = re.compile(r"--?[A-Za-z][A-Za-z0-9_-]*")
_ALONE = r"\$\{env:[A-Za-z0-9_]+\}"
_SCHEME = re.compile(r"((?:(?i:bearer|basic|token)|[A-Za-z]*(?i:api-?key)) )?(.*)", re.DOTALL)
"""A word that may stand before a credential, and the credential; fits any text."""
_HEAD = """\
# Made by `fastgw import`. Who may call: `fastgw keys new --agent NAME` prints a key, once, and its entry for `agents`.
# Until then nobody may. Every setting is explained in config/fastgw.yaml of the project; `fastgw check` says what is
# wrong, and what this release leaves out.
"""


class NotAClientsFile(ValueError):
    """The document holds no `mcpServers`; the text says what is missing."""


@dataclass(slots=True)
class Imported:
    """What became of the file.

    Args:
        text: the configuration: YAML.
        variables: names of the variables to set, in the order of their first use.
        notes: what was left out and why, for the operator; never a value.
    """

    text: str = ""
    variables: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _LeftOut(Exception):
    """This entry cannot be a server here; the text says why."""


def imported(document: Any) -> Imported:
    """The configuration for a client's file.

    Args:
        document: the file, its JSON decoded.

    Raises:
        NotAClientsFile: it is something else.
    """
    variables = Variables(document)
    found = Imported()
    names: set[str] = set()
    blocks = [_block(one, _legal(one.name, names), variables, found) for one in _entries(document)]
    active = any(re.search(r"^  [^ #]", block, re.MULTILINE) for block in blocks)
    servers = "servers:\n" if active else "servers: {}\n"
    found.text = _HEAD + servers + "".join(blocks)
    found.variables = list(variables.active)
    return found


def quoted(text: str) -> str:
    """Text as a double-quoted YAML scalar on one line, in ASCII: it can be nothing but text (YAML 1.2, 7.3.1)."""
    return '"' + "".join(map(_letter, text)) + '"'


def _letter(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    if " " <= letter <= "~":
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


@dataclass(frozen=True, slots=True)
class _Given:
    """An entry as it stands in the file; `project` is the folder that it is for, empty where it is for all."""

    name: str
    entry: Any
    project: str = ""


def _entries(document: Any) -> list[_Given]:
    """In the order of the file; what several projects of Claude Code have alike, once."""
    found = document if isinstance(document, dict) else {}
    projects = found.get("projects")
    places = [("", found, "mcpServers"), ("", found, "servers"), ("", found.get("mcp"), "servers")]
    places += [(path, one, "mcpServers") for path, one in projects.items()] if isinstance(projects, dict) else []
    maps = [(path, where[key]) for path, where, key in places if isinstance(where, dict) and key in where]
    maps = [(path, entries) for path, entries in maps if isinstance(entries, dict)]
    if not maps:
        raise NotAClientsFile("there is no mcpServers (or servers) map in it")
    entries: list[_Given] = []
    seen: dict[str, list[Any]] = {}
    for path, given in maps:
        for name, entry in given.items():
            if entry not in seen.setdefault(name, []):
                seen[name].append(entry)
                entries.append(_Given(name, entry, path))
    return entries


def _legal(given: str, names: set[str]) -> str:
    """A server's name like the given one: letters, digits, _ and -, and no other server's."""
    name = stem = re.sub(r"[^A-Za-z0-9_-]+", "-", given).strip("-")[:64] or "server"
    number = 1
    while name in names:
        number += 1
        name = f"{stem}-{number}"
    names.add(name)
    return name


def _block(given: _Given, name: str, variables: Variables, found: Imported) -> str:
    """The lines of one server; as comments where it cannot be used."""
    lines = [f"# it was called {quoted(given.name)}"] if name != given.name else []
    lines += [f"# of the project {quoted(given.project)}"] if given.project else []
    scratch = variables.trial()
    entry, remarks = unwrapped(given.entry)
    try:
        words = [*(f"# {remark}" for remark in remarks), *_server(name, entry, scratch)]
    except _LeftOut as why:
        found.notes.append(f"{name}: left out: {why}")
        return "".join(f"  # {line}\n" for line in [*lines, f"{name}: left out: {why}"])
    found.notes.extend(f"{name}: {line.removeprefix('# ')}" for line in words if line.startswith("# "))
    settings = [f"{name}:", *(f"  {line}" for line in words)]
    if reason := _switched_off(entry):
        found.notes.append(f"{name}: left out: {reason}")
        return "".join(f"  # {line}\n" for line in [*lines, f"left out: {reason}", *settings])
    variables.keep(scratch)
    return "".join(f"  {line}\n" for line in [*lines, *settings])


def _switched_off(entry: Mapping[str, Any]) -> str:
    if entry.get("disabled") is True or entry.get("enabled") is False:
        return "it was disabled"
    kind = _kind(entry)
    if kind == "sse" and "type" not in entry:
        return 'its address ends in /sse, a transport that is not supported; with "type": "http" it is taken'
    return "" if kind in HTTP or kind == "stdio" else f"the transport {quoted(kind)} is not supported"


def _kind(entry: Mapping[str, Any]) -> str:
    """The transport: as it is said, else as what is there tells."""
    said = entry.get("type", entry.get("transport"))
    if isinstance(said, str) and said:
        return said
    if "command" in entry:
        return "stdio"
    path = urlsplit(_address(entry)).path
    return "sse" if path.rstrip("/").endswith("/sse") and "httpUrl" not in entry else "http"


def _address(entry: Mapping[str, Any]) -> str:
    found = next((entry[key] for key in ("url", "httpUrl", "serverUrl") if key in entry), None)
    if not isinstance(found, str):
        raise _LeftOut("it has neither a url nor a command")
    try:
        urlsplit(found)
    except ValueError:
        raise _LeftOut("its url is none") from None
    return found


def _server(name: str, entry: Any, variables: Variables) -> Iterator[str]:
    """The lines of one server, less its name; comments begin with `#`."""
    if not isinstance(entry, dict):
        raise _LeftOut("it is no map")
    _demand_unicode(entry)
    if extra := [key for key in entry if key not in _KNOWN]:
        yield f"# not taken over: {', '.join(map(quoted, extra))}"
    if _kind(entry) == "stdio":
        yield from _command(name, entry, variables)
    else:
        yield from _remote(name, entry, variables)


def _command(name: str, entry: Mapping[str, Any], variables: Variables) -> Iterator[str]:
    command, args, env = entry.get("command"), entry.get("args", []), entry.get("env", {})
    if not isinstance(command, str) or not command or not _is_texts(args):
        raise _LeftOut("it has neither a url nor a command")
    words = [variables.taken_over(command), *_arguments(name, args, variables)]
    yield f"command: [{', '.join(map(quoted, words))}]"
    if not isinstance(env, dict):
        raise _LeftOut("its env is no map")
    if env:
        yield "env:"
    for key, value in env.items():
        wanted = key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) else shouted(name, key)
        yield f"  {quoted(key)}: {quoted(variables.reference(_text(value), wanted, name))}"


def _arguments(name: str, args: list[str], variables: Variables) -> Iterator[str]:
    """The arguments of a command; one that could be a secret, or follows an option that announces one, by reference."""
    announced = ""
    for word in args:
        option, equals, value = word.partition("=")
        if announced and not _OPTION.fullmatch(word):
            yield variables.reference(word, shouted(name, announced), name)
        elif equals and _OPTION.fullmatch(option) and (SECRET_NAME.search(option) or looks_secret(value)):
            yield variables.taken_over(option) + "=" + variables.reference(value, shouted(name, option), name)
        elif looks_secret(word) or (SECRET_NAME.search(word) and ":" in word and not word.startswith("http")):
            yield variables.reference(word, shouted(name, "argument"), name)
        else:
            yield variables.taken_over(word)
        is_header = word in ("--header", "-H")
        announced = word if _OPTION.fullmatch(word) and (SECRET_NAME.search(word) or is_header) else ""


def _remote(name: str, entry: Mapping[str, Any], variables: Variables) -> Iterator[str]:
    url, credential = _address(entry), {}
    parts = urlsplit(url)
    if "@" in parts.netloc:
        user, _, host = parts.netloc.rpartition("@")
        url, credential = parts._replace(netloc=host).geturl(), {"userinfo": user}
    if is_secret_url(url):
        yield "# its address may hold a secret"
        url = variables.reference(url, shouted(name, "url"), name)
    else:
        url = _good_url(variables.taken_over(url))
    yield f"url: {quoted(url)}"
    headers = entry.get("headers", {})
    if not isinstance(headers, dict):
        raise _LeftOut("its headers are no map")
    yield from _headers(name, headers, credential, variables)


def _good_url(url: str) -> str:
    """The address, if it is one whatever its references hold; they may stand for its beginning."""
    try:
        begun = re.sub(rf"^{_ALONE}", "http://x", url)
        http_url(re.sub(_ALONE, "x", begun))
    except ValueError:
        raise _LeftOut("its url is no http or https address") from None
    return url


def _headers(name: str, headers: Mapping[str, Any], credential: dict[str, str], variables: Variables) -> Iterator[str]:
    """`credential` and `headers`: what could be a secret goes into the first."""
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for key, value in headers.items():
        text = _text(value)
        try:
            header_name(key)
            header_value(text)
            if key.lower() in {one.lower() for one in (*plain, *secret)}:
                raise ValueError("the same header twice")
        except ValueError as wrong:
            yield f"# the header {quoted(key)} is left out: {wrong}"
            continue
        is_secret = SECRET_NAME.search(key) or looks_secret(text) or REFERENCE.search(text)
        (secret if is_secret else plain)[key] = text
    yield from _credential(name, secret, credential, variables)
    if plain:
        yield "headers:"
        yield from (f"  {quoted(key)}: {quoted(variables.taken_over(text))}" for key, text in plain.items())


def _credential(
    name: str, secret: Mapping[str, str], userinfo: Mapping[str, str], variables: Variables
) -> Iterator[str]:
    if userinfo and not secret:
        user, colon, password = map(unquote, userinfo["userinfo"].partition(":"))
        is_plain = colon and not looks_secret(user) and re.fullmatch(r"[^:\x00-\x1f\x7f]*", user)
        username = variables.taken_over(user) if is_plain else variables.reference(user, shouted(name, "user"), name)
        yield "credential:"
        yield "  basic:"
        yield f"    username: {quoted(username)}"
        yield f"    password: {quoted(variables.reference(password, shouted(name, 'password'), name))}"
        return
    if userinfo:
        yield "# the user and password of its address are left out: it has a header with a credential, too"
    bearer = re.fullmatch(r"(?i:authorization): (?i:bearer) +(.+)", ": ".join(next(iter(secret.items()), ())))
    if bearer and len(secret) == 1:
        yield f"credential: {{bearer: {quoted(variables.reference(bearer[1], shouted(name, 'token'), name))}}}"
        return
    if secret:
        yield "credential:"
        yield "  header:"
    for key, text in secret.items():
        scheme, value = _SCHEME.fullmatch(text).groups(default="")  # type: ignore[union-attr]
        yield f"    {quoted(key)}: {quoted(scheme + variables.reference(value, shouted(name, key), name))}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise _LeftOut("a value that must be text is none")


def _demand_unicode(entry: Any) -> None:
    for text in texts(entry):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise _LeftOut("it holds text that is no Unicode")
        if "\x00" in text:
            raise _LeftOut("it holds a null character")
