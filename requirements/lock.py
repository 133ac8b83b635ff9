"""Choose versions anew: writes `requirements/*.txt` from `pyproject.toml` and `requirements/*.in`.

Knows: which list is made from what. The lists carry hashes and no index's address: they install from any.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from environment import HOME, LISTS, ROOT, surroundings, uv

BUILD = "requirements/build.in"
SOURCES = {  # in this order: a later list keeps the versions of the earlier one
    "uv": ["requirements/uv.in"],
    "run": ["pyproject.toml"],
    "demo": ["pyproject.toml", BUILD, "--extra", "demo", "-c", "requirements/run.txt"],
    "dev": ["pyproject.toml", BUILD, "--extra=demo", "--extra=otel", "--extra=dev", "-c", "requirements/demo.txt"],
    "legacy-client": ["requirements/legacy-client.in"],
    "node": ["requirements/node.in"],
    "servers": ["requirements/servers.in"],
    "servers-1": ["requirements/servers-1.in"],
    "clients-python": ["requirements/clients-python.in"],
    "clients-adk": ["requirements/clients-adk.in"],  # its opentelemetry is older than FastMCP's
    "clients-langchain": ["requirements/clients-langchain.in"],  # the only one that needs mcp 1.x
    "load": ["pyproject.toml", BUILD, "requirements/load.in", "-c", "requirements/run.txt"],
}
FLAGS = "--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate"


def compile_list(tool: str, name: str, around: dict[str, str]) -> None:
    """Write one list, upgrading every version that its sources allow."""
    target = Path("requirements") / f"{name}.txt"
    subprocess.run(
        [tool, "pip", "compile", *FLAGS.split(), "--upgrade", *SOURCES[name], "-o", str(target)],
        env=around,
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def main() -> None:
    """Write all lists."""
    around = surroundings()
    tool = uv(around)
    for name in SOURCES:
        compile_list(tool, name, around)
    print(f"written: {', '.join(f'{name}.txt' for name in SOURCES)} in {LISTS.relative_to(HOME.parent)}/")


if __name__ == "__main__":
    main()
