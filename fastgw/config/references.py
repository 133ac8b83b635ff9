"""What stands for something else in the file: `${env:NAME}`, `${file:path}`, secrets by reference, relative paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastgw.config.files import ConfigFiles
from fastgw.config.tree import ConfigProblem, YamlEntry, fits

SECRETS: tuple[tuple[str, ...], ...] = (
    ("secret",),
    ("admin", "token"),
    ("store", "password"),
    ("store", "sentinel_password"),
    ("servers", "*", "credential", "bearer"),
    ("servers", "*", "credential", "basic", "password"),
    ("servers", "*", "credential", "header", "*"),
    ("servers", "*", "credential", "oauth", "client_secret"),
    ("servers", "*", "credential", "oauth", "private_key"),
    ("identity", "*", "introspection", "client_secret"),
    ("usage", "sinks", "password"),
    ("alerts", "secret"),
)
"""Keys whose value must come by reference; lists on the way are left out, `*` is any name."""

PATHS: tuple[tuple[str, ...], ...] = (
    ("data",),
    ("store", "ca"),
    ("tls", "*"),
    *(("servers", "*", "tls", key) for key in ("ca", "cert", "key")),
    ("identity", "*", "certificate", "ca"),
)
SINKS = (("usage", "sinks"), ("usage", "sinks", "url"))

CARRIED: tuple[tuple[str, ...], ...] = (("servers", "*", "credential", "header", "*"), ("servers", "*", "headers", "*"))
"""Secrets that are values of headers: a word may stand before the reference, `Bearer ` or `session=`."""

TELLING = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
"""Names of plain `headers` that carry secrets all the same."""

_ALONE = r"\$\{[^{}]*\}"
_LED = rf"(?:[A-Za-z][A-Za-z._-]*[ =])?(?:{_ALONE})+"
WHOLE = re.compile(rf"(?:{_ALONE})+")
LED = re.compile(rf"{_LED}(?:[;,] ?{_LED})*")
"""In a header: references, a word before each at most. It has no digits: half a secret must not pass for a word."""
REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")


def resolve(root: YamlEntry, environ: Mapping[str, str], files: ConfigFiles) -> Iterator[ConfigProblem]:
    """Fill in every reference of the tree in place, make paths absolute, refuse secrets that are written out."""
    for path, entry in root.walk():
        if (path and str(path[0]).startswith("x-")) or isinstance(entry.content, dict | list):
            continue
        keys = tuple(step for step in path if isinstance(step, str))
        in_plain_header = fits(keys, ("servers", "*", "headers", "*")) and TELLING.search(keys[3])
        is_secret = in_plain_header or any(fits(keys, pattern) for pattern in SECRETS)
        if is_secret and (message := _written_out(entry.written, keys)):
            yield ConfigProblem(entry.position, message)
        if not isinstance(entry.content, str):
            continue
        try:
            text = fill(entry.content, entry.position.file, environ, files)
            entry.content = _absolute(text, entry.position.file, keys)
        except ValueError as error:
            yield ConfigProblem(entry.position, str(error))


def fill(text: str, file: str, environ: Mapping[str, str], files: ConfigFiles) -> str:
    """`text` with its references filled in, relative paths from the folder of `file`; `$${` is a plain `${`.

    Raises:
        ValueError: an unknown form, a variable that is not set, a file that cannot be read.
    """

    def one(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        kind, _, name = (found[1] or "").partition(":")
        if kind == "env" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            if name not in environ:
                raise ValueError(f"the environment variable {name} is not set")
            return environ[name]
        if kind == "file" and name:
            return _content(Path(file).parent / name, files)
        raise ValueError("a reference is ${env:NAME} or ${file:path}; a plain ${ is written $${")

    return REFERENCE.sub(one, text) if "${" in text else text


def _content(path: Path, files: ConfigFiles) -> str:
    try:
        return files.content(path).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"the file {path} cannot be read: {getattr(error, 'strerror', error)}") from None


def _written_out(text: str, keys: tuple[str, ...]) -> str | None:
    """What to say where a secret, or a part of one, stands in the file itself."""
    if "${" not in text.replace("$${", ""):
        return "a secret must not be written out: use ${env:NAME} or ${file:path}"
    in_header = any(fits(keys, pattern) for pattern in CARRIED)
    if (LED if in_header else WHOLE).fullmatch(text):
        return None
    beside = "only a word such as `Bearer` may stand before it" if in_header else "nothing may stand beside it"
    return f"a part of a secret must not be written out: use ${{env:NAME}} or ${{file:path}}; {beside}"


def _absolute(text: str, file: str, keys: tuple[str, ...]) -> str:
    """A value that is a path, from the folder of the file that it stands in; any other as it is."""
    folder = Path(file).absolute().parent
    if text and any(fits(keys, pattern) for pattern in PATHS):
        return str(folder / text)
    if keys in SINKS and text.startswith("file:"):
        return f"file:{folder / text.removeprefix('file:')}"
    return text
