import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.fair_share import TenantUse, allowance


def excess(use, tenant, amount, *, capacity=100, share=0.5, total=0):
    return use.excess(tenant, amount, capacity=capacity, share=share, total=total)


def test_a_tenant_alone_may_use_its_share_of_all():
    use = TenantUse()
    use.add("a", 49)
    assert excess(use, "a", 1, total=49) is None
    assert excess(use, "a", 2, total=49) == 50


def test_what_others_use_is_not_shared():
    use = TenantUse()
    use.add("a", 20)
    assert excess(use, "a", 10, total=60) is None, "half of the 60 that are left"
    assert excess(use, "a", 11, total=60) == 30


def test_a_tenant_that_uses_nothing_may_use_any_amount_once():
    assert excess(TenantUse(), "a", 10_000, total=99) is None


def test_what_is_released_takes_no_memory():
    use = TenantUse()
    for number in range(100_000):
        use.add(str(number), 3)
        use.add(str(number), -3)
    assert (len(use), use.of("7")) == (0, 0)


def test_data_without_a_tenant_are_not_counted():
    use = TenantUse()
    use.add("", 5)
    assert (len(use), use.of("")) == (0, 0)


def test_uses_are_sums():
    use = TenantUse()
    use.add("a", 5)
    use.add("a", 7)
    use.add("b", 1)
    use.add("a", -2)
    assert (use.of("a"), use.of("b"), use.of("c"), len(use)) == (10, 1, 0, 2)
    use.add("b", -5)
    assert (use.of("b"), len(use)) == (0, 1), "never below nothing"


@given(st.integers(1, 40), st.floats(0.05, 0.95), st.data())
def test_the_shares_of_all_tenants_together_leave_something_free(tenants, share, data):
    """In whatever order they ask, and whatever is released: the sum stays below the capacity, and all get the same."""
    capacity, use, total = 10_000, TenantUse(), 0
    names = [str(number) for number in range(tenants)]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=60)):
        amount = data.draw(st.integers(1, 2000))
        if excess(use, name, amount, capacity=capacity, share=share, total=total) is None and use.of(name):
            use.add(name, amount)
            total += amount
        elif use.of(name) and data.draw(st.booleans()):
            total -= use.of(name)
            use.add(name, -use.of(name))
        elif not use.of(name):
            use.add(name, 1)
            total += 1
        assert total <= capacity
    for name in names:  # begin again, and fill everything step by step
        use.add(name, -use.of(name))
    total, grew = 0, True
    while grew:
        grew = False
        for name in names:
            if excess(use, name, 10, capacity=capacity, share=share, total=total) is None:
                use.add(name, 10)
                total += 10
                grew = True
    each = share * capacity / (1 + share * (tenants - 1))
    assert all(abs(use.of(name) - each) <= 10 for name in names)
    assert capacity - total == pytest.approx(capacity * (1 - share) / (1 + share * (tenants - 1)), abs=10 * tenants)


def test_allowance():
    assert allowance(1000, 0.25, 200) == 200
