"""A client's `mcpServers` file as a configuration. A value that could be a secret is never written or told: a
reference to a variable stands in its place, and in doubt it is one.
"""

from __future__ import annotations

import json
import re
from itertools import count, pairwise
from typing import Any, NamedTuple

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from fastgw.config.error_messages import HTTP, WORDS
from fastgw.config.references import REFERENCE, TELLING
from fastgw.config.schema.servers import FORBIDDEN_HEADERS, ServerSettings

_SECRET_NAME = re.compile(TELLING.pattern + r"|key|auth|session|credential|signature|jwt|\b(pat|sig)\b", re.IGNORECASE)
"""Names of options, headers and parameters that carry secrets."""
_KEY = re.compile(
    r"\b(sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[a-z]|fgw|AKIA|ya29|eyJ)[-_.A-Za-z0-9]{8,}"
    r"|://[^/]*@|^(?i:bearer|basic|token|api-?key) "
)
_NAME_PART = re.compile(r"[A-Za-z]{0,11}[0-9]{0,4}|[0-9]{1,8}")
"""Packages are called so, with a number here and there: `server-postgres-v2`."""
_CLIENTS_REFERENCE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}|\$\{input:([^{}]+)\}")
"""`${NAME}`, `${env:NAME}`, `${NAME:-default}`, `${input:id}`."""
_SCHEME = re.compile(r"((?i:bearer|basic|token|api-?key) )? *(.*)", re.DOTALL)
_LABEL = re.compile(r"(-*[A-Za-z][\w-]*(?:=(?=[^=])|:(?!/) ?))?(.*)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][A-Za-z0-9_-]*")
_MCP_REMOTE = re.compile(r"(.*[/\\])?mcp-remote(\.cmd|@.*)?")
_TRANSPORTS = {"http-only": "http", "http-first": "http", "sse-only": "sse"}
_IGNORED = ("--header", "--transport", "--allow-http", "--debug", "--silent")  # taken over, or nothing is lost


class NotImportable(ValueError):
    """A document, or an entry of it, that cannot be taken over; the text says why, without a value."""


class Imported(NamedTuple):
    """The configuration (YAML), the variables to set in the order of their use, and what was left out or changed."""

    text: str
    variables: list[str]
    notes: list[str]


