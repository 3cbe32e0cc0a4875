import random

import pytest

from otelwp_agent.sampling.adaptive.guard import CEILING_SECONDS, LEAST, WINDOW, BudgetGuard, Limit, TokenBucket
from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling
from otelwp_agent.sampling.adaptive.trace import Reason


def test_probabilities_fall_only_when_tokens_run_out():
    guard = BudgetGuard(100.0, 0.0)
    assert guard.factor() == 1.0
    guard.spend(150)
    assert guard.is_low
    assert guard.factor() == 0.5
    guard.spend(50)
    assert guard.factor() == LEAST
    guard.spend(200)
    assert guard.factor() == LEAST / 4
    guard.spend(1e9)
    assert 0 < guard.factor() < 1e-6
    guard.tokens.level = -200
    guard.advance(10.0)
    assert guard.factor() == 1.0
    assert not guard.is_low


def test_a_minute_may_cost_110_percent():
    guard = BudgetGuard(10.0, 0.0)
    guard.spend(659)
    assert guard.has_capacity(1)
    assert not guard.has_capacity(2)
    guard.advance(WINDOW)
    assert not guard.has_capacity(2), "the second it was spent in is not a whole minute ago"
    guard.advance(WINDOW + 1)
    assert guard.has_capacity(2)


def test_a_trace_above_a_minutes_limit_fits_in_an_empty_minute():
    guard = BudgetGuard(1.0, 0.0)
    assert guard.has_capacity(1000)
    guard.spend(1000)
    assert not guard.has_capacity(1)
    guard.advance(30.0)
    assert not guard.has_capacity(1)
    guard.advance(61.0)
    assert guard.has_capacity(1000)


def test_seconds_expire_one_by_one():
    guard = BudgetGuard(10.0, 1000.5)
    for second in range(1000, 1100):
        guard.advance(second + 0.5)
        guard.spend(1)
    assert guard.spent == WINDOW + 1
    guard.advance(1099 + 30)
    assert guard.spent == WINDOW + 1 - 30
    guard.advance(5000.0)
    assert guard.spent == 0


def test_time_that_goes_back_changes_nothing():
    guard = BudgetGuard(10.0, 100.0)
    guard.spend(5)
    level = guard.tokens.level
    guard.advance(50.0)
    assert (guard.tokens.level, guard.spent) == (level, 5)


def test_it_resumes_after_a_restart():
    guard = BudgetGuard(10.0, 0.0)
    for second in range(90):
        guard.advance(float(second))
        guard.spend(second % 7)
    other = BudgetGuard(10.0, 777.0)
    other.resume(guard.tokens.level, guard.last_minute())
    assert other.spent == guard.spent
    assert other.last_minute() == guard.last_minute()
    for ahead in (1, 17, 59, 61):
        guard.advance(89.0 + ahead)
        other.advance(777.0 + ahead)
        assert other.spent == guard.spent


@pytest.mark.parametrize("load", [5, 200])
def test_whatever_arrives_a_minute_never_costs_more(load):
    dice = random.Random(load)
    guard = BudgetGuard(100.0, 0.0)
    spent = []
    for step in range(load * 200):
        now = step / load
        guard.advance(now)
        weight = dice.randrange(1, 60)
        if guard.has_capacity(weight):
            guard.spend(weight)
            spent.append((now, weight))
    for begin in range(0, 200, 3):
        assert sum(weight for now, weight in spent if begin <= now < begin + WINDOW) <= 6600


def limit(**ceiling):
    return Limit(Reason.ERROR, Ceiling(**ceiling), Budget.spans_per_second(100), 0.0)


def take(limit, weight, now):
    if not limit.has_capacity(now):
        return False
    limit.charge(weight)
    return True


def test_a_share_counts_in_the_budgets_unit():
    errors = limit(share=0.5)
    taken = sum(10 * take(errors, 10, 0.0) for _ in range(100))
    assert taken == 50 * CEILING_SECONDS
    assert sum(10 * take(errors, 10, 1.0) for _ in range(100)) == 50


