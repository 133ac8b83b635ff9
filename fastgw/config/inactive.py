"""Settings that the file may have and this release does not act on yet."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fastgw.config.tree import Position, YamlEntry, fits, locate


class InactiveSetting(NamedTuple):
    """A written key, `servers.data.breaker`, that nothing acts on, and what does not happen.

    One that `restricts` would let through, or leave undone, what the file demands: `run` refuses to start.
    """

    position: Position
    key: str
    restricts: bool
    why: str

    def __str__(self) -> str:
        return f"{self.position}: {self.key} is not active in this release: {self.why}"


def _written(entry: YamlEntry) -> bool:
    return entry.content not in ([], {})


def _says(pattern: str) -> Callable[[YamlEntry], bool]:
    return lambda entry: isinstance(entry.content, str) and re.match(pattern, entry.content) is not None


class InactiveRow(NamedTuple):
    """One kind of inactive key: its path without positions in lists, `*` for any name."""

    path: str
    why: str
    when: Callable[[YamlEntry], bool] = _written


RESTRICTING = (
    InactiveRow(
        "identity.*.certificate",
        "the server that ends TLS here tells nothing of an agent's certificate. Let a proxy end it and name the agent:"
        " header: {name: X-Client-Cert-Subject, from: [the proxy's address]}",
    ),
    InactiveRow("servers.*.command", "the server is not started, so its tools are missing"),
    InactiveRow(
        "servers.*.credential.oauth.grant",
        "no token is fetched this way",
        _says("id_jag|authorization_code"),
    ),
)
HARMLESS = (
    InactiveRow("servers.*.transport", "there is one way to speak with servers; the key goes with the next release"),
    InactiveRow("endpoints.*.refusals", "refusals are JSON-RPC errors", _says("result")),
)


def inactive(root: YamlEntry) -> list[InactiveSetting]:
    """What the file has and nothing acts on, in the order of the file. Only written keys count."""
    # By the top key and the depth: most of a large file has no such rows, and each key would be tried on all of them.
    rows: dict[tuple[str, int], list[tuple[list[str], InactiveRow, bool]]] = {}
    for table, restricts in ((RESTRICTING, True), (HARMLESS, False)):
        for row in table:
            pattern = row.path.split(".")
            rows.setdefault((pattern[0], len(pattern)), []).append((pattern, row, restricts))
    found = []
    for path, entry in root.walk():
        keys = tuple(step for step in path if isinstance(step, str))
        in_list = bool(path) and isinstance(path[-1], int)
        for pattern, row, restricts in rows.get((keys[0], len(keys)), ()) if keys else ():
            # A list and its items have the same keys: conditions tell them apart, plain rows take the outer one.
            if not (in_list and row.when is _written) and fits(keys, pattern) and row.when(entry):
                found.append(InactiveSetting(locate(root, path), ".".join(keys), restricts, row.why))
    return sorted(found, key=lambda one: (one.position, one.key))
