"""Tiers include the tiers before them."""

from __future__ import annotations

import pytest

from otelwp_agent.tier import Tier


@pytest.mark.parametrize(
    ("tier", "enabled"),
    [
        (Tier.FREE, {Tier.FREE}),
        (Tier.PRO, {Tier.FREE, Tier.PRO}),
        (Tier.ENTERPRISE, {Tier.FREE, Tier.PRO, Tier.ENTERPRISE}),
    ],
)
def test_a_tier_enables_itself_and_the_tiers_before_it(tier: Tier, enabled: set[Tier]) -> None:
    assert {needed for needed in Tier if tier.enables(needed)} == enabled
