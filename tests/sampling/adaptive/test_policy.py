import pytest

from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy, Unit


def test_each_target_is_a_rate():
    assert Budget.spans_per_second(5) == Budget(5, Unit.SPANS)
    assert Budget.traces_per_second(5) == Budget(5, Unit.TRACES)
    assert Budget.bytes_per_day(86_400_000) == Budget(1000, Unit.BYTES)


def test_a_cost_is_bytes():
    budget = Budget.cost_per_month(30, price_per_gib=0.3)
    assert budget.unit is Unit.BYTES
    assert budget.rate * 86_400 * 365.25 / 12 == pytest.approx(100 * 2**30)


def test_the_default_ceilings_leave_a_part_of_the_budget():
    always = Always()
    shares = (always.debug, always.errors, always.slow.ceiling, always.first.ceiling)
    assert sum(ceiling.share for ceiling in shares) + Policy().site_ceiling.share <= 0.8
