"""Asking one of the demo's servers with the SDK's own client, without a gateway between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(name: str, era: str, state: Path) -> Iterator[str]:
    """The URL of a running server; when the block ends its lifeline is cut and it must end well."""
    order = [sys.executable, "-m", f"fastgw.demo.{name}", "--era", era, "--state", str(state), "--lifeline"]
    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            url = child.stdout.readline().strip()
            assert url, "the server printed no URL"
            yield url
        finally:
            child.stdin.close()
            code = child.wait(10)
    assert code == 0
