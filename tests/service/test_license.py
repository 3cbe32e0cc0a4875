"""The state of the licence in `/health/detailed`."""

import pytest

from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.licensing.manager import LicenseManager
from otelwp_agent.service.license import license_health
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry
from tests.licensing.issuer import ISSUER, START


@pytest.mark.parametrize(
    ("text", "healthy", "tier"),
    [(None, True, "enterprise"), (ISSUER.issue(), True, "pro"), ("no.licence", False, "free")],
)
async def test_it_shows_the_tier_the_cause_and_whether_somebody_must_act(text, healthy, tier):
    manager = LicenseManager(Registry(), logging.get(), required=False, wall=lambda: START)
    settings = None if text is None else LicenseConfig(key=text, public_keys=[ISSUER.public])
    await manager.start(settings, None)
    state = license_health(manager)
    assert (state.label, state.id, state.healthy, state.details["tier"]) == ("service", "license", healthy, tier)
    assert state.message == manager.current.reason
    await manager.stop()
