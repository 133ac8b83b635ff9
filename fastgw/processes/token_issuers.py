"""Access tokens, as far as the controller has to do with them: keys, questions about opaque ones, classes of agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastgw.auth.introspection import Introspection, IntrospectionSource
from fastgw.auth.issuer_keys import IssuerKeys, KeySource
from fastgw.config.schema.settings import Settings
from fastgw.policy.match import AgentTraits, Principal
from fastgw.snapshot.model import Endpoint
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.discovery.kept import write_private

MOST_CLASSES = 1000
"""Classes of agents known by claims alone that are remembered at an endpoint; of one more, the oldest goes."""


class TokenIssuers:
    """Of the configuration in force; what is kept goes into the folder `data`."""

    def __init__(self, data: Path, tasks: BackgroundTasks) -> None:
        self.keys = IssuerKeys(data / "issuers", write_private, tasks.spawn, self._count)
        self._introspection = Introspection(tasks.spawn, self._count)
        self._strangers: dict[str, dict[AgentTraits, Principal]] = {}
        self.count: Callable[..., object] = lambda *_: None
        """Counts a metric."""
        self.questions: dict[str, Callable[..., Any]] = {
            "look_for_key": self.keys.look_for,
            "introspect": self._introspection.ask,
        }

    def _count(self, *series: str) -> None:
        self.count(*series)

    def watch(self, settings: Settings) -> None:
        """Go by these settings from now on."""
        self.keys.watch(_key_sources(settings))
        self._introspection.watch(_introspection_sources(settings))

    def meet(self, endpoint: Endpoint, principal: Principal) -> bool:
        """Take one for its class, if that is not known at the endpoint; whether it was not."""
        if endpoint.traits is None or endpoint.view_for(principal) is not None:
            return False
        known = self._strangers.setdefault(endpoint.path, {})
        known[endpoint.traits.of(principal)] = principal
        if len(known) > MOST_CLASSES:
            del known[next(iter(known))]
        return True

    def strangers(self) -> dict[str, Sequence[Principal]]:
        """One of each class, by endpoint."""
        return {path: tuple(known.values()) for path, known in self._strangers.items()}


def _key_sources(settings: Settings) -> Iterator[KeySource]:
    for name, one in settings.identity.items():
        if one.issuer is not None:
            yield KeySource(name, one.issuer, one.jwks_url, one.stale_keys)


def _introspection_sources(settings: Settings) -> Iterator[IntrospectionSource]:
    for name, one in settings.identity.items():
        if one.issuer is not None and (asked := one.introspection) is not None:
            yield IntrospectionSource(name, one.issuer, asked.url, asked.client_id, asked.client_secret)