class ClientEntry(BaseModel):
    """A server as clients write it, under every name that they have for a setting."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    url: str = Field("", validation_alias=AliasChoices("url", "httpUrl", "serverUrl"))
    type: str = Field("", validation_alias=AliasChoices("type", "transport"))
    headers: dict[str, str] = {}
    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    disabled: bool = False
    enabled: bool = True


def imported(document: Any) -> Imported:
    """The configuration for a client's file, its JSON decoded.

    Raises:
        NotImportable: it holds no servers.
    """
    variables, notes, servers = _Variables(document), [], dict[str, Any]()
    for given, raw, project in _entries(document):
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", given).strip("-")[:60] or "server"
        names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        name = next(one for one in names if one not in servers)
        try:
            servers[name], remarks = _server(name, raw, variables)
        except NotImportable as why:
            notes.append(f"{name}: left out: {why}")
            continue
        remarks += [f"it was called {given}"] if name != given else []
        remarks += [f"of the project {project}"] if project else []
        notes += [f"{name}: {remark}" for remark in remarks]
    text = yaml.safe_dump({"servers": servers}, sort_keys=False, width=10_000)
    used = dict.fromkeys(found[1].removeprefix("env:") for found in REFERENCE.finditer(text) if found[1])
    return Imported(text, list(used), notes)


def _entries(document: Any) -> list[tuple[str, Any, str]]:
    """Name, entry and project (empty where it is for all) in the order of the file; what projects have alike, once."""
    found = document if isinstance(document, dict) else {}
    places = [("", found, "mcpServers"), ("", found, "servers"), ("", found.get("mcp"), "servers")]
    if isinstance(projects := found.get("projects"), dict):
        places += [(path, one, "mcpServers") for path, one in projects.items()]
    maps = [(path, where[key]) for path, where, key in places if isinstance(where, dict) and key in where]
    maps = [(path, servers) for path, servers in maps if isinstance(servers, dict)]
    if not maps:
        raise NotImportable("there is no mcpServers (or servers) map in it")
    entries: list[tuple[str, Any, str]] = []
    for path, servers in maps:
        given = [(name, entry, path) for name, entry in servers.items()]
        entries += [one for one in given if not any(one[:2] == known[:2] for known in entries)]
    return entries


def _server(name: str, raw: Any, variables: _Variables) -> tuple[dict[str, Any], list[str]]:
    """The settings of one server, and what to tell of it; NotImportable where it cannot be one here."""
    try:
        entry, remarks = _unwrapped(ClientEntry.model_validate(raw))
        remarks += [f"not taken over: {', '.join(entry.model_extra)}"] if entry.model_extra else []
        settings = (_command if _is_command(entry) else _remote)(name, entry, variables, remarks)
        filled = re.sub(r"\$\{env:\w+\}", "x", re.sub(r"^\$\{env:\w+\}", "http://x", settings.get("url", "")))
        ServerSettings.model_validate(settings | ({"url": filled} if filled else {}))
    except ValidationError as wrong:
        detail = wrong.errors(include_url=False, include_input=False)[0]
        words = WORDS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
        raise NotImportable(": ".join([*map(str, detail["loc"][:1]), words])) from None
    return settings, remarks


def _unwrapped(entry: ClientEntry) -> tuple[ClientEntry, list[str]]:
    """The entry of the server that `npx mcp-remote URL` would ask, and what to tell of it; any other as it is."""
    words = [entry.command, *entry.args]
    options = words[next((at for at, word in enumerate(words, 1) if _MCP_REMOTE.fullmatch(word)), len(words)) :]
    url = next((word for word in options if re.match(r"https?://|\$\{", word)), "")
    if not url:
        return entry, []
    kind = _TRANSPORTS.get(dict(pairwise(options)).get("--transport", ""), "")
    headers = dict[str, str]()
    for key, _, text in (value.partition(":") for option, value in pairwise(options) if option == "--header"):
        headers[key] = re.sub(r"\$\{(\w+)\}", lambda found: entry.env.get(found[1], found[0]), text.strip())
    left = [word.partition("=")[0] for word in options if word.startswith("--") and word not in _IGNORED]
    left += [key for key in entry.env if f"${{{key}}}" not in "".join(options)]
    remarks = ["mcp-remote is not needed: fastgw asks its server itself"]
    remarks += [f"not taken over: {', '.join(left)}"] if left else []
    if not headers:
        remarks.append("no credential: where one is needed, mcp-remote signs a person in, and fastgw does not")
    changed = {"url": url, "type": kind, "headers": headers, "command": "", "args": [], "env": {}}
    return entry.model_copy(update=changed), remarks


def _is_command(entry: ClientEntry) -> bool:
    """Whether it is a program to start, by its transport or by what is there; NotImportable where it is disabled or
    neither a program nor a server with Streamable HTTP.
    """
    if entry.disabled or not entry.enabled:
        raise NotImportable("it was disabled")
    kind = entry.type.lower() or ("stdio" if entry.command else "http")
    if not (entry.command if kind == "stdio" else entry.url):
        raise NotImportable("it has neither a url nor a command")
    if kind != "stdio" and kind not in HTTP:
        raise NotImportable(f"the transport {entry.type} is not supported")
    if not entry.type and not entry.command and re.search(r"/sse/?($|\?)", entry.url):
        raise NotImportable('the transport of /sse is not supported; with "type": "http" the address is taken')
    return kind == "stdio"


def _command(name: str, entry: ClientEntry, variables: _Variables, _: list[str]) -> dict[str, Any]:
    """A command with its arguments; what could be a secret, or follows an option that announces one, by reference."""
    words = [variables.taken_over(entry.command)]
    for before, word in pairwise(["", *entry.args]):
        prefix, value = _LABEL.fullmatch(word).groups("")  # type: ignore[union-attr]
        if _looks_secret(prefix.strip("-:= ")):
            prefix, value = "", word
        label = prefix or (before if _OPTION.fullmatch(before) else "")
        if _looks_secret(value) or (_SECRET_NAME.search(label) and not _OPTION.fullmatch(value)):
            words.append(prefix + variables.reference(value, _upper(name, label or "argument")))
        else:
            words.append(prefix + variables.taken_over(value))
    env = {key: variables.reference(value, key, _upper(name, key)) for key, value in entry.env.items()}
    return {"command": words} | ({"env": env} if env else {})


def _remote(name: str, entry: ClientEntry, variables: _Variables, remarks: list[str]) -> dict[str, Any]:
    """A server with a `url`: what of its headers could be a secret goes into `credential`."""
    url = re.sub(r"^(\w+://)[^/?#]*@", r"\1", entry.url)
    if url != entry.url:
        remarks.append("the user and password of its address are left out: `credential: {basic: ...}` takes them")
    by_reference = variables.reference if _looks_secret(url) else variables.taken_over
    plain, secret = dict[str, str](), dict[str, str]()
    for key, value in entry.headers.items():
        if FORBIDDEN_HEADERS.fullmatch(key):
            remarks.append(f"the header {key} is left out: fastgw writes it itself")
        elif _SECRET_NAME.search(key) or _looks_secret(value) or "${" in value:
            secret[key] = value
        else:
            plain[key] = value
    settings: dict[str, Any] = {"url": by_reference(url, _upper(name, "url"))}
    if list(secret) == ["Authorization"] and (bearer := re.fullmatch(r"(?i:bearer) +(.+)", secret["Authorization"])):
        settings["credential"] = {"bearer": variables.reference(bearer[1], _upper(name, "token"))}
    elif secret:
        parts = [(key, *_SCHEME.fullmatch(text).groups("")) for key, text in secret.items()]  # type: ignore[union-attr]
        by_name = {key: scheme + variables.reference(value, _upper(name, key)) for key, scheme, value in parts}
        settings["credential"] = {"header": by_name}
    return settings | ({"headers": plain} if plain else {})


class _Variables:
    """The variables that stand for values, each for one value only."""

    def __init__(self, document: Any) -> None:
        found = _CLIENTS_REFERENCE.finditer(json.dumps(document, ensure_ascii=False))
        self._values: dict[str, str | None] = dict.fromkeys(map(_variable, found))

    def reference(self, text: str, *wanted: str) -> str:
        """What stands for a value: its own reference, or one to the first `wanted` name that has no other value."""
        if found := _CLIENTS_REFERENCE.fullmatch(text):
            return f"${{env:{_variable(found)}}}"
        names = [name for name in wanted if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]
        names += [f"{wanted[-1]}_{number}" for number in range(2, len(self._values) + 3)]
        return f"${{env:{next(name for name in names if self._values.setdefault(name, text) == text)}}}"

    def taken_over(self, text: str, *_: str) -> str:
        """A plain value: its references in our form, any other `${` as text."""
        form = rf"{_CLIENTS_REFERENCE.pattern}|\$\{{"
        return re.sub(form, lambda found: f"${{env:{_variable(found)}}}" if found.lastindex else "$${", text)


def _variable(found: re.Match[str]) -> str:
    return found[1] or _upper(found[2])


def _upper(*words: str) -> str:
    """The words as the name of a variable: `GITHUB_TOKEN`."""
    name = "_".join(re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_") for word in words).upper()[:100]
    return name if re.match(r"[A-Z]", name) else f"_{name}"


def _looks_secret(text: str) -> bool:
    """Whether it begins as keys do, has a part named as one, or letters and digits mixed, 16 and more."""
    rest = re.sub(r"^\w+://[^/?]*", "", _CLIENTS_REFERENCE.sub("", text))
    words = re.findall(r"[A-Za-z0-9+_=-]{16,}", rest)
    mixed = [word for word in words if re.search(r"[0-9]", word) and re.search(r"[A-Za-z]", word)]
    parts = (part for word in mixed for part in re.split(r"[-_+=]", word))
    is_named = re.search(rf"({_SECRET_NAME.pattern})[^:=&?]*[:=][^&]", rest, re.IGNORECASE)
    return bool(_KEY.search(text) or is_named) or not all(map(_NAME_PART.fullmatch, parts))
