"""`fastgw demo` as a newcomer starts it, and what it printed."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e.http import Asked

END_WITHIN = 40.0  # seconds


@dataclass
class Demo:
    """A running demo and what it printed."""

    process: subprocess.Popen[str]
    words: str

    @property
    def endpoint(self) -> str:
        return self._found(r"^endpoint +(\S+)")

    @property
    def admin(self) -> str:
        return self._found(r"^admin +(\S+)")

    @property
    def usage(self) -> str:
        return self._found(r"^usage events +(.+)")

    def key(self, name: str) -> str:
        return self._found(rf"^  {name} +(fgw_\S+)")

    def process_of(self, name: str) -> int:
        """Process id of one of its servers."""
        return int(self._found(rf"^processes .*\b(?<!-){name} (\d+)"))

    def curl(self) -> Asked:
        """The printed call, as curl would send it."""
        text = self.words[self.words.index("curl -sS") : self.words.index("for an MCP client")]
        words = shlex.split(text.replace("\\\n", " "))
        assert words[:3] == ["curl", "-sS", self.endpoint]
        options = list(zip(words[3::2], words[4::2], strict=True))
        headers = [(name, value) for option, text in options if option == "-H" for name, value in [text.split(": ", 1)]]
        return Asked(next(text for option, text in options if option == "-d").encode(), headers)

    def snippet(self) -> dict[str, Any]:
        begin = self.words.index("{\n", self.words.index("for an MCP client"))
        return dict(json.JSONDecoder().raw_decode(self.words[begin:])[0]["mcpServers"]["fastgw"])

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.words, re.MULTILINE)
        assert match, f"{pattern} is not in:\n{self.words}"
        return match.group(1)


def start(*options: str) -> Demo:
    order = [sys.executable, "-m", "fastgw", "demo", *options]
    process = subprocess.Popen(order, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return Demo(process, "".join(lines))
    raise AssertionError(f"the demo ended with {process.wait()}:\n{''.join(lines)}")


@contextmanager
def running(*options: str) -> Iterator[Demo]:
    """A demo for the block; Ctrl-C ends it."""
    demo = start(*options)
    try:
        yield demo
    finally:
        demo.process.send_signal(signal.SIGINT)
        demo.process.communicate(timeout=END_WITHIN)