def test_a_rate_counts_traces():
    errors = limit(traces_per_second=2)
    assert sum(take(errors, 1000, 0.0) for _ in range(100)) == 2 * CEILING_SECONDS
    assert sum(take(errors, 1000, 1.0) for _ in range(100)) == 2


def test_a_low_rate_lets_one_through():
    errors = limit(traces_per_second=0.01)
    assert take(errors, 1, 0.0)
    assert not take(errors, 1, 1.0)


def test_the_lower_of_both_holds():
    errors = limit(share=0.5, traces_per_second=1)
    assert sum(take(errors, 1, 0.0) for _ in range(100)) == CEILING_SECONDS


def test_without_a_budget_a_share_says_nothing():
    errors = Limit(Reason.ERROR, Ceiling(share=0.1), None, 0.0)
    assert all(take(errors, 1000, 0.0) for _ in range(100))


def test_levels_survive_if_they_are_of_the_same_ceiling():
    errors = limit(share=0.5)
    errors.charge(200)
    other = limit(share=0.5)
    other.resume(errors.levels)
    assert other.levels == errors.levels == [50.0]
    both = limit(share=0.5, traces_per_second=1)
    both.resume(errors.levels)
    assert both.levels == [250.0, 5.0]


def test_a_bucket_fills_by_its_rate_up_to_its_capacity():
    bucket = TokenBucket(2.0, 5.0, 100.0)
    assert (bucket.level, bucket.capacity) == (10.0, 10.0)
    bucket.level = -3.0
    bucket.refill(101.5)
    assert bucket.level == 0.0
    bucket.refill(101.0)
    assert bucket.level == 0.0, "time that goes back adds nothing"
    bucket.refill(104.0)
    assert bucket.level == 5.0
    bucket.refill(1000.0)
    assert bucket.level == 10.0


def test_a_new_guard_has_spent_nothing():
    guard = BudgetGuard(10.0, 0.0)
    assert guard.last_minute() == [0.0] * (WINDOW + 1)
    assert guard.spent == 0
    assert guard.tokens.level == guard.tokens.capacity / 2
    guard.advance(5.0)
    assert guard.spent == 0


def test_however_much_is_overdrawn_the_factor_has_a_lower_bound():
    guard = BudgetGuard(100.0, 0.0)
    guard.tokens.level = -1e12
    assert guard.factor() == LEAST / 2**20


def test_fewer_seconds_than_a_minute_are_resumed_as_the_last_ones():
    guard = BudgetGuard(10.0, 500.0)
    guard.resume(5.0, [1.0, 2.0, 4.0])
    assert guard.last_minute() == [0.0] * (WINDOW - 2) + [1.0, 2.0, 4.0]
    assert guard.spent == 7.0
    guard.advance(500.0 + WINDOW - 1)
    assert guard.spent == 6.0, "the first of them is more than a minute ago"


def test_resumed_tokens_do_not_exceed_the_capacity():
    guard = BudgetGuard(10.0, 0.0)
    guard.resume(1e6, [])
    assert guard.tokens.level == guard.tokens.capacity


def test_a_new_ceiling_has_refused_nothing_and_states_its_reason():
    errors = limit(share=0.5)
    assert (errors.reason, errors.over) == (Reason.ERROR, 0)


def test_a_low_rate_never_saves_up_more_than_one():
    errors = limit(traces_per_second=0.01)
    assert [take(errors, 1, 0.0) for _ in range(2)] == [True, False]
    assert [take(errors, 1, 10_000.0) for _ in range(2)] == [True, False]


def test_a_shared_ceiling_is_charged_by_both():
    first, release = limit(traces_per_second=1), limit(traces_per_second=100)
    release.share(first)
    assert [take(release, 1, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not first.has_capacity(0.0)
