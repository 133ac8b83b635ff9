"""The complete configuration as users write it: it is read, means what it says, and what is inactive is told."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from fastgw.config.inactive import inactive
from fastgw.config.reader import read

FILE = Path(__file__).parent / "contract.yaml"
ENVIRON = {"DEPLOYMENT_TOKEN": "d", "CUSTOMER_DATA_SECRET": "c", "DB_KEY": "k", "FASTGW_SECRET": "sixteen letters."}
READING = read(FILE, ENVIRON)
SETTINGS = READING.settings


def test_agents() -> None:
    bot, helper = SETTINGS.agents["agent-engineering-deploy-bot"], SETTINGS.agents["agent-support-helper"]
    assert bot.claims == {
        "team": "engineering",
        "project": "checkout",
        "billing_account": "acme-eng",
        "tier": "internal",
    }
    assert [key.sha256[:8] for key in helper.key] == ["91b5ed38", "aacf3972"]
    assert [key.expires for key in helper.key] == [None, 2085436800.0]


def test_policies() -> None:
    assert SETTINGS.policies is not None
    first, _, qa = SETTINGS.policies
    assert first.match is not None
    assert first.match.claims == {"team": ("engineering",)}
    assert first.allow == ("deploy-*", "rollback", "db-query", "code-search", "generate-code")
    assert first.deny == ("customer-data-*",)
    assert qa.match is not None
    assert qa.match.arguments["environment"].values == ("staging",)
    assert qa.except_ is not None
    assert qa.except_.agent == ("login:trial-*",)


def test_servers() -> None:
    servers = SETTINGS.servers
    assert servers["deployment"].credential[0].bearer == "d"
    assert [one.url[-8:] for one in servers["customer-data"].url] == ["9002/mcp", "9003/mcp"]
    assert servers["customer-data"].credential[0].oauth is not None
    assert servers["database-fast"].credential[0].header == {"X-Api-Key": "k"}
    assert servers["database-sandbox"].credential == ()


def test_endpoints_and_tools() -> None:
    assert SETTINGS.endpoints is not None
    assert SETTINGS.endpoints["/mcp"].servers is None
    assert SETTINGS.endpoints["/mcp/ops"].servers == ("deployment",)
    query, code = SETTINGS.tools["db-query"], SETTINGS.tools["generate-code"]
    assert [arm.to[0].server for arm in query.route] == ["database-fast", "database-sandbox"]
    assert query.timeout == 10.0
    assert [(to.server, to.tool) for to in code.to] == [
        ("codegen-openai", "generate_code"),
        ("codegen-anthropic", "write_code"),
    ]
    assert code.to[1].arguments == {"prompt": "instructions"}
    assert code.price is not None
    assert code.price.per_million_tokens_in == Decimal("3.00")
    assert SETTINGS.tools["*-search"].cache == 60.0
    assert SETTINGS.tools["drop-database"].hidden is True


def test_limits_quotas_and_the_rest() -> None:
    assert [limit.name for limit in SETTINGS.limits] == ["per-agent", "exports", "support-team", "outsiders"]
    assert SETTINGS.limits[3].in_flight == 20
    assert (SETTINGS.quotas[0].cost, SETTINGS.quotas[0].warn_at) == (Decimal("250.00"), Decimal("0.8"))
    assert SETTINGS.public_url == ("http://localhost:8080",)
    assert SETTINGS.secret == ("sixteen letters.",)
    assert SETTINGS.usage.sinks[0].url == "stdout"
    assert SETTINGS.data == str(FILE.parent / "data")


def test_what_is_inactive_is_told() -> None:
    notices = inactive(READING.root)
    assert [notice.key for notice in notices if notice.restricts] == []
    assert [notice.key for notice in notices if not notice.restricts] == []
