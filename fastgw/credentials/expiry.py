"""When certificates and keys expire that the configuration names: what operators want to be told of in time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from heapq import nsmallest
from pathlib import Path

from fastgw.config.certificates import ends
from fastgw.config.schema.agents import AgentSettings
from fastgw.snapshot.model import Backend

MOST_AGENTS = 100
"""Agents of whom it is said when their key expires: those whose does first."""


def certificates(servers: Iterable[Backend]) -> dict[tuple[str, ...], float]:
    """Unix seconds by (server, kind), of servers with certificates of their own in `tls`.

    `cert` is what we show the server: the first of the chain that expires. `ca` is what its certificate is checked by:
    the last one of the file, after which none is good any more. A file that cannot be read says nothing.
    """
    found: dict[tuple[str, ...], float] = {}
    for server in servers:
        ca, cert, _ = server.tls
        for kind, file, which in (("ca", ca, max), ("cert", cert, min)):
            times = _ends(file) if file is not None else ()
            if times:
                found[server.name, kind] = which(times)
    return found


def agent_keys(agents: Mapping[str, AgentSettings]) -> dict[tuple[str, ...], float]:
    """Unix seconds when an agent is without a key, by its name; none for who has a key that stays."""
    last = {}
    for name, agent in agents.items():
        keys = [key.expires for key in agent.key]
        if not agent.disabled and None not in keys:
            last[name] = max(end for end in keys if end is not None)
    return {(name,): last[name] for name in nsmallest(MOST_AGENTS, last, key=last.__getitem__)}


def _ends(file: str) -> tuple[float, ...]:
    try:
        found = Path(file).stat()
        return _parsed(file, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError):
        return ()


@lru_cache(maxsize=1024)
def _parsed(file: str, _changed: int, _size: int) -> tuple[float, ...]:
    """Of each certificate in a PEM file. Raises ValueError, OSError."""
    return ends(Path(file).read_bytes())
