"""What docs/operations.md gives to copy: systemd's unit, Kubernetes' manifest, and the configuration in it."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastgw.config.reader import read_settings
from fastgw.config.schema.settings import Settings

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
END = 2
"""Seconds that an end takes beside the drain."""


def block(language: str) -> str:
    """The only block of a language."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1, language
    return str(found[0])


def test_the_unit_waits_longer_than_the_drain() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block("ini"))
    service = unit["Service"]
    assert (service["Type"], service["KillMode"]) == ("notify-reload", "mixed")
    assert int(service["TimeoutStopSec"]) >= Settings().drain + END


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "fastgw.service"
    known = block("ini").replace("notify-reload", "notify")  # systemd before 253 does not know it
    file.write_text(known.replace("/opt/fastgw/bin/fastgw", sys.executable))
    said = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    about = [line for line in (said.stdout + said.stderr).splitlines() if "fastgw.service" in line]
    assert about == []


@pytest.fixture
def manifest() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all(block("yaml"))}


def test_the_pod_has_the_time_that_it_needs(manifest: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    pod = manifest["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = yaml.safe_load(manifest["ConfigMap"]["data"]["fastgw.yaml"])["drain"]
    assert pod["terminationGracePeriodSeconds"] >= waits + int(drain.removesuffix("s")) + END
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}


def test_its_configuration_is_accepted(manifest: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    text = manifest["ConfigMap"]["data"]["fastgw.yaml"]
    (tmp_path / "deployment-token").write_text("token")
    (tmp_path / "fastgw.yaml").write_text(text.replace("/etc/fastgw/secrets", str(tmp_path)))
    environ = {"ADMIN_TOKEN": "token", "FASTGW_SECRET": "a secret, 32 bytes long at least"}
    settings = read_settings(tmp_path / "fastgw.yaml", environ)
    assert settings.listen == "0.0.0.0:8080"


def test_the_example_of_config_has_the_members_it_explains() -> None:
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    members = re.findall(r'^ "(\w+)"', shown[1], re.MULTILINE)
    assert members == re.findall(r"^\| `(files|applied|refused|needs_restart|generation)` \|", PAGE, re.MULTILINE)
