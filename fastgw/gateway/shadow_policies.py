"""What policies in shadow would change, counted and logged: calls that they would refuse, or let through."""

from __future__ import annotations

import logging
from typing import Literal

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.policy.shadow import ShadowRules
from fastgw.protocol import names
from fastgw.telemetry.counters import Counters

log = logging.getLogger("fastgw")

QUIET = 60.0
"""Seconds in which what one policy would do to one agent is logged once."""
MOST = 1000
"""Pairs of policy and agent that are logged within `QUIET`."""
_LONGEST = 200
"""Letters of a name that the log shows."""
_HIDDEN = (Kind.UNKNOWN_NAME, Kind.UNKNOWN_RESOURCE)
Would = Literal["refuse", "allow"]


class ShadowCounts:
    """Those of one worker. Asked only for agents for whom policies in shadow would change something."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._logged: dict[tuple[str, str, Would], float] = {}

    def note_allowed(self, context: RequestContext, shadow: ShadowRules) -> None:
        """The enforced policies let this call through, and nothing else about it was wrong."""
        self._note(context, _otherwise(context, shadow, allowed=True), "refuse")

    def note_refused(self, context: RequestContext, shadow: ShadowRules, fault: Fault) -> None:
        """This call was refused; by policies, or there is no such name for anybody.

        Of what its agent cannot find, arguments are looked at as the agent sends them, without `fixed` and `defaults`.
        """
        if fault.kind is Kind.ARGUMENTS_DENIED or (context.grant is None and fault.kind in _HIDDEN):
            self._note(context, _otherwise(context, shadow, allowed=False), "allow")

    def _note(self, context: RequestContext, policy: str | None, would: Would) -> None:
        if policy is None:
            return
        self._counters.inc("fastgw_policy_shadow_calls_total", policy, would)
        key, now, name = (policy, context.principal.agent, would), context.started, context.call and context.call.name
        if now - self._logged.get(key, -QUIET) < QUIET:
            return
        if len(self._logged) >= MOST:
            self._logged = {one: when for one, when in self._logged.items() if now - when < QUIET}
        if len(self._logged) < MOST:
            self._logged[key] = now
            words = context.request_id, policy, would, context.method, ascii((name or "")[:_LONGEST])
            log.info(
                "%s policy %s, in shadow, would %s %s of %s by agent %s; the same is not logged again for a minute",
                *words,
                ascii(context.principal.agent[:_LONGEST]),
            )


def _otherwise(context: RequestContext, shadow: ShadowRules, *, allowed: bool) -> str | None:
    """By which policy in shadow it would be decided otherwise. Completions are no calls: nothing is said of them."""
    call, uris = context.call, context.endpoint.uris
    if call is None:
        return None
    name, arguments = call.name or "", call.params.get("arguments", b"{}")
    if call.method == names.RESOURCES_READ:
        owned = uris.owner(name)
        if shadow.uris is None or owned is None or owned.server not in context.endpoint.readers:
            return None
        return shadow.uris.otherwise(lambda rules: uris.permits(rules, name, owned), allowed=allowed)
    verdicts = {names.TOOLS_CALL: shadow.tools, names.PROMPTS_GET: shadow.prompts}.get(call.method, {})
    verdict = verdicts.get(name)
    return None if verdict is None else verdict.otherwise(arguments, allowed=allowed)
