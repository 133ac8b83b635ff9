"""A question about one call, and the part of the configuration it is about, compiled: one endpoint, one agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastgw.catalog.notice import Notice
from fastgw.catalog.route import Route
from fastgw.catalog.tools import Catalogue
from fastgw.config.schema.agents import AgentSettings
from fastgw.config.schema.settings import EndpointSettings, Settings
from fastgw.policy.principal import ANONYMOUS, Claim, Principal
from fastgw.snapshot.compiler import DEFAULT_ENDPOINT, Learned, compile_snapshot
from fastgw.snapshot.model import Endpoint, Grant, View
from fastgw.snapshot.trace import Asked


class NoSuch(ValueError):
    """The question is about an agent or an endpoint that the configuration does not have."""


@dataclass(frozen=True, slots=True)
class ExplainQuestion:
    """What is asked about.

    Args:
        kind: `tool`, `prompt` or `resource`.
        name: as agents see it; of a resource its URI.
        agent: its name.
        claims: of an agent that stands in no configuration; None: the one of that name in it.
        endpoint: path.
        arguments: JSON text; empty for a call without.
    """

    kind: str
    name: str
    agent: str
    claims: Mapping[str, Claim] | None = None
    endpoint: str = DEFAULT_ENDPOINT
    arguments: bytes = b""


class Case:
    """The snapshot as this question needs it: one endpoint, one agent.

    Args:
        catalogues: the last of every server that has ever answered.

    Raises:
        NoSuch: the agent or the endpoint is not in the configuration.
    """

    def __init__(self, settings: Settings, catalogues: Mapping[str, Catalogue], question: ExplainQuestion) -> None:
        self.settings = settings
        self.catalogues = catalogues
        self.question = question
        self.endpoint_settings = _endpoint(settings, question.endpoint)
        auth = self.endpoint_settings.auth
        self.principal = ANONYMOUS if auth == ("none",) else _principal(settings, question)
        self.outside = _outside(settings, question, auth)
        self.compiled, self.notices = self._compiled(settings)
        self.asked = Asked(self.principal, question.endpoint, question.arguments)

    def _compiled(self, settings: Settings) -> tuple[Endpoint, tuple[Notice, ...]]:
        agents = {self.principal.agent: AgentSettings.model_construct(key=(), claims=dict(self.principal.claims))}
        path, auth = self.question.endpoint, ("none",) if self.principal is ANONYMOUS else None
        here = self.endpoint_settings.model_copy(update={"auth": auth})
        only = settings.model_copy(update={"agents": agents, "endpoints": {path: here}})
        snapshot, notices = compile_snapshot(only, Learned(dict(self.catalogues)), 0)
        return snapshot.endpoints[path], notices

    @property
    def view(self) -> View:
        """What the agent sees."""
        return self.compiled.views[self.compiled.view_of[self.principal.agent]]

    def grants(self) -> Mapping[str, Grant]:
        """The tools, or the prompts, of the agent."""
        return self.view.grants if self.question.kind == "tool" else self.view.prompts

    def routes(self) -> Mapping[str, Route]:
        """What is there for anybody."""
        if self.question.kind == "tool":
            return self.compiled.routes
        compiled, _ = self._compiled(self.settings.model_copy(update={"policies": None}))
        view = compiled.views[compiled.view_of[self.principal.agent]]
        return {name: grant.route for name, grant in view.prompts.items()}


def _endpoint(settings: Settings, path: str) -> EndpointSettings:
    endpoints = {DEFAULT_ENDPOINT: EndpointSettings()} if settings.endpoints is None else settings.endpoints
    if path not in endpoints:
        raise NoSuch(f"there is no endpoint {path}; there are {', '.join(endpoints) or 'none'}")
    return endpoints[path]


def _principal(settings: Settings, question: ExplainQuestion) -> Principal:
    if question.claims is not None:
        return Principal(question.agent, dict(question.claims))
    if question.agent == ANONYMOUS.agent:
        return ANONYMOUS
    agent = settings.agents.get(question.agent)
    if agent is None:
        raise NoSuch(f"there is no agent {question.agent}; --claims asks for one that is not in the configuration")
    claims = {name: one[0] if len(one) == 1 else one for name, one in agent.claims.items()}
    return Principal(question.agent, claims)


def _outside(settings: Settings, question: ExplainQuestion, auth: tuple[str, ...] | None) -> str:
    """Why the agent does not come in at all; empty where it does."""
    if auth == ("none",) or question.claims is not None:
        return ""
    if question.agent == ANONYMOUS.agent:
        return "refused: this endpoint lets nobody in without a credential"
    if settings.agents[question.agent].disabled:
        return "refused: the agent is disabled"
    if auth is not None and "keys" not in auth:
        return f"refused: no API key opens this endpoint; its ways in are {', '.join(auth)}"
    return ""
