"""When certificates and keys expire, of files as operators write them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastgw.config.schema.agents import AgentSettings
from fastgw.credentials.expiry import MOST_AGENTS, agent_keys, certificates
from tests.upstream.fakes import backend
from tests.upstream.test_tls import Authority

DAY = 86_400.0
HASH = "sha256:" + "ab" * 32


def test_of_a_chain_the_first_to_expire_and_of_trusted_ones_the_last(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    short, long = ca.issue("short", hours=2)[0], ca.issue("long", hours=2000)[0]
    both = tmp_path / "both.pem"
    both.write_bytes(Path(short).read_bytes() + Path(long).read_bytes())
    shop = replace(backend(), tls=(str(both), str(both), None))
    found = certificates([shop, backend()])
    assert found["shop", "cert"] == pytest.approx(time.time() + 2 * 3600, abs=60)
    assert found["shop", "ca"] == pytest.approx(time.time() + 2000 * 3600, abs=60)
    assert set(found) == {("shop", "cert"), ("shop", "ca")}


def test_a_file_that_was_renewed_is_read_again_and_a_bad_one_says_nothing(tmp_path: Path) -> None:
    ca, file = Authority(tmp_path, "ca"), tmp_path / "client.pem"
    shop = replace(backend(), tls=(None, str(file), None))
    assert certificates([shop]) == {}
    file.write_bytes(Path(ca.issue("a", hours=1)[0]).read_bytes())
    first = certificates([shop])["shop", "cert"]
    file.write_bytes(Path(ca.issue("b", hours=100)[0]).read_bytes())
    os.utime(file, (1, 1))
    assert certificates([shop])["shop", "cert"] == pytest.approx(first + 99 * 3600, abs=60)
    file.write_text("no certificate")
    assert certificates([shop]) == {}


def agent(*expires: str | None, **more: Any) -> AgentSettings:
    keys = [{"sha256": HASH, **({"expires": one} if one else {})} for one in expires]
    return AgentSettings.model_validate({"key": keys, **more})


def test_an_agent_is_without_a_key_when_its_last_one_expires() -> None:
    found = agent_keys(
        {
            "rotating": agent("2036-01-30", "2036-02-28"),
            "staying": agent("2036-01-30", None),
            "gone": agent("2036-01-30", disabled=True),
            "one": agent("2036-01-30T12:00:00Z"),
        }
    )
    assert set(found) == {("rotating",), ("one",)}
    assert found["rotating",] - found["one",] == 29.5 * DAY


def test_of_many_agents_those_whose_key_expires_first() -> None:
    times = (f"2036-01-01T00:{number // 60:02}:{number % 60:02}Z" for number in range(500))
    found = agent_keys({f"agent-{number}": agent(at) for number, at in enumerate(times)})
    assert set(found) == {(f"agent-{number}",) for number in range(MOST_AGENTS)}
