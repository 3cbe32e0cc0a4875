import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.limiting import gcra
from otelwp_agent.limiting.gcra import ROUNDING, Gcra, Rate


class Oracle:
    """A bucket of units, in exact arithmetic: it fills at the rate, up to the burst; debts are possible."""

    def __init__(self, per_second, burst):
        self.per_second, self.burst = Fraction(per_second), Fraction(burst)
        self.level, self.at = self.burst, Fraction(0)

    def fill(self, now):
        self.level = min(self.burst, self.level + (Fraction(now) - self.at) * self.per_second)
        self.at = Fraction(now)

    def wait(self, now, cost):
        self.fill(now)
        return max(Fraction(0), (min(Fraction(cost), self.burst) - self.level) / self.per_second)

    def take(self, cost):
        self.level -= Fraction(cost)


rates = st.tuples(st.floats(0.001, 1e4), st.floats(1, 1e6))
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "refund"]),
        st.floats(0, 1),  # part of the window by which the time passes
        st.one_of(st.just(1.0), st.floats(0, 1.3)),  # cost, as a part of the burst
    ),
    max_size=60,
)


@given(rates, steps)
def test_every_decision_and_wait_is_that_of_an_exact_bucket(figures, steps):
    rate = Rate(*figures)
    limit, oracle, now = Gcra(), Oracle(*figures), 0.0
    accepted = 0.0
    for what, passed, part in steps:
        now += passed * rate.window / 4
        cost = part * rate.burst
        near = ROUNDING + 1e-9 * (now + rate.window)
        if what == "refund":
            oracle.fill(now)
            if accepted >= cost and oracle.level + Fraction(cost) <= oracle.burst:
                limit.refund("key", rate, now, cost)
                oracle.level += Fraction(cost)
                accepted -= cost
            continue
        exact = float(oracle.wait(now, cost))
        assert limit.remaining("key", rate, now) * rate.interval == pytest.approx(
            max(0.0, float(oracle.level)) * rate.interval, abs=2 * near
        )
        assert limit.wait("key", rate, now, cost) == pytest.approx(exact, abs=2 * near)
        wait = limit.take("key", rate, now, cost)
        assert wait == pytest.approx(exact, abs=2 * near)
        if not wait:
            oracle.take(cost)
            accepted += cost


@given(rates, st.floats(0, 0.99))
def test_a_request_is_allowed_exactly_after_the_wait(figures, early):
    rate, limit = Rate(*figures), Gcra()
    limit.take("key", rate, 0.0, rate.burst)
    wait = limit.take("key", rate, 0.0, rate.burst)
    assert wait == pytest.approx(rate.window, rel=1e-9, abs=ROUNDING)
    if early * wait < wait - 10 * ROUNDING:
        assert limit.take("key", rate, early * wait, rate.burst) > 0
    assert limit.take("key", rate, wait, rate.burst) == 0


def test_the_long_term_rate_holds_with_costs_above_the_burst():
    rate, limit = Rate(10, 5), Gcra()
    now = accepted = 0.0
    while now < 1000:
        wait = limit.take("key", rate, now, 37.0)
        now += wait
        accepted += 0 if wait else 37.0
    assert accepted <= 10 * 1000 + 5 + 37
    assert accepted >= 10 * 1000 - 37


def test_keys_are_limited_separately_and_so_are_their_figures():
    slow, fast, limit = Rate(1, 1), Rate(100, 10), Gcra()
    assert limit.take("slow", slow, 0.0) == 0
    assert limit.take("slow", slow, 0.0) == 1
    assert [limit.take("fast", fast, 0.0) for _ in range(11)] == [0] * 10 + [pytest.approx(0.01)]
    assert limit.reset_after("fast", 0.0) == pytest.approx(0.1)
    assert limit.reset_after("unknown", 0.0) == 0


def test_a_million_keys_take_bounded_memory_and_known_keys_keep_their_numbers():
    rate, limit = Rate(1 / 3600, 1), Gcra(max_keys=2000)
    assert limit.take("known", rate, 0.0) == 0
    accepted = sum(not limit.take(f"attacker-{number}", rate, number * 1e-4) for number in range(100_000))
    assert len(limit) <= 2000 + gcra.SHARED_KEYS
    assert accepted <= 2000 + gcra.SHARED_KEYS
    assert limit.take("known", rate, 10.0) > 0


def test_idle_keys_are_forgotten_while_new_ones_arrive():
    rate, limit = Rate(10, 1), Gcra(max_keys=5000)
    for number in range(50_000):
        assert limit.take(number, rate, number * 1e-2) == 0
    assert len(limit) < 2 * gcra._SMALL
    limit.forget_idle(math.inf)
    assert len(limit) == 0


def test_further_keys_share_numbers_and_a_refund_finds_them():
    rate, limit = Rate(1, 1), Gcra(max_keys=1)
    assert limit.take("first", rate, 0.0) == 0
    assert limit.take("second", rate, 0.0) == 0
    assert limit.take("second", rate, 0.0) > 0
    limit.refund("second", rate, 0.0)
    assert limit.take("second", rate, 0.0) == 0


def test_a_charge_leaves_no_debt():
    rate, limit = Rate(10, 10), Gcra()
    limit.charge("key", rate, 0.0, 1000)
    assert limit.remaining("key", rate, 0.0) == 0
    assert limit.take("key", rate, 0.0) == pytest.approx(0.1)
    limit.take("debtor", rate, 0.0, 50)
    limit.charge("debtor", rate, 0.0, 1)
    assert limit.reset_after("debtor", 0.0) == pytest.approx(5.0)


def test_a_share_of_a_rate():
    share = Rate(100, 20).share(4)
    assert (share.per_second, share.burst, share.window) == (25, 5, 0.2)


@pytest.mark.parametrize("figures", [(0, 1), (1, 0), (-1, 1), (math.inf, 1), (1, math.nan)])
def test_a_rate_is_positive_and_finite(figures):
    with pytest.raises(ValueError, match="both must be positive and finite"):
        Rate(*figures)
