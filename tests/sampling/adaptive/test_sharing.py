import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sampling.adaptive.sharing import share

demands = st.lists(st.floats(0, 1e9), max_size=60)


def test_enough_for_all():
    assert share([1.0, 2.0, 3.0], 6.0) == [1.0, 2.0, 3.0]


def test_power_0_gives_heavy_keys_the_same():
    assert share([100.0, 1.0, 50.0], 21.0, 0.0) == [10.0, 1.0, 10.0]


def test_power_1_gives_all_the_same_part():
    assert share([100.0, 10.0], 11.0, 1.0) == pytest.approx([10.0, 1.0])


def test_power_in_between():
    assert share([100.0, 25.0], 15.0, 0.5) == pytest.approx([10.0, 5.0])


def test_what_rare_keys_leave_goes_to_all_heavy_ones_whatever_their_order():
    forward = share([1.0, 300.0, 2.0, 200.0], 103.0, 0.0)
    assert forward == [1.0, 50.0, 2.0, 50.0]
    assert share([200.0, 2.0, 300.0, 1.0], 103.0, 0.0) == forward[::-1]


def test_a_cap_holds_even_if_there_is_more():
    assert share([100.0, 1.0], math.inf, 0.5, cap=30.0) == [30.0, 1.0]
    assert share([100.0, 100.0, 1.0], 41.0, 0.0, cap=15.0) == [15.0, 15.0, 1.0]


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
def test_without_demands_nothing_is_shared(power):
    assert share([], 10.0, power) == []
    assert share([0.0, 0.0], 10.0, power) == [0.0, 0.0]
    assert share([5.0, 5.0], 0.0, power) == [0.0, 0.0]


@given(demands, st.floats(0.001, 1e9), st.floats(0, 1), st.floats(0.001, 1e9))
def test_all_of_the_budget_and_no_more(demands, budget, power, cap):
    given = share(demands, budget, power, cap)
    wanted = [min(demand, cap) for demand in demands]
    assert all(0 <= gets <= want for gets, want in zip(given, wanted, strict=True))
    assert math.fsum(given) == pytest.approx(min(budget, math.fsum(wanted)), rel=1e-6)


@given(demands, st.floats(0.001, 1e9), st.floats(0, 1))
def test_a_smaller_demand_gets_no_smaller_part(demands, budget, power):
    given = share(demands, budget, power)
    parts = [gets / demand for demand, gets in sorted(zip(demands, given, strict=True)) if demand > 1e-300]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(parts))
