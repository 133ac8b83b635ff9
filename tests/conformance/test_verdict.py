from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.verdict import NEVER_RAN, Excuse, Terms, judge, judge_cell, read_terms

TWICE = "\n".join(["{revision: '1', scenario: ping, check: a, reason: x}"] * 2).replace("\n", "\n  - ")
PING = Excuse("2025-11-25", "ping", "ping", "a reason")


def check(identity: str, status: str, words: str | None = None) -> dict[str, Any]:
    return {"id": identity, "status": status, "errorMessage": words}


def test_a_check_passes_where_every_case_of_it_passes() -> None:
    outcome = judge("caching", [check("hints", "SUCCESS"), check("hints", "SUCCESS")], [])

    assert (outcome.passed, outcome.failed) == (["hints"], {})


def test_one_failed_case_fails_the_check_and_its_words_are_kept() -> None:
    outcome = judge("caching", [check("hints", "SUCCESS"), check("hints", "FAILURE", "no ttlMs")], [])

    assert (outcome.passed, outcome.failed) == ([], {"hints": "no ttlMs"})


@pytest.mark.parametrize("status", ["SKIPPED", "INFO", "WARNING"])
def test_what_was_not_decided_neither_passes_nor_fails(status: str) -> None:
    outcome = judge("caching", [check("hints", status)], [])

    assert (outcome.passed, outcome.failed, outcome.other) == ([], {}, ["hints"])


def test_an_excuse_covers_its_check_and_no_other() -> None:
    checks = [check("ping", "FAILURE", "no answer"), check("wire-schema-valid", "FAILURE", "odd")]

    outcome = judge("ping", checks, [PING])

    assert (outcome.excused, outcome.failed) == ({"ping": "no answer"}, {"wire-schema-valid": "odd"})


def test_an_excuse_covers_its_scenario_and_no_other() -> None:
    outcome = judge("tools-list", [check("ping", "FAILURE", "no answer")], [PING])

    assert outcome.failed == {"ping": "no answer"}


@pytest.mark.parametrize("status", ["SUCCESS", "SKIPPED"])
def test_a_stale_excuse_fails(status: str) -> None:
    outcome = judge("ping", [check("ping", status)], [PING])

    assert list(outcome.failed) == ["ping (excuse)"]


def test_a_gated_scenario_that_left_no_result_fails() -> None:
    results = {"prompts-list": [check("p", "FAILURE")]}

    counted, rest = judge_cell("2025-11-25", results, Terms({"2025-11-25": ["ping"]}))

    assert counted[0].failed == {"ping": NEVER_RAN}
    assert [one.scenario for one in rest] == ["prompts-list"]


def test_an_excuse_holds_for_its_revision_only() -> None:
    terms = Terms({"2026-07-28": ["ping"]}, [PING])

    counted, _ = judge_cell("2026-07-28", {"ping": [check("ping", "FAILURE", "no answer")]}, terms)

    assert counted[0].failed == {"ping": "no answer"}


def test_the_terms_of_this_release_can_be_read() -> None:
    terms = read_terms()

    assert set(terms.gated) == {"2025-11-25", "2026-07-28"}
    assert all(excuse.reason for excuse in terms.excuses)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{revision: '1', scenario: ping, check: ping}", "needs a reason"),
        ("{revision: '2', scenario: ping, check: ping, reason: x}", "not gated"),
        (TWICE, "excused twice"),
    ],
)
def test_bad_excuses_are_refused(tmp_path: Path, entry: str, words: str) -> None:
    file = tmp_path / "excused.yaml"
    file.write_text(f"gated:\n  '1': [ping]\nexcused:\n  - {entry}\n")

    with pytest.raises(ValueError, match=words):
        read_terms(file)
