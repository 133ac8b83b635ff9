"""Sessions of agents: each opens for its agent at its endpoint until it expires, and its id stays short."""

from __future__ import annotations

import pytest

from fastgw.gateway.dialects import agent_sessions
from fastgw.gateway.dialects.agent_sessions import LIFETIME, AgentSessions
from fastgw.protocol.call import Call

NOW = 1_000_000.0


def sessions(monkeypatch: pytest.MonkeyPatch, now: float = NOW) -> AgentSessions:
    monkeypatch.setattr(agent_sessions, "time", lambda: now)
    return AgentSessions((b"secret",))


def initialize(capabilities: bytes = b"{}", client: bytes = b'{"name":"x","version":"1"}') -> Call:
    return Call(b"1", "initialize", "2025-11-25", capabilities=capabilities, client=client)


def test_a_session_opens_for_its_agent_at_its_endpoint_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    known = sessions(monkeypatch)
    token = known.begin(initialize(), "agent-a", "/mcp")
    assert token.isascii()
    opened = known.session(token, "agent-a", "/mcp")
    assert opened is not None
    assert (opened.version, opened.opened, opened.capabilities) == ("2025-11-25", NOW, "{}")
    assert opened.client == '{"name":"x","version":"1"}'
    assert known.session(token, "agent-b", "/mcp") is None
    assert known.session(token, "agent-a", "/mcp/ops") is None
    assert sessions(monkeypatch, NOW + LIFETIME - 1).session(token, "agent-a", "/mcp") == opened
    assert known.session(token, "agent-a", "/mcp") == opened
    assert sessions(monkeypatch, NOW + LIFETIME).session(token, "agent-a", "/mcp") is None
    assert known.session(token, "agent-a", "/mcp") is None, "nor is a known one remembered for longer"


def test_an_id_stays_short_however_much_the_agent_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    large = b'{"x":"' + b"y" * 5_000 + b'"}'
    assert len(sessions(monkeypatch).begin(initialize(large, large), "agent-a", "/mcp")) < 4096
