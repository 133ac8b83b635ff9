"""The names agents see: a server's own, `alias__tool` where two bring the same, or the name of an entry in `tools:`.

The law, for one endpoint:
1. The name of an entry in `tools:` belongs to that entry. What an entry points at has no name besides it.
2. `none`: the server written first keeps a name, the other tool is hidden. `on_collision`: all that collide become
`alias__tool`. `always`: all are.
3. A name over 64 characters is cut and ends in a hash of the whole.
4. A made-up name (2, 3) that is taken after all ends in a hash of `server/tool`; a server's own name never yields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import chain

from fastgw.catalog.elements import Notice
from fastgw.catalog.spoofing import look_alikes
from fastgw.protocol.names import MAX_NAME

SEPARATOR = "__"
LONGEST_OWN = 128
"""Characters of a tool's own name (2026-07-28, Tools, Tool Names)."""


@dataclass(frozen=True)
class ServerNames:
    """One server's tools that ask for a name, in the server's order, each once."""

    server: str
    alias: str
    tools: tuple[str, ...]

    @cached_property
    def unfit(self) -> frozenset[str]:
        """Those that cannot be called by their own names, whatever the others are called."""
        return frozenset([tool for tool in self.tools if len(tool) > MAX_NAME or not is_visible(tool)])


@dataclass(slots=True)
class Naming:
    """By server, exposed names by its own ones; a tool that is missing here is hidden, and a notice says why."""

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)


def is_visible(name: str) -> bool:
    """Whether a tool may be called so: 1 to 128 printable characters, no space at either end."""
    return 0 < len(name) <= LONGEST_OWN and name.isprintable() and name == name.strip()


def shortened(name: str) -> str:
    """The name itself up to 64 characters; else its beginning, `_` and 8 hex digits of its SHA-256."""
    return name if len(name) <= MAX_NAME else _hashed(name, name, 8)


def assign(mode: str, servers: Sequence[ServerNames], reserved: Iterable[str]) -> Naming:
    """Names for the tools of one endpoint, servers in the order of the file; `reserved` are the names of entries."""
    reserved = tuple(reserved)
    naming, taken = Naming(), set(reserved)
    brought = Counter(chain.from_iterable(server.tools for server in servers))
    colliding = taken.union(tool for tool, count in brought.items() if count > 1)
    made: list[tuple[str, str, str]] = []
    for server in servers:
        # Ten thousand names at each compile: only those that may not stay as they are get a look each.
        names = naming.names[server.server] = dict(zip(server.tools, server.tools, strict=True))
        moved = set()
        for tool in server.tools if mode == "always" else [*filter((colliding | server.unfit).__contains__, names)]:
            if not is_visible(tool):
                subject = f"{server.server}/{tool[:LONGEST_OWN]!r}"
                naming.notices.append(Notice(subject, "left out: no name of 1 to 128 characters"))
                del names[tool]
            elif mode == "none" and tool in taken:
                naming.notices.append(
                    Notice(f"{server.server}/{tool}", "hidden: its name is taken, and naming is none")
                )
                del names[tool]
            elif mode == "always" or (mode == "on_collision" and tool in colliding):
                made.append((server.server, tool, shortened(server.alias + SEPARATOR + tool)))
                moved.add(tool)
            elif len(tool) > MAX_NAME:
                made.append((server.server, tool, shortened(tool)))
        taken.update(names.keys() - moved)
    _place(made, taken, naming)
    if mode != "always":
        for name, tool, _ in made:
            naming.notices.append(Notice(f"{name}/{tool}", f"is called {naming.names[name][tool]} here"))
    alike = look_alikes(chain(reserved, *(names.values() for names in naming.names.values())))
    naming.notices.extend(Notice(name, f"looks like {other}") for name, other in alike.items())
    return naming


def _place(made: Sequence[tuple[str, str, str]], taken: set[str], naming: Naming) -> None:
    """Give out the made-up names. Those wanted twice all end in a hash, so that the order of servers moves none."""
    wanted = Counter(name for _, _, name in made)
    clear = taken | set(wanted)
    for server, tool, name in made:
        free = name
        if wanted[name] > 1 or name in taken:
            own = f"{server}/{tool}"
            free = next(cut for digits in range(8, 62) if (cut := _hashed(name, own, digits)) not in clear)
            clear.add(free)
        naming.names[server][tool] = free


def _hashed(name: str, whole: str, digits: int) -> str:
    """At most 64 characters: the beginning of `name`, and so many hex digits of the SHA-256 of `whole`."""
    return f"{name[: MAX_NAME - digits - 1]}_{sha256(whole.encode()).hexdigest()[:digits]}"
