"""The licence in the health of the agent."""

import structlog
from otelwp_agent.service.license import license_health

from otelwp_agent.licensing.manager import LicenseManager
from otelwp_agent.telemetry.metrics import Registry


async def test_an_evaluation_is_healthy_and_said():
    manager = LicenseManager(Registry(), structlog.get_logger(), required=False)
    await manager.start(None, None)
    state = license_health(manager)
    assert (state.id, state.label, state.healthy) == ("license", "service", True)
    assert state.message == (
        "neither `service.license` nor `service.tier` is set: every stage is enabled for evaluation"
    )
    assert state.details == {"tier": "enterprise", "basis": "evaluation"}
