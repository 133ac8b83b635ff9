"""What the gateway under test is configured to do, and that it is shown to do it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import gateway
from bench.backend import USAGE
from bench.gateway import OFF, ON, Behind, NotAsMeant, configuration
from fastgw.catalog.metering import Meter
from fastgw.config.schema.settings import Settings


def test_everything_on_has_a_quota_that_its_calls_take_from() -> None:
    behind = [Behind(1, "modern", "echo")]
    settings = Settings.model_validate(configuration((2, 3), behind, ["k"], Path("/data"), ON))
    (quota,) = settings.quotas
    assert quota.calls and quota.tokens and quota.cost
    places = settings.tools["echo"].tokens
    assert settings.tools["echo"].price and places and places.in_ and places.out
    meter = Meter("modern", "echo", tuple(places.in_.split(".")), tuple(places.out.split(".")))
    assert meter.tokens(lambda name: json.dumps(json.loads(b"{%b}" % USAGE[1:])[name]).encode()) == (212, 48)
    off = Settings.model_validate(configuration((2, 3), behind, [], Path("/data"), OFF))
    assert (off.quotas, off.tools) == ((), {})


def amount(used: str, held: str) -> dict[str, Any]:
    return {"amount": "9", "raised": "0", "used": used, "held": held, "reserved": "0"}


@pytest.mark.parametrize(("held", "shows"), [("2", False), ("1", True)])
def test_what_is_only_held_is_not_spent(held: str, monkeypatch: pytest.MonkeyPatch, *, shows: bool) -> None:
    told = {"quotas": [{"amounts": {"calls": amount("3", "0"), "cost": amount("2", held)}}]}
    monkeypatch.setattr(gateway, "page", partial(lambda body, *_: (200, body), json.dumps(told).encode()))
    monkeypatch.setattr(gateway, "ACCOUNTED", 0.1)
    if shows:
        gateway.prove_accounted(1)
        return
    with pytest.raises(NotAsMeant, match="do not show in the account"):
        gateway.prove_accounted(1)
