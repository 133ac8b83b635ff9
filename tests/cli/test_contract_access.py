"""The policies of the complete configuration give each agent exactly the tools that their text says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.test_explain import asked, catalogue
from tests.config.test_contract import SETTINGS

OFFERS = {
    "deployment": ["deploy-service", "rollback"], "customer-data": ["customer-data-read", "ticket-list", "db-write"],
    "database-fast": ["query"], "database-sandbox": ["query", "code-search", "customer-data-export"],
    "codegen-openai": ["generate_code"], "codegen-anthropic": ["write_code"],
}  # fmt: skip
NAMES = ("deploy-service", "rollback", "db-query", "code-search", "generate-code", "customer-data-read",
         "customer-data-export", "ticket-list", "db-write", "query", "write_code")  # fmt: skip
ENGINEERING = {"deploy-service", "rollback", "db-query", "code-search", "generate-code"}
STAGING, PRODUCTION = b'{"environment":"staging"}', b'{"environment":"production"}'


@pytest.mark.parametrize(
    ("agent", "team", "arguments", "sees", "calls"),
    [
        ("agent-engineering-deploy-bot", "engineering", b"{}", ENGINEERING, ENGINEERING),
        ("login:ann", "engineering", PRODUCTION, ENGINEERING, ENGINEERING),
        ("agent-support-helper", "support", b"{}", *[{"customer-data-read", "ticket-list"}] * 2),
        ("login:ann", "qa", STAGING, *[{"deploy-service"}] * 2),
        ("login:ann", "qa", PRODUCTION, {"deploy-service"}, set()),
        ("login:ann", "qa", b"{}", {"deploy-service"}, set()),
        ("login:ann", "qa", b'{"environment":"staging","environment":"production"}', {"deploy-service"}, set()),
        ("login:trial-7", "qa", STAGING, set(), set()),
        ("login:ann", ("qa", "support"), STAGING, *[{"customer-data-read", "ticket-list"}] * 2),
        ("login:ann", "sales", STAGING, set(), set()),
    ],
)
def test_each_agent_sees_and_calls_what_policies_give_it(
    agent: str, team: Any, arguments: bytes, sees: set[str], calls: set[str]
) -> None:
    known = {server: catalogue(server, tools) for server, tools in OFFERS.items()}
    asking = {"agent": agent, "claims": {"team": team}, "arguments": arguments}
    found = [asked(SETTINGS, known, name, **asking) for name in NAMES]
    assert {one.name for one in found if one.seen} == sees
    assert {one.name for one in found if one.sent} == calls
