"""The tiers of tenants: where they come from, what is refused because of them, and what is counted."""

import pytest

from otelwp_agent.errors import ForbiddenError
from otelwp_agent.model.tenant_tiers import NAMED_TENANTS, TenantTiers
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import FakeClock
from otelwp_agent.tier import Tier


def test_a_tenant_without_a_plan_has_every_tier():
    tiers = TenantTiers()
    assert tiers.of("shop") is Tier.ENTERPRISE
    remove = tiers.add({"shop": Tier.FREE}.get)
    assert (tiers.of("shop"), tiers.of("other"), tiers.of("")) == (Tier.FREE, Tier.ENTERPRISE, Tier.ENTERPRISE)
    remove()
    assert tiers.of("shop") is Tier.ENTERPRISE


def test_the_first_source_that_knows_a_tenant_decides():
    tiers = TenantTiers()
    tiers.add({"a": Tier.PRO}.get)
    tiers.add({"a": Tier.FREE, "b": Tier.FREE}.get)
    assert (tiers.of("a"), tiers.of("b")) == (Tier.PRO, Tier.FREE)


def test_a_refusal_names_both_tiers_and_what_to_do():
    registry = Registry()
    tiers = TenantTiers(registry)
    tiers.add({"shop": Tier.PRO}.get)
    tiers.require("shop", Tier.PRO, "otlp", "letters")
    tiers.require("", Tier.ENTERPRISE, "otlp", "letters")
    with pytest.raises(ForbiddenError) as caught:
        tiers.require("shop", Tier.ENTERPRISE, "otlp", "letters", "send cards")
    assert str(caught.value) == (
        "letters need a plan of tier `enterprise`, but the plan of this tenant has tier `pro`: ask the operator of the "
        "collector for another plan, or send cards"
    )
    assert caught.value.reason == "plan_tier"
    labels = {"receiver": "otlp", "feature": "letters", "tenant": "shop"}
    assert registry.value("otelwp_tenant_refused_requests", **labels) == 1


def test_many_tenants_do_not_make_many_metrics():
    registry, clock = Registry(), FakeClock()
    tiers = TenantTiers(registry, clock)
    for number in range(NAMED_TENANTS * 3):
        tiers.bypassed(f"tenant-{number}", "traces", "processors/batch", 2)
    labels = {"pipeline": "traces", "component": "processors/batch"}
    assert registry.value("otelwp_tenant_bypassed_items", tenant="other", **labels) == NAMED_TENANTS * 2 * 2
    for clock.now in [0.0] * 10 + [1000.0] * 2:  # the names are chosen again in the last but one
        tiers.bypassed("busy", "traces", "processors/batch", 1)
    text = registry.expose()
    assert text.count("otelwp_tenant_bypassed_items{") == NAMED_TENANTS + 1
    assert 'tenant="busy"' in text
