"""Runs a command-line client once, in a folder of its own as home, and takes its JSON or what it showed instead."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PATIENCE = 30  # seconds; a client that waits for somebody at a browser would never end


class Refused(Exception):
    """The command failed; the text is what it showed."""


def run(order: list[str], home: Path, **variables: str) -> dict[str, Any]:
    """The JSON object that a command prints.

    Raises:
        Refused: it ended with another exit code than 0.
    """
    around = {**os.environ, "HOME": str(home), **variables}
    done = subprocess.run(
        order, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise Refused(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return dict(json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])[0])
