"""Make `.venv/keycloak`: Keycloak, the authorization server that some tests drive, fetched by Maven and built once.

    python3 requirements/keycloak.py

Knows: its version and the hash of its archive; Maven's own configuration for where archives come from.
Refuses to know: any repository's address. Where there is no Java or no Maven it says so and ends well: the tests skip.
A second call ends at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "26.7.3"
SHA256 = "77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47"
ARCHIVE = "org.keycloak:keycloak-quarkus-dist"
BUILD = ("build", "--db=dev-file")
PLACE = Path(__file__).resolve().parent.parent / ".venv" / "keycloak"


def missing() -> str | None:
    """The program that is needed and not there."""
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java").exists() if home else shutil.which("java") is not None
    return "Java" if not java else "Maven" if shutil.which("mvn") is None else None


def build() -> None:
    """Fetch the archive, check it, unpack it, and have Keycloak prepare itself for its database."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    order = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARCHIVE}:{VERSION}:tar.gz"]
    if subprocess.run([*order, f"-DoutputDirectory={PLACE}"], cwd=PLACE, check=False).returncode:
        sys.exit("keycloak: it could not be fetched: see Maven's words above")
    [archive] = PLACE.glob("*.tar.gz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"keycloak: {archive.name} is not the archive that is meant, by its hash")
    with tarfile.open(archive) as packed:
        packed.extractall(PLACE, filter="data")
    archive.unlink()
    home = PLACE / f"keycloak-{VERSION}"
    with (PLACE / "build.log").open("wb") as log:
        if subprocess.run([home / "bin" / "kc.sh", *BUILD], stdout=log, stderr=log, check=False).returncode:
            sys.exit(f"keycloak: it could not be built: see {log.name}")
    (PLACE / "home").symlink_to(home.name)


def main() -> None:
    """Bring `.venv/keycloak/home` into the state that this file names."""
    stamp, wanted = PLACE / "stamp", f"{VERSION} {' '.join(BUILD)}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if (word := missing()) is not None:
        print(f"keycloak: there is no {word} on this machine, so its tests are skipped", file=sys.stderr, flush=True)
        return
    print(f"making .venv/keycloak from {ARCHIVE}:{VERSION}, which takes minutes", file=sys.stderr, flush=True)
    build()
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
