"""`InFlight` counts what is reserved and released, and compares it with its limits."""

from otelwp_agent.transport.in_flight import InFlight


def test_limits_are_crossed_by_what_is_reserved_and_not_released():
    budget = InFlight(soft=100, hard=200)
    budget.reserve(100)
    assert not budget.above_soft
    budget.reserve(1)
    assert budget.above_soft
    assert not budget.above_hard
    budget.reserve(100)
    assert budget.above_hard
    budget.release(201)
    assert budget.used == 0
    assert not budget.above_soft


def test_the_lowest_limits_of_all_owners_apply_and_the_default_without_any():
    budget = InFlight(soft=100, hard=200)
    first, second = object(), object()
    budget.limit(first, 300, 600)
    assert (budget.soft, budget.hard) == (300, 600)
    budget.limit(second, 50, 90)
    assert (budget.soft, budget.hard) == (50, 90)
    budget.unlimit(second)
    budget.unlimit(second)
    assert (budget.soft, budget.hard) == (300, 600)
    budget.unlimit(first)
    assert (budget.soft, budget.hard) == (100, 200)
