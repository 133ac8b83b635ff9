"""The circuit breaker's table, by a clock that is set by hand."""

from __future__ import annotations

import pytest

from fastgw.upstream.breaker import LEAST, LONGEST, WINDOW, Breaker, BreakerNews, BreakerPolicy, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker(BreakerPolicy(5, 30.0))
    for calls in range(1, 6):
        assert breaker.state is CLOSED
        assert breaker.fail(now, "reset", calls, 0.0) is (calls == 5)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = opened()
    assert (breaker.state, breaker.until, breaker.why) == (OPEN, 130.0, "reset")


def test_a_success_ends_the_row() -> None:
    breaker = Breaker(BreakerPolicy(5, 30.0))
    for calls in range(1, 17):
        breaker.fail(calls * WINDOW, "reset", calls, 0.0)
        if calls % 4 == 0:
            breaker.succeed(trial=False)
    assert breaker.state is CLOSED


@pytest.mark.parametrize(("every", "opens"), [(2, True), (3, False)])
def test_half_of_many_calls_open_it_and_a_third_does_not(every: int, opens: bool) -> None:
    breaker, calls = Breaker(BreakerPolicy(5, 30.0)), 0
    for calls in range(1, 200):
        if calls % every:
            breaker.succeed(trial=False)
        elif breaker.fail(calls * 0.01, "500", calls, 0.0):
            break
    assert (breaker.state is OPEN) is opens
    if opens:
        assert LEAST <= calls <= LEAST + 2


def test_few_calls_say_nothing_and_old_failures_are_forgotten() -> None:
    breaker = Breaker(BreakerPolicy(5, 30.0))
    for number in range(400):  # one failure and one success in each window
        now = number * (WINDOW + 1)
        breaker.fail(now, "500", 2 * number + 1, 0.0)
        breaker.succeed(trial=False)
    assert breaker.state is CLOSED


def test_one_trial_when_its_time_has_come_or_nothing_else_is_left() -> None:
    breaker = opened()
    assert not breaker.may_try(129.9, last=False)
    assert breaker.may_try(129.9, last=True)
    assert breaker.may_try(130.0, last=False)
    breaker.begin_trial(130.0)
    assert breaker.state is HALF_OPEN
    assert not breaker.may_try(134.9, last=True)
    assert not breaker.may_try(1000.0, last=False)
    assert breaker.may_try(135.0, last=True), "it takes long, and nothing else is left"
    assert breaker.succeed(trial=True)
    assert (breaker.state, breaker.failures, breaker.opened) == (CLOSED, 0, 0)


def test_a_trial_that_fails_keeps_it_open_for_longer_each_time_up_to_a_bound() -> None:
    breaker = opened()
    for times in range(2, 2 * LONGEST):
        now = breaker.until
        breaker.begin_trial(100.0)
        assert breaker.fail_trial(now, "refused", 0.0)
        assert breaker.until - now == pytest.approx(30.0 * min(times, LONGEST))


def test_a_trial_before_its_time_changes_nothing_where_it_fails() -> None:
    breaker = opened()
    breaker.begin_trial(100.0)
    assert not breaker.fail_trial(110.0, "refused", 0.0)
    assert (breaker.state, breaker.until, breaker.opened) == (OPEN, 130.0, 1)


def test_a_trial_that_is_withdrawn_is_no_verdict() -> None:
    breaker = opened()
    breaker.begin_trial(100.0)
    breaker.withdraw_trial()
    assert (breaker.state, breaker.until) == (OPEN, 130.0)
    assert breaker.may_try(130.0, last=False)


def test_how_calls_from_before_end_changes_nothing() -> None:
    breaker = opened()
    assert not breaker.succeed(trial=False)
    assert not breaker.fail(101.0, "reset", 9, 0.0)
    assert (breaker.state, breaker.until) == (OPEN, 130.0)


@pytest.mark.parametrize("jitter", [-1.0, 1.0])
def test_workers_do_not_try_at_the_same_moment(jitter: float) -> None:
    breaker = Breaker(BreakerPolicy(1, 30.0))
    breaker.fail(0.0, "reset", 1, jitter)
    assert breaker.until == pytest.approx(30.0 + 6.0 * jitter)


def test_workers_learn_from_each_other() -> None:
    breaker, other = opened(), Breaker(BreakerPolicy(5, 30.0))
    other.adopt(breaker.news(), 100.0)
    assert (other.state, other.until, other.why) == (OPEN, 130.0, "reset")
    breaker.begin_trial(100.0)
    other.adopt(breaker.news(), 131.0)
    assert not other.may_try(132.0, last=False)
    assert other.may_try(140.0, last=False)  # the worker that tried has died
    breaker.succeed(trial=True)
    other.adopt(breaker.news(), 133.0)
    assert other.state is CLOSED
    other.adopt(BreakerNews("open", 500.0, 3, "an operator", 1.0), 134.0)
    assert (other.state, other.opened, other.since) == (OPEN, 3, 1.0)
