"""Make one environment under `.venv/` from a locked list, with nothing but Python and pip.

    python3 requirements/environment.py demo run       # requirements/demo.txt -> .venv/run

Knows: how to get uv without root, and how to hand it what pip was told about indexes and certificates.
Refuses to know: any index's address. A second call with the same list ends at once.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "requirements"
HOME = ROOT / ".venv"
PROJECT = {"run", "dev"}  # environments that hold fastgw itself, editable
FROM_PIP = {  # pip's setting -> the variable by which uv knows it
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
SAME_MEANING = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}


def fail(words: str) -> None:
    """End with `words` on stderr and exit code 1."""
    sys.exit(f"environment: {words}")


def fingerprint(requirements: Path) -> str:
    """What the environment depends on: the list, uv's list, the project file, this interpreter and this place."""
    digest = hashlib.sha256()
    for file in (requirements, LISTS / "uv.txt", ROOT / "pyproject.toml"):
        digest.update(file.read_bytes())
    digest.update(f"{sys.executable} {sys.version} {ROOT}".encode())
    return digest.hexdigest()


def pip_settings() -> dict[str, str]:
    """What `pip config list` says, files first and PIP_* variables last, so that the later wins as it does for pip."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    ranks: dict[str, list[tuple[str, str]]] = {"global": [], "install": [], ":env:": []}
    for line in said.splitlines():
        key, _, value = line.partition("=")
        scope, _, name = key.rpartition(".")
        if scope in ranks:
            ranks[scope].append((name, value))
    settings = {}
    for pairs in ranks.values():
        for name, value in pairs:
            settings[name] = str(ast.literal_eval(value)) if value[:1] in "'\"" else value
    return settings


def surroundings() -> dict[str, str]:
    """The variables for uv: the caller's own, and pip's settings wherever the caller told uv nothing."""
    around = dict(os.environ, UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    for variable in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        around.pop(variable, None)
    settings = pip_settings()
    if os.environ.get("PIP_INDEX_URL"):  # stands even where there is no pip to ask
        settings["index-url"] = os.environ["PIP_INDEX_URL"]
    for name, variable in FROM_PIP.items():
        told = variable in around or SAME_MEANING.get(variable, variable) in around
        if settings.get(name) and not told:
            separator = "," if variable == "UV_FIND_LINKS" else " "
            around[variable] = separator.join(settings[name].split())
    if "extra-index-url" in settings:  # pip looks at all indexes alike; hashes say which file is the right one
        around.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return around


def uv(around: dict[str, str]) -> str:
    """The path of the pinned uv, installed into `.venv/uv` if it is not there."""
    place = HOME / "uv"
    wanted = hashlib.sha256((LISTS / "uv.txt").read_bytes()).hexdigest()
    stamp, program = place / "stamp", place / "bin" / "uv"
    if stamp.exists() and stamp.read_text() == wanted and program.exists():
        return str(program)
    shutil.rmtree(place, ignore_errors=True)
    order = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
        "--root-user-action=ignore",
    ]
    order += ["--target", str(place), "-r", str(LISTS / "uv.txt")]
    if subprocess.run([sys.executable, "-m", "pip", *order], env=around, check=False).returncode:
        if found := shutil.which("uv"):  # a Python without pip, on a machine that has uv
            return found
        fail("uv could not be installed: see pip's words above (is there a package index? PIP_INDEX_URL names one)")
    stamp.write_text(wanted)
    return str(program)


def build(requirements: Path, place: Path) -> None:
    """Make the environment afresh and put exactly the listed packages into it, each checked by its hash."""
    around = surroundings()
    tool = uv(around)
    shutil.rmtree(place, ignore_errors=True)
    python = place / "bin" / "python"
    orders = [
        [tool, "venv", "--quiet", "--no-project", "--python", sys.executable, str(place)],
        [tool, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(requirements)],
    ]
    if place.name in PROJECT:
        flags = ["--quiet", "--no-deps", "--no-build-isolation", "--python", str(python)]
        orders.append([tool, "pip", "install", *flags, "--editable", str(ROOT)])
    for order in orders:
        if code := subprocess.run(order, env=around, cwd=ROOT, check=False).returncode:
            sys.exit(code)


def main() -> None:
    """Bring `.venv/<name>` into the state that `requirements/<list>.txt` names."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is the first to meet the machine
        fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]} (make PYTHON=python3.12 ...)")
    requirements, place = LISTS / f"{sys.argv[1]}.txt", HOME / sys.argv[2]
    stamp, wanted = place / "stamp", fingerprint(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if Path(sys.prefix).resolve() == place.resolve():
        fail(f"{place.name} is out of date and cannot replace itself: call this with another Python")
    print(f"making .venv/{place.name} from requirements/{requirements.name}", file=sys.stderr, flush=True)
    build(requirements, place)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
