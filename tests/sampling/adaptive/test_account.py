import random

import pytest

from otelwp_agent.sampling.adaptive.account import CEILING_SECONDS, LEAST, WINDOW, Account, Limit
from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling
from otelwp_agent.sampling.adaptive.trace import Reason


def test_probabilities_fall_only_when_tokens_run_out():
    account = Account(100.0, 0.0)
    assert account.factor() == 1.0
    account.spend(150)
    assert account.is_low
    assert account.factor() == 0.5
    account.spend(50)
    assert account.factor() == LEAST
    account.spend(200)
    assert account.factor() == LEAST / 4
    account.spend(1e9)
    assert 0 < account.factor() < 1e-6
    account.tokens.level = -200
    account.advance(10.0)
    assert account.factor() == 1.0
    assert not account.is_low


def test_a_minute_has_room_for_110_percent():
    account = Account(10.0, 0.0)
    account.spend(659)
    assert account.has_room(1)
    assert not account.has_room(2)
    account.advance(WINDOW)
    assert not account.has_room(2), "the second it was spent in is not a whole minute ago"
    account.advance(WINDOW + 1)
    assert account.has_room(2)


def test_what_exceeds_a_minute_is_borne_by_an_empty_one():
    account = Account(1.0, 0.0)
    assert account.has_room(1000)
    account.spend(1000)
    assert not account.has_room(1)
    account.advance(30.0)
    assert not account.has_room(1)
    account.advance(61.0)
    assert account.has_room(1000)


def test_seconds_are_forgotten_one_by_one():
    account = Account(10.0, 1000.5)
    for second in range(1000, 1100):
        account.advance(second + 0.5)
        account.spend(1)
    assert account.spent == WINDOW + 1
    account.advance(1099 + 30)
    assert account.spent == WINDOW + 1 - 30
    account.advance(5000.0)
    assert account.spent == 0


def test_time_that_goes_back_changes_nothing():
    account = Account(10.0, 100.0)
    account.spend(5)
    level = account.tokens.level
    account.advance(50.0)
    assert (account.tokens.level, account.spent) == (level, 5)


def test_it_goes_on_after_a_restart():
    account = Account(10.0, 0.0)
    for second in range(90):
        account.advance(float(second))
        account.spend(second % 7)
    other = Account(10.0, 777.0)
    other.resume(account.tokens.level, account.last_minute())
    assert other.spent == account.spent
    assert other.last_minute() == account.last_minute()
    for ahead in (1, 17, 59, 61):
        account.advance(89.0 + ahead)
        other.advance(777.0 + ahead)
        assert other.spent == account.spent


@pytest.mark.parametrize("load", [5, 200])
def test_whatever_arrives_a_minute_never_costs_more(load):
    dice = random.Random(load)
    account = Account(100.0, 0.0)
    spent = []
    for step in range(load * 200):
        now = step / load
        account.advance(now)
        weight = dice.randrange(1, 60)
        if account.has_room(weight):
            account.spend(weight)
            spent.append((now, weight))
    for begin in range(0, 200, 3):
        assert sum(weight for now, weight in spent if begin <= now < begin + WINDOW) <= 6600


def limit(**ceiling):
    return Limit(Reason.ERROR, Ceiling(**ceiling), Budget.spans_per_second(100), 0.0)


def take(limit, weight, now):
    if not limit.has_room(now):
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
