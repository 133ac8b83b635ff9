"""`python -m bench edge`, or one of the other suites below; and the servers they start. Left out, it is `edge`."""

from __future__ import annotations

import sys

from bench import apps, backend, changes, compile, counts, edge, limits, lists, micro, plot, servers, steps, usage

COMMANDS = {
    "edge": edge.main,
    "compile": compile.main,
    "lists": lists.main,
    "steps": steps.main,
    "counts": counts.main,
    "micro": micro.main,
    "limits": limits.main,
    "changes": changes.main,
    "plot": plot.main,
    "backend": backend.main,
    "servers": servers.main,
    "usage": usage.main,
    "sketch": apps.main,
}


def main() -> int:
    """Hand over to the command named first; its exit code, 2 where there is no such command."""
    argv = sys.argv[1:]
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = ["edge", *argv]
    if argv[0] not in COMMANDS:
        print(f"usage: python -m bench [{'|'.join(COMMANDS)}] [--help]", file=sys.stderr)
        return 2
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    sys.exit(main())
