"""Metrics of the licence: one tier is 1, and labels are bounded."""

from otelwp_agent.licensing.entitlement import Basis, Entitlement
from otelwp_agent.licensing.metrics import INSTRUMENTS, LicenseMetrics
from otelwp_agent.licensing.online import REASONS
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.tier import Tier


def test_exactly_one_tier_is_shown():
    registry = Registry()
    metrics = LicenseMetrics(registry)
    for tier in (Tier.PRO, Tier.FREE):
        metrics.show(Entitlement(tier, Basis.LICENSE))
        shown = {each: registry.value("otelwp_license_tier", tier=each.value) for each in Tier}
        assert shown == {each: float(each is tier) for each in Tier}


def test_reasons_of_failures_are_bounded():
    registry = Registry()
    metrics = LicenseMetrics(registry)
    for reason in (*REASONS, "anything", "else"):
        metrics.refresh_failed(reason)
    assert registry.value("otelwp_license_refresh_failures") == len(REASONS) + 2
    assert registry.value("otelwp_license_refresh_failures", reason="malformed") == 3
    assert registry.value("otelwp_license_refresh_failures", reason="anything") == 0


def test_all_are_declared_and_exposed():
    registry = Registry()
    metrics = LicenseMetrics(registry)
    metrics.bind(lambda: float("inf"), lambda: 0.0)
    assert registry.names() <= {each.name for each in INSTRUMENTS}
    assert "otelwp_license_days_left +Inf\n" in registry.expose()
