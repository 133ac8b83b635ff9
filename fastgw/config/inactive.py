"""Settings that the file may have and this release does not act on yet.

Knows: which keys those are, and whether leaving one out of account would let through what the file forbids.
Refuses to know: how the rest is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastgw.config.settings import Settings
from fastgw.config.tree import Entry, Path, Position, fits, locate


@dataclass(frozen=True, slots=True)
class Notice:
    """A written key that nothing acts on.

    Args:
        position: where it stands.
        key: its path, `servers.data.breaker`.
        restricts: ignoring it lets through, or leaves undone, what the file demands: `run` refuses to start.
        why: what does not happen.
    """

    position: Position
    key: str
    restricts: bool
    why: str

    def __str__(self) -> str:
        return f"{self.position}: {self.key} is not active in this release: {self.why}"


def _written(entry: Entry) -> bool:
    return entry.content not in ([], {})


def _other_way_in(entry: Entry) -> bool:
    return isinstance(entry.content, str) and entry.content not in ("keys", "none")


def _several(entry: Entry) -> bool:
    return isinstance(entry.content, list) and len(entry.content) > 1


def _says(*words: str) -> Callable[[Entry], bool]:
    return lambda entry: isinstance(entry.content, str) and entry.content.startswith(words)


def _foreign_sink(entry: Entry) -> bool:
    return isinstance(entry.content, str) and entry.content != "stdout" and not entry.content.startswith("file:")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of inactive key: its path without positions in lists, `*` for any name."""

    path: tuple[str, ...]
    why: str
    when: Callable[[Entry], bool] = _written


RESTRICTING = (
    Row(("quotas",), "nothing is counted against a quota"),
    Row(("identity",), "agents come in by API key only"),
    Row(("tls",), "agents would be served plain HTTP"),
    Row(("servers", "*", "command"), "the server is not started, so its tools are missing"),
    Row(("servers", "*", "max_in_flight"), "calls at the same time are not limited"),
    Row(("servers", "*", "on_change"), "changed tools are not held back", _says("hold")),
    Row(("servers", "*", "credential", "oauth"), "no token is fetched, so the server refuses calls"),
    Row(("servers", "*", "credential", "match"), "one credential is sent for all agents"),
    Row(("servers", "*", "credential"), "one credential is sent for all agents", _several),
    Row(("endpoints", "*", "auth"), "agents come in by API key only", _other_way_in),
    Row(("tools", "*", "scopes"), "no scope is asked for"),
)
HARMLESS = (
    Row(("policies", "mode"), "what it would do is neither counted nor logged", _says("shadow")),
    Row(("health",), "servers are not probed"),
    Row(("breaker",), "a failing server is still called"),
    Row(("alerts",), "no alert is sent"),
    Row(("traces",), "no span is sent"),
    Row(("usage", "keep"), "no event is kept under data"),
    Row(("usage", "users"), "events name no users"),
    Row(("usage", "sinks"), "this sink gets no events", _foreign_sink),
    Row(("usage", "sinks", "url"), "this sink gets no events", _foreign_sink),
    Row(("servers", "*", "transport"), "there is one way to speak with servers; the key goes with the next release"),
    Row(("servers", "*", "url", "share"), "the instance gets its even part of the calls"),
    Row(("servers", "*", "backup"), "calls are not sent to a backup"),
    Row(("servers", "*", "queue"), "calls do not queue"),
    Row(("servers", "*", "on_change"), "changed tools are not reported", _says("warn")),
    Row(("servers", "*", "health"), "the server is not probed"),
    Row(("servers", "*", "breaker"), "the server is called while it fails"),
    Row(("endpoints", "*", "refusals"), "refusals are JSON-RPC errors", _says("result")),
    Row(("tools", "*", "failover_on"), "only the first target is called"),
    Row(("tools", "*", "tool_error"), "error results are passed on"),
    Row(("tools", "*", "repeatable"), "no call is repeated"),
    Row(("tools", "*", "cache"), "every call goes to its server"),
    Row(("tools", "*", "tokens"), "no tokens are counted"),
    Row(("tools", "*", "price"), "no cost is computed"),
    Row(("tools", "*", "reserve"), "there are no quotas to reserve in"),
)


def inactive(settings: Settings, root: Entry) -> list[Notice]:
    """What the file has and nothing acts on, in the order of the file. Only written keys count.

    Args:
        settings: the file as read.
        root: the same file with its places.
    """
    found = [notice for path, entry in root.walk() for notice in _notices(root, path, entry)]
    return sorted(found, key=lambda one: (one.position, one.key))


def _notices(root: Entry, path: Path, entry: Entry) -> Iterator[Notice]:
    keys = tuple(step for step in path if isinstance(step, str))
    for rows, restricts in ((RESTRICTING, True), (HARMLESS, False)):
        for row in rows:
            # A list and its items have the same keys: conditions tell them apart, plain rows take the outer one.
            inner = row.when is _written and bool(path) and isinstance(path[-1], int)
            if not inner and fits(keys, row.path) and row.when(entry):
                yield Notice(locate(root, path), ".".join(keys), restricts, row.why)
