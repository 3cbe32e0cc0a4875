import pytest

from otelwp_agent.sampling.adaptive.guard import TOKENS, TokenBucket
from otelwp_agent.sampling.adaptive.tenants import LEAST, SPENT_SHARE, TenantBudget


def budgets(*debts, rate=100.0):
    """Return full tokens, from which tenants have spent these debts, and the tenants' budgets."""
    tokens = TokenBucket(rate, TOKENS, 0.0)
    tenants = [TenantBudget(str(number), rate, 0.0) for number in range(len(debts))]
    for tenant, debt in zip(tenants, debts, strict=True):
        tenant.debt = debt
        tokens.level -= debt
    return tokens, tenants


def test_a_new_tenant_has_neither_keys_nor_debt():
    tenant = TenantBudget("a", 100.0, 0.0)
    assert (tenant.name, tenant.rate, tenant.keys, tenant.debt) == ("a", 100.0, 0, 0.0)


def test_a_tenant_without_debt_is_not_lowered():
    tokens, (tenant,) = budgets(0.0)
    assert tenant.factor(tokens) == 1.0
    tokens.level = -1000.0
    assert tenant.factor(tokens) == 1.0, "whatever others have spent"


def test_a_tenant_alone_may_spend_its_share_of_the_tokens():
    tokens, (tenant,) = budgets(SPENT_SHARE * 400.0)
    assert tenant.factor(tokens) == 1.0
    tokens, (tenant,) = budgets(SPENT_SHARE * 400.0 + 1)
    assert 0.9 < tenant.factor(tokens) < 1.0


def test_twice_the_allowance_divides_by_sixteen_and_no_debt_by_more_than_the_least():
    tokens, (tenant,) = budgets(2 * SPENT_SHARE * 400.0)
    assert tenant.factor(tokens) == pytest.approx(1 / 16)
    tokens, (tenant,) = budgets(1e9)
    assert tenant.factor(tokens) == LEAST


def test_several_tenants_share_the_tokens():
    tokens, tenants = budgets(300.0, 50.0)
    assert [tenant.factor(tokens) for tenant in tenants] == [pytest.approx((0.75 * 350 / 300) ** 4), 1.0]
    tokens, tenants = budgets(300.0, 500.0)
    assert tenants[0].factor(tokens) == LEAST, "the others have left nothing"


def test_time_refills_at_the_rate_of_the_tenant():
    tokens, (tenant,) = budgets(390.0)
    assert tenant.factor(tokens) < 1.0
    tenant.rate = 30.0
    tokens.refill(1.0)
    tenant.factor(tokens)
    assert tenant.debt == 360.0
    tenant.factor(tokens)
    assert tenant.debt == 360.0, "once for each second"
    tokens.refill(4.0)
    tenant.factor(tokens)
    assert tenant.debt == 270.0, "three seconds have passed since the last call"
    tokens.refill(100.0)
    assert (tenant.factor(tokens), tenant.debt) == (1.0, 0.0)
