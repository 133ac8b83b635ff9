"""What `deploy/` has for Prometheus and Grafana speaks of metrics that exist, and each alert has its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastgw.errors import ERROR_OUTCOMES, Kind
from fastgw.telemetry.counters import STAGES
from fastgw.telemetry.metrics import FAMILIES
from fastgw.upstream.breaker import BreakerState

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "fastgw.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "fastgw.json"
TARGETS = {"job", "instance", "exported_instance"}
"""Labels that Prometheus adds; the last is our `instance`."""
OUTCOMES = {kind.outcome for kind in Kind} | {"ok", "tool_error", "input_required"}
WORDS = {
    "outcome": OUTCOMES | {"applied", "refused", "admitted", "hit", "shared", "miss", "failed"},
    "stage": set(STAGES),
    "to": {state.value for state in BreakerState},
    "state": {"active", "warming", "draining", "in_use", "idle"},
    "process": {"worker", "controller", "usage"},
    "how": {"memory", "lease", "store", "local", "allow", "deny"},
    "quantile": {"0.5", "0.9", "0.95", "0.99", "0.999", "1"},
}
"""Values of labels that are closed lists, as far as queries name them."""


def groups() -> list[dict[str, Any]]:
    return list(yaml.safe_load(RULES.read_text())["groups"])


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def recorded() -> set[str]:
    return {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the query."""
    for group in groups():
        yield from ((rule.get("alert") or rule["record"], rule["expr"]) for rule in group["rules"])
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))


def family_of(name: str) -> str:
    """The metric that a series belongs to; fails where there is none."""
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    kind = FAMILIES[family].kind if family != name and family in FAMILIES else None
    return family if kind == "histogram" else name


@pytest.mark.parametrize(("place", "query"), list(expressions()))
def test_queries_speak_of_metrics_and_labels_that_exist(place: str, query: str) -> None:
    without_rules = re.sub(r"\w+:\w+:\w+", "", query)
    assert set(re.findall(r"\w+:\w+:\w+", query)) <= recorded()
    every: set[str] = set()
    for name, selected in re.findall(r"\b(fastgw_\w+)(?:\{([^}]*)\})?", without_rules):
        family = FAMILIES[family_of(name)]
        labels = {*family.labels, *TARGETS, *(["le"] if family.kind == "histogram" else [])}
        assert set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selected)) <= labels, selected
        every |= labels
    for grouped in re.findall(r"\bby \(([^)]*)\)", without_rules) if every else ():
        assert {one.strip() for one in grouped.split(",")} <= every, grouped
    for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', query):
        if label in WORDS:
            assert set(value.split("|")) <= WORDS[label], value


def test_errors_are_the_same_everywhere() -> None:
    """In queries, in answers about usage and in the pace of agents."""
    errors = [query for _, query in expressions() if "timeout" in query]
    assert errors
    assert all("|".join(ERROR_OUTCOMES) in query for query in errors)


def test_every_alert_says_what_is_the_matter_and_where_its_page_is() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.M)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{name.lower()}"


def test_every_alert_has_been_seen_to_fire_and_not_to_fire() -> None:
    tested: dict[str, set[bool]] = {}
    for file in PROMETHEUS.glob("*.test.yml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                tested.setdefault(case["alertname"], set()).add(bool(case.get("exp_alerts")))
    assert {name for name, ways in tested.items() if True in ways} == set(alerts())
    assert {name for name, ways in tested.items() if False in ways} == set(alerts())


def test_the_scrape_job_is_the_one_that_alerts_ask_for() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in alerts()["FastgwDown"]["expr"]


def promtool(*words: str) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not there: apt-get install prometheus")
    done = subprocess.run([found, *words], cwd=PROMETHEUS, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules_and_the_scrape_job() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", RULES.name)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("file", sorted(file.name for file in PROMETHEUS.glob("*.test.yml")))
def test_alerts_fire_when_they_should(file: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


# -- the dashboard ---------------------------------------------------------------------------------------------------


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert (board["uid"], board["title"]) == ("fastgw", "fastgw")
    assert board["schemaVersion"] >= 36
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for one in variables.values():
        if one["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["definition"]).groups()  # type: ignore[union-attr]
            assert label in {*FAMILIES[name].labels, *TARGETS}
    used = set(re.findall(r"\$(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used <= set(variables)


def test_its_panels_have_their_own_ids_places_and_the_chosen_data_source() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids)) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"]
            assert all(one["datasource"]["uid"] == "${datasource}" for one in (panel, *panel["targets"]))


def test_prometheus_itself_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    rules = [{"record": f"query:{at}", "expr": one.replace("$__rate_interval", "1m")} for at, one in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", str(file))
