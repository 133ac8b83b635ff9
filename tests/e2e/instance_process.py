"""An MCP server in a process of its own, for signals: `python -m tests.e2e.instance_process PORT ERA`.

Its tool `where` says the port. `legacy` or `modern`, as `Toolbox` has it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.servers import Call, Toolbox, serving


@contextmanager
def instance(port: int, era: str) -> Iterator[subprocess.Popen[bytes]]:
    """Such a process that listens; killed at the end of the block."""
    words = [sys.executable, "-m", "tests.e2e.instance_process", str(port), era]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield process
        finally:
            process.kill()


async def main(port: int, era: str) -> None:
    """Serve until killed."""

    async def where(call: Call) -> None:
        await call.text(str(port))

    async with serving(Toolbox(era, {"where": where}), port):
        print("listening", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
