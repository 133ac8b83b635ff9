"""The command line: which command, and nothing of what it does.

A command's module is imported only when it is asked for, so that help is quick. It has `add_parser(subparsers)`, whose
parser sets `run`, a function from the parsed arguments to the exit status; it may raise CommandFailed and ConfigError.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from fastgw import __version__
from fastgw.cli.terminal import FAILED, CommandFailed, plain, say, show_failure
from fastgw.config.tree import ConfigError

COMMANDS = {
    "run": "serve agents until told to stop",
    "check": "say what is wrong with a configuration, and what it would leave out",
    "explain": "say what would become of a call, and why",
    "diff": "say what a reload would change, or what tells two configurations apart",
    "import": "turn an mcpServers file into a configuration",
    "keys": "make API keys, list them, see who uses which, have one expire",
    "catalogue": "pin the tools of servers as they are now, or see what has changed",
    "backends": "see how the instances of servers are; drain one, open or close its breaker",
    "limits": "see who is near a limit; make buckets full",
    "quota": "see how much of a period's budget is used, and until when it lasts; raise an account",
    "stats": "see how long calls take: percentiles by tool, server and outcome",
    "top": "watch tools, servers and agents live: calls, errors, percentiles, health",
    "usage": "ask what was called, how often it failed and what it cost, by team, tool and more; charge-back pages",
    "tools": "list what an MCP endpoint offers",
    "call": "call a tool",
    "bench": "how long calls of a tool take, and what the gateway adds to them",
    "schema": "print the JSON Schema of the configuration, or SQL for usage events in ClickHouse",
    "demo": "three real MCP servers and a gateway in front of them",
}
MODULES = {"import": "importing", "tools": "call", "schema": "check"}
"""Modules that have not the name of their command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="fastgw", description="An MCP gateway: one endpoint, many MCP servers.")
    parser.add_argument("--version", action="version", version=f"fastgw {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = words[0] if words else ""
    for name, line in COMMANDS.items():
        if name == asked:
            import_module(f"fastgw.cli.{MODULES.get(name, name)}").add_parser(subparsers)
        elif asked not in COMMANDS:
            subparsers.add_parser(name, help=line)
    args = parser.parse_args(words)
    try:
        return int(args.run(args) or 0)
    except CommandFailed as wrong:
        return show_failure(wrong)
    except ConfigError as wrong:
        say(plain(str(wrong)))
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; nothing more is wanted, not even at exit.
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
