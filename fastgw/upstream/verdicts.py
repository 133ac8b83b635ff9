"""What the attempts of one worker say of the instances they were made at: breakers, rest, budgets, counters.

An attempt that is answered by an instance in order is not told here: it says nothing new.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from contextlib import suppress
from random import uniform

from fastgw.config.instance_urls import label
from fastgw.errors import Fault
from fastgw.telemetry.counters import Counters
from fastgw.upstream.breaker import BreakerState
from fastgw.upstream.call_context import Attempt
from fastgw.upstream.controller import ControllerPort
from fastgw.upstream.failover import TOOL_ERROR, RetryBudget
from fastgw.upstream.instances import Instance, Instances
from fastgw.upstream.rpc import without_secrets

log = logging.getLogger("fastgw")

_NOT_ITS_FAULT = ("throttled", "refused", "full", TOOL_ERROR)
"""Failures that say nothing of an instance's health."""
_LONGEST_WORDS = 300
"""Characters of what a server said that are kept."""
REFUSAL = 1.0
"""Seconds that an answer counts as taking that refuses our credential."""


class Verdicts:
    """Of one worker; `budgets` of repeats are by server."""

    def __init__(self, controller: ControllerPort, instances: Instances, counters: Counters) -> None:
        self._controller = controller
        self._instances = instances
        self._counters = counters
        self.budgets: defaultdict[str, RetryBudget] = defaultdict(RetryBudget)

    def blame(self, attempt: Attempt, fault: Fault) -> None:
        """An answer that began well turned out to be a failure of its server."""
        if fault.failure and not attempt.failed_with:
            with suppress(Fault):  # it is not configured any more
                instance = self._instances.find(attempt.address.key)
                instance.breaker.failures += attempt.row
                self.failed(attempt, instance, fault)

    def failed(self, attempt: Attempt, instance: Instance, fault: Fault) -> None:
        """An attempt has failed so: what that means for its instance."""
        failure, breaker, now = fault.failure, instance.breaker, time.monotonic()
        attempt.failed_with = failure
        if not failure:
            return
        self._counters.inc("fastgw_attempts_failed_total", attempt.address.server, failure)
        if failure == "throttled":
            instance.rests_until = now + (fault.retry_after or 1)
        if failure == "refused":
            # It is quick at that, and would draw all calls.
            instance.latency, instance.measured = max(instance.latency, REFUSAL), now
        if failure in _NOT_ITS_FAULT:
            if failure != "full" and attempt.trial:
                self.answered(attempt, instance)
            instance.judge()
            return
        # What a server says may repeat what it was shown.
        words = without_secrets(fault.detail or fault.message, attempt.backend, attempt.credential)[:_LONGEST_WORDS]
        jitter = uniform(-1, 1)
        instance.last_error = words, time.time()
        is_trial = attempt.trial and breaker.state is not BreakerState.CLOSED  # one elsewhere may have closed it
        attempt.trial = False
        calls = instance.calls
        opens = breaker.fail_trial(now, words, jitter) if is_trial else breaker.fail(now, words, calls, jitter)
        instance.judge()
        if opens:
            breaker.since = time.time()
            log.warning("%s: its breaker opens for %.1f s: %s", label(instance.address.key), breaker.until - now, words)
            self._tell(instance)

    def answered(self, attempt: Attempt, instance: Instance) -> None:
        """An attempt was answered, and either failures had gone before or it is the trial of an open breaker."""
        attempt.row = instance.breaker.failures
        if instance.breaker.succeed(trial=attempt.trial):
            attempt.trial = False
            instance.breaker.since = time.time()
            instance.judge()
            log.warning("%s: its breaker closes", label(instance.address.key))
            self._tell(instance)

    def begin_trial(self, attempt: Attempt, instance: Instance) -> None:
        """This attempt is the one that the breaker lets through."""
        attempt.trial = True
        now = time.monotonic()
        is_due = now >= instance.breaker.until
        instance.breaker.begin_trial(now)
        if is_due:
            self._tell(instance)

    def took_over(self, attempt: Attempt, before: Attempt) -> None:
        """An attempt was answered after one elsewhere had failed."""
        self._counters.inc("fastgw_failovers_total", before.address.server, attempt.address.server)
        with suppress(Fault):
            self._instances.find(before.address.key).taken_over_by = label(attempt.address.key)

    def may_repeat(self, server: str) -> bool:
        """Whether a call of this server that was sent may be sent once more; give it back to its `budget`."""
        calls = sum(one.calls for one in self._instances if one.address.server == server)
        if self.budgets[server].take(calls):
            self._counters.inc("fastgw_retries_total", server)
            return True
        self._counters.inc("fastgw_retries_refused_total", server)
        return False

    def _tell(self, instance: Instance) -> None:
        key, news = instance.address.key, instance.breaker.news()
        self._instances.noted(key, news)
        self._controller.breaker(key, news)
