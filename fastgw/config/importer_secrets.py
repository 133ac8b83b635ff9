"""Variables that stand for what may be a secret, in a file that somebody else's program wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastgw.config.references import TELLING

SECRET_NAME = re.compile(TELLING.pattern + r"|key|auth|session|credential|signature|jwt|\bpat\b|\bsig\b", re.IGNORECASE)
"""Names of options, headers and parameters that carry secrets."""
_TAKEN_OVER = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}|\$\{input:([^{}]+)\}")
"""References as clients write them: `${NAME}`, `${env:NAME}`, `${NAME:-default}`, `${input:id}`."""


class Variables:
    """The variables that stand for values, each for one value only."""

    def __init__(self, document: Any) -> None:
        self._values: dict[str, object] = {}
        self.active: dict[str, None] = {}
        for text in texts(document):
            for found in _TAKEN_OVER.finditer(text):
                self._values[_variable(found)] = found[0].partition(":-")[0]

    def trial(self) -> Variables:
        """A copy to try one entry on."""
        copy = Variables(None)
        copy._values, copy.active = dict(self._values), dict(self.active)
        return copy

    def keep(self, trial: Variables) -> None:
        """Take what was tried."""
        self._values, self.active = trial._values, trial.active

    def reference(self, text: str, wanted: str, server: str) -> str:
        """What stands for a value that may be a secret: its own reference, where it is one and nothing else.

        Args:
            wanted: what the variable is to be called; another name where that is taken by another value.
        """
        if found := _TAKEN_OVER.fullmatch(text):
            return self._used(_variable(found))
        tries = [wanted, *([] if wanted.startswith(shouted(server, "")) else [shouted(server, wanted)])]
        name = next((one for one in tries if self._values.get(one, text) == text), "")
        number = 1
        while not name:
            number += 1
            if self._values.get(f"{tries[-1]}_{number}", text) == text:
                name = f"{tries[-1]}_{number}"
        self._values[name] = text
        return self._used(name)

    def taken_over(self, text: str) -> str:
        """A plain value: its references in our form, any other `${` as text."""
        parts, at = [], 0
        for found in _TAKEN_OVER.finditer(text):
            parts += [text[at : found.start()].replace("${", "$${"), self._used(_variable(found))]
            at = found.end()
        return "".join([*parts, text[at:].replace("${", "$${")])

    def _used(self, name: str) -> str:
        self.active[name] = None
        return f"${{env:{name}}}"


def _variable(found: re.Match[str]) -> str:
    return found[1] or shouted(found[2], "").rstrip("_") or "INPUT"


def shouted(*words: str) -> str:
    """The words as the name of a variable: `GITHUB_TOKEN`."""
    name = "_".join(re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_") for word in words).upper()[:100]
    return f"_{name}" if name[:1].isdigit() else name


def is_secret_url(url: str) -> bool:
    """Whether a step of its path or a parameter could be a secret; references to variables are none."""
    parts = urlsplit(_TAKEN_OVER.sub("", url))
    if any(looks_secret(step) for step in parts.path.split("/")):
        return True
    return any(SECRET_NAME.search(name) or looks_secret(value) for name, value in parse_qsl(parts.query))


def looks_secret(text: str) -> bool:
    """Whether a word is long and made as keys are: 16 and more of letters and digits mixed, or a known beginning."""
    if re.search(r"\b(sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[a-z]|fgw|AKIA|ya29|eyJ)[-_.A-Za-z0-9]{8,}", text):
        return True
    words = re.findall(r"[A-Za-z0-9+_=-]{16,}", text)
    return any(re.search(r"[0-9]", word) and re.search(r"[A-Za-z]", word) and not _is_name(word) for word in words)


def _is_name(word: str) -> bool:
    """Whether it is words with a number here and there, as packages are called: `server-postgres-v2`."""
    return all(re.fullmatch(r"[A-Za-z]*[0-9]{0,4}|[0-9]{1,8}", part) for part in re.split(r"[-_+=]", word)) and (
        max(map(len, re.split(r"[-_+=]", word))) < 16
    )


def texts(value: Any) -> Iterator[str]:
    """Every text in a document, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
